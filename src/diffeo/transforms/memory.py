"""What a chain keeps for its gradients: everything, the steps' inputs, or the outcome alone.

Every step has an inverse, so that what went into it can be rebuilt from what came out (arXiv 1707.04585); then memory
does not grow with depth, but for two numbers a row and step by which the rebuilt is checked.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from diffeo.scalars import working_dtype
from diffeo.tracing import is_plain
from diffeo.transforms.rebuilding import Rebuilt

__all__ = ["Memory", "Road"]

Memory = Literal["store", "checkpoint", "invert"]
Act = Callable[[int, Tensor], tuple[Tensor, Tensor]]  # a step's number and its x -> what comes, and the log_det
Way = Literal["onward", "back", "retraced"]


class _Step(nn.Module):
    """One transform, by one of its methods."""

    def __init__(self, transform: nn.Module, method: str) -> None:
        super().__init__()
        self.transform, self.method = transform, method

    def forward(self, x: Tensor, context: Tensor | None) -> Any:
        return _acted(self.transform, self.method, x, context)


def _acted(transform: nn.Module, method: str, x: Tensor, context: Tensor | None) -> Any:
    return transform(x, context) if method == "forward" else getattr(transform, method)(x, context)


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
        found: tuple[Tensor, Tensor] = Rebuilt.apply(self, x, context, *self.weights())
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

    def step(
        self, i: int, x: Tensor, context: Tensor | None, weights: Mapping[str, Tensor] | None, way: Way = "onward"
    ) -> Any:
        """Step i, or the way back over it, or its `Transform.retraced`: with these weights for its parameters, with
        those that it has for None."""
        method = way if way == "retraced" else "inverse" if self.backwards != (way == "back") else "forward"
        if weights is None:
            return _acted(self.transforms[i], method, x, context)
        state = {f"transform.{name}": weight for name, weight in weights.items()}
        return functional_call(_Step(self.transforms[i], method), state, (x, context))

    def retraced(
        self, i: int, z: Tensor, context: Tensor | None, weights: Mapping[str, Tensor] | None, kind: torch.dtype
    ) -> tuple[Tensor, Any]:
        """What of this kind went into step i, a leaf, and what the step makes of it, with all that gradients need."""
        if not self.backwards:
            x, *outcomes = self.step(i, z, context, weights, "retraced")
            if x.dtype == kind:
                return x, outcomes
        with torch.no_grad():
            x = self.step(i, z, context, weights, "back")[0].to(kind)
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            return x, self.step(i, x, context, weights)

    def called(self, i: int) -> str:
        """Step i as messages name it: by its place in the chain."""
        place = len(self.transforms) - 1 - i if self.backwards else i
        return f"step {place} ({type(self.transforms[i]).__name__})"
