"""Gradients of a road of steps of which only the ends are kept: each step's input is rebuilt from its outcome.

What is rebuilt is checked by two numbers a row. Roundings that have grown over many steps are told from a step that
cannot be undone: the steps are then taken again from the start, up to where the rebuilt was no longer good enough.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffeo.errors import ModelError
from diffeo.scalars import working_dtype

if TYPE_CHECKING:
    from diffeo.transforms.memory import Road

__all__ = ["Rebuilt"]

CLOSE = 0.25  # of the root of a unit in the last place: how far what is rebuilt may be off
KEPT = 8  # states that are kept where steps had to be taken again, however many steps there are
REMEDY = 'choose memory="checkpoint" for this chain'


class Rebuilt(torch.autograd.Function):
    """A road of which both ends are kept, and marks of what lies between."""

    @staticmethod
    def forward(ctx: Any, road: "Road", x: Tensor, context: Tensor | None, *weights: Tensor) -> tuple[Tensor, Tensor]:
        marks, kinds = [], []

        def step(i: int, z: Tensor) -> tuple[Tensor, Tensor]:
            before = _random_state(x)
            marks.append(_mark(z))
            kinds.append(z.dtype)
            found = road.taken(i, z, context)
            if not torch.equal(before, _random_state(x)):
                what = f"{road.called(i)} draws random numbers, so its input cannot be rebuilt"
                raise ModelError(f"memory: {what}; {REMEDY}, or .eval()")
            return found

        z, total = road.onwards(x, step)
        z = z.clone() if z.data_ptr() == x.data_ptr() else z  # no view of an input may be an output
        ctx.road, ctx.places, ctx.marks, ctx.kinds = road, road.places(), marks, kinds
        ctx.save_for_backward(x, z, context, *weights)
        return z, total

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        x, z, context, *weights = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # slopes of slopes are wanted: as if all had been stored
            return None, *_stored(ctx.road, ctx.places, (x, context, *weights), needed, slopes)
        back, found = _Back(ctx, x, context, weights), list[Tensor | None]([None] * len(needed))
        for i in reversed(range(len(ctx.marks))):
            z, outcomes = back.over(i, z)
            places = [0, 1, *(2 + place for place in ctx.places[i].values())]
            leaves = [z, back.context, *(back.weights[place] for place in ctx.places[i].values())]
            wanted = [k for k, place in enumerate(places) if needed[place] or (k == 0 and i > 0)]
            by_x: Tensor | None = None
            for k, slope in zip(wanted, _slopes(outcomes, [leaves[k] for k in wanted], slopes), strict=True):
                if k == 0:
                    by_x = slope
                else:
                    found[places[k]] = _sum(found[places[k]], slope)
            z = z.detach()
            slopes = (torch.zeros_like(z) if by_x is None else by_x, slopes[1])
        return None, slopes[0] if needed[0] else None, *found[1:]


class _Back:
    """The way back over a road from its end, by what its gradient kept."""

    def __init__(self, ctx: Any, x: Tensor, context: Tensor | None, weights: Sequence[Tensor]) -> None:
        self.road, self.places, self.marks, self.kinds = ctx.road, ctx.places, ctx.marks, ctx.kinds
        needed = ctx.needs_input_grad[2:]
        self.context = None if context is None else context.detach().requires_grad_(needed[0])
        self.direct = all(map(_can_stand, weights, self.road.weights(), needed[1:]))
        if not self.direct:
            weights = [w.detach().requires_grad_(n) for w, n in zip(weights, needed[1:], strict=True)]
        self.weights = weights
        self.kept, self.exact = {0: x}, True

    def over(self, i: int, z: Tensor) -> tuple[Tensor, Any]:
        """Of z, which came of step i: what went into it, a leaf, and what the step makes of that."""
        x, outcomes = self._tried(i, z)
        if x is None and not self.exact:  # roundings have grown
            x, outcomes = self._tried(i, self._again(i + 1))
        if x is None:
            what = f"{self.road.called(i)} gives another input back than went in, so gradients would be wrong"
            raise ModelError(f"memory: {what}; {REMEDY}")
        self.exact = False
        return x, outcomes

    def _tried(self, i: int, z: Tensor) -> tuple[Tensor | None, Any]:
        """The same, with no x where it is not what went in."""
        if i:
            x, outcomes = self.road.retraced(i, z, self.context, self._own(i), self.kinds[i])
            return None if _differs(self.marks[i], _mark(x.detach())) else x, outcomes
        with torch.no_grad():
            x = self.road.step(0, z, self.context, self._own(0), "back")[0].to(self.kinds[0])
        if _differs(self.marks[0], _mark(x)):
            return None, None
        x = self.kept[0].detach().requires_grad_()
        with torch.enable_grad():
            return x, self.road.step(0, x, self.context, self._own(0))

    @torch.no_grad()
    def _again(self, count: int) -> Tensor:
        """What comes of the first so many steps, taken again from the last state that is known as it was."""
        at = max(k for k in self.kept if k <= count)
        z, apart = self.kept[at], math.ceil(len(self.marks) / KEPT)
        for i in range(at, count):
            if i % apart == 0:
                self.kept[i] = z
            z = self.road.step(i, z, self.context, self._own(i))[0]
        return z

    def _own(self, i: int) -> dict[str, Tensor] | None:
        """The weights of step i; None where it has them."""
        return None if self.direct else {name: self.weights[place] for name, place in self.places[i].items()}


def _can_stand(kept: Tensor, now: Tensor, needed: bool) -> bool:
    """Whether a gradient can be taken by a weight where it is: it is the step's, a leaf, and nothing hangs on it."""
    return kept is now and kept.is_leaf and kept.requires_grad == needed and not kept._backward_hooks


