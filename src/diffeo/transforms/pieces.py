"""How much a row takes while it is moved, so that large calls can go in pieces that a processor's cache holds."""

import math

from torch import nn

from diffeo.transforms.continuous import Continuous
from diffeo.transforms.elementwise import Elementwise
from diffeo.transforms.residual import Residual

__all__ = ["numbers_a_row"]


def numbers_a_row(module: nn.Module, event: tuple[int, ...]) -> int:
    """The numbers of the widest tensor that one row of an event becomes on its way through a module's parts.

    A weight [out, in] makes out numbers of it, a kernel [out, in, ...] as many at every place of a picture
    (C, H, W); free raw parameters and components of mixtures count for each coordinate; certified inverses and exact
    log-determinants take a Jacobian.

    >>> numbers_a_row(nn.Sequential(nn.Linear(3, 128), nn.Linear(128, 2)), (3,))
    128
    """
    d = math.prod(event)
    places = math.prod(event[1:])
    widest = d
    for part in module.modules():
        if isinstance(part, Residual | Continuous):
            widest = max(widest, d * d)
        elif isinstance(part, Elementwise):
            widest = max(widest, part.raw.numel())
        else:
            widest = max(widest, d * int(getattr(part, "components", 0)))
            for weight in part.parameters(recurse=False):
                widest = max(widest, len(weight) * (places if weight.ndim > 2 else 1) if weight.ndim > 1 else 0)
    return widest
