"""What training works on: the rows of a fit, drawn through the density that learns them, and who is to blame."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffeo.mixed import Mixed
from diffeo.prepare import Prepared
from diffeo.rows import Rows
from diffeo.starts import FEW
from diffeo.training import Problem

__all__ = ["FAINTEST", "folds", "judged_apart", "problem"]

VALID_POINTS = 4  # points of a rounding cell while training
MOST_KEPT = 2**25  # numbers that nets look at, in all rows together, worked out once
CHUNK = 10_000  # rows of which that is done at a time
VALID_ROWS = 20_000  # validation rows looked at while training
FEWEST = 10  # rows of a fold
FOLDS = 6  # at least; of fewer, each would take too much from its member
FAINTEST = -1e6  # nats; a held-out row that is less probable, or impossible, counts as this while training


def folds(n: int, count: int) -> np.ndarray:
    """In which of `count` parts, as even as can be, each of n rows is: [n]."""
    return np.random.default_rng(0).permutation(n) % count


def judged_apart(data: Prepared, members: int) -> bool:
    """Whether each member is to be judged by rows that it alone does not learn from: where rows are few, those held out
    are too few to judge by, unless it was asked which these are, or rows differ in weight."""
    n, even = data.train.n, bool((data.weights == data.weights[0]).all())
    return members >= FOLDS and not data.asked and even and FEWEST * members <= n < FEW


def problem(density: Mixed, data: Prepared, device: torch.device, apart: bool = False) -> Problem:
    """Batches of the training rows and the look at the held-out ones, on a device that the density is on. `apart`: each
    member of an ensemble learns from all folds of the training rows but its own, and by those all are judged."""
    train_rows = data.train.to(device)
    few = torch.from_numpy(np.sort(np.random.default_rng(0).permutation(data.valid.n)[:VALID_ROWS]))
    valid, valid_weights = data.valid[few].to(device), data.valid_weights[few].to(device)

    weights = data.weights.to(device)
    which: list[int] | None = density.learning or None
    own: list[tuple[int, Rows]] = []
    if apart:
        count = len(density.learning)
        fold = torch.from_numpy(folds(data.train.n, count)).to(device)
        weights = weights[:, None].repeat(1, len(density.learners))
        weights[:, -count:] *= (fold[:, None] != torch.arange(count, device=device)) * (count / (count - 1))
        which, own = [], [(j, train_rows[fold == place]) for place, j in enumerate(density.learning)]

    log_probs = _learned(density, train_rows)

    def validate() -> Tensor:
        found = density.score_members(valid, VALID_POINTS, which).clamp(min=FAINTEST)
        found = (found * valid_weights[:, None]).sum(0) / valid_weights.sum()
        each = [density.score_members(rows, VALID_POINTS, [j])[:, -1].clamp(min=FAINTEST) for j, rows in own]
        return torch.cat([found, torch.cat(each).mean().repeat(len(own))]) if own else found

    def explain(rows: Tensor) -> str:
        return _culprits(density, data, rows)

    likelihood = density.rest is None or density.rest.learn == "likelihood"
    return Problem(density.learners, log_probs, validate, weights, explain, likelihood)


@torch.no_grad()
def _learned(density: Mixed, rows: Rows) -> Callable[[Tensor], Tensor]:
    """`part_log_probs` of the rows at indices, of which all that training does not change is worked out once: what
    nets look at, and the numbers in unit spread where none has a free place."""
    if rows.n * density.features(rows[:1]).shape[1] > MOST_KEPT:
        return lambda index: density.part_log_probs(batch := rows[index], torch.rand_like(batch.low))
    free, cells = bool(density.layout.free), (rows.low, rows.width, rows.atom)
    pieces = [rows[i : i + CHUNK] for i in range(0, rows.n, CHUNK)]
    known = [rows.codes, rows.angles, torch.cat([density.features(piece) for piece in pieces])]
    fixed: list[Tensor] = []
    if density.rest is not None and not free:
        each = [density.numbers(piece, torch.zeros_like(piece.low)) for piece in pieces]
        fixed = [torch.cat(part) for part in zip(*each, strict=True)]

    def log_probs(index: Tensor) -> Tensor:
        codes, angles, features = (part[index] if part.shape[1] else part[: len(index)] for part in known)
        numbers = None
        if fixed:
            numbers = fixed[0][index], fixed[1][index]
        elif density.rest is not None:
            low, width, atom = (part[index] for part in cells)
            numbers = density.placed(low, width, atom, torch.rand_like(low))
        return density.learned_log_probs(codes, angles, features, numbers)

    return log_probs


def _culprits(density: Mixed, data: Prepared, rows: Tensor) -> str:
    """The rows that a step failed on, and the columns that are furthest out in them."""
    rows = rows[:5].cpu()
    listed = ", ".join(str(data.numbers[int(row)]) for row in rows) or "none by itself"
    names = [column.name for _, column in data.layout.smooth]
    if density.units is None or not len(rows) or not names:
        return f"rows in question: {listed}"
    z = density.cpu().numbers(data.train[rows], torch.full((len(rows), len(names)), 0.5, dtype=torch.float64))[0]
    furthest = {names[int(j)] for j in z.abs().nan_to_num(float("inf")).argmax(1)}
    return f"rows in question: {listed}; columns furthest out: {', '.join(sorted(furthest))}"
