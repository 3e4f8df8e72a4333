"""Mixture distribution functions as increasing maps, and their stacks, accurate in both tails."""

import math
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo.errors import ShapeError, shown, whole
from diffeo.scalars.base import Scalar, aligned, within
from diffeo.scalars.roots import continued, inverted

__all__ = ["mixture_cdf", "mixture_start", "sigmoidal"]

LOG_SCALE_LIMIT = 3.0  # scales lie within e^-3 .. e^3
LEAST_SLOPE = 1e-6  # of the identity is mixed in, so that no gap between components is a step without an inverse
FAR = 1e4  # beyond it the map goes on straight
ROOT_HALF = math.sqrt(0.5)
LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)


class _Kind(NamedTuple):
    """A symmetric distribution G with density g, steered by `offset` and `matched`, and three functions of it."""

    offset: float  # root mean square of those of the components where raw is 0
    matched: bool  # whether they are then so narrow that their variance and the offset's make 1
    cdf: Callable[[Tensor], Tensor]
    tail: Callable[[Tensor], tuple[Tensor, Tensor]]  # v -> log G(v), log g(v)/G(v)
    quantile: Callable[[Tensor], Tensor]  # log G(v) of at most log 1/2 -> v


def _normal_tail(v: Tensor) -> tuple[Tensor, Tensor]:
    """By the scaled error function below zero, where Phi(v) = erfcx(-v / sqrt 2) exp(-v^2 / 2) / 2."""
    below, above = v.clamp(max=0), v.clamp(min=0)
    scaled = torch.special.erfcx(below * -ROOT_HALF).log()
    log_cdf = torch.where(
        v < 0,
        scaled - 0.5 * below.square() - math.log(2),
        torch.log1p(-0.5 * torch.special.erfc(above * ROOT_HALF)),
    )
    high = -0.5 * above.square() - LOG_ROOT_2PI - log_cdf
    return log_cdf, torch.where(v < 0, math.log(2) - LOG_ROOT_2PI - scaled, high)


def _normal_quantile(log_level: Tensor) -> Tensor:
    """z with log Phi(z) = log_level, by Newton steps in logarithms; the last two are differentiable."""
    with torch.no_grad():
        root = (-2 * log_level).clamp(min=4).sqrt()
        tail = -(root.square() - 2 * root.log() - 2 * LOG_ROOT_2PI).sqrt()
        z = torch.where(log_level > -20, torch.special.ndtri(log_level.clamp(min=-20).exp()), tail)
        z = _newton(_newton(z, log_level), log_level)
    return _newton(_newton(z, log_level), log_level)


def _newton(z: Tensor, log_level: Tensor) -> Tensor:
    log_cdf, log_ratio = _normal_tail(z)
    return z - (log_cdf - log_level) * (-log_ratio).exp()


def _logistic_tail(v: Tensor) -> tuple[Tensor, Tensor]:
    return F.logsigmoid(v), F.logsigmoid(-v)


def _logit(log_level: Tensor) -> Tensor:
    return log_level - torch.log1p(-log_level.exp())


KINDS = {
    "gaussian": _Kind(0.2, True, torch.special.ndtr, _normal_tail, _normal_quantile),
    "logistic": _Kind(0.24, False, torch.sigmoid, _logistic_tail, _logit),
}


class _Mixture(NamedTuple):
    """Components [k, ...]: log-weights, places, and the logs of their inverse scales."""

    log_weights: Tensor
    means: Tensor
    log_slopes: Tensor


