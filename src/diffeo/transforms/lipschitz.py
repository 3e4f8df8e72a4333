"""Nets that stretch no distance by more than a bound, whatever their weights, and the way back through x + g(x).

Where g stretches by less than 1, x + g(x) is a bijection (Banach's fixed point); Residual and Continuous are made of
such steps. A step is given as a ``Shift``: at x it tells g(x) and how directions at x are carried on.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffeo.errors import ShapeError, shown, whole
from diffeo.nets import soft_clip

__all__ = ["LipschitzMLP", "Push", "Shift", "beside", "invert", "jacobian", "spectral_bound"]

Push = Callable[[Tensor], Tensor]  # directions v [n, k, d] at x -> Jacobian times v, [n, k, d]
Shift = Callable[[Tensor], tuple[Tensor, Push]]  # x [n, d] -> g(x) [n, d] and its Jacobian's action

SQUARINGS = 6
NOTHING = 1e-30  # added to squares, so that the norm of a matrix of zeros has a slope
BLUNTEST, SHARPNESS = 0.1, 3.0  # of an activation: the least, and where it starts
LONGEST = 2000  # rounds of an inverse
TRACED = 16  # where a program is traced, and nobody can look whether it has ended


def spectral_bound(weight: Tensor) -> Tensor:
    """An upper bound [] of the largest singular value of W [a, b]: tr((W'W)^64)^(1/128), a Schatten norm.

    It is smooth, needs no singular vectors, and is too large by at most the 128th root of the rank (3 % for 64).

    >>> round(spectral_bound(torch.diag(torch.tensor([3.0, -1.0]))).item(), 5)
    3.0
    """
    square = weight.T @ weight if weight.shape[0] >= weight.shape[1] else weight @ weight.T
    square = square + NOTHING * torch.eye(len(square), dtype=weight.dtype, device=weight.device)
    log_bound, root = torch.zeros((), dtype=weight.dtype, device=weight.device), 2
    for _ in range(SQUARINGS):
        trace = square.diagonal().sum()
        log_bound, square = log_bound + trace.log() / root, square / trace
        square, root = square @ square, 2 * root
    return (log_bound + square.diagonal().sum().log() / root).exp()


def beside(context: Tensor | None, features: int, x: Tensor) -> Tensor:
    """The context [n, c], softly clipped and of x's dtype; [n, 0] of none."""
    if not features:
        return x[:, :0]
    if context is None:
        raise ShapeError(f"context: this transform takes {features} context features, got none; pass context=")
    return soft_clip(context.to(x.dtype))


def _wave(a: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
    """sin(s a) / s, as smooth as can be, and its slope, which is within +-1 at any sharpness s."""
    return torch.sin(sharpness * a) / sharpness, torch.cos(sharpness * a)


class Ready(NamedTuple):
    """A layer as it acts: weight [out, in] within its bound, weight of what stands beside x, bias, sharpness."""

    weight: Tensor
    beside: Tensor
    bias: Tensor
    sharpness: Tensor


class _Layer(nn.Module):
    def __init__(self, a: int, b: int, side: int, last: bool) -> None:
        super().__init__()
        bound = 0.0 if last else 1 / math.sqrt(a + side)
        for name, shape in (("weight", (b, a)), ("beside", (b, side)), ("bias", (b,))):
            self.register_parameter(name, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))
        start = math.log(math.expm1(SHARPNESS - BLUNTEST))
        self.sharpness = None if last else nn.Parameter(torch.full((b,), start))

    def ready(self, share: float, dtype: torch.dtype) -> Ready:
        weight, besides, bias = (getattr(self, name).to(dtype) for name in ("weight", "beside", "bias"))
        weight = weight * (share / spectral_bound(weight).clamp(min=share))
        sharpness = bias if self.sharpness is None else BLUNTEST + F.softplus(self.sharpness.to(dtype))
        return Ready(weight, besides, bias, sharpness)


class LipschitzMLP(nn.Module):
    """g: R^d -> R^d beside s features, with |g(x, s) - g(x', s)| <= lipschitz |x - x'| for every value of its weights.

    A weight matrix whose spectral bound is above the layer's share, lipschitz^(1/layers), is scaled down to it
    (arXiv 1811.00995, with a bound in place of an estimate). Activations are waves of learned sharpness, sin(s a) / s.
    What stands beside x goes into every layer and is not bounded. Inputs beyond +-5 are softly clipped; the last layer
    starts at zero.
    """

    def __init__(self, d: int, hidden: Sequence[int], side: int, lipschitz: float) -> None:
        super().__init__()
        if isinstance(hidden, str) or not isinstance(hidden, Sequence) or not hidden:
            raise ShapeError(f"hidden: expected one width or more such as (64, 64), got {shown(hidden)}")
        sizes = [whole("d", d), *(whole("hidden", width) for width in hidden), d]
        self.d, self.side, self.lipschitz = d, side, lipschitz
        self.layers = nn.ModuleList(_Layer(a, b, side, i == len(hidden)) for i, (a, b) in enumerate(pairwise(sizes)))

    def ready(self, dtype: torch.dtype) -> list[Ready]:
        """The layers as they act, computed in this dtype."""
        share = self.lipschitz ** (1 / len(self.layers))
        return [layer.ready(share, dtype) for layer in self.layers]  # type: ignore[operator]

    @staticmethod
    def shift(ready: list[Ready], side: Tensor, x: Tensor) -> tuple[Tensor, Push]:
        """x [n, d], what stands beside it [n, s] -> g [n, d] and its Jacobian's action, both differentiable."""
        h, slopes = soft_clip(x), [1 - torch.tanh(x - x.clamp(-5, 5)).square()]
        for layer in ready[:-1]:
            h, slope = _wave(F.linear(h, layer.weight, layer.bias) + F.linear(side, layer.beside), layer.sharpness)
            slopes.append(slope)

        def push(directions: Tensor) -> Tensor:
            for layer, slope in zip(ready, slopes, strict=True):
                directions = F.linear(directions * slope[:, None], layer.weight)
            return directions

        return F.linear(h, ready[-1].weight, ready[-1].bias) + F.linear(side, ready[-1].beside), push

    def extra_repr(self) -> str:
        return f"{self.d} -> {self.d}, beside={self.side}, lipschitz={self.lipschitz:g}"


def jacobian(x: Tensor, push: Push) -> Tensor:
    """I + dg/dx at x [n, d], transposed: how far x_i moves (x + g)_j, at [n, i, j]."""
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return identity + push(identity.expand(len(x), *identity.shape))


def invert(shift: Shift, z: Tensor, coefficient: float, start: Tensor, traced: int = TRACED) -> Tensor:
    """The x [n, d] with x + g(x) = z, where g stretches by at most ``coefficient`` < 1; differentiable twice.

    Round by round a row takes Newton's step if that leaves at most ``coefficient`` of |x + g(x) - z|, and else the
    fixed-point step x <- z - g(x), which always does. A row ends once |x + g(x) - z| / (1 - coefficient), which bounds
    its distance from the root, is within a hundredth of half the digits, or rounding stops it; rows do not wait for
    one another. Two more steps with the last Jacobian double the digits twice and carry first and second derivatives.
    Where the program is traced, all rows are given ``traced`` rounds.
    """
    with torch.no_grad():
        x = _root(shift, z.detach(), coefficient, start.detach(), traced)
        slopes = jacobian(x, shift(x)[1]).transpose(1, 2)
    for _ in range(2):
        x = x - _solve(slopes, x + shift(x)[0] - z)
    return x


def _root(shift: Shift, z: Tensor, coefficient: float, x: Tensor, traced: int) -> Tensor:
    eps = torch.finfo(z.dtype).eps
    near = 0.01 * math.sqrt(eps) * (1 - coefficient)
    last = torch.full_like(z[:, 0], math.inf)
    for i in range(LONGEST):
        g, push = shift(x)
        miss = x + g - z
        size = _size(miss, x, z, eps)
        going = (size > near) & (size < last)
        if _ended(going, i == traced):
            break
        newton = x - _solve(jacobian(x, push).transpose(1, 2), miss)
        ahead = _size(newton + shift(newton)[0] - z, newton, z, eps) <= coefficient * size
        x = torch.where(going[:, None], torch.where(ahead[:, None], newton, x - miss), x)
        last = torch.where(going, size, last)
    return x


def _size(miss: Tensor, x: Tensor, z: Tensor, eps: float) -> Tensor:
    """The length [n] of what x + g(x) misses z by, beyond rounding."""
    return (miss.abs() - 2 * eps * (x.abs() + z.abs())).clamp(min=0).square().sum(1).sqrt()


def _ended(going: Tensor, enough: bool) -> bool:
    """Whether no row goes on; where that cannot be seen, because the program is traced, whether there were enough."""
    if torch.compiler.is_compiling():
        return enough
    try:
        return not bool(going.any())
    except RuntimeError:  # under vmap
        return enough


def _solve(matrices: Tensor, rows: Tensor) -> Tensor:
    """matrix^-1 row for each of [n, d, d] and [n, d]; a row of NaN raises nothing."""
    return torch.linalg.solve_ex(matrices, rows[..., None])[0][..., 0]