def _stored(
    road: "Road",
    places: list[dict[str, int]],
    given: Sequence[Tensor | None],
    needed: Sequence[bool],
    slopes: Sequence[Tensor],
) -> list[Tensor | None]:
    """The slopes by what is given, each of which can be differentiated again."""
    # Through views, so that a weight that is itself made of x is not followed to x here.
    x, context, *weights = (None if v is None else v.view_as(v) for v in given)

    def step(i: int, x: Tensor) -> Any:
        own = {name: weights[place] for name, place in places[i].items()}
        return road.step(i, x, context, own)  # type: ignore[arg-type]

    outcomes = road.onwards(x, step)  # type: ignore[arg-type]
    wanted = [k for k, need in enumerate(needed) if need]
    found: list[Tensor | None] = [None] * len(given)
    for k, slope in zip(
        wanted, _slopes(outcomes, [(x, context, *weights)[k] for k in wanted], slopes, True), strict=True
    ):
        found[k] = slope
    return found


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _slopes(
    outcomes: Sequence[Tensor], by: Sequence[Tensor | None], slopes: Sequence[Tensor], again: bool = False
) -> Sequence[Tensor | None]:
    pairs = [pair for pair in zip(outcomes, slopes, strict=True) if pair[0].requires_grad]
    if not pairs or not by:
        return [None] * len(by)
    ends, weights = zip(*pairs, strict=True)
    return torch.autograd.grad(ends, by, weights, create_graph=again, allow_unused=True)  # type: ignore[arg-type]


def _random_state(x: Tensor) -> Tensor:
    return torch.cuda.get_rng_state(x.device) if x.is_cuda else torch.get_rng_state()


def _mark(x: Tensor) -> Tensor:
    """Two numbers a row [2, n]: a sum over its numbers of changing weights, and about how far roundings move that."""
    flat = x.flatten(1).to(working_dtype(x))
    d = flat.shape[1]
    weights = torch.arange(1, d + 1, dtype=flat.dtype, device=x.device).square().cos()
    return torch.stack([flat @ weights, math.sqrt(d) * (1 + flat.abs().mean(1))])


def _differs(mark: Tensor, again: Tensor) -> bool:
    """Whether any row is another than it was; rows that were not finite count for nothing."""
    allowed = CLOSE * math.sqrt(torch.finfo(mark.dtype).eps) * mark[1]
    return bool((~((mark[0] - again[0]).abs() <= allowed) & mark[1].isfinite()).any())
