"""Random splines by the hundred thousand, with the numbers most likely to break them."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffeo.scalars import Scalar, spline

EPS = torch.finfo(torch.float32).eps


class Count(NamedTuple):
    """What went wrong among ``cases`` inversions."""

    cases: int
    nan: int
    wrong: int


def points(n: int, bound: float, knots: Tensor, generator: torch.Generator) -> Tensor:
    """n float32 numbers, one a spline: inside, at knots [k, n], at the ends, one ulp aside, subnormal, enormous."""
    x = bound * (2.2 * torch.rand(n, generator=generator) - 1.1)
    kind = torch.randint(0, 10, (n,), generator=generator)
    which = torch.randint(0, knots.shape[0], (1, n), generator=generator)
    at_knot = knots.gather(0, which)[0]
    up, down = torch.tensor(math.inf), torch.tensor(-math.inf)
    special = torch.tensor([bound, -bound, 0.0, -0.0, 1e-42, -1e-42, 1e30, -1e30, 3.4e38, 1e-3])
    odd = special[torch.randint(0, len(special), (n,), generator=generator)]
    for value, candidate in enumerate((at_knot, at_knot.nextafter(up), at_knot.nextafter(down), odd)):
        x = torch.where(kind == value, candidate, x)
    x = torch.where(kind == 4, odd.nextafter(up), x)
    return torch.where(kind == 5, odd.nextafter(down), x).clamp(-3.4e38, 3.4e38)


def raws(width: int, n: int, std: float, generator: torch.Generator) -> Tensor:
    """Raw parameters [width, n]: normal of a standard deviation up to ``std``, log-uniform from spline to spline."""
    size = 10 ** (torch.rand(n, generator=generator) * (math.log10(std) + 2) - 2)
    return torch.randn(width, n, generator=generator) * size


def knots_of(raw: Tensor, bound: float) -> Tensor:
    """Where the documented knots lie, independently of the code: bins of 1e-3 plus a softmax share."""
    bins = raw.shape[0]
    sizes = 1e-3 + (1 - 1e-3 * bins) * torch.softmax(raw.double(), 0)
    return (2 * bound * sizes.cumsum(0) - bound).float()


def invert(scalar: Scalar, bins: int, bound: float, n: int, std: float, generator: torch.Generator) -> Count:
    """x -> y -> x' in float32: wrong where x' misses x and the exact spline at x' misses y, both by over 64 ulp."""
    raw = raws(scalar.width, n, std, generator)
    x = points(n, bound, knots_of(raw[:bins], bound), generator)
    y, log_slope = scalar.forward(x, raw)
    back, log_back = scalar.inverse(y, raw)
    exact, _ = scalar.forward(back.double(), raw.double())
    ahead = (back.double() - x.double()).abs() / x.double().abs().clamp(min=1)
    behind = (exact - y.double()).abs() / y.double().abs().clamp(min=1)
    nan = sum(int((~v.isfinite()).sum()) for v in (y, log_slope, back, log_back))
    return Count(n, nan, int(((ahead > 64 * EPS) & (behind > 64 * EPS)).sum()))


def invert_circle(bins: int, n: int, std: float, generator: torch.Generator) -> Count:
    """As `invert`, of angles; what is wrong is measured round the circle, and the seam is a place like any other."""

    def turn(angle: Tensor) -> Tensor:
        return (torch.remainder(angle + math.pi, 2 * math.pi) - math.pi).abs()

    scalar = spline(bins, tails="circular")
    raw = raws(scalar.width, n, std, generator)
    x = points(n, math.pi, knots_of(raw[:bins], math.pi), generator).clamp(-20, 20)
    y, log_slope = scalar.forward(x, raw)
    back, log_back = scalar.inverse(y, raw)
    exact, _ = scalar.forward(back.double(), raw.double())
    nan = sum(int((~v.isfinite()).sum()) for v in (y, log_slope, back, log_back))
    wrong = (turn(back.double() - x.double()) > 512 * EPS) & (turn(exact - y.double()) > 512 * EPS)
    return Count(n, nan, int(wrong.sum()))


def invert_latent(scalar: Scalar, bins: int, bound: float, n: int, std: float, generator: torch.Generator) -> Count:
    """y -> x -> y' in float32, as sampling does: wrong where y' misses y and the exact inverse at y' misses x."""
    raw = raws(scalar.width, n, std, generator)
    y = points(n, bound, knots_of(raw[bins : 2 * bins], bound), generator)
    x, log_back = scalar.inverse(y, raw)
    again, log_slope = scalar.forward(x, raw)
    exact, _ = scalar.forward(x.double(), raw.double())
    low, high = (scalar.forward(x.nextafter(torch.tensor(v)).double(), raw.double())[0] for v in (-math.inf, math.inf))
    between = (low <= y.double()) & (y.double() <= high)  # no float32 x is nearer than the neighbours of this one
    behind = (exact - y.double()).abs() / y.double().abs().clamp(min=1)
    nan = sum(int((~v.isfinite()).sum()) for v in (x, again, log_slope, log_back))
    return Count(n, nan, int((~between & (behind > 64 * EPS)).sum()))
