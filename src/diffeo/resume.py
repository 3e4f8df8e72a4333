"""Runs that were interrupted and go on, and runs by the clock that are repeated: what is kept and how it comes back."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor

from diffeo import artefact
from diffeo.config import Config
from diffeo.errors import ModelError
from diffeo.training import Settings, State

__all__ = ["Standing", "go_on", "keep", "refuse", "repeated", "signals"]

_FREE = ("threads", "device", "where")  # what may change when a run goes on
_CLOCK = ("budget", "epochs")  # what a recorded schedule stands for
_DENSITY, _STATE = "density.", "state."
Made = TypeVar("Made", bound=Config)


@dataclass(frozen=True)
class Standing:
    """Where a run stands: its plan and settings, what it started from, the seconds it had for training, the tensors of
    the density (units and frequencies are not learned, and so no part of the state), and the state of training."""

    plan: Any  # a Plan of tables, or of pictures
    settings: Settings
    start: str
    budget: float | None
    density: dict[str, Tensor]
    state: State


@contextmanager
def signals(catch: bool) -> Iterator[Callable[[], bool]]:
    """Within, the first Ctrl-C or SIGTERM is only noted, so that the state can be saved; the second stops at once."""
    noted: list[int] = []
    if not catch or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, frame: Any) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(noted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def refuse(folder: Path | None, schedule: str | Path | None) -> None:
    """Refuse to go on where there is nothing to go on with."""
    if schedule is not None:
        raise ModelError("schedule: a run that goes on keeps its schedule; leave --schedule out, or start again")
    if folder is None or not ((folder / artefact.RESUME).exists() or (folder / artefact.MODEL).exists()):
        raise ModelError(f"{folder or 'nothing'} holds no interrupted run to go on with; leave --resume out")


def keep(folder: Path, config: Config, fingerprint: str, run: Standing) -> None:
    """Write down where an interrupted run stands."""
    record = {
        "format": artefact.FORMAT,
        "format_version": artefact.FORMAT_VERSION,
        "torch": str(torch.__version__),
        "config": config.model_dump(mode="json"),
        "plan": run.plan.model_dump(mode="json"),
        "training": run.settings.model_dump(mode="json"),
        "start": run.start,
        "seconds": run.budget,
        "state": run.state.numbers(),
        "fingerprint": fingerprint,
    }
    tensors = {_DENSITY + name: value for name, value in run.density.items()}
    tensors |= {_STATE + name: value for name, value in run.state.tensors.items()}
    artefact.write_set(folder, artefact.RESUME, record, tensors, "resume")


def go_on(folder: Path, config: Config, fingerprint: str, plans: type[Config]) -> Standing:
    """Where the interrupted run in a folder stands; its plan is of the kind `plans`. Raises ModelError if options or
    data are not the same."""
    record = artefact.read_json(folder, artefact.RESUME)
    tensors = artefact.read_tensors(folder, record, "resume")
    try:
        before = type(config).model_validate(record["config"])
        run = Standing(
            plan=plans.model_validate(record["plan"]),
            settings=Settings.model_validate(record["training"]),
            start=record["start"],
            budget=record["seconds"],
            density=_under(_DENSITY, tensors),
            state=State(**record["state"], tensors=_under(_STATE, tensors)),
        )
    except (ValidationError, KeyError, TypeError) as fault:
        raise ModelError(f"{folder / artefact.RESUME} is damaged ({str(fault)[:80]}); start again without it") from None
    _same(before, config, _FREE, "the interrupted run had {!r}, now {!r}; resume with the same options")
    if record.get("fingerprint") != fingerprint:
        raise ModelError(f"the data is not what the interrupted run in {folder} learned from; start again")
    if record.get("torch") != str(torch.__version__):
        raise ModelError(
            f"the interrupted run in {folder} was one of torch {record.get('torch')}, now it is {torch.__version__}; "
            "resume with the same torch, or start again"
        )
    return run


def repeated(folder: Path, config: Config, fingerprint: str, plans: type[Made]) -> tuple[Made, Settings]:
    """The plan of the model in a folder, and how it was trained, with the schedule that its run by the clock recorded.
    Raises ModelError if options or data are not the same."""
    record = artefact.read_json(folder)
    try:
        before, plan = type(config).model_validate(record["config"]), plans.model_validate(record["plan"])
        settings = Settings.model_validate({**record["training"], "schedule": record["schedule"]})
    except (ValidationError, KeyError, TypeError):
        raise ModelError(f"{folder} records no schedule") from None
    _same(
        before, config, _FREE + _CLOCK, f"{folder} was fitted with {{!r}}, now {{!r}}; repeat it with the same options"
    )
    if record.get("fingerprint") != fingerprint:
        raise ModelError(f"the data is not what {folder} learned from, so its run cannot be repeated")
    return plan, settings


def _same(before: Config, now: Config, free: tuple[str, ...], words: str) -> None:
    for name in type(now).model_fields:
        if name not in free and getattr(before, name) != getattr(now, name):
            raise ModelError(f"{name}: " + words.format(getattr(before, name), getattr(now, name)))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
