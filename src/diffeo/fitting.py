"""The fit: a start from the best classical model or from layers, training, and what is to be remembered of it all."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from diffeo.artefact import fill
from diffeo.calibration import planned_seconds
from diffeo.config import FitConfig
from diffeo.errors import ModelError
from diffeo.mixed import Mixed
from diffeo.outset import Clock, Report, Start, begin, layered, trial_seconds
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
            start = begin(data, config, clock, report, stop, repeat)
            course = _set_out(start, data, device, clock, stop)
            if repeat is None and (seconds := trial_seconds(start.plan, config, clock, data.train.n)):
                rival = partial(_set_out, layered(data, config, start.plan), data, device, clock, stop)
                course = _ahead(course, rival, seconds, report)
        else:
            density = build(earlier.plan, data.layout)
            fill(density, earlier.density, "the interrupted run")
            density.set_slopes()
            start = Start(density, earlier.plan, earlier.settings, earlier.start)
            course = _course(start, data, device, earlier.budget, earlier.state, stop)
    density, made, how, found = course.start
    try:
        for record in course.records:
            report(record)
    except Interrupted as end:
        end.run = Standing(made, how, found, course.budget, density.cpu().state_dict(), course.state)
        raise
    if made.simple:
        stack(density.cpu().eval(), made, data)
    return Fitted(density.cpu().eval(), made, how, course.state, found)


@dataclass(frozen=True)
class _Course:
    """A start, the seconds for training, and the records of training on from it, made as they are asked for."""

    start: Start
    budget: float | None
    state: State
    records: Iterator[dict[str, Any]]


def _course(
    start: Start,
    data: Prepared,
    device: torch.device,
    budget: float | None,
    state: State,
    stop: Callable[[], bool],
) -> _Course:
    task = problem(start.density.eval().to(device), data, device, start.plan.apart)
    return _Course(start, budget, state, train(task, start.settings, state, budget, stop))


def _set_out(start: Start, data: Prepared, device: torch.device, clock: Clock, stop: Callable[[], bool]) -> _Course:
    """From the beginning, with the seconds that are left."""
    budget = _seconds_for_training(start.density.eval(), data, clock)
    return _course(start, data, device, budget, State(), stop)


def _ahead(first: _Course, rival: Callable[[], _Course], seconds: float, report: Report) -> _Course:
    """The course that promises more on validation rows after so many seconds of each; it goes on from where it is."""
    courses = []
    for make in (lambda: first, rival):
        course, began = make(), time.monotonic()
        courses.append(course)
        report({"stage": "trial", "message": f"a trial of {course.start.found.partition(',')[0]}"})
        try:
            for _ in course.records:
                if time.monotonic() - began >= seconds:
                    break
        except Interrupted:
            raise Interrupted("interrupted before training began; nothing was saved") from None
    return max(courses, key=_score)


def _score(course: _Course) -> float:
    """The best that the numbers were at, and as much again as they gained in the later half: a good start is soon
    overtaken by what learns faster."""
    curve = [(record["step"], list(record["parts"].values())[-1]) for record in course.state.history]
    last = curve[-1][0]
    best = max(value for _, value in curve)
    half = [value for step, value in curve if 0 < step <= last / 2]
    return best + (best - max(half) if half else 0.0)


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
