"""One loop: minimise -mean log p over batches, average the weights, keep the best by validation; it yields records.

Whatever is random in a round comes from a seed made of the run's seed and the number of its first step alone, and a
run's state is its weights, moments and counters. So a run that was interrupted and goes on ends bit for bit where it
would have ended, and a run that was cut to a budget can be repeated from the schedule that it recorded.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from diffeo.bases import GaussianMixture
from diffeo.config import Config
from diffeo.descent import Optimizer, Part
from diffeo.errors import DiffeoError, TrainingError

__all__ = ["Interrupted", "Problem", "Settings", "State", "train"]

LOWEST = -1e30  # nats, in place of a validation figure that is not a number
OVERTIME = 1.03  # of the budget: a round that would end later is not begun
PATIENT_STEPS = 3  # steps in a row that may fail before the weights go back to where they were good
LOOK = 20  # steps between looks at whether some failed, where a look makes an accelerator wait
PATIENT_RETURNS = 3  # times that the weights may go back
FITTED_RATE = 0.1  # of the learning rate, for parameters that start at a fitted mixture


class Settings(Config):
    """How to train."""

    optimizer: Optimizer = Field("adamw", description="adamw, or adamax, which pictures are often trained by")
    beta2: float = Field(0.999, ge=0, lt=1, description="what is kept of the gradients' second moment in a step")
    batch_size: int = Field(512, ge=1, description="rows a step")
    learning_rate: float = Field(1e-2, gt=0, description="highest learning rate")
    weight_decay: float = Field(1e-4, ge=0, description="decoupled decay of the networks' weights, a step at rate 1")
    epochs: int = Field(100, ge=1, description="passes over the rows at most")
    patience: int = Field(30, ge=1, description="validations without a gain after which training stops")
    warmup: int = Field(100, ge=1, description="steps over which the learning rate rises")
    clip: float = Field(5.0, gt=0, description="largest norm of each part's gradient")
    averaging: float = Field(0.998, ge=0, lt=1, description="decay of the averaged weights")
    seed: int = Field(0, ge=0, description="of batches and noise")
    threads: int | None = Field(None, ge=1, description="processor threads that were the fastest; None: as asked for")
    round_steps: int | None = Field(None, ge=1, description="steps between validations; by default an epoch, 20 to 200")
    schedule: tuple[float, ...] | None = Field(None, description="progress at the start of each round, to repeat a run")


class Interrupted(DiffeoError):  # noqa: N818 (the run is fine, it was stopped)
    """Training was stopped from outside, and its state is saved (or there was none yet)."""

    exit_code = 130

    def __init__(self, resume_hint: str, run: Any = None) -> None:
        super().__init__(resume_hint)
        self.resume_hint, self.run = resume_hint, run


@dataclass(frozen=True)
class Problem:
    """What is learned: named parts whose parameters are disjoint, each with its own log-probabilities, and the share
    of each in the figures that are shown.

    `log_probs(indices)`: of training rows, [b, parts], random where the density is; `validate()`: the mean of each
    part over the validation rows, [parts]; `weights` [n] of the rows, or [n, parts] where parts differ in them, 1 on
    average; `explain(indices)`: names rows and columns.
    """

    parts: list[tuple[str, nn.Module, float]]
    log_probs: Callable[[Tensor], Tensor]
    validate: Callable[[], Tensor]
    weights: Tensor
    explain: Callable[[Tensor], str]
    likelihood: bool = True  # whether `log_probs` are log-probabilities, or something else that training raises


@dataclass
class State:
    """Where a run stands. Tensors: weights, their average, the best, and the optimiser's moments, part by part."""

    step: int = 0
    skipped: int = 0
    returns: int = 0
    seconds: float = 0.0
    stale: int = 0
    best: list[float] = field(default_factory=list)
    best_steps: list[int] = field(default_factory=list)
    schedule: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def numbers(self) -> dict[str, Any]:
        """All but the tensors, for JSON; the lists are copies."""
        return {
            name: list(value) if isinstance(value, list) else value
            for name, value in vars(self).items()
            if name != "tensors"
        }


