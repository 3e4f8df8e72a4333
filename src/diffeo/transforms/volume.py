"""The log-volume of a step x + g(x): exact by its Jacobian, or estimated where that would cost too much in training."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from diffeo.errors import ShapeError, shown
from diffeo.transforms.lipschitz import Push

__all__ = ["LogDet", "check_log_det", "fixed_probes", "fresh_probes", "is_exact", "quadratic", "series", "terms_for"]

LogDet = Literal["auto", "exact", "estimate"]
SMALL = 16  # coordinates, to which Jacobians are always exact
MOST_PROBES = 16
SURE_TERMS = 4  # of the series in training, before the dice are thrown
BIAS = 1e-3  # nats, in evaluation


def check_log_det(kind: str) -> None:
    if kind not in get_args(LogDet):
        raise ShapeError(f"log_det: expected one of {', '.join(get_args(LogDet))}, got {shown(kind)}")


def is_exact(kind: str, d: int, training: bool) -> bool:
    """auto: exact in evaluation, and in training up to 16 coordinates."""
    return kind == "exact" or (kind == "auto" and (not training or d <= SMALL))


def fixed_probes(d: int) -> Tensor:
    """Up to 16 probes [m, d] at right angles, sqrt(d) long, the same for every d: with m = d their traces are exact."""
    square = torch.randn(d, min(d, MOST_PROBES), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (math.sqrt(d) * torch.linalg.qr(square)[0].T).to(torch.get_default_dtype())


def fresh_probes(x: Tensor) -> Tensor:
    """A random sign for every number: [n, 1, d], whose mean of v'Av is the trace of A (Hutchinson)."""
    return (2 * torch.randint(0, 2, x.shape, device=x.device) - 1).to(x.dtype)[:, None]


def quadratic(push: Push, probes: Tensor) -> Tensor:
    """The mean of v'Jv over probes v [n, m, d]: [n]."""
    return (push(probes) * probes).sum(2).mean(1)


def terms_for(d: int, coefficient: float) -> int:
    """How many terms of the series leave at most a thousandth of a nat: d c^(k+1) / ((k+1) (1-c))."""
    k = 1
    while d * coefficient ** (k + 1) / ((k + 1) * (1 - coefficient)) > BIAS:
        k += 1
    return k


def series(push: Push, probes: Tensor, coefficient: float, terms: int | None = None) -> Tensor:
    """log|det(I + J)| = sum_k (-1)^(k+1) tr(J^k) / k by probes [n, m, d]: [n]; as many terms as told.

    Else their number is random, and a term that is there with probability q counts 1/q times (Russian roulette, arXiv
    1906.02735), which makes the mean right. q falls from term to term by the coefficient, so that the variance is
    finite.
    """
    extra = 0 if terms is not None else int(math.log(1 - torch.rand(()).item()) / math.log(coefficient))
    sure = SURE_TERMS if terms is None else terms
    moved, total = probes, probes.new_zeros(probes.shape[0])
    for k in range(1, sure + extra + 1):
        moved = push(moved)
        weight = coefficient ** -max(0, k - sure) / k
        total = total - (-1) ** k * weight * (moved * probes).sum(2).mean(1)
    return total