def mixture_cdf(components: int = 8, kind: Literal["gaussian", "logistic"] = "gaussian", bound: float = 8.0) -> Scalar:
    """The distribution function of a mixture, made a map of the line: F(x) = sum_k w_k G((x - m_k)/s_k) and

        z = G^-1(F(x)),   dz/dx = F'(x) / g(z),

    G the standard normal distribution function (``gaussian``; Gaussianization, arXiv 2003.01941) or the logistic one,
    so that G^-1 is the logit (``logistic``; Flow++, arXiv 1902.00275). Width 3 components: logits of the weights,
    places within ``bound`` (8) of their offsets, log-scales within 3 of theirs.

    Both tails are counted in logarithms from their own end, so that nothing saturates: far out the map is the widest
    component's straight line (and exactly straight beyond 1e4). A millionth of the identity is mixed in,
    z = 1e-6 x + (1 - 1e-6) G^-1(F(x)), without which a gap between components would be a step that has no inverse.
    The slope is below the greatest 1/s_k, as g(G^-1) is concave.

    Components that all start alike would stay alike, and a mixture is exactly normal only if they are. So the places
    are offset, and for ``gaussian`` the scales matched to a variance of 1: with raw 0 the map is the identity to 0.05
    for |x| <= 8, to 6e-4 for |x| <= 2 (``logistic``: to 0.03 for every x).

    The inverse is a bracketed Newton iteration in float64. F(x) lies between the least and the greatest G((x - m)/s),
    so z lies between straight lines, and these bracket x for every z, however far out.

    >>> scalar, raw = mixture_cdf(2), torch.tensor([0.0, 1.0, -1.0, 1.0, -0.5, -0.5])[:, None]
    >>> x = torch.tensor([-1e15, -2.0, 0.0, 2.0, 1e15])
    >>> z, log_slope = scalar.forward(x, raw)
    >>> back, log_back = scalar.inverse(z, raw)
    >>> bool(torch.allclose(back, x, atol=1e-5)), bool(log_slope.isfinite().all())
    (True, True)
    """
    kind_ = _known(kind)
    start = partial(mixture_start, components=components, kind=kind, bound=bound)
    return _stack(f"{kind}_cdf{components}", components, 1, kind_, bound)._replace(start=start)


def sigmoidal(units: int = 8, layers: int = 2, bound: float = 8.0) -> Scalar:
    """Deep sigmoidal flow, a monotone neural network (arXiv 1804.00779, section 4.1): ``layers`` times over

        y = logit(sum_k w_k sigmoid(a_k (x - m_k))),   w = softmax(.), a_k > 0,

    ``units`` sigmoids a layer: each layer is the logistic `mixture_cdf`, with its bounds (|m_k| <= 8 about an offset,
    |log a_k| <= 3, slopes above 1e-6), its logarithms and its inverse, and so the stack is onto the whole line and can
    be inverted far outside the data, where sigmoids in floating point are 0 or 1. With raw 0 the identity to 0.03 a
    layer. Width 3 units layers.

    >>> scalar, raw = sigmoidal(4), torch.linspace(-2, 2, 24)[:, None]
    >>> x = torch.tensor([-1e3, -1.0, 1.0, 1e3])
    >>> bool(torch.allclose(scalar.inverse(scalar.forward(x, raw)[0], raw)[0], x, rtol=1e-4))
    True
    """
    return _stack(f"sigmoidal{units}x{layers}", units, whole("layers", layers), KINDS["logistic"], bound)


@torch.no_grad()
def mixture_start(
    values: Tensor, components: int = 8, kind: Literal["gaussian", "logistic"] = "gaussian", bound: float = 8.0
) -> Tensor:
    """Raw parameters [3 components, d] of `mixture_cdf` that suit d columns of values [n, d]: places at quantiles, as
    wide as these are apart, equal weights.

    >>> mixture_start(torch.randn(100, 2), components=4).shape
    torch.Size([12, 2])
    """
    levels = (torch.arange(components, dtype=torch.float64, device=values.device) + 0.5) / components
    means = torch.quantile(values.double(), levels, 0)
    gaps = means.diff(dim=0) if components > 1 else values.double().std(0, correction=0, keepdim=True)
    gaps = torch.cat([gaps[:1], (gaps[1:] + gaps[:-1]) / 2, gaps[-1:]])[:components]
    offsets, narrower = _offsets(components, _known(kind), means)
    places = ((means - offsets) / bound).clamp(-0.999, 0.999).atanh() * bound
    log_scales = gaps.clamp(min=1e-9).log() + narrower
    scales = (log_scales / LOG_SCALE_LIMIT).clamp(-0.999, 0.999).atanh() * LOG_SCALE_LIMIT
    return torch.cat([torch.zeros_like(places), places, scales]).to(values.dtype)


def _known(kind: str) -> _Kind:
    if kind not in KINDS:
        raise ShapeError(f"kind: expected gaussian or logistic, got {shown(kind)}")
    return KINDS[kind]


