"""Linear and quadratic splines: densities that are constant, or linear, in every bin (arXiv 1808.03856)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo.errors import ShapeError, whole
from diffeo.scalars.base import Scalar, spread
from diffeo.scalars.rational import LOG_STEEPEST, MOST_BINS, SMALLEST_BIN

__all__ = ["linear_spline", "quadratic_spline"]

LEAST_SLOPE = 1e-3

Step = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


def linear_spline(bins: int = 8, bound: float = 8.0) -> Scalar:
    """Straight in each of ``bins`` bins of one width on [-bound, bound], which rise by a softmax's shares, none by
    less than 1e-3 of the interval (arXiv 1808.03856, section 4.1); the identity outside. Width ``bins``.

    The slope jumps at the knots, the ends of the interval among them, and with it the density: a histogram. So
    gradients with respect to x tell nothing of a log-density; choose a smoother one where they are wanted.

    >>> scalar, raw = linear_spline(2, bound=1.0), torch.tensor([[0.0], [math.log(3)]])
    >>> scalar.forward(torch.tensor([-0.5, 0.5, 7.0]), raw)[0]
    tensor([-0.7495,  0.2505,  7.0000])
    """
    _check(bins, bound)
    return _within(f"linear_spline{bins}", bins, bound, _line, _unline)


def quadratic_spline(bins: int = 8, bound: float = 8.0) -> Scalar:
    """A parabola in each of ``bins`` bins on [-bound, bound], its slope continuous and linear in each (arXiv
    1808.03856, section 4.2); the identity outside, joined with slope 1. With t = (x - x0)/w and end slopes d0, d1

        y = y0 + w (d0 t + (d1 - d0) t^2 / 2),   dy/dx = d0 + (d1 - d0) t.

    Widths are a softmax's shares, none less than 1e-3 of the interval; the slopes inside, at least 1e-3, are scaled
    so that the interval is mapped onto itself. Width 2 bins - 1.

    >>> scalar, raw = quadratic_spline(3), torch.linspace(-2, 2, 5)[:, None]
    >>> x = torch.linspace(-9, 9, 7)
    >>> y, log_slope = scalar.forward(x, raw)
    >>> bool(torch.allclose(scalar.inverse(y, raw)[0], x, atol=1e-4))
    True
    """
    _check(bins, bound)
    return _within(f"quadratic_spline{bins}", 2 * bins - 1, bound, _parabola, _unparabola)


def _check(bins: int, bound: float) -> None:
    if whole("bins", bins) > MOST_BINS:
        raise ShapeError(f"bins: expected at most {MOST_BINS}, got {bins}")
    if not 0 < bound < math.inf:
        raise ShapeError(f"bound: expected a finite number above 0, got {bound!r}")


def _within(name: str, width: int, bound: float, step: Step, unstep: Step) -> Scalar:
    """The step within (-bound, bound), the identity elsewhere; the way back in float64."""

    def forward(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        wide, raw = spread(x, raw)
        inside = wide.abs() < bound
        y, log_slope = step(wide.clamp(-bound, bound), raw, bound)
        return torch.where(inside, y, wide).to(x.dtype), torch.where(inside, log_slope, torch.zeros_like(log_slope))

    def inverse(y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        wide, raw = spread(y, raw)
        inside = wide.abs() < bound
        x, log_slope = unstep(wide.clamp(-bound, bound).double(), raw.double(), bound)
        x, log_slope = x.to(wide.dtype), log_slope.to(wide.dtype)
        return torch.where(inside, x, wide).to(y.dtype), torch.where(inside, log_slope, torch.zeros_like(log_slope))

    return Scalar(name, width, forward, inverse)


def _shares(raw: Tensor) -> Tensor:
    """Shares [k, ...] of one whole, each at least 1e-3."""
    return SMALLEST_BIN + (1 - SMALLEST_BIN * raw.shape[0]) * torch.softmax(raw, 0)


def _knots(sizes: Tensor, bound: float) -> Tensor:
    """Where bins of these sizes [k, ...] begin and end on [-bound, bound], its ends pinned: [k + 1, ...]."""
    ends = torch.full_like(sizes[:1], bound)
    return torch.cat([-ends, sizes[:-1].cumsum(0) - bound, ends])


def _among(at: Tensor, knots: Tensor) -> Tensor:
    """The bin [1, ...] that holds ``at``."""
    return (at >= knots[1:-1].detach()).sum(0, keepdim=True)


def _pick(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(0, index)[0]


def _line(x: Tensor, raw: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    bins = raw.shape[0]
    shares = _shares(raw)
    place = (x + bound) * (bins / (2 * bound))
    index = _among(place, torch.arange(bins + 1, device=x.device).view(-1, *(1,) * x.ndim))
    low, share = _pick(_knots(2 * bound * shares, bound), index), _pick(shares, index)
    return low + 2 * bound * share * (place - index[0].to(x.dtype)), (bins * share).log()


def _unline(y: Tensor, raw: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    bins = raw.shape[0]
    shares = _shares(raw)
    knots = _knots(2 * bound * shares, bound)
    index = _among(y, knots)
    low, share = _pick(knots, index), _pick(shares, index)
    place = index[0].to(y.dtype) + (y - low) / (2 * bound * share)
    return place * (2 * bound / bins) - bound, -(bins * share).log()


def _bins(raw: Tensor, bound: float) -> tuple[Tensor, Tensor, Tensor]:
    """Widths [k, ...], slopes at the knots [k + 1, ...] and heights [k, ...], which add up to 2 bound."""
    bins = (raw.shape[0] + 1) // 2
    widths = 2 * bound * _shares(raw[:bins])
    inner = torch.exp(LOG_STEEPEST * torch.tanh(raw[bins:] / LOG_STEEPEST))
    reach = (widths[1:] + widths[:-1]) / 2  # of the slope at each inner knot
    rise = reach.sum(0)  # what the inner knots must account for, as they do where every slope is 1
    inner = LEAST_SLOPE + (1 - LEAST_SLOPE) * inner * (rise / (inner * reach).sum(0).clamp(min=1e-30))
    slopes = F.pad(inner, (0, 0) * (raw.ndim - 1) + (1, 1), value=1.0)
    return widths, slopes, widths * (slopes[1:] + slopes[:-1]) / 2


def _parabola(x: Tensor, raw: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    widths, slopes, heights = _bins(raw, bound)
    knots = _knots(widths, bound)
    index = _among(x, knots)
    t = (x - _pick(knots, index)) / _pick(widths, index)
    share, slope = _rise(t, _pick(slopes, index), _pick(slopes, index + 1))
    return _pick(_knots(heights, bound), index) + _pick(widths, index) * share, slope.log()


def _rise(t: Tensor, d0: Tensor, d1: Tensor) -> tuple[Tensor, Tensor]:
    """How far the curve has risen at t, per unit of the bin's width, and the slope."""
    return t * (d0 + (d1 - d0) * t / 2), d0 + (d1 - d0) * t


def _unparabola(y: Tensor, raw: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """By the root of the parabola that does not cancel, and two Newton steps, which are differentiable."""
    widths, slopes, heights = _bins(raw, bound)
    knots = _knots(heights, bound)
    index = _among(y, knots)
    width, d0, d1 = _pick(widths, index), _pick(slopes, index), _pick(slopes, index + 1)
    share = (y - _pick(knots, index)) / width
    with torch.no_grad():
        t = 2 * share / (d0 + (d0.square() + 2 * (d1 - d0) * share).clamp(min=0).sqrt())
        t = t.clamp(0, 1)
    for _ in range(2):
        reached, slope = _rise(t, d0, d1)
        step = t - (reached - share) / slope
        t = step + (step.clamp(0, 1) - step).detach()  # within the bin, the gradient kept
    return _pick(_knots(widths, bound), index) + width * t, -_rise(t, d0, d1)[1].log()
