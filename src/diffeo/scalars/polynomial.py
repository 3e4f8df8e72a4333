"""Bernstein polynomials as increasing maps of the line."""

import math

import torch
from torch import Tensor

from diffeo.errors import ShapeError, whole
from diffeo.scalars.base import Scalar, aligned, within
from diffeo.scalars.rational import LOG_STEEPEST
from diffeo.scalars.roots import continued, inverted

__all__ = ["bernstein"]

HIGHEST = 64  # degree, beyond which binomials and powers cost more than they tell
BINOMIALS = [[float(math.comb(m, i)) for i in range(m + 1)] for m in range(HIGHEST + 1)]


def bernstein(degree: int = 8, bound: float = 8.0) -> Scalar:
    """A Bernstein polynomial of this degree on [-bound, bound] (arXiv 2004.00464), straight on beyond. With
    t = (x + bound) / (2 bound) and B_im(t) = binomial(m, i) t^i (1 - t)^(m - i),

        y = sum_i c_i B_im(t),   dy/dx = sum_i exp(s_i) B_i,m-1(t),   c_(i+1) = c_i + exp(s_i) 2 bound / m:

    the slope is an average of the exp(s_i), each within 1e-3 .. 1e3, so the map is increasing, onto, and as well
    conditioned as a spline; at 0 parameters it is exactly the identity, as these polynomials reproduce straight lines.
    (A sum of squares, arXiv 1905.02325, has none of the three: its slope may vanish, and grows without end.) The last
    parameter shifts. Width degree + 1. The inverse is a bracketed Newton iteration in float64, in a bracket that
    the tangents at the ends give for every y.

    >>> scalar, raw = bernstein(3), torch.tensor([1.0, -1.0, 0.5, 2.0])[:, None]
    >>> x = torch.tensor([-1e6, -1.0, 0.0, 3.0, 1e6])
    >>> bool(torch.allclose(scalar.inverse(scalar.forward(x, raw)[0], raw)[0], x, atol=1e-5))
    True
    """
    if whole("degree", degree) > HIGHEST:
        raise ShapeError(f"degree: expected at most {HIGHEST}, got {degree}")
    if not 0 < bound < math.inf:
        raise ShapeError(f"bound: expected a finite number above 0, got {bound!r}")

    def curve(x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        return continued(lambda x: _curve(x, bound, *parameters), x, -bound, bound)

    def forward(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        wide, raw = aligned(x, raw)
        y, log_slope = curve(within(wide), *_coefficients(raw, bound))
        return y.to(x.dtype), log_slope

    def inverse(y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        wide, raw = aligned(y, raw)
        wide, dtype = within(wide).double(), wide.dtype
        coefficients, slopes = _coefficients(raw.double(), bound)
        first, last = (wide - coefficients[0]) / slopes[0], (wide - coefficients[-1]) / slopes[-1]
        low, high = first.clamp(max=0) - bound, last.clamp(min=0) + bound
        start = torch.where(first < 0, low, torch.where(last > 0, high, wide.clamp(-bound, bound)))
        x, log_slope = inverted(curve, (coefficients, slopes), wide, low, high, start)
        return x.to(y.dtype), log_slope.to(dtype)

    return Scalar(f"bernstein{degree}", degree + 1, forward, inverse)


def _coefficients(raw: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """The coefficients [m + 1, ...], about the shift, and the slopes [m, ...] that lead from one to the next."""
    slopes = torch.exp(LOG_STEEPEST * torch.tanh(raw[:-1] / LOG_STEEPEST))
    steps = slopes * (2 * bound / len(slopes))
    rising = torch.cat([torch.zeros_like(steps[:1]), steps.cumsum(0)])
    return rising - rising[-1:] / 2 + raw[-1:], slopes


def _curve(x: Tensor, bound: float, coefficients: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """(y, log dy/dx) at x within [-bound, bound]."""
    t, u = (x + bound) / (2 * bound), (bound - x) / (2 * bound)
    ups, downs = _powers(t, len(slopes)), _powers(u, len(slopes))
    return _mean(coefficients, ups, downs), _mean(slopes, ups, downs).log()


def _powers(t: Tensor, most: int) -> list[Tensor]:
    powers = [torch.ones_like(t)]
    for _ in range(most):
        powers.append(powers[-1] * t)
    return powers


def _mean(values: Tensor, ups: list[Tensor], downs: list[Tensor]) -> Tensor:
    """The values [m + 1, ...] averaged by the Bernstein polynomials of degree m."""
    m = len(values) - 1
    return torch.stack([BINOMIALS[m][i] * values[i] * ups[i] * downs[m - i] for i in range(m + 1)]).sum(0)
