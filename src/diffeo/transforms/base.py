"""What a transform is: a smooth map with a smooth inverse, each giving the point and the log of its volume change.

``forward`` goes from data x to noise z, ``inverse`` back. Every log_det is that of the map just applied, so that a pair
sums to zero.
"""

from abc import ABC, abstractmethod
from typing import get_args

import torch
from torch import Tensor, nn

from diffeo.errors import ShapeError, shown
from diffeo.transforms.memory import Memory, Road

__all__ = ["Chain", "Inverse", "Transform", "common_context", "fits", "sum_event"]


def sum_event(values: Tensor) -> Tensor:
    """Sum over all but the first dimension: [n, *event] -> [n]."""
    return values.flatten(1).sum(1) if values.ndim > 1 else values


def common_context(*parts: nn.Module) -> int:
    """The one number of context features that all parts with a context agree on; 0 if none has any."""
    sizes = sorted({int(getattr(part, "context_features", 0)) for part in parts} - {0})
    if len(sizes) > 1:
        raise ShapeError(f"context_features: parts of one flow must take the same context, got {sizes}")
    return sizes[0] if sizes else 0


class Transform(nn.Module, ABC):
    """A bijection of events. Log-determinants are of x's dtype, never below float32.

    Most keep an event's shape; one that does not says so in ``event_after``.
    """

    context_features: int = 0

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data x [n, *event], context [n, c] -> (noise z [n, *event], log|det dz/dx| [n])."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise z [n, *event], context [n, c] -> (data x [n, *event], log|det dx/dz| [n])."""

    def retraced(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Of z, of which no gradient is known: the x [n, *event] that it came of, a new leaf that requires a gradient,
        then z and log_det as ``forward`` makes them of x, with all that a gradient needs.

        `Chain` goes back by it under ``memory="invert"``. Where both ways share most of their work, as a coupling's do
        its net, a transform can do it in one go.
        """
        with torch.no_grad():
            x = self.inverse(z, context)[0]
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            return x, *self(x, context)

    def check_event(self, event: tuple[int, ...]) -> None:
        """Raise ShapeError where this transform does not move events of this shape."""

    def event_after(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of z where x is of shape ``event``, which has passed ``check_event``."""
        return event

    @torch.no_grad()
    def settle(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Take from a batch x [n, *event] whatever is to be taken from data before training, every part from what
        reaches it; where the batch comes out."""
        z: Tensor = self(x, context)[0]
        return z


def fits(transform: Transform, fine: bool, wanted: str, event: tuple[int, ...]) -> None:
    """Raise ShapeError unless events are fine."""
    if not fine:
        raise ShapeError(f"{type(transform).__name__} moves events of {wanted}, got events of shape {list(event)}")


def _transforms(*parts: object) -> None:
    for part in parts:
        if not isinstance(part, Transform):
            raise ShapeError(f"transform: expected a Transform, got {shown(part)}")


class Chain(Transform):
    """Transforms one after another, the first nearest to the data; an empty chain is the identity.

    ``memory`` says what is kept while gradients are wanted, either way through the chain. It can be changed at any
    time, is not saved, and changes no gradient, but for roundings under ``"invert"``:

    - ``"store"``: all that the steps compute.
    - ``"checkpoint"``: the input of every step, which is computed once more for its gradients; random numbers again
      as they were.
    - ``"invert"``: the two ends of the chain. From the last step to the first, its input is rebuilt by its inverse
      (arXiv 1707.04585), and the step computed once more. Two numbers a row and step are kept to check what is
      rebuilt: where roundings have grown to more than about 1e-4 in float32 (4e-9 in float64), the steps before are
      computed again from the chain's input; where a single step's inverse is off by so much, ModelError names the
      step, as it does a step that draws random numbers. So a row must be where every step is a bijection of
      floating-point numbers, not at 1e30. Second derivatives are found as under ``"store"``.

    A program that is traced, mapped or differentiated forward stores. Steps should change nothing of their own as
    they compute, since under the last two they do so more than once.

    >>> import torch
    >>> x = torch.randn(3, 2)
    >>> z, log_det = Chain()(x)
    >>> bool((z == x).all()), log_det
    (True, tensor([0., 0., 0.]))
    """

    def __init__(self, *transforms: Transform, memory: Memory = "store") -> None:
        super().__init__()
        _transforms(*transforms)
        self.transforms = nn.ModuleList(transforms)
        self.context_features = common_context(*transforms)
        self.memory = memory

    @property
    def memory(self) -> Memory:
        return self._memory

    @memory.setter
    def memory(self, how: Memory) -> None:
        if how not in get_args(Memory):
            raise ShapeError(f"memory: expected one of {', '.join(get_args(Memory))}, got {shown(how)}")
        self._memory: Memory = how

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return Road(list(self.transforms), False).travelled(x, context, self.memory)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return Road(list(self.transforms)[::-1], True).travelled(z, context, self.memory)

    def settle(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        for transform in self.transforms:
            x = transform.settle(x, context)  # type: ignore[operator]
        return x

    def check_event(self, event: tuple[int, ...]) -> None:
        self._walked(event)

    def event_after(self, event: tuple[int, ...]) -> tuple[int, ...]:
        return self._walked(event)

    def _walked(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """The shape at the end of the chain, every step asked on the way."""
        for transform in self.transforms:
            transform.check_event(event)  # type: ignore[operator]
            event = transform.event_after(event)  # type: ignore[operator]
        return event

    def __len__(self) -> int:
        return len(self.transforms)

    def __getitem__(self, i: int) -> nn.Module:
        return self.transforms[i]

    def extra_repr(self) -> str:
        return "" if self.memory == "store" else f"memory={self.memory}"


class Inverse(Transform):
    """The same stairs the other way, forward and inverse exchanged, of a transform that keeps the shape of events."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        _transforms(transform)
        self.transform = transform
        self.context_features = transform.context_features

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(z, context)

    def check_event(self, event: tuple[int, ...]) -> None:
        self.transform.check_event(event)
        fits(self, self.transform.event_after(event) == event, "the shape that comes out (no squeezes, levels)", event)
