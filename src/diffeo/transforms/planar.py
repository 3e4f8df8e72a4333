"""Planar and radial layers: space pushed along one direction, or towards and away from one point (arXiv 1505.05770).

Both are invertible whatever is learned, and both have an inverse here: the planar one by the root of an increasing
function of one number, the radial one in closed form.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo.errors import ShapeError, shown, whole
from diffeo.nets import Constants
from diffeo.scalars import within, working_dtype
from diffeo.transforms.base import Transform, fits

__all__ = ["BENDS", "Bend", "Planar", "Radial", "bend_named", "gain", "unbend"]

LOG_STEEPEST = 3.0  # how far log(1 + c), and so the log-slope of s + c h(s), goes from 0
LEAK = 0.01  # slope of the leaky ReLU below zero
LONGEST = 1e150  # a coordinate whose square still fits in float64


class Bend(NamedTuple):
    """An increasing h with h(0) = 0 and slopes within 0 .. 1, concave away from zero on either side.

    ``below`` and ``above`` bound |h| on either side of zero; ``steps`` of Newton's find any root of s + c h(s) = r.
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    below: float
    above: float
    steps: int


BENDS = {
    "tanh": Bend(torch.tanh, lambda s: 1 - torch.tanh(s).square(), 1.0, 1.0, 24),
    "leaky_relu": Bend(
        lambda s: torch.where(s > 0, s, LEAK * s),
        lambda s: torch.where(s > 0, 1.0, torch.full_like(s, LEAK)),
        math.inf,
        math.inf,
        1,
    ),
    "elu": Bend(F.elu, lambda s: s.clamp(max=0).exp(), 1.0, math.inf, 24),
}


def bend_named(name: str) -> Bend:
    if name not in BENDS:
        raise ShapeError(f"activation: expected one of {', '.join(BENDS)}, got {shown(name)}")
    return BENDS[name]


def gain(raw: Tensor) -> Tensor:
    """c with 1 + c within exp(-3) .. exp(3), near zero equal to raw; so s + c h(s) increases for every Bend h."""
    return torch.expm1(LOG_STEEPEST * torch.tanh(raw / LOG_STEEPEST))


def unbend(r: Tensor, c: Tensor, bend: Bend) -> Tensor:
    """The s with s + c h(s) = r, where 1 + c > 0, twice differentiable in r and c.

    s has the sign of r. As h is bounded and has slopes within 0 .. 1, |s| lies between |r| and ``end``, whichever of
    |r| / (1 + c) and |r| - c sup|h| is nearer; from there Newton's steps go one way, as the curve bends one way only.
    Two more, in which gradients flow, give the first and the second derivative of the root.

    >>> s = unbend(torch.tensor([2.0]), torch.tensor([-0.9]), BENDS["tanh"])
    >>> bool((s - 0.9 * s.tanh() - 2).abs() < 1e-6)
    True
    """
    with torch.no_grad():
        size, sign, wide = r.double().abs(), r.double().sign(), c.double()
        reach = torch.where(r > 0, bend.above, bend.below).to(size)
        bounded = reach.isfinite()
        end, flat = size / (1 + wide), size - wide * torch.where(bounded, reach, 0.0)
        nearer = torch.where(wide > 0, torch.maximum(end, flat), torch.minimum(end, flat))
        end = torch.where(bounded, nearer, end)
        low, high = torch.minimum(end, size), torch.maximum(end, size)
        found = end
        for _ in range(bend.steps):
            found = _newton(found * sign, sign * size, wide, bend).mul(sign).clamp(low, high)
        found = (found * sign).to(torch.promote_types(r.dtype, c.dtype))
    for _ in range(2):
        found = _newton(found, r, c, bend)
    return found


def _newton(s: Tensor, r: Tensor, c: Tensor, bend: Bend) -> Tensor:
    return s - (s + c * bend.value(s) - r) / (1 + c * bend.slope(s))


