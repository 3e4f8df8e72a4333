"""Increasing maps made whole: continued along their tangents, and inverted by a bracketed Newton iteration."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["continued", "inverted"]

Curve = Callable[..., tuple[Tensor, Tensor]]  # x, and perhaps parameters -> (y, log dy/dx)

MOST_STEPS = 64  # a bracket of double precision is halved away in fewer
NEAR = 1e-9  # from where the two steps that follow reach the last digit
NOISE = 16  # units in the last place of y, below which the curve itself is not known
PATIENCE = 0.5  # a Newton step longer than this share of the step before is not taken, the bracket is halved


def continued(curve: Curve, x: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """The curve within [low, high], beyond it its tangent at that end: onto, once differentiable, and finite.

    >>> continued(lambda x: (x**2, (2 * x).log()), torch.tensor([2.0, 5.0]), 1.0, 3.0)
    (tensor([ 4., 21.]), tensor([1.3863, 1.7918]))
    """
    inside = x.clamp(low, high)
    y, log_slope = curve(inside)
    return y + log_slope.exp() * (x - inside), log_slope


def inverted(
    curve: Curve, parameters: Sequence[Tensor], y: Tensor, low: Tensor, high: Tensor, start: Tensor
) -> tuple[Tensor, Tensor]:
    """The x between low and high, from ``start`` on, at which curve(x, *parameters), increasing, reaches y; and log
    dx/dy.

    All in y's dtype, which is to be float64. Newton steps inside a bracket that shrinks, halved where a step leaves it
    or does not get on; an x that is found stays as it is, whatever others still need. Two steps more are
    differentiable: they make first and second derivatives those of the exact inverse.
    """
    with torch.no_grad():
        fixed = [parameter.detach() for parameter in parameters]
        x = _bracketed(lambda x: curve(x, *fixed), *(v.detach() for v in (y, low, high, start)))
    for _ in range(2):
        reached, log_slope = curve(x, *parameters)
        x = x - (reached - y) * (-log_slope).exp()
    return x, -curve(x, *parameters)[1]


def _bracketed(curve: Curve, y: Tensor, low: Tensor, high: Tensor, start: Tensor) -> Tensor:
    noise = NOISE * torch.finfo(y.dtype).eps * y.abs().clamp(min=1)

    def advance(found: Tensor, x: Tensor, low: Tensor, high: Tensor, last: Tensor) -> tuple[Tensor, ...]:
        reached, log_slope = curve(x)
        low, high = torch.where(reached <= y, x, low), torch.where(reached >= y, x, high)
        step = (y - reached) * (-log_slope).exp()
        found = found | (step.abs() <= NEAR * x.abs().clamp(min=1)) | ((reached - y).abs() <= noise)
        newton = (x + step > low) & (x + step < high) & (step.abs() <= PATIENCE * last)
        step = torch.where(newton, step, (low + high) / 2 - x)
        last = torch.where(newton, step.abs(), (high - low) / 2)
        return found, torch.where(found, x, x + step), low, high, last

    state: tuple[Tensor, ...] = torch.zeros_like(y, dtype=torch.bool), start.clamp(low, high), low, high, high - low
    if torch.compiler.is_compiling():
        return _looped(advance, state)[1]
    for _ in range(MOST_STEPS):
        state = advance(*state)
        if _all(state[0]):
            break
    return state[1]


def _looped(advance: Callable[..., tuple[Tensor, ...]], state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same loop as one node of a program."""
    from torch._higher_order_ops import while_loop

    def going(count: Tensor, found: Tensor, *_: Tensor) -> Tensor:
        return (count < MOST_STEPS) & ~found.all()

    def further(count: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        return count + 1, *(part.contiguous() for part in advance(*state))

    state = tuple(part.contiguous() for part in state)
    return while_loop(going, further, (torch.zeros((), dtype=torch.int64), *state))[1:]


def _all(found: Tensor) -> bool:
    """Whether there is nothing more to do; never under vmap, where no tensor may be looked at."""
    try:
        return bool(found.all())
    except RuntimeError:
        return False