class _Run:
    """The parts, and the steps on them. A step is not looked at where that would make an accelerator wait."""

    def __init__(self, problem: Problem, settings: Settings, state: State) -> None:
        self.problem, self.settings, self.state = problem, settings, state
        self.n = len(problem.weights)
        self.per_epoch = max(1, math.ceil(self.n / settings.batch_size))
        self.per_round = settings.round_steps or max(20, min(self.per_epoch, 200))
        self.total = settings.epochs * self.per_epoch
        self.parts = [Part(_places(module, settings)) for _, module, _ in problem.parts]
        self.device = problem.weights.device
        self.per_look = 1 if self.device.type == "cpu" else LOOK
        self.even = bool((problem.weights == 1).all())
        self.failed = torch.zeros(self.per_round, device=self.device)  # of the steps of a round, 1 where one failed
        self.values = torch.zeros(self.per_round, len(self.parts), dtype=torch.float64, device=self.device)
        self.looked, self.in_row, self.last_failed = 0, 0, 0
        self.round_seconds = 0.0  # that the last round took
        self._epoch, self._batches = -1, list[Tensor]()
        if state.tensors:
            self._restore()

    # One step ---------------------------------------------------------------------------------------------------

    def batch(self, step: int) -> Tensor:
        """Indices of the rows of a step: the epoch's shuffle, cut."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(_mix(self.settings.seed, 2 * epoch + 1))
            order = torch.randperm(self.n, generator=generator).to(self.device)
            self._epoch, self._batches = epoch, list(order.split(self.settings.batch_size))
        return self._batches[place]

    def begin(self) -> None:
        """Forget the last round's steps; randomness is that of this round."""
        torch.manual_seed(_mix(self.settings.seed, 2 * self.state.step))
        self.failed.zero_()
        self.values.zero_()
        self.looked = self.in_row = 0

    def rate(self, progress: float) -> float:
        """The learning rate: it rises, then falls by a cosine, and is halved with every return."""
        rate = 0.5 * self.settings.learning_rate * (1 + math.cos(math.pi * min(progress, 1.0)))
        return rate * min(1.0, (self.state.step + 1) / self.settings.warmup) * 0.5**self.state.returns

    def step(self, progress: float) -> None:
        """One step of the optimiser, the next of its round; where something is not finite it only counts as failed."""
        state, place = self.state, self.state.step % self.per_round
        rows, rate = self.batch(state.step), self.rate(progress)
        state.step += 1
        log_probs = self.problem.log_probs(rows)
        if not self.even:
            log_probs = log_probs * self.problem.weights[rows].view(len(rows), -1)
        values = log_probs.mean(0)
        loss = -values.sum()
        loss.backward()
        self.values[place] = values.detach()
        norms = torch.stack([part.norm().to(self.device) for part in self.parts])
        failed = self.failed[place].copy_(~(loss.detach() + norms.sum()).isfinite())
        shrink = (norms / self.settings.clip).clamp(min=1.0).unbind()
        decay = min(self.settings.averaging, (1 + state.step) / (10 + state.step))
        share = (1 - failed) * (1 - decay)
        for part, own in zip(self.parts, shrink, strict=True):
            part.descend(rate, own, failed, self.settings.optimizer, self.settings.beta2)
            part.approach(share)

    def look(self) -> bool:
        """Count the steps that failed since the last look; whether as many in a row as there is patience for."""
        end = (self.state.step - 1) % self.per_round + 1
        patient = True
        for place, failed in enumerate(self.failed[self.looked : end].tolist(), self.looked):
            self.in_row = self.in_row + 1 if failed else 0
            if failed:
                self.state.skipped += 1
                self.last_failed = self.state.step - end + place
                patient = patient and self.in_row < PATIENT_STEPS
        self.looked = end
        return patient

    def train_value(self) -> float | None:
        """One figure for what the steps of the round were at; None where none was taken."""
        done = self.failed[: self.looked] == 0
        if not self.looked or not bool(done.any()):
            return None
        return self.shown(self.values[: self.looked][done].mean(0).tolist())

    # Validation -------------------------------------------------------------------------------------------------

    def validate(self) -> list[float]:
        """Each part's mean on the validation rows, with averaged weights; keeps the best of each."""
        with ExitStack() as averaged:
            for part in self.parts:
                averaged.enter_context(part.averaged())
            values = self.problem.validate().tolist()
        found = [value if math.isfinite(value) else LOWEST for value in values]
        state = self.state
        if not state.best:
            state.best, state.best_steps = list(found), [state.step] * len(found)
            return found
        better = [value > best for value, best in zip(found, state.best, strict=True)]
        for j in [j for j, gain in enumerate(better) if gain]:
            state.best[j], state.best_steps[j] = found[j], state.step
            self.parts[j].keep()
        state.stale = 0 if any(better) else state.stale + 1
        return found

    def shown(self, values: list[float]) -> float:
        """One figure of the values of all parts."""
        return sum(share * value for (_, _, share), value in zip(self.problem.parts, values, strict=True))

    def finish(self) -> None:
        """Leave every part at its best weights."""
        for part in self.parts:
            part.finish()

    def release(self) -> None:
        """Let go of the parameters."""
        for part in self.parts:
            part.release()

    # State ------------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of all tensors that the run stands on."""
        return {f"{j}.{name}": value for j, part in enumerate(self.parts) for name, value in part.snapshot().items()}

    def _restore(self) -> None:
        for j, part in enumerate(self.parts):
            own = f"{j}."
            part.restore({k.removeprefix(own): v for k, v in self.state.tensors.items() if k.startswith(own)})

    def back(self, good: dict[str, Tensor]) -> None:
        """Return to the weights of the round's start, at half the rate; give up when that has been tried enough."""
        self.state.returns += 1
        self.in_row = 0
        failed = None if self.state.returns <= PATIENT_RETURNS else self._failed_rows()
        self.state.tensors = good
        self._restore()
        if failed is not None:
            raise TrainingError(
                f"training diverged and going back {PATIENT_RETURNS} times did not help; "
                f"{self.problem.explain(failed)}; look at these rows, or give --learning-rate a smaller value"
            )

    @torch.no_grad()
    def _failed_rows(self) -> Tensor:
        """Of the last step that failed: the rows that are not finite, or else the five that are least probable."""
        rows = self.batch(self.last_failed)
        log_probs = self.problem.log_probs(rows)
        wrong = rows[~log_probs.isfinite().all(1)]
        return wrong if len(wrong) else rows[log_probs.sum(1).argsort()[:5]]


