"""Densities held against the truth: windows and grids to look through, divergences in nats with their errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Gap", "LogProb", "Window", "distance", "gap", "image", "nll", "of_density", "scores", "tensor"]

LogProb = Callable[[Tensor], Any]  # rows [n, d] -> [n], nats
ROWS = 20_000  # rows scored at a time
FRESH = 7_000_003  # the seed of test points lies so far from that of the data


class Gap(NamedTuple):
    """A divergence in nats, and its standard error."""

    nats: float | None
    error: float | None

    def __str__(self) -> str:
        """
        >>> str(Gap(0.12345, 0.00223)), str(Gap(0.0021, 0.0004)), str(Gap(None, None)), str(Gap(13.037, 1.2))
        ('0.123 ± 0.002', '0.0021 ± 0.0004', 'not finite', '13.0 ± 1.2')
        """
        if self.nats is None or self.error is None:
            return "not finite"
        digits = 4 if abs(self.nats) < 0.01 else 3 if abs(self.nats) < 10 else 1
        return f"{self.nats:.{digits}f} ± {self.error:.{digits}f}".replace("-", "−")

    def plain(self) -> dict[str, float | None]:
        """For `findings.json`."""
        return {"nats": self.nats, "standard_error": self.error}


class Window(NamedTuple):
    """A rectangle of the plane."""

    left: float
    right: float
    bottom: float
    top: float

    def grid(self, size: int) -> Tensor:
        """The middles of size x size cells, [size * size, 2], float64: row by row from the bottom, each from the left.

        >>> Window(0, 2, 0, 4).grid(2).tolist()
        [[0.5, 1.0], [1.5, 1.0], [0.5, 3.0], [1.5, 3.0]]
        """
        along = (torch.arange(size, dtype=torch.float64) + 0.5) / size
        x = self.left + along * (self.right - self.left)
        y = self.bottom + along * (self.top - self.bottom)
        return torch.stack([x.repeat(size), y.repeat_interleave(size)], 1)

    def cell(self, size: int) -> float:
        """The area of a cell of the grid."""
        return (self.right - self.left) * (self.top - self.bottom) / size**2


def tensor(values: Any, dtype: torch.dtype | None = None) -> Tensor:
    """An array or a tensor as a tensor."""
    found = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    return found if dtype is None else found.to(dtype)


@torch.no_grad()
def scores(log_prob: LogProb, x: Tensor) -> Tensor:
    """Log-densities [n], float64, of rows x [n, d], some at a time."""
    return torch.cat([tensor(log_prob(rows)).detach().reshape(-1).double() for rows in x.split(ROWS)])


def of_density(density: torch.nn.Module) -> LogProb:
    """The log-density of a module that was trained in float32."""
    return lambda x: density.log_prob(x.float())  # type: ignore[operator]


def gap(above: LogProb, below: LogProb, x: Tensor) -> Gap:
    """The mean of log p - log q over rows x [n, d] drawn from p = `above`: KL(p || q), and its standard error.

    >>> import torch.distributions as d
    >>> unit, wide = d.Normal(0.0, 1.0), d.Normal(0.0, 2.0)
    >>> x = torch.randn(50_000, 1, generator=torch.Generator().manual_seed(0))
    >>> found = gap(lambda x: unit.log_prob(x), lambda x: wide.log_prob(x), x)
    >>> abs(found.nats - (math.log(2) - 3 / 8)) < 4 * found.error
    True
    """
    apart = scores(above, x) - scores(below, x)
    mean, error = apart.mean().item(), apart.std().item() / math.sqrt(len(apart))
    return Gap(mean, error) if math.isfinite(mean) and math.isfinite(error) else Gap(None, None)


def image(log_prob: LogProb, window: Window, size: int) -> np.ndarray:
    """The density exp(log p) on the grid of a window: [size, size], the first row at the bottom, the first column at
    the left."""
    return scores(log_prob, window.grid(size)).exp().reshape(size, size).numpy()


def nll(log_prob: LogProb, x: Tensor) -> float:
    """The mean negative log-density over rows x [n, d], nats."""
    return -scores(log_prob, x).mean().item()


def distance(a: LogProb, b: LogProb, of_a: Tensor, of_b: Tensor) -> Gap:
    """The integral of |p - q| (0 to 2), from as many draws of p as of q, and its standard error.

    It is the mean of |p - q| / m under m = (p + q) / 2, a number between 0 and 2 wherever it is taken: no grid, and no
    trouble where a density has no bound.
    """
    parts = []
    for x in (of_a, of_b):
        above, below = scores(a, x), scores(b, x)
        parts.append(2 * torch.tanh((above - below).abs() / 2))
    mean = torch.cat(parts).mean().item()
    error = math.sqrt(sum(part.var().item() / len(part) for part in parts)) / 2
    return Gap(mean, error)
