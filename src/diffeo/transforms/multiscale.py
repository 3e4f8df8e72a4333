"""Levels of a picture: after each, half of the channels is done and leaves, the rest goes on (arXiv 1605.08803)."""

from math import prod

import torch
from torch import Tensor, nn

from diffeo.errors import ShapeError, shown
from diffeo.transforms.base import Transform, common_context, fits
from diffeo.transforms.planes import as_pictures, as_planes

__all__ = ["Multiscale"]


class Multiscale(Transform):
    """Level after level, each a transform of pictures; behind every one but the last the second half of the channels
    leaves. All that left and what is at the end, flat, is one z [n, D] of as many numbers as x: a bijection.

    What leaves has no further part in the flow, so a level should end with what is known of it from the half that goes
    on: a `PictureCoupling` of channels there is the learned prior of Glow's levels.

    ``parts(z)`` gives the levels' shares of z as pictures, ``joined`` puts them back together.

    >>> from diffeo.transforms import Squeeze
    >>> flow = Multiscale(Squeeze(), Squeeze(), event=(1, 4, 4))
    >>> z, _ = flow(torch.randn(3, 1, 4, 4))
    >>> z.shape, [part.shape[1:] for part in flow.parts(z)]
    (torch.Size([3, 16]), [torch.Size([2, 2, 2]), torch.Size([8, 1, 1])])
    """

    def __init__(self, *levels: Transform, event: tuple[int, ...]) -> None:
        super().__init__()
        if not levels or not all(isinstance(level, Transform) for level in levels):
            raise ShapeError(f"levels: expected one Transform or more, got {shown(levels)}")
        self.levels = nn.ModuleList(levels)
        self.event = tuple(event)
        self.context_features = common_context(*levels)
        shape, leaving = self.event, []
        for i, level in enumerate(levels):
            level.check_event(shape)
            shape = level.event_after(shape)
            fits(self, len(shape) == 3, "shape (C, H, W) behind every level", shape)
            if i + 1 < len(levels):
                fits(self, shape[0] > 1, "two channels or more behind every level but the last", shape)
                leaving.append((shape[0] - shape[0] // 2, *shape[1:]))
                shape = (shape[0] // 2, *shape[1:])
        self.shapes = [*leaving, shape]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total, left = None, []
        for i, level in enumerate(self.levels):
            x, log_det = level(x, context)
            total = log_det if total is None else total + log_det
            if i + 1 < len(self.levels):
                planes = as_planes(x)
                half = len(planes) // 2
                left.append(as_pictures(planes[half:]))
                x = as_pictures(planes[:half])
        assert total is not None
        return self.joined([*left, x]), total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        *left, x = self.parts(z)
        total = None
        for i, level in reversed(list(enumerate(self.levels))):
            if i + 1 < len(self.levels):
                x = as_pictures(torch.cat([as_planes(x), as_planes(left[i])]))
            x, log_det = level.inverse(x, context)  # type: ignore[operator]
            total = log_det if total is None else total + log_det
        assert total is not None
        return x, total

    def settle(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        left = []
        for i, level in enumerate(self.levels):
            x = level.settle(x, context)  # type: ignore[operator]
            if i + 1 < len(self.levels):
                half = x.shape[1] // 2
                left.append(x[:, half:])
                x = x[:, :half]
        return self.joined([*left, x])

    def parts(self, z: Tensor) -> list[Tensor]:
        """z [n, D] -> what each level has of it, the first level first, [n, C, H, W] each."""
        pieces = z.split([prod(shape) for shape in self.shapes], 1)
        return [piece.reshape(len(z), *shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def joined(self, parts: list[Tensor]) -> Tensor:
        """The way back from `parts`."""
        return torch.cat([part.flatten(1) for part in parts], 1)

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, tuple(event) == self.event, f"shape {list(self.event)}", event)

    def event_after(self, event: tuple[int, ...]) -> tuple[int, ...]:
        return (prod(self.event),)
