"""Pictures as tokens: one patch after another."""

from torch import Tensor

from diffeo.errors import ShapeError, shown, whole
from diffeo.scalars import working_dtype
from diffeo.transforms.base import Transform, fits

__all__ = ["Patches", "as_features", "as_tokens"]


def as_features(x: Tensor) -> Tensor:
    """Tokens x [n, T, F] -> [F, n, T], where one feature of all tokens is one run of memory."""
    return x.permute(2, 0, 1).contiguous()


def as_tokens(features: Tensor) -> Tensor:
    """The way back, a view."""
    return features.permute(1, 2, 0)


class Patches(Transform):
    """Events (C, H, W) cut into squares of ``size`` by ``size`` pixels: tokens (T, F) in the order of reading.

    T is H W / size^2, and F is C size^2, the pixels of a token channel by channel (arXiv 2010.11929). log_det is 0.

    Raises ShapeError where the squares do not cover a picture of the shape ``event``.

    >>> import torch
    >>> cut = Patches(2, (1, 4, 6))
    >>> x = torch.arange(24.0).view(1, 1, 4, 6)
    >>> z, log_det = cut(x)
    >>> z.shape, z[0, 1]
    (torch.Size([1, 6, 4]), tensor([2., 3., 8., 9.]))
    """

    def __init__(self, size: int, event: tuple[int, int, int]) -> None:
        super().__init__()
        self.size, self.event = whole("size", size), tuple(int(length) for length in event)
        if len(self.event) != 3 or min(self.event) < 1 or self.event[1] % size or self.event[2] % size:
            wanted = f"(C, H, W) with H and W multiples of {size}"
            raise ShapeError(f"event: expected {wanted}, got {shown(event)}; choose another size of patches")

    @property
    def grid(self) -> tuple[int, int]:
        """How many patches there are down and across."""
        return self.event[1] // self.size, self.event[2] // self.size

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        (down, across), channels, p = self.grid, self.event[0], self.size
        planes = x.transpose(0, 1).reshape(channels, x.shape[0], down, p, across, p)
        features = planes.permute(0, 3, 5, 1, 2, 4).reshape(channels * p * p, x.shape[0], down * across)
        return as_tokens(features), x.new_zeros(x.shape[0], dtype=working_dtype(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        (down, across), channels, p = self.grid, self.event[0], self.size
        features = z.permute(2, 0, 1).reshape(channels, p, p, z.shape[0], down, across)
        planes = features.permute(0, 3, 4, 1, 5, 2).reshape(channels, z.shape[0], *self.event[1:])
        return planes.transpose(0, 1), z.new_zeros(z.shape[0], dtype=working_dtype(z))

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, tuple(event) == self.event, f"shape {list(self.event)}", event)

    def event_after(self, event: tuple[int, ...]) -> tuple[int, ...]:
        down, across = self.grid
        return down * across, self.event[0] * self.size**2

    def extra_repr(self) -> str:
        return f"{self.size} x {self.size} of {list(self.event)}"
