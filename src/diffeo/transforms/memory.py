"""What a chain keeps for its gradients: everything, the steps' inputs, or the outcome alone.

Every step has an inverse, so that what went into it can be rebuilt from what came out (arXiv 1707.04585); then memory
does not grow with depth, but for two numbers a row and step by which the rebuilt is checked.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from diffeo.errors import ModelError
from diffeo.scalars import working_dtype
from diffeo.tracing import is_plain

__all__ = ["Memory", "Road"]

Memory = Literal["store", "checkpoint", "invert"]
Act = Callable[[int, Tensor], tuple[Tensor, Tensor]]  # a step's number and its x -> what comes, and the log_det

CLOSE = 0.25  # of the root of a unit in the last place: how far what is rebuilt may be off
REMEDY = 'choose memory="checkpoint" for this chain'


class _Step(nn.Module):
    """One transform, one way."""

    def __init__(self, transform: nn.Module, backwards: bool) -> None:
        super().__init__()
        self.transform, self.backwards = transform, backwards

    def forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(x, context) if self.backwards else self.transform(x, context)  # type: ignore[operator]


class Road(NamedTuple):
    """Transforms in the order in which they act, forward or each backwards."""

    transforms: Sequence[nn.Module]
    backwards: bool

    def travelled(self, x: Tensor, context: Tensor | None, memory: Memory) -> tuple[Tensor, Tensor]:
        """x [n, *event] at the end of the road, and the sum of all log_dets [n]."""
        if memory == "store" or not is_plain() or not self._learns(x, context):
            return self.onwards(x, lambda i, x: self.taken(i, x, context))
        if memory == "checkpoint":
            return self.onwards(x, lambda i, x: self._checkpointed(i, x, context))
        found: tuple[Tensor, Tensor] = _Rebuilt.apply(self, x, context, *self.weights())
        return found

    def onwards(self, x: Tensor, act: Act) -> tuple[Tensor, Tensor]:
        """x at the end and the sum of all log_dets, ``act(i, x)`` being how step i is taken."""
        total = x.new_zeros(x.shape[0], dtype=working_dtype(x))
        for i in range(len(self.transforms)):
            x, log_det = act(i, x)
            total = total + log_det
        return x, total

    def taken(self, i: int, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Step i as it is."""
        transform = self.transforms[i]
        return transform.inverse(x, context) if self.backwards else transform(x, context)  # type: ignore[operator]

    def _checkpointed(self, i: int, x: Tensor, context: Tensor | None) -> Any:
        """Step i, to be taken again with the weights that it has now."""
        weights = dict(self.transforms[i].named_parameters())
        return checkpoint(lambda x, context: self.step(i, x, context, weights), x, context, use_reentrant=False)

    def _learns(self, x: Tensor, context: Tensor | None) -> bool:
        given = (x, *self.weights()) if context is None else (x, context, *self.weights())
        return torch.is_grad_enabled() and any(v.requires_grad for v in given)

    def weights(self) -> list[Tensor]:
        """All parameters, each once."""
        found = {id(weight): weight for transform in self.transforms for weight in transform.parameters()}
        return list(found.values())

    def places(self) -> list[dict[str, int]]:
        """For each transform the names of its parameters, and where they stand among all."""
        at = {id(weight): i for i, weight in enumerate(self.weights())}
        return [{name: at[id(weight)] for name, weight in t.named_parameters()} for t in self.transforms]

    def step(self, i: int, x: Tensor, context: Tensor | None, weights: Mapping[str, Tensor], back: bool = False) -> Any:
        """Step i with these weights for its parameters; or the way back over it."""
        state = {f"transform.{name}": weight for name, weight in weights.items()}
        return functional_call(_Step(self.transforms[i], self.backwards != back), state, (x, context))

    def called(self, i: int) -> str:
        """Step i as messages name it: by its place in the chain."""
        place = len(self.transforms) - 1 - i if self.backwards else i
        return f"step {place} ({type(self.transforms[i]).__name__})"


class _Rebuilt(torch.autograd.Function):
    """A road of which both ends are kept, and marks of what lies between."""

    @staticmethod
    def forward(ctx: Any, road: Road, x: Tensor, context: Tensor | None, *weights: Tensor) -> tuple[Tensor, Tensor]:
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
        found: list[Tensor | None] = [None] * len(needed)
        wrong = []
        for i in reversed(range(len(ctx.marks))):
            own = {name: weights[place].detach() for name, place in ctx.places[i].items()}
            with torch.no_grad():
                z = ctx.road.step(i, z, context, own, back=True)[0].to(ctx.kinds[i])
            wrong.append(_differs(ctx.marks[i], _mark(z)))
            z = x if i == 0 else z
            leaves = [z.detach(), None if context is None else context.detach(), *own.values()]
            places = [0, 1, *(2 + place for place in ctx.places[i].values())]
            wanted = [k for k, place in enumerate(places) if needed[place] or (k == 0 and i > 0)]
            by = [leaves[k].requires_grad_() for k in wanted]
            with torch.enable_grad():
                outcomes = ctx.road.step(i, leaves[0], leaves[1], own)
            by_x: Tensor | None = None
            for k, slope in zip(wanted, _slopes(outcomes, by, slopes), strict=True):
                if k == 0:
                    by_x = slope
                else:
                    found[places[k]] = _sum(found[places[k]], slope)
            slopes = (torch.zeros_like(z) if by_x is None else by_x, slopes[1])
        _check(ctx.road, wrong)
        return None, slopes[0] if needed[0] else None, *found[1:]


def _stored(
    road: Road,
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


def _differs(mark: Tensor, again: Tensor) -> Tensor:
    """Whether any row [] is another than it was; rows that were not finite count for nothing."""
    allowed = CLOSE * math.sqrt(torch.finfo(mark.dtype).eps) * mark[1]
    return (~((mark[0] - again[0]).abs() <= allowed) & mark[1].isfinite()).any()


def _check(road: Road, wrong: list[Tensor]) -> None:
    """``wrong``: of every step, the last first."""
    if wrong and bool((found := torch.stack(wrong)).any()):
        step = road.called(len(wrong) - 1 - int(found.int().argmax()))
        raise ModelError(f"memory: {step} gives another input back than went in, so gradients would be wrong; {REMEDY}")
