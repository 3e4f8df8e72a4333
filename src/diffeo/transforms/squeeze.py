"""Places into channels: every square of 2x2 places becomes one place of four times the channels."""

from typing import Literal, get_args

import torch
from torch import Tensor

from diffeo.errors import ShapeError, shown
from diffeo.scalars import working_dtype
from diffeo.transforms.base import Transform, fits
from diffeo.transforms.planes import as_pictures, as_planes, check_picture

__all__ = ["CORNERS", "Order", "Squeeze"]

Order = Literal["channel", "spatial", "checkerboard"]
CORNERS = {"spatial": (0, 1, 2, 3), "checkerboard": (0, 3, 1, 2)}  # row by row: 0 1 over 2 3


class Squeeze(Transform):
    """Pictures (C, H, W) -> (4C, H/2, W/2), places traded for channels (RealNVP, arXiv 1605.08803, section 3.6).

    ``order`` says which channel is which. With corners a b over c d of a square: ``"channel"`` (as in Glow) keeps those
    of one channel together, a1 b1 c1 d1 a2 b2 ...; ``"spatial"`` those of one corner, a1 a2 ... b1 b2 ...; and
    ``"checkerboard"`` those of one colour, a1 a2 ... d1 d2 ... b1 b2 ... c1 c2 ..., so that the first half of the
    channels is one colour of a checkerboard, and the second the other. H and W have to be even. log_det is 0.

    >>> z, _ = Squeeze("checkerboard")(torch.arange(4.0).view(1, 1, 2, 2))
    >>> z.flatten()
    tensor([0., 3., 1., 2.])
    """

    def __init__(self, order: Order = "channel") -> None:
        super().__init__()
        if order not in get_args(Order):
            raise ShapeError(f"order: expected one of {', '.join(get_args(Order))}, got {shown(order)}")
        self.order: Order = order

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        c, n, height, width = (planes := as_planes(x)).shape
        parts = planes.view(c, n, height // 2, 2, width // 2, 2)
        if self.order == "channel":
            moved = parts.permute(0, 3, 5, 1, 2, 4)
        else:
            moved = parts.permute(3, 5, 0, 1, 2, 4).flatten(0, 1)
            moved = torch.stack([moved[k] for k in CORNERS[self.order]])
        z = moved.reshape(4 * c, n, height // 2, width // 2)
        return as_pictures(z), x.new_zeros(n, dtype=working_dtype(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        c, n, height, width = (planes := as_planes(z)).shape
        if self.order == "channel":
            moved = planes.view(c // 4, 2, 2, n, height, width).permute(0, 3, 4, 1, 5, 2)
        else:
            corners = planes.view(4, c // 4, n, height, width)
            back = sorted(range(4), key=CORNERS[self.order].__getitem__)
            moved = torch.stack([corners[k] for k in back]).view(2, 2, c // 4, n, height, width)
            moved = moved.permute(2, 3, 4, 0, 5, 1)
        x = moved.reshape(c // 4, n, 2 * height, 2 * width)
        return as_pictures(x), z.new_zeros(n, dtype=working_dtype(z))

    def check_event(self, event: tuple[int, ...]) -> None:
        check_picture(self, event)
        fits(self, event[1] % 2 == 0 and event[2] % 2 == 0, "even height and width, (C, 2H, 2W)", event)

    def event_after(self, event: tuple[int, ...]) -> tuple[int, ...]:
        return 4 * event[0], event[1] // 2, event[2] // 2

    def extra_repr(self) -> str:
        return f"order={self.order}"
