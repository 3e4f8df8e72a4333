"""The fit to pictures: a start from a batch, training within a budget, grids of samples of the same noise."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo.artefact import fill
from diffeo.config import PictureConfig
from diffeo.errors import ModelError
from diffeo.fitting import check_device
from diffeo.pictures.material import Material
from diffeo.pictures.plan import PicturePlan
from diffeo.pictures.recipes import AUTO, RECIPES, build, planned
from diffeo.processors import processors
from diffeo.quantized import Quantized, bits_per_dim, cell_noise
from diffeo.resume import Standing
from diffeo.training import Interrupted, Problem, Settings, State, train

__all__ = ["Fitted", "Shot", "fit_pictures"]

STARTERS = 512  # pictures that the start is taken from
ROUNDS = 30  # validations in a budget, about
CHECKED = 0.15  # of a round's pictures: so many are looked at in a validation, of the held-out ones
LEAST_CHECKED, MOST_CHECKED = 64, 2000
TRIALS, LONG = 3, 2.0  # times that a step is measured, unless it takes so many seconds
GAIN = 0.8  # of the time of one thread, at which several are worth it
EVER = 100_000  # epochs, where a budget ends training
SHOTS = 12  # grids of samples in a run, about
SHOWN = 36  # samples of a grid
FAINTEST = -1e7  # nats, for a picture that is less probable, while training

Report = Callable[[dict[str, Any]], None]
Shot = Callable[[int, np.ndarray], None]  # a step, and samples uint8 [n, C, H, W]


@dataclass(frozen=True)
class Fitted:
    """A trained density, how it was made, and where training ended."""

    density: Quantized
    plan: PicturePlan
    settings: Settings
    state: State


def fit_pictures(
    data: Material,
    config: PictureConfig,
    left: Callable[[], float | None],
    report: Report,
    stop: Callable[[], bool],
    shot: Shot | None = None,
    earlier: Standing | None = None,
    repeat: tuple[PicturePlan, Settings] | None = None,
) -> Fitted:
    """Fit; `left()` are the seconds that are left for training, None where epochs are counted."""
    device = check_device(config.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if earlier is None:
            plan = repeat[0] if repeat else _plan(data, config)
            density = build(plan)
            report({"stage": "start", "message": f"{plan.recipe}: {_size(density):,} parameters"})
            _settle(density, data)
            density.to(device)
            _hasten(density, device.type == "cuda")
            settings = repeat[1] if repeat else _settings(density, plan, data, config, left())
            budget, state = left(), State()
        else:
            plan, settings, budget, state = earlier.plan, earlier.settings, earlier.budget, earlier.state
            density = build(plan)
            fill(density, earlier.density, "the interrupted run")
            density.to(device)
        if settings.threads and not config.threads:
            torch.set_num_threads(min(settings.threads, processors() or settings.threads))
        _hasten(density, device.type == "cuda")
        task = _problem(density.eval(), data, settings, device, state, shot)
        try:
            for record in train(task, settings, state, budget, stop):
                report({**record, **_bits(record, density.dimensions)})
        except Interrupted as end:
            tensors = density.cpu().state_dict()
            end.run = Standing(plan, settings, "a batch", budget, tensors, state)
            raise
    _hasten(density, False)
    return Fitted(density.cpu().eval(), plan, settings, state)


def _plan(data: Material, config: PictureConfig) -> PicturePlan:
    event = (int(data.train.shape[1]), int(data.train.shape[2]), int(data.train.shape[3]))
    asked = {"steps": config.layers, "width": config.hidden, "noise": config.noise, "memory": config.memory}
    chosen = {name: value for name, value in asked.items() if value is not None}
    recipe = AUTO if config.recipe == "auto" else config.recipe
    return planned(recipe, event, grays=data.grays, classes=data.classes, **chosen)


def _hasten(density: Quantized, short: bool) -> None:
    """Whether convolutions multiply in bfloat16: in training on a GPU alone, never where a model is scored."""
    for part in density.modules():
        if hasattr(part, "autocast"):
            part.autocast = short  # type: ignore[assignment]


def _settle(density: Quantized, data: Material) -> None:
    """Scales and shifts are those of some training pictures, drawn by the seed."""
    some = torch.randperm(len(data.train))[:STARTERS]
    x = data.train[some].to(density.like)
    context = None if data.train_context is None else data.train_context[some]
    density.flow.transform.settle((x + cell_noise(x)) / density.levels, context)


def _settings(
    density: Quantized, plan: PicturePlan, data: Material, config: PictureConfig, seconds: float | None
) -> Settings:
    chosen = {**RECIPES[plan.recipe].training, "seed": config.seed}
    for name in ("optimizer", "batch_size", "learning_rate"):
        if (value := getattr(config, name)) is not None:
            chosen[name] = value
    chosen["epochs"], chosen["patience"] = config.epochs or EVER, EVER
    settings = Settings(**chosen)
    if seconds is None:
        return settings
    count, step = _pace(density, data, min(settings.batch_size, len(data.train)), config.threads)
    steps = max(5, min(400, int(seconds / ROUNDS / step)))
    warmup = max(5, min(settings.warmup, int(0.1 * seconds / step)))
    return settings.model_copy(update={"round_steps": steps, "warmup": warmup, "threads": count})


def _pace(density: Quantized, data: Material, batch: int, asked: int | None) -> tuple[int | None, float]:
    """With how many threads a step is the fastest, unless that is asked for, and how many seconds it takes: on a busy
    machine several threads may take many times as long as one."""
    one = _step_seconds(density, data, batch)
    most = None if asked else processors()
    if most is None or most == 1:
        return None, one
    torch.set_num_threads(most)
    several = _step_seconds(density, data, batch)
    return (most, several) if several < GAIN * one else (1, one)


def _step_seconds(density: Quantized, data: Material, batch: int) -> float:
    """Of a step, the shortest of three unless the first takes long; gradients are thrown away."""
    device, found = density.like.device, list[float]()
    x = data.train[:batch].to(device)
    context = None if data.train_context is None else data.train_context[:batch].to(device)
    while len(found) < TRIALS and max(found, default=0.0) < LONG:
        began = time.monotonic()
        density.objective(x, context).mean().backward()
        float(next(p.grad for p in density.parameters() if p.grad is not None).sum())  # waits for a device
        found.append(time.monotonic() - began)
    density.zero_grad()
    return max(min(found), 1e-4)


def _problem(
    density: Quantized, data: Material, settings: Settings, device: torch.device, state: State, shot: Shot | None
) -> Problem:
    train_x, train_c = data.train.to(device), None if data.train_context is None else data.train_context.to(device)
    count = min(settings.batch_size, len(data.train)) * (settings.round_steps or 100)
    few = min(len(data.valid), MOST_CHECKED, max(LEAST_CHECKED, int(CHECKED * count)))
    some = torch.from_numpy(np.sort(np.random.default_rng(0).permutation(len(data.valid))[:few]))
    valid_x = data.valid[some].to(device)
    valid_c = None if data.valid_context is None else data.valid_context[some].to(device)
    noise = _noise(density, data, device)
    shots = [0]

    @torch.no_grad()
    def validate() -> Tensor:
        _hasten(density, False)
        found = density.log_prob(valid_x, valid_c).double()
        _hasten(density, device.type == "cuda")
        rounds = len(state.schedule)
        if shot is not None and rounds >= shots[0]:
            with suppress(ModelError):  # a run that diverges goes back, and says so
                shot(state.step, density.from_latent(*noise).cpu().numpy())
            shots[0] = max(rounds + 1, rounds + rounds // (SHOTS // 3))
        return torch.where(found.isnan(), found, found.clamp(min=FAINTEST)).mean()[None]

    def log_probs(index: Tensor) -> Tensor:
        return density.objective(train_x[index], None if train_c is None else train_c[index])[:, None]

    def explain(index: Tensor) -> str:
        return f"training pictures in question: {', '.join(str(int(i) + 1) for i in index[:5])}"

    return Problem([("pictures", density, 1.0)], log_probs, validate, torch.ones(len(train_x), device=device), explain)


def _noise(density: Quantized, data: Material, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The noise of the grids, the same in the whole run, and classes in turn."""
    z = density.flow.base.sample(SHOWN, generator=torch.Generator().manual_seed(0)).to(device)
    if not data.classes:
        return z, None
    return z, torch.eye(data.classes, device=device)[torch.arange(SHOWN, device=device) % data.classes]


def _bits(record: dict[str, Any], dimensions: int) -> dict[str, Any]:
    """The figures of a record as bits per dimension."""
    known = {name: record[name] for name in ("train", "valid", "best") if record.get(name) is not None}
    return {f"{name}_bits": float(bits_per_dim(torch.tensor(value), dimensions)) for name, value in known.items()}


def _size(density: Quantized) -> int:
    return sum(p.numel() for p in density.parameters())
