"""Densities of rounded numbers: a value stands for its cell, and its log-probability for the mass in it.

    log P(cell) = log of the integral of p over the cell = log E_u[p(low + width u)] + log width,  u uniform on [0, 1].

Trained on one random point of the cell a step (uniform dequantisation, arXiv 1511.01844), and evaluated as the log of
the mean over M fixed, evenly spread points: with points shifted at random that is a lower bound on average (the
importance-weighted bound, arXiv 1509.00519), tighter with every point. Fixed points make it repeatable.
"""

import torch
from torch import Tensor

__all__ = ["POINTS", "lattice", "log_mean_exp"]

POINTS = 16  # points of a cell at which a density is evaluated


def lattice(points: int, dimensions: int) -> Tensor:
    """Evenly spread points of the unit cube, float64 [points, dimensions]: the additive recurrence with the
    generalised golden ratio (the root of g^(d+1) = g + 1), centred.

    >>> lattice(2, 1)
    tensor([[0.1910],
            [0.8090]], dtype=torch.float64)
    """
    ratio = 2.0
    for _ in range(60):
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = ratio ** -torch.arange(1, dimensions + 1, dtype=torch.float64)
    return (torch.arange(1, points + 1, dtype=torch.float64)[:, None] * steps + (0.5 - steps * (points + 1) / 2)) % 1.0


def log_mean_exp(values: Tensor) -> Tensor:
    """log of the mean of exp over the first dimension [m, n] -> [n]; -inf where all are.

    >>> log_mean_exp(torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf]]))
    tensor([0., -inf])
    """
    top = values.amax(0)
    safe = torch.where(top > -torch.inf, top, 0.0)
    return torch.where(top > -torch.inf, safe + (values - safe).exp().mean(0).log(), -torch.inf)
