"""How much a row takes while it is moved, so that large calls can go in pieces that a processor's cache holds."""

import math

from torch import nn

from diffeo.transforms.base import Transform
from diffeo.transforms.continuous import Continuous
from diffeo.transforms.elementwise import Elementwise
from diffeo.transforms.pictures import PictureCoupling
from diffeo.transforms.residual import Residual

__all__ = ["numbers_a_row"]


def numbers_a_row(module: nn.Module, event: tuple[int, ...]) -> int:
    """The numbers of the widest tensor that one row of an event becomes on its way through a module's parts.

    A weight [out, in] makes out numbers of it, a kernel [out, in, ...] as many at every place of a picture
    (C, H, W), of which a coupling behind squeezes or of packed fields has fewer, and a transformer out numbers at every
    token; free raw parameters and components of
    mixtures count for each coordinate; certified inverses and exact log-determinants take a Jacobian.

    >>> numbers_a_row(nn.Sequential(nn.Linear(3, 128), nn.Linear(128, 2)), (3,))
    128
    """
    return max(math.prod(event), _widest(module, math.prod(event), math.prod(event[1:])))


def _widest(part: nn.Module, d: int, places: int) -> int:
    """The same of a part, within which pictures have so many places."""
    if isinstance(part, PictureCoupling):
        places = math.prod(part.event[1:]) // (4 if part.split == "checkerboard" else 1)
    each = 1 if isinstance(part, Transform) else int(getattr(part, "tokens", 1))  # a net looks at all tokens of a row
    widest = each * max((_widest(child, d, places) for child in part.children()), default=0)
    if isinstance(part, Residual | Continuous):
        return max(widest, d * d)
    if isinstance(part, Elementwise):
        return max(widest, part.raw.numel())
    widest = max(widest, d * int(getattr(part, "components", 0)))
    for weight in part.parameters(recurse=False):
        widest = max(widest, len(weight) * (places if weight.ndim > 2 else 1) if weight.ndim > 1 else 0)
    return widest