def _offsets(components: int, kind: _Kind, like: Tensor) -> tuple[Tensor, Tensor]:
    """Where components are with raw 0, and the log of how much narrower than 1 [k, 1, ...], as ``like`` [k, ...]."""
    largest = kind.offset * math.sqrt(3 * (components - 1) / (components + 1))
    offsets = torch.linspace(-largest, largest, components, dtype=like.dtype, device=like.device)
    offsets = offsets.view(-1, *(1,) * (like.ndim - 1))
    return offsets, -0.5 * torch.log1p(-offsets.square()) * kind.matched


def _mixture(raw: Tensor, kind: _Kind, bound: float) -> _Mixture:
    logits, places, scales = raw.unflatten(0, (3, -1))
    offsets, narrower = _offsets(len(logits), kind, places)
    means = offsets + bound * torch.tanh(places / bound)
    log_slopes = narrower - LOG_SCALE_LIMIT * torch.tanh(scales / LOG_SCALE_LIMIT)
    return _Mixture(torch.log_softmax(logits, 0), means, log_slopes)


def _curve(x: Tensor, mixture: _Mixture, kind: _Kind) -> tuple[Tensor, Tensor]:
    """(z, log dz/dx) of z = G^-1(sum_k w_k G((x - m_k)/s_k)), counted from the nearer end."""
    log_weights, means, log_slopes = mixture
    u = (x - means) * log_slopes.exp()
    with torch.no_grad():
        upper = (log_weights.exp() * kind.cdf(u)).sum(0) > 0.5
    v = torch.where(upper, -u, u)
    log_cdf, log_ratio = kind.tail(v)
    heights = log_weights + log_cdf
    z = kind.quantile(torch.logsumexp(heights, 0))
    log_slope = torch.logsumexp(torch.log_softmax(heights, 0) + log_slopes + log_ratio, 0) - kind.tail(z)[1]
    return torch.where(upper, -z, z), log_slope


def _firm(x: Tensor, mixture: _Mixture, kind: _Kind) -> tuple[Tensor, Tensor]:
    """The curve with a little of the identity in it, straight far out."""

    def curve(x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_slope = _curve(x, mixture, kind)
        least = torch.full_like(log_slope, math.log(LEAST_SLOPE))
        return LEAST_SLOPE * x + (1 - LEAST_SLOPE) * z, torch.logaddexp(least, log_slope + math.log1p(-LEAST_SLOPE))

    return continued(curve, x, -FAR, FAR)


def _lines(y: Tensor, mixture: _Mixture) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers below and above the x that the curve sends to y, and one between. A mixture of G((x - m)/s) lies between
    the least and the greatest of them, hence z between straight lines, and x between the points where these reach y."""
    slopes = (1 - LEAST_SLOPE) * mixture.log_slopes.exp()
    ends = (y + slopes * mixture.means) / (LEAST_SLOPE + slopes)
    low, high = ends.amin(0), ends.amax(0)
    low, high = low + low.clamp(max=-FAR) + FAR, high + high.clamp(min=FAR) - FAR  # a tangent may leave the lines
    return low, high, (mixture.log_weights.exp() * ends).sum(0)


def _stack(name: str, components: int, layers: int, kind: _Kind, bound: float) -> Scalar:
    width = 3 * whole("components", components)
    if not 0 < bound < FAR:
        raise ShapeError(f"bound: expected a number above 0 and below {FAR:g}, got {bound!r}")

    def curve(x: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for i in range(0, len(parts), 3):
            x, log_slope = _firm(x, _Mixture(*parts[i : i + 3]), kind)
            total = total + log_slope
        return x, total

    def mixtures(raw: Tensor) -> list[_Mixture]:
        return [_mixture(part, kind, bound) for part in raw.split(width)]

    def forward(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        wide, raw = aligned(x, raw)
        y, log_slope = curve(within(wide), *chain(*mixtures(raw)))
        return y.to(x.dtype), log_slope

    def inverse(y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        wide, raw = aligned(y, raw)
        low = high = start = target = within(wide).double()
        layers = mixtures(raw.double())
        for mixture in reversed(layers):
            low, high, start = _lines(low, mixture)[0], _lines(high, mixture)[1], _lines(start, mixture)[2]
        x, log_slope = inverted(curve, tuple(chain(*layers)), target, low, high, start)
        return x.to(y.dtype), log_slope.to(wide.dtype)

    return Scalar(name, layers * width, forward, inverse)
