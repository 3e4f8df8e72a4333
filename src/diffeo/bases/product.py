"""Noise put together of independent parts."""

import torch
from torch import Tensor, nn

from diffeo.bases.base import Base
from diffeo.errors import ShapeError, shown
from diffeo.transforms.base import common_context

__all__ = ["Product"]


class Product(Base):
    """Independent groups of neighbouring coordinates, each with its own base, in the order given.

    >>> from diffeo.bases import StandardNormal, Uniform
    >>> Product(StandardNormal(2), Uniform(features=1)).event_shape
    (3,)
    """

    def __init__(self, *parts: Base) -> None:
        super().__init__()
        wrong = [part for part in parts if not isinstance(part, Base) or len(part.event_shape) != 1]
        if wrong or not parts:
            raise ShapeError(
                f"parts: expected bases of vectors, one or more, got {shown(wrong[0]) if wrong else 'none'}"
            )
        self.parts = nn.ModuleList(parts)
        self.sizes = [part.event_shape[0] for part in parts]
        self.event_shape = (sum(self.sizes),)
        self.context_features = common_context(*parts)
        self.reparametrised = all(part.reparametrised for part in parts)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        pieces = z.split(self.sizes, -1)
        return torch.stack([part(piece, context) for part, piece in zip(self.parts, pieces, strict=True)]).sum(0)

    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        return torch.cat([part.sample(n, context, generator) for part in self.parts], -1)  # type: ignore[operator]

    def to_normal(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        pairs = zip(self.parts, z.split(self.sizes, -1), strict=True)
        return torch.cat([part.to_normal(piece, context) for part, piece in pairs], -1)  # type: ignore[operator]