def train(
    problem: Problem,
    settings: Settings,
    state: State,
    budget: float | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, Any]]:
    """Train on from `state`, which moves along, and yield a record after every round.

    `budget`: seconds for all rounds together (those of an earlier, interrupted run count). The parts are left at
    their best weights at the end. Raises TrainingError where it diverges again and again; and Interrupted where
    `stop()` became true, with `state.tensors` filled to go on from.
    """
    run = _Run(problem, settings, state)
    try:
        yield from _rounds(run, budget, stop)
    finally:
        run.release()


def _rounds(run: _Run, budget: float | None, stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    problem, settings, state = run.problem, run.settings, run.state
    began = time.monotonic() - state.seconds
    for _, module, _ in problem.parts:
        module.eval()
    if not state.best:
        yield _record(run, run.validate(), began, 0.0, budget)
    while state.step < run.total and state.stale < settings.patience:
        numbers, good = state.numbers(), run.snapshot()
        state.schedule.append(_progress(run, began, budget))
        if (progress := state.schedule[-1]) >= 1:
            break
        slope, round_began = _slope(run), time.monotonic()
        try:
            with torch.random.fork_rng(devices=_devices(problem)):
                _round(run, progress, slope, good, stop)
        except Interrupted as end:
            vars(state).update(numbers, tensors=good, seconds=time.monotonic() - began)
            raise Interrupted(f"interrupted after epoch {state.step / run.per_epoch:.4g}", end.run) from None
        valid = run.validate()
        run.round_seconds = time.monotonic() - round_began
        yield _record(run, valid, began, progress + slope, budget)
    run.finish()


def _round(run: _Run, progress: float, slope: float, good: dict[str, Tensor], stop: Callable[[], bool]) -> None:
    """Steps until the next validation; `good` is where the round begins, and where an interrupted one goes on from."""
    state, ended = run.state, False
    for _, module, _ in run.problem.parts:
        module.train()
    run.begin()
    while not ended:
        if stop():
            raise Interrupted("")
        within = state.step % run.per_round
        run.step(progress + slope * within / run.per_round)
        ended = state.step % run.per_round == 0 or state.step >= run.total
        if (ended or state.step % run.per_look == 0) and not run.look():
            run.back(good)
    for _, module, _ in run.problem.parts:
        module.eval()


def _devices(problem: Problem) -> list[int]:
    """The accelerators whose random state a run has to give back as it was."""
    places = {p.device for _, module, _ in problem.parts for p in module.parameters()}
    return sorted({place.index or 0 for place in places if place.type == "cuda"})


def _progress(run: _Run, began: float, budget: float | None) -> float:
    """How far the run is, 0 to 1: by a recorded schedule, or else by steps, or by the clock if that is further.

    By the clock a run is at its end where a round as long as the last one would go on past the budget.
    """
    state, place = run.state, len(run.state.schedule)
    if run.settings.schedule is not None:
        return run.settings.schedule[place] if place < len(run.settings.schedule) else 1.0
    by_steps = state.step / run.total
    if budget is None:
        return by_steps
    by_clock = (time.monotonic() - began) / budget
    over = by_clock + run.round_seconds / budget > OVERTIME
    return round(max(by_steps, by_clock, 1.0 if over else 0.0), 6)


def _slope(run: _Run) -> float:
    """How much progress a round makes: as much as the last one, but that a pause between them is no progress."""
    last = [after - before for before, after in pairwise(run.state.schedule[-3:])]
    return min(last[-1], 2 * last[0]) if last else run.per_round / run.total


def _record(run: _Run, valid: list[float], began: float, progress: float, budget: float | None) -> dict[str, Any]:
    state, names = run.state, [name for name, _, _ in run.problem.parts]
    seconds = time.monotonic() - began
    state.seconds = seconds
    left = max(0.0, seconds * (1 - progress) / progress) if progress > 0 else (budget or 0.0)
    if budget is not None and run.settings.schedule is None:
        left = min(left, max(0.0, budget - seconds))
        progress = max(progress, seconds / budget)
    record = {
        "stage": "training",
        "epoch": state.step / run.per_epoch,
        "step": state.step,
        "train": run.train_value() if run.problem.likelihood else None,
        "valid": run.shown(valid),
        "best": run.shown(state.best),
        "parts": dict(zip(names, valid, strict=True)),
        "progress": min(progress, 1.0),
        "seconds": round(seconds, 3),
        "seconds_left": round(left, 1),
        "rows_per_second": round(state.step * run.settings.batch_size / max(seconds, 1e-9), 1),
        "skipped": state.skipped,
    }
    state.history.append(record)
    return record


def _places(module: nn.Module, settings: Settings) -> list[tuple[nn.Parameter, float, float]]:
    """Every parameter that learns, its rate relative to the highest, and its decay: networks decay; what starts at a
    fitted mixture moves slowly and does not."""
    mixtures = [m for m in module.modules() if isinstance(m, GaussianMixture)]
    fitted = {id(p) for mixture in mixtures for p in mixture.parameters(recurse=False)}
    places = []
    for p in (p for p in module.parameters() if p.requires_grad):
        own = id(p) in fitted
        places.append((p, FITTED_RATE if own else 1.0, settings.weight_decay if p.ndim == 2 and not own else 0.0))
    return places


def _mix(seed: int, counter: int) -> int:
    """A well-spread 63-bit seed from two numbers (splitmix64)."""
    x = (seed * 0x9E3779B97F4A7C15 + counter + 0x632BE59BD9B4E019) & (2**64 - 1)
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (x ^ (x >> 31)) >> 1
