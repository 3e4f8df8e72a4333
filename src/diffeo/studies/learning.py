"""The plain loop of the founding documents: Adam on the mean negative log-density, batches in order or shuffled."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from diffeo.bases import Density
from diffeo.errors import TrainingError
from diffeo.studies.course import Report

__all__ = ["Learned", "Loop", "learn", "seeded", "taught", "with_weights"]

D = TypeVar("D", bound=torch.nn.Module)


class Loop(NamedTuple):
    """How to train; `batch` None takes all rows at once."""

    epochs: int
    batch: int | None = 256
    rate: float = 1e-3
    shuffle: bool = True


class Learned(NamedTuple):
    """Mean negative log-densities in nats, one a pass; the best epoch (from 1) by validation, with its weights."""

    train: list[float]
    valid: list[float]
    best_epoch: int
    best: dict[str, Tensor]
    seconds: float


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within, the start of new parameters is decided by the seed; afterwards torch draws on as if nothing had been.

    >>> with seeded(1):
    ...     a = torch.rand(1)
    >>> with seeded(1):
    ...     bool(torch.rand(1) == a)
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def learn(
    density: Density, x: Tensor, valid: Tensor | None, loop: Loop, generator: torch.Generator | None = None
) -> Generator[dict[str, Any], None, Learned]:
    """Train on rows x [n, d], in place; a record after every epoch, at the end what was learned.

    Without rows to validate on, the last weights are the best. Raises TrainingError where the loss is no number.
    """
    adam = torch.optim.Adam(density.parameters(), loop.rate)
    train_losses: list[float] = []
    valid_losses: list[float] = []
    best, best_epoch, began = {}, 0, time.monotonic()
    for epoch in range(1, loop.epochs + 1):
        train_losses.append(_epoch(density, adam, x, loop, generator))
        if not math.isfinite(train_losses[-1]):
            raise TrainingError(f"the loss is no number after epoch {epoch}; try another --seed")
        if valid is not None:
            valid_losses.append(loss_of(density, valid))
            if valid_losses[-1] <= min(valid_losses):
                best, best_epoch = copy.deepcopy(density.state_dict()), epoch
        yield {
            "epoch": float(epoch),
            "train": -train_losses[-1],
            "valid": -valid_losses[-1] if valid_losses else None,
            "rows_per_second": len(x) * epoch / max(time.monotonic() - began, 1e-9),
            "progress": epoch / loop.epochs,
        }
    if valid is None:
        best, best_epoch = copy.deepcopy(density.state_dict()), loop.epochs
    return Learned(train_losses, valid_losses, best_epoch, best, time.monotonic() - began)


def _epoch(density: Density, adam: torch.optim.Adam, x: Tensor, loop: Loop, generator: torch.Generator | None) -> float:
    """One pass over the rows; the mean loss a row, as it was while learning."""
    order = torch.randperm(len(x), generator=generator) if loop.shuffle else torch.arange(len(x))
    total = 0.0
    for rows in order.split(loop.batch or len(x)):
        loss = -density.log_prob(x[rows]).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        total += loss.item() * len(rows)
    return total / len(x)


@torch.no_grad()
def loss_of(density: Density, x: Tensor) -> float:
    """The mean negative log-density of rows x [n, d], nats."""
    return -density.log_prob(x).mean().item()


def taught(
    density: Density,
    x: Tensor,
    valid: Tensor | None,
    loop: Loop,
    report: Report,
    seed: int = 0,
    after: Callable[[int], None] | None = None,
) -> Learned:
    """`learn` to its end: records go to `report`, `after` is called with the number of every epoch that ended."""
    lessons = learn(density, x, valid, loop, torch.Generator().manual_seed(seed))
    while True:
        try:
            record = next(lessons)
        except StopIteration as end:
            density.eval()
            learned: Learned = end.value
            return learned
        report(record)
        if after is not None:
            after(int(record["epoch"]))


def with_weights(density: D, weights: dict[str, Tensor]) -> D:
    """A copy of a density that has these weights."""
    other = copy.deepcopy(density)
    other.load_state_dict(weights)
    return other.eval()