class Planar(Transform):
    """z = x + u h(w.x + b), with w.u held above -1 (arXiv 1505.05770, equations 10 to 13 and appendix A.1).

    What is learned is v; u = v + (m(w.v) - w.v) w / |w|^2, with the norm squared, so that w.u = m(w.v), where m(a) =
    exp(3 tanh(a / 3)) - 1 stays within -0.95 .. 19. As 0 <= h' <= 1, every slope 1 + h' w.u is above 0.04. log_det =
    log(1 + h'(w.x + b) w.u). The inverse finds s = w.x + b from s + w.u h(s) = w.z + b: x = z - u h(s).

    ``activation`` h: tanh, leaky_relu or elu. With ``context`` features w, v and b are learned constants plus what is
    linear in the context. Starts as the identity.

    >>> planar, x = Planar(2), torch.randn(5, 2)
    >>> z, log_det = planar(x)
    >>> torch.equal(z, x), log_det.shape
    (True, torch.Size([5]))
    """

    def __init__(self, d: int, activation: str = "tanh", context: int = 0) -> None:
        super().__init__()
        self.d, self.activation, self.context_features = whole("d", d), activation, whole("context", context, 0)
        self.bend = bend_named(activation)
        direction = torch.randn(d) / math.sqrt(d)
        self.constants = Constants(torch.cat([direction, torch.zeros(d + 1)]), context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        columns, w, u, b, c = self._parts(x, context)
        s = (w * columns).sum(0) + b
        z = columns + u * self.bend.value(s)
        return z.T.to(x.dtype), torch.log1p(c * self.bend.slope(s))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        columns, w, u, b, c = self._parts(z, context)
        s = unbend((w * columns).sum(0) + b, c, self.bend)
        x = columns - u * self.bend.value(s)
        return x.T.to(z.dtype), -torch.log1p(c * self.bend.slope(s))

    def _parts(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """x [d, n]; w and u [d, n or 1]; b and w.u [n or 1]."""
        dtype = working_dtype(x, self.constants.start)
        w, v, b = self.constants(context, dtype).split([self.d, self.d, 1])
        square = w.square().sum(0)
        c, shape = gain((w * v).sum(0)), w / torch.where(square > 0, square, 1.0)
        for _ in range(2):  # what is left along w after the first is rounding, perhaps of a large v
            v = v - (w * v).sum(0) * shape
        return within(x.to(dtype)).T, w, v + c * shape, b[0], c

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, event == (self.d,), f"{self.d} columns", event)

    def extra_repr(self) -> str:
        return f"d={self.d}, {self.activation}"


class Radial(Transform):
    """z = x + beta (x - x0) / (alpha + r), r = |x - x0| of each row (arXiv 1505.05770, equations 14 and A.2).

    alpha > 0, and 1 + beta / alpha, the slope at x0, lies within exp(-3) .. exp(3), so beta > -alpha. With h = 1 /
    (alpha + r), log_det = (d - 1) log(1 + beta h) + log(1 + alpha beta h^2). The inverse is closed: r' = |z - x0|
    belongs to r = (sqrt(q^2 + 4 alpha r') - q) / 2, q = alpha + beta - r'.

    With ``context`` features alpha, beta and x0 are learned constants plus what is linear in the context. Starts as
    the identity.

    >>> radial, x = Radial(2), torch.randn(5, 2)
    >>> torch.equal(radial.inverse(x)[0], x)
    True
    """

    def __init__(self, d: int, context: int = 0) -> None:
        super().__init__()
        self.d, self.context_features = whole("d", d), whole("context", context, 0)
        self.constants = Constants(torch.cat([0.1 * torch.randn(d), torch.zeros(2)]), context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        columns, away, alpha, beta = self._parts(x, context)
        r = _length(away)
        z = columns + (beta / (alpha + r)).to(columns.dtype) * away
        return z.T.to(x.dtype), self._log_det(r, alpha, beta).to(columns.dtype)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        columns, away, alpha, beta = self._parts(z, context)
        r = _shrink(_length(away), alpha, beta)
        x = columns - (beta / (alpha + beta + r)).to(columns.dtype) * away
        return x.T.to(z.dtype), -self._log_det(r, alpha, beta).to(columns.dtype)

    def _log_det(self, r: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        h = 1 / (alpha + r)
        return (self.d - 1) * torch.log1p(beta * h) + torch.log1p(alpha * h * (beta * h))

    def _parts(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """x and x - x0 [d, n]; alpha and beta [n or 1], float64."""
        dtype = working_dtype(x, self.constants.start)
        centre, raw = self.constants(context, dtype).split([self.d, 2])
        more, steeper = gain(raw.double())
        columns = within(x.to(dtype)).T
        return columns, columns - centre, 1 + more, (1 + more) * steeper

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, event == (self.d,), f"{self.d} columns", event)

    def extra_repr(self) -> str:
        return f"d={self.d}"


def _length(away: Tensor) -> Tensor:
    """|away| of each column [d, n], float64 [n], with gradient 0 where it is 0."""
    square = away.double().clamp(-LONGEST, LONGEST).square().sum(0)
    apart = square > 0
    return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)


def _shrink(far: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """The r whose r + beta r / (alpha + r) is ``far``: the root of either form that adds, and does not cancel."""
    q = alpha + beta - far
    root = torch.sqrt(q.square() + 4 * alpha * far)
    adds = q > 0
    return torch.where(adds, 2 * alpha * far / torch.where(adds, q + root, 1.0), 0.5 * (root - q))
