"""Monotone rational-quadratic splines of the line and of the circle, with the closed form of their gradient."""

import math
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo import kernels
from diffeo.errors import ShapeError, shown, whole
from diffeo.scalars.base import Move, Scalar, spread
from diffeo.tracing import is_watched

__all__ = ["LOG_STEEPEST", "SMALLEST_BIN", "spline"]

SMALLEST_BIN = 1e-3  # width and height of a bin, as a share of the interval
LOG_STEEPEST = math.log(1e3)  # slopes at the knots lie within 1e-3 .. 1e3
LOG_WIDEST = math.log(4)  # a learned bound lies within 1/4 .. 4 of the given one
MOST_BINS = 500  # half the interval is then left to be learned
BISECTIONS = 3  # safeguarded Newton steps after the closed form; double precision needs one or two


def spline(
    bins: int = 8,
    bound: float = 8.0,
    tails: Literal["linear", "circular"] = "linear",
    learned_bound: bool = False,
) -> Scalar:
    """Monotone rational-quadratic spline of ``bins`` bins (arXiv 1906.04032).

    In a bin of width w, height h, mean slope s = h/w and end slopes d0, d1, with t = (x - x0)/w and u = 1 - t,

        y = y0 + h (s t^2 + d0 t u) / D,   D = s (t^2 + u^2) + (d0 + d1) t u,
        dy/dx = s^2 (d1 t^2 + 2 s t u + d0 u^2) / D^2.

    ``tails="linear"``: the identity outside [-bound, bound], joined with slope 1; width 3 bins - 1.
    ``tails="circular"``: x is an angle, any real number, wrapped to [-pi, pi); one slope shared by both ends, and a
    rotation (arXiv 2002.02428); width 3 bins + 1, bound not used.
    ``learned_bound=True``: one raw number more, the last, widens or narrows the interval, by a factor within 1/4 .. 4.

    >>> scalar = spline(bins=4)
    >>> x, raw = torch.linspace(-9, 9, 7), torch.linspace(-3, 3, 11)[:, None]
    >>> y, log_slope = scalar.forward(x, raw)
    >>> back, log_back = scalar.inverse(y, raw)
    >>> bool((back - x).abs().max() < 1e-5), bool((log_slope + log_back).abs().max() < 1e-4)
    (True, True)
    """
    if whole("bins", bins) > MOST_BINS:
        raise ShapeError(f"bins: expected at most {MOST_BINS}, got {bins}")
    if not 0 < bound < math.inf:
        raise ShapeError(f"bound: expected a finite number above 0, got {bound!r}")
    if tails not in ("linear", "circular"):
        raise ShapeError(f"tails: expected linear or circular, got {shown(tails)}")
    if tails == "circular":
        if learned_bound:
            raise ShapeError("learned_bound: a circle has no bound; leave it out, or take linear tails")
        return _circular(bins)
    return _rescaled(_linear(bins, bound), bound) if learned_bound else _linear(bins, bound)


