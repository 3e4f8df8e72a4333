"""What a transform is: a smooth map with a smooth inverse, each giving the point and the log of its volume change.

``forward`` goes from data x to noise z, ``inverse`` back. Every log_det is that of the map just applied, so that a pair
sums to zero.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from diffeo.errors import ShapeError, shown
from diffeo.scalars import working_dtype

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
    """A bijection of events of one shape. Log-determinants are of x's dtype, never below float32."""

    context_features: int = 0

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data x [n, *event], context [n, c] -> (noise z [n, *event], log|det dz/dx| [n])."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise z [n, *event], context [n, c] -> (data x [n, *event], log|det dx/dz| [n])."""

    def check_event(self, event: tuple[int, ...]) -> None:
        """Raise ShapeError where this transform does not move events of this shape."""


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

    >>> import torch
    >>> x = torch.randn(3, 2)
    >>> z, log_det = Chain()(x)
    >>> bool((z == x).all()), log_det
    (True, tensor([0., 0., 0.]))
    """

    def __init__(self, *transforms: Transform) -> None:
        super().__init__()
        _transforms(*transforms)
        self.transforms = nn.ModuleList(transforms)
        self.context_features = common_context(*transforms)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0], dtype=working_dtype(x))
        for transform in self.transforms:
            x, log_det = transform(x, context)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[0], dtype=working_dtype(z))
        for transform in reversed(self.transforms):
            z, log_det = transform.inverse(z, context)  # type: ignore[operator]
            total = total + log_det
        return z, total

    def check_event(self, event: tuple[int, ...]) -> None:
        for transform in self.transforms:
            transform.check_event(event)  # type: ignore[operator]

    def __len__(self) -> int:
        return len(self.transforms)

    def __getitem__(self, i: int) -> nn.Module:
        return self.transforms[i]


class Inverse(Transform):
    """The same stairs the other way: forward and inverse exchanged."""

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
