"""A set of points whose density is known: what it says, and the quadrature that its entropy comes from."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from diffeo.errors import DataError, ShapeError, shown, whole

SEEDS = 2**32  # as many as scikit-learn takes
CHUNK = 4_000_000  # numbers at a time
ROWS = 20_000  # points of a grid at a time


@dataclass(frozen=True, eq=False)
class Toy:
    """A distribution of vectors with an exact density.

    ``name`` finds it in ``TOYS``, ``title`` says what it is, ``features`` is d.

    >>> from diffeo.data.toys import toy
    >>> moons = toy("moons", noise=0.08)
    >>> moons.sample(3, seed=0).shape, round(moons.entropy, 5)
    ((3, 2), 0.77539)
    """

    name: str
    title: str
    features: int
    draw: Callable[[int, int], np.ndarray] = field(repr=False)  # (n, seed) -> [n, d], n at least 1
    log_density: Callable[[np.ndarray], np.ndarray] = field(repr=False)  # finite [n, d] -> [n]
    integral: Callable[[], float] = field(repr=False)  # -> the entropy

    @cached_property
    def entropy(self) -> float:
        """-E log p in nats, by quadrature when it is first asked for; to 1e-5 or better."""
        return float(self.integral())

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """n draws [n, d], float64, the same for the same seed. Raises ShapeError for n, DataError for the seed."""
        n = whole("n", n, 0)
        if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= operator.index(seed) < SEEDS:
            raise DataError(f"seed: expected a whole number from 0 to 2^32 - 1, got {shown(seed)}")
        return self.draw(n, operator.index(seed)) if n else np.empty((0, self.features))

    def log_prob(self, x: Any) -> np.ndarray:
        """Log-density in nats [n], float64, of rows x [n, d]; -inf where there is none. Raises ShapeError, and
        DataError for NaN."""
        x = np.asarray(x, float)
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ShapeError(f"x: expected shape [n, {self.features}], got {list(x.shape)}")
        if np.isnan(x).any():
            raise DataError(f"x: expected numbers, got NaN in row {int(np.isnan(x).any(1).argmax())}; drop such rows")
        finite = np.isfinite(x).all(1)
        with np.errstate(over="ignore", divide="ignore"):
            found = self.log_density(np.where(finite[:, None], x, 0.0))
        return np.where(finite, found, -np.inf)


def positive(name: str, value: Any) -> float:
    """The value of an option that must be above zero and finite. Raises DataError."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
        raise DataError(f"{name}: expected a positive number, got {shown(value)}")
    return float(value)


def counted(name: str, value: Any, least: int = 1) -> int:
    """The value of an option that counts something. Raises DataError."""
    try:
        return whole(name, value, least)
    except ShapeError as error:
        raise DataError(str(error)) from None


def panels(edges: np.ndarray, order: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights [p order] of the Gauss-Legendre rule in each of the p panels between edges [p + 1].

    >>> nodes, weights = panels(np.array([0.0, 1.0, 3.0]))
    >>> round(float(weights @ nodes**2), 9)
    9.0
    """
    node, weight = np.polynomial.legendre.leggauss(order)
    low, width = edges[:-1, None], np.diff(edges)[:, None]
    return (low + width * (node + 1) / 2).ravel(), (width * weight / 2).ravel()


def entropy_on_grid(
    log_density: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray, step: float
) -> float:
    """-integral of p log p over the box from low [d] to high [d] by the trapezoidal rule, which is exact but for
    exp(-2 pi^2 s^2 / step^2) where p is smoothed by a Gaussian of spread s (Trefethen and Weideman 2014)."""
    axes = [np.arange(a, b + step, step) for a, b in zip(low, high, strict=True)]
    total, some = 0.0, max(1, ROWS // math.prod(len(axis) for axis in axes[1:]))
    for i in range(0, len(axes[0]), some):
        rows = np.stack(np.meshgrid(axes[0][i : i + some], *axes[1:], indexing="ij"), -1)
        total -= float(weighed(log_density(rows.reshape(-1, len(axes)))).sum())
    return total * float(step) ** len(axes)


def weighed(log_density: np.ndarray) -> np.ndarray:
    """p log p, zero where p is."""
    return np.exp(log_density) * np.maximum(log_density, -1e300)
