"""The grid that rounded values lie on: multiples of a step, perhaps under a logarithm or a reciprocal."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

Warp = Literal["identity", "exp10", "exp10neg", "exp", "expneg", "reciprocal"]
WARPS: tuple[Warp, ...] = ("identity", "exp10", "exp10neg", "reciprocal", "exp", "expneg")
_FURTHEST = 2.0**53  # whole numbers are exact up to here


def warped(v: np.ndarray, warp: Warp) -> np.ndarray:
    """g(v), elementwise: the scale on which the values are evenly spaced.

    >>> float(warped(np.array(2.0), "exp10"))
    100.0
    """
    with np.errstate(all="ignore"):
        if warp == "exp10":
            return np.power(10.0, v)
        if warp == "exp10neg":
            return np.power(10.0, -v)
        if warp == "exp":
            return np.exp(v)
        if warp == "expneg":
            return np.exp(-v)
        return 1.0 / v if warp == "reciprocal" else v


def unwarped(g: np.ndarray, warp: Warp) -> np.ndarray:
    """The inverse of `warped`.

    >>> float(unwarped(np.array(4.0), "reciprocal"))
    0.25
    """
    with np.errstate(all="ignore"):
        if warp == "exp10":
            return np.log10(g)
        if warp == "exp10neg":
            return -np.log10(g)
        if warp == "exp":
            return np.log(g)
        if warp == "expneg":
            return -np.log(g)
        return 1.0 / g if warp == "reciprocal" else g


class Grid(BaseModel):
    """Values v with g(v) = offset + step * k for whole numbers k; g is the `warp`.

    `digits`: values are exact decimals with so many digits behind the point (None: as the arithmetic gives them);
    `slack`: how far the file's values stray from the grid (arithmetic noise); `single`: the file holds float32.

    >>> grid = Grid(step=0.01, digits=2)
    >>> grid.snap(np.array([0.0699, 0.2951])).tolist()
    [0.07, 0.3]
    >>> [edge.round(4).tolist() for edge in grid.cell(np.array([0.07]))]
    [[0.065], [0.075]]
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    step: float = Field(gt=0)
    offset: float = 0.0
    warp: Warp = "identity"
    digits: int | None = None
    slack: float = Field(default=0.0, ge=0)
    single: bool = False

    def index(self, v: np.ndarray) -> np.ndarray:
        """The whole number k (as float64) of the grid value nearest to each v; NaN stays NaN."""
        with np.errstate(all="ignore"):
            k = np.rint((warped(np.asarray(v, float), self.warp) - self.offset) / self.step)
        return np.clip(k, -_FURTHEST if self.warp == "identity" else 1.0, _FURTHEST)

    def value(self, k: np.ndarray) -> np.ndarray:
        """The value at index k, in the file's units and exactly as the file writes it; float64."""
        if self.warp == "identity" and self.digits is not None:
            scale = 10.0**self.digits
            v = (np.rint(self.offset * scale) + np.rint(self.step * scale) * k) / scale
        else:
            v = unwarped(self.offset + self.step * k, self.warp)
            v = v if self.digits is None else np.round(v, self.digits)
        return v.astype(np.float32).astype(float) if self.single else v

    def snap(self, v: np.ndarray) -> np.ndarray:
        """The nearest value of the grid, exactly as the file has it."""
        return self.value(self.index(v))

    def cell(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(low, high): the edges, in the file's units, of the values that round to the same one; low < high."""
        k = self.index(v)
        one = unwarped(self.offset + self.step * (k - 0.5), self.warp)
        other = unwarped(self.offset + self.step * (k + 0.5), self.warp)
        low, high = np.minimum(one, other), np.maximum(one, other)
        flat = low >= high
        return np.where(flat, np.nextafter(low, -np.inf), low), np.where(flat, np.nextafter(high, np.inf), high)

    def __str__(self) -> str:
        off = f" from {self.offset:g}" if self.offset else ""
        under = "" if self.warp == "identity" else f" under {self.warp}"
        return f"{self.step:.10g}{off}{under}"
