"""The fit: a start from the best classical model or from layers, training, and what is to be remembered of it all."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from diffeo.artefact import fill
from diffeo.calibration import planned_seconds
from diffeo.config import FitConfig
from diffeo.errors import ModelError
from diffeo.mixed import Mixed
from diffeo.outset import Clock, Report, begin, better, layered, worth_a_trial
from diffeo.prepare import Prepared
from diffeo.problem import FAINTEST, problem
from diffeo.recipes import Plan, build
from diffeo.resume import Standing
from diffeo.stacking import stack
from diffeo.training import Interrupted, Settings, State, train

__all__ = ["FAINTEST", "PERCENTILE_ROWS", "Clock", "Fitted", "check_device", "fit_density"]

PERCENTILE_ROWS = 10_000  # training rows that scores are ranked among


@dataclass(frozen=True)
class Fitted:
    """A trained density, how it was made, and where training ended."""

    density: Mixed
    plan: Plan
    settings: Settings
    state: State
    start: str


def fit_density(
    data: Prepared,
    config: FitConfig,
    clock: Clock,
    report: Report,
    stop: Callable[[], bool],
    earlier: Standing | None = None,
    repeat: tuple[Plan, Settings] | None = None,
) -> Fitted:
    """Fit; `earlier` is where an interrupted run stands, `repeat` the plan and the settings of a run to be repeated."""
    device = check_device(config.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if earlier is None:
            begun = begin(data, config, clock, report, stop, repeat)
            if repeat is None and worth_a_trial(begun.plan, config, clock):
                rival = layered(data, config, begun.plan)
                begun = better(begun, rival, data, device, clock, report, stop)
            density, made, how, start = begun
        else:
            made, how, start = earlier.plan, earlier.settings, earlier.start
            density = build(made, data.layout)
            fill(density, earlier.density, "the interrupted run")
            density.set_slopes()
    density.eval()
    budget = _seconds_for_training(density, data, clock) if earlier is None else earlier.budget
    state = State() if earlier is None else earlier.state
    task = problem(density.to(device), data, device, made.apart)
    try:
        for record in train(task, how, state, budget, stop):
            report(record)
    except Interrupted as end:
        end.run = Standing(made, how, start, budget, density.cpu().state_dict(), state)
        raise
    if made.simple:
        stack(density.cpu().eval(), made, data)
    return Fitted(density.cpu().eval(), made, how, state, start)


def check_device(name: str) -> torch.device:
    """The device of a name; `auto` is an accelerator where there is one. Raises ModelError where there is none."""
    cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (torch.cuda.device_count() if cuda else 0):
        raise ModelError(f"device: there is no {name} here; use --device cpu")
    return device


def _seconds_for_training(density: Mixed, data: Prepared, clock: Clock) -> float | None:
    """What is left of the budget, less what a last look at the rows (measured on a few) and the evidence take."""
    left = clock.left()
    if left is None:
        return None
    few = data.valid[:256]
    density.score(few[:8])  # the first call is slower
    began = time.monotonic()
    density.score(few)
    each = (time.monotonic() - began) / max(few.n, 1)
    last = each * (data.valid.n + min(data.train.n, PERCENTILE_ROWS)) + 0.02 * (clock.budget or 0.0)
    last += planned_seconds(density, data.valid.n, clock.budget)
    return max(0.5, left - last)
