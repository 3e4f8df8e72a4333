"""How pictures lie in memory between transforms: channel first, [C, n, H, W], whatever shape they are passed in."""

from torch import Tensor

from diffeo.transforms.base import Transform, fits

__all__ = ["as_pictures", "as_planes", "check_picture"]


def as_planes(x: Tensor) -> Tensor:
    """Pictures [n, C, H, W] -> planes [C, n, H, W] in one run of memory; nothing is moved if a transform made them."""
    return x.transpose(0, 1).contiguous()


def as_pictures(planes: Tensor) -> Tensor:
    """The way back: a view."""
    return planes.transpose(0, 1)


def check_picture(transform: Transform, event: tuple[int, ...], channels: int | None = None) -> None:
    """Raise ShapeError unless events are pictures (C, H, W), of so many channels if it matters."""
    fine = len(event) == 3 and min(event) > 0 and channels in (None, event[0])
    fits(transform, fine, f"shape ({channels or 'C'}, H, W)", event)