def _linear(bins: int, bound: float) -> Scalar:
    """The spline on [-bound, bound], the identity outside."""

    def move(inverse: bool, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        fits = x.shape == raw.shape[1:] and kernels.fits(x, raw)  # nothing to be spread then
        wide, raw = (x, raw) if fits else spread(x, raw)
        y, log_slope = _move(wide, raw, bins, bound, inverse)
        return y.to(x.dtype), log_slope

    return Scalar(f"spline{bins}", 3 * bins - 1, partial(move, False), partial(move, True))


def _move(x: Tensor, raw: Tensor, bins: int, bound: float, inverse: bool) -> tuple[Tensor, Tensor]:
    """The spline or its inverse, by the kernel where it fits: raw [3 bins - 1, *x.shape] for the identity outside
    [-bound, bound], [3 bins, *x.shape] for the circle."""
    if kernels.fits(x, raw):
        return kernels.fused(x, raw, bins, bound, inverse, _reference)
    return _reference(x, raw, bins, bound, inverse)


def _reference(x: Tensor, raw: Tensor, bins: int, bound: float, inverse: bool) -> tuple[Tensor, Tensor]:
    """What `_move` is to give, by tensor operations."""
    step = _unspline if inverse else _spline
    if raw.shape[0] == 3 * bins:
        return step(x, raw, bins, bound)
    inside = (x >= -bound) & (x <= bound)
    y, log_slope = step(x.clamp(-bound, bound), raw, bins, bound)
    return torch.where(inside, y, x), torch.where(inside, log_slope, torch.zeros_like(log_slope))


def _rescaled(scalar: Scalar, bound: float) -> Scalar:
    """y = c f(x / c), c = exp(l tanh(raw[-1] / l)): the same curve on an interval c times as wide."""

    def factor(raw: Tensor) -> Tensor:
        return torch.exp(LOG_WIDEST * torch.tanh(raw[-1] / LOG_WIDEST))

    def move(step: Move, x: Tensor, raw: Tensor, wide: Tensor) -> tuple[Tensor, Tensor]:
        c = factor(raw)
        inside = wide.abs() <= bound * c
        y, log_slope = step(torch.where(inside, wide, 0.0) / c, raw[:-1])
        y, log_slope = torch.where(inside, c * y, wide), torch.where(inside, log_slope, torch.zeros_like(log_slope))
        return y.to(x.dtype), log_slope

    def forward(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        wide, raw = spread(x, raw)
        return move(scalar.forward, x, raw, wide)

    def inverse(y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        wide, raw = spread(y, raw)
        x, log_slope = move(scalar.inverse, y, raw.double(), wide.double())
        return x, log_slope.to(wide.dtype)

    return Scalar(f"free_{scalar.name}", scalar.width + 1, forward, inverse)


def _circular(bins: int) -> Scalar:
    """The spline on the circle, followed by a rotation of less than half a turn either way."""

    def rotation(raw: Tensor) -> Tensor:
        return math.pi * torch.tanh(raw[-1] / math.pi)

    def forward(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        wide, raw = spread(x, raw)
        y, log_slope = _move(_wrap(wide), raw[:-1], bins, math.pi, False)
        return _wrap(y + rotation(raw)).to(x.dtype), log_slope

    def inverse(y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        wide, raw = spread(y, raw)
        x, log_slope = _move(_wrap(wide - rotation(raw)), raw[:-1], bins, math.pi, True)
        return _wrap(x).to(y.dtype), log_slope

    return Scalar(f"circular_spline{bins}", 3 * bins + 1, forward, inverse)


def _wrap(x: Tensor) -> Tensor:
    """The angle x brought to [-pi, pi]; an angle already there is left as it is, to the last bit."""
    turned = torch.remainder(x + math.pi, 2 * math.pi) - math.pi
    return torch.where((x >= -math.pi) & (x < math.pi), x, turned).clamp(-math.pi, math.pi)


class _Bin(NamedTuple):
    """The bin a number fell into: its place [1, *shape], corners (x0, y0) and (x1, y1), and the raw slopes there.

    ``shares`` [2, bins, *shape] is what the softmax gives to every bin.
    """

    shares: Tensor
    place: Tensor
    x0: Tensor
    x1: Tensor
    y0: Tensor
    y1: Tensor
    r0: Tensor
    r1: Tensor


def _locate(at: Tensor, by: int, raw: Tensor, bins: int, bound: float) -> _Bin:
    """The bin that holds ``at``, a number in [-bound, bound], among the x knots (by=0) or the y knots (by=1)."""
    sizes, slopes = raw.split([2 * bins, raw.shape[0] - 2 * bins])
    shares = torch.softmax(sizes.unflatten(0, (2, bins)), 1)
    least = torch.full((), 2 * bound * SMALLEST_BIN, dtype=raw.dtype, device=raw.device)
    sizes = torch.add(least, shares, alpha=2 * bound * _free(bins))
    knots = [torch.full_like(sizes[:, 0], -bound)]
    for size in sizes.unbind(1)[:-1]:
        knots.append(knots[-1] + size)
    knots.append(-knots[0])  # the ends are pinned
    table = torch.stack(knots, 1)
    index = (at >= table[by, 1:-1].detach()).sum(0, keepdim=True)
    both = index.expand(2, 1, *at.shape)
    (x0, y0), (x1, y1) = table.gather(1, both)[:, 0], table.gather(1, both + 1)[:, 0]
    if slopes.shape[0] == bins:  # on the circle one slope serves both ends
        r0, r1 = slopes.gather(0, index)[0], slopes.gather(0, (index + 1) % bins)[0]
    else:  # a slope of 1 at either end
        slopes = F.pad(slopes, (0, 0) * at.ndim + (1, 1))
        r0, r1 = slopes.gather(0, index)[0], slopes.gather(0, index + 1)[0]
    return _Bin(shares, index, x0, x1, y0, y1, r0, r1)


def _free(bins: int) -> float:
    """The part of the interval that is shared out by the softmax, the rest being every bin's least size."""
    return 1 - bins * SMALLEST_BIN


def _slope(raw: Tensor) -> Tensor:
    """A slope within 1e-3 .. 1e3, 1 for raw 0."""
    return torch.exp(LOG_STEEPEST * torch.tanh(raw / LOG_STEEPEST))


def _curve(t: Tensor, u: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> tuple[Tensor, Tensor]:
    """The share of the bin's height reached at t = 1 - u, and the slope; the denominator sums positive terms."""
    tu, tt, uu = t * u, t * t, u * u
    below = s * (tt + uu) + (d0 + d1) * tu
    ratio = s / below
    return (s * tt + d0 * tu) / below, ratio * ratio * (d1 * tt + 2 * s * tu + d0 * uu)


def _spline(x: Tensor, raw: Tensor, bins: int, bound: float) -> tuple[Tensor, Tensor]:
    """The spline at x within [-bound, bound]: (y, log dy/dx), with the closed form of its gradient where one is due."""
    learns = torch.is_grad_enabled() and (x.requires_grad or raw.requires_grad)
    if not learns or is_watched(x, raw):
        return _evaluate(x, _locate(x, 0, raw, bins, bound))
    y, log_slope, *_ = _Spline.apply(x, raw, bins, bound)
    return y, log_slope


def _evaluate(x: Tensor, b: _Bin) -> tuple[Tensor, Tensor]:
    """The curve of the bin that holds x: (y, log dy/dx)."""
    width, height = b.x1 - b.x0, b.y1 - b.y0
    t, u = (x - b.x0) / width, (b.x1 - x) / width
    share, slope = _curve(t, u, height / width, _slope(b.r0), _slope(b.r1))
    return b.y0 + height * share, slope.log()


class _Spline(torch.autograd.Function):
    """`_evaluate` of `_locate` with its gradient written out; higher derivatives are autograd's of those two."""

    @staticmethod
    def forward(x: Tensor, raw: Tensor, bins: int, bound: float) -> tuple[Tensor, ...]:
        b = _locate(x, 0, raw, bins, bound)
        return *_evaluate(x, b), *b

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        x, raw, ctx.bins, ctx.bound = inputs
        ctx.save_for_backward(x, raw, *output[2:])
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, gy: Tensor | None, gl: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        x, raw, *parts = ctx.saved_tensors
        gy, gl = (torch.zeros_like(x) if g is None else g for g in (gy, gl))
        if not torch.is_grad_enabled():
            return *_pull_back(x, raw, _Bin(*parts), gy, gl, ctx.bins, ctx.bound), None, None
        again = kernels.slopes_again(
            lambda x, raw: _evaluate(x, _locate(x, 0, raw, ctx.bins, ctx.bound)), (x, raw), (gy, gl)
        )
        return *again, None, None


def _pull_back(
    x: Tensor, raw: Tensor, b: _Bin, gy: Tensor, gl: Tensor, bins: int, bound: float
) -> tuple[Tensor, Tensor]:
    """Gradients of y and log dy/dx, weighted gy and gl, with respect to x and raw."""
    width, height = b.x1 - b.x0, b.y1 - b.y0
    t, u, s = (x - b.x0) / width, (b.x1 - x) / width, height / width
    bent = torch.tanh(torch.stack([b.r0, b.r1]) / LOG_STEEPEST)
    slopes = torch.exp(LOG_STEEPEST * bent)
    d0, d1 = slopes
    tu, tt, uu, both = t * u, t * t, u * u, d0 + d1
    ends = tt + uu
    below, climb = (s * ends + both * tu).reciprocal(), d1 * tt + 2 * s * tu + d0 * uu
    share = (s * tt + d0 * tu) * below
    up, gq, gd = gy * height * below, gl / climb, 2 * gl * below  # per unit of numerator, climb, -denominator
    gt = up * s * climb * below + 2 * gq * (d1 * t + s * (u - t) - d0 * u) - gd * (u - t) * (both - 2 * s)
    gs = up * (tt - share * ends) + 2 * (gq * tu + gl / s) - gd * ends
    common = tu * (up * share + gd)
    gslopes = torch.stack([up * tu + gq * uu - common, gq * tt - common]) * slopes * (1 - bent * bent)
    gx = gt / width
    corner = torch.stack([-gx, gy])
    size = torch.stack([-(gs * s + gt * t) / width, gy * share + gs / width])
    return gx, _spread_out(raw, b, corner, size, gslopes, bins, bound)


def _spread_out(raw: Tensor, b: _Bin, corner: Tensor, size: Tensor, gslopes: Tensor, bins: int, bound: float) -> Tensor:
    """Gradients [2, *shape] of the bin's lower corner, its size and its end slopes -> of raw [width, *shape].

    The softmax passes on share * (gradient - mean), where a bin before this one moves the corner, this one the size.
    """
    scale = 2 * bound * _free(bins)
    graw = raw.new_empty(3 * bins, *raw.shape[1:])
    if raw.shape[0] == 3 * bins:
        ends, after = graw[2 * bins :].zero_(), (b.place + 1) % bins
    else:  # the slopes at both ends are fixed: the row before is written below, the row after is left out
        ends, after = graw[2 * bins - 1 :].zero_(), b.place + 1
    ends.scatter_add_(0, b.place, gslopes[:1]).scatter_add_(0, after, gslopes[1:])
    place = b.place.to(raw.dtype)
    before = (place - torch.arange(bins, dtype=raw.dtype, device=raw.device).view(-1, *(1,) * (raw.ndim - 1))).clamp_(
        0, 1
    )
    low, own = torch.stack([b.x0, b.y0]), torch.stack([b.x1 - b.x0, b.y1 - b.y0])
    least = 2 * bound * SMALLEST_BIN
    mean = corner * (low + bound - least * place) + size * (own - least)
    gsizes = graw[: 2 * bins].unflatten(0, (2, bins))
    torch.mul(before, (scale * corner)[:, None], out=gsizes)
    gsizes.sub_(mean[:, None]).scatter_add_(1, b.place.expand(2, 1, *raw.shape[1:]), (scale * size)[:, None])
    gsizes.mul_(b.shares)
    return graw[: raw.shape[0]]


def _unspline(y: Tensor, raw: Tensor, bins: int, bound: float) -> tuple[Tensor, Tensor]:
    """The x that the spline sends to y within [-bound, bound], and log dx/dy: minus the forward log-slope at that x.

    Computed in float64: where the slope is 1e-3, y holds x to a thousandth of its own precision, and float32 knots
    alone would misplace x by more than y's rounding does. The closed form starts a safeguarded Newton iteration; its
    last two steps are differentiable, so that first and second derivatives are those of the exact inverse.
    """
    dtype = y.dtype
    y, raw = y.double(), raw.double()
    b = _locate(y, 1, raw, bins, bound)
    width, height, d0, d1 = b.x1 - b.x0, b.y1 - b.y0, _slope(b.r0), _slope(b.r1)
    s, share = height / width, (y - b.y0) / height
    with torch.no_grad():
        t = _root(share, s, d0, d1)
    for _ in range(2):
        reached, slope = _curve(t, 1 - t, s, d0, d1)
        step = t - (reached - share) * s / slope
        t = step + (step.clamp(0, 1) - step).detach()  # within the bin, the gradient kept
    _, slope = _curve(t, 1 - t, s, d0, d1)
    return (b.x0 + width * t).to(dtype), -slope.log().to(dtype)


def _root(share: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> Tensor:
    """The t in [0, 1] at which the curve reaches ``share``."""
    bend = share * (d0 + d1 - 2 * s)
    a, b, c = s - d0 + bend, d0 - bend, s * share
    spread = (b * b + 4 * a * c).clamp(min=0).sqrt()
    up = b + spread
    t = torch.where(b >= 0, 2 * c / torch.where(b >= 0, up, 1.0), (spread - b) / torch.where(b >= 0, 1.0, 2 * a))
    t, low, high = t.clamp(0, 1), torch.zeros_like(t), torch.ones_like(t)
    for _ in range(BISECTIONS):
        reached, slope = _curve(t, 1 - t, s, d0, d1)
        low, high = torch.where(reached <= share, t, low), torch.where(reached >= share, t, high)
        step = t - (reached - share) * s / slope
        t = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
    return t
