"""Velocity fields dx/dt = v(t, x, context), and the steps by which they carry points along."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffeo.errors import ShapeError, shown, whole
from diffeo.scalars import working_dtype
from diffeo.transforms.lipschitz import LipschitzMLP, Push, beside

__all__ = ["MOST_STRETCH", "Field", "Stage", "Stream", "least_steps", "runge_kutta", "stream"]

Time = float | Tensor
Stream = Callable[[Time, Tensor], tuple[Tensor, Push]]  # t, x [n, d] -> v [n, d] and its Jacobian's action

FREQUENCIES = 3  # of time
MOST_STRETCH = 0.9  # of one step, beyond the identity


class Field(nn.Module):
    """v(t, x, context): a net of x beside time and context, that changes by at most ``lipschitz`` |x - x'|.

    Time enters as t and the sines and cosines of pi t, 2 pi t and 3 pi t. Far from the data the field no longer
    changes. It starts at zero, so that a flow along it starts as the identity.

    >>> Field(2, context=1)(0.5, torch.ones(4, 2), torch.ones(4, 1)).shape
    torch.Size([4, 2])
    """

    def __init__(self, d: int, hidden: Sequence[int] = (64, 64), context: int = 0, lipschitz: float = 10.0) -> None:
        super().__init__()
        if not (isinstance(lipschitz, (int, float)) and 0 < lipschitz < math.inf):
            raise ShapeError(f"lipschitz: expected a finite number above 0, got {shown(lipschitz)}")
        self.d, self.lipschitz, self.context_features = d, float(lipschitz), whole("context", context, 0)
        self.net = LipschitzMLP(d, hidden, 1 + 2 * FREQUENCIES + context, self.lipschitz)

    def forward(self, t: Time, x: Tensor, context: Tensor | None = None) -> Tensor:
        """t a number or one a row [n], x [n, d], context [n, c] -> v [n, d]."""
        return self.stream(working_dtype(x, *self.parameters()), context)(t, x)[0]

    def stream(self, dtype: torch.dtype, context: Tensor | None) -> Stream:
        """The field for one context, its weights brought within their bounds once."""
        ready = self.net.ready(dtype)

        def at(t: "Time", x: Tensor) -> "tuple[Tensor, Push]":  # quoted, as compilers read them
            x = x.to(dtype)
            side = torch.cat([_of_time(t, x), beside(context, self.context_features, x)], 1)
            return self.net.shift(ready, side, x)

        return at


def _of_time(t: Time, x: Tensor) -> Tensor:
    """t, and sines and cosines of it: [n, 7]."""
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(len(x))[:, None]
    angles = math.pi * t * torch.arange(1, FREQUENCIES + 1, dtype=x.dtype, device=x.device)
    return torch.cat([t, angles.sin(), angles.cos()], 1)


def stream(field: nn.Module, dtype: torch.dtype, context: Tensor | None) -> Stream:
    """Any module called field(t, x, context), in this dtype; Jacobians by autograd if it is not a Field."""
    if isinstance(field, Field):
        return field.stream(dtype, context)

    def at(t: "Time", x: Tensor) -> "tuple[Tensor, Push]":
        time = torch.as_tensor(t, dtype=x.dtype, device=x.device)

        def velocity(x: Tensor) -> Tensor:
            return field(time, x, context)

        v, pull = torch.func.vjp(velocity, x)[:2]

        def push(directions: Tensor) -> Tensor:
            transposed = torch.func.vjp(lambda u: pull(u)[0], torch.zeros_like(v))[1]  # pull is linear in u
            return torch.func.vmap(lambda direction: transposed(direction)[0], 1, 1)(directions)

        return v, push

    return at


class Stage(NamedTuple):
    """One look at the field within a step: its share of the step's time, and the Jacobian's action there."""

    share: float
    push: Push


def runge_kutta(at: Stream, t: float, h: float, x: Tensor) -> tuple[Tensor, Push, list[Stage]]:
    """The classical step of order four from t to t + h: how far x [n, d] moves, exactly how directions at x are moved
    by that very step, and its four stages."""
    k1, push1 = at(t, x)
    k2, push2 = at(t + h / 2, x + h / 2 * k1)
    k3, push3 = at(t + h / 2, x + h / 2 * k2)
    k4, push4 = at(t + h, x + h * k3)

    def push(directions: Tensor) -> Tensor:
        m1 = push1(directions)
        m2 = push2(directions + h / 2 * m1)
        m3 = push3(directions + h / 2 * m2)
        return h / 6 * (m1 + 2 * m2 + 2 * m3 + push4(directions + h * m3))

    stages = [Stage(h / 6, push1), Stage(h / 3, push2), Stage(h / 3, push3), Stage(h / 6, push4)]
    return h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), push, stages


def _stretch(u: float) -> float:
    """By how much a step of h L = u may stretch beyond the identity: e^u - 1, cut off as the step is."""
    return u * (1 + u / 2 * (1 + u / 3 * (1 + u / 4)))


def least_steps(lipschitz: float) -> int:
    """The fewest steps from 0 to 1 each of which is x plus a contraction, and so can be inverted.

    >>> least_steps(5.0), least_steps(10.0)
    (8, 16)
    """
    steps = 1
    while _stretch(lipschitz / steps) > MOST_STRETCH:
        steps += 1
    return steps
