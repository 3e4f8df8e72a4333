"""Densities of rounded numbers: a value stands for its cell, and its log-probability for the mass in it.

    log P(cell) = log of the integral of p over the cell = log E_u[p(low + width u)] + log width,  u uniform on [0, 1].

Trained on one random point of the cell a step (uniform dequantisation, arXiv 1511.01844), and evaluated as the log of
the mean over M fixed, evenly spread points: with points shifted at random that is a lower bound on average (the
importance-weighted bound, arXiv 1509.00519), tighter with every point. Fixed points make it repeatable.
"""

import math

import torch
from torch import Tensor

__all__ = ["POINTS", "lattice", "log_mean_exp", "log_sum_exp"]

POINTS = 16  # points of a cell at which a density is evaluated


def lattice(points: int, dimensions: int) -> Tensor:
    """Evenly spread points of the unit cube, float64 [points, dimensions]: along every axis one in the middle of each
    of `points` equal parts (a Latin hypercube), in the order of the multiples of a prime's root (Richtmyer 1951).

    >>> lattice(2, 1)
    tensor([[0.2500],
            [0.7500]], dtype=torch.float64)
    """
    roots = torch.tensor(_primes(dimensions), dtype=torch.float64).sqrt()
    place = (torch.arange(1, points + 1, dtype=torch.float64)[:, None] * roots) % 1.0
    return (place.argsort(0).argsort(0).double() + 0.5) / points


def _primes(count: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < count:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found


def log_sum_exp(values: Tensor) -> Tensor:
    """log of the sum of exp over the first dimension [m, n] -> [n]; -inf where all are, NaN where any is.

    >>> log_sum_exp(torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf]]))
    tensor([0., -inf])
    """
    top = values.amax(0)
    safe = torch.where(top == -torch.inf, 0.0, top)
    return safe + (values - safe).exp().sum(0).log()


def log_mean_exp(values: Tensor) -> Tensor:
    """log of the mean of exp over the first dimension [m, n] -> [n]; -inf where all are, NaN where any is.

    >>> log_mean_exp(torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf]]))
    tensor([0., -inf])
    """
    return log_sum_exp(values) - math.log(len(values))
