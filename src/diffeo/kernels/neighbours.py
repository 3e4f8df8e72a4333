"""Every place of a picture beside its eight neighbours, so that a 3x3 convolution is a product of matrices; and back.

Pictures lie channel first, [c, n, H, W], as everything does that products of matrices are to move.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo.tracing import is_watched

__all__ = ["gathered", "neighbours"]

SHIFTS = tuple(divmod(k, 3) for k in range(9))


def neighbours(h: Tensor) -> Tensor:
    """h [c, n, H, W] -> [9, c, n, H, W], whose part 3i + j is h moved by (1 - i, 1 - j), with zeros from outside.

    ``weight.movedim(1, -1).flatten(1) @ neighbours(h).flatten(2).flatten(0, 1)``, of weight [out, c, 3, 3] with its
    kernel's places before its channels, is the convolution with zero padding.

    >>> neighbours(torch.ones(1, 1, 2, 2))[0, 0, 0]
    tensor([[0., 0.],
            [0., 1.]])
    """
    if is_watched(h):
        return _spread_stepwise(h)
    found: Tensor = _Spread.apply(h) if torch.is_grad_enabled() and h.requires_grad else _spread(h)
    return found


def gathered(y: Tensor) -> Tensor:
    """The adjoint: y [9, c, n, H, W] -> [c, n, H, W], each place being told something by every neighbour.

    >>> gathered(torch.ones(9, 1, 1, 2, 2))[0, 0]
    tensor([[4., 4.],
            [4., 4.]])
    """
    if is_watched(y):
        return _gather_stepwise(y)
    found: Tensor = _Gather.apply(y) if torch.is_grad_enabled() and y.requires_grad else _gather(y)
    return found


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        return _spread(h)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return gathered(g)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return _gather(y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return neighbours(g)


def _spread(h: Tensor) -> Tensor:
    height, width = h.shape[2:]
    wide = F.pad(h, (1, 1, 1, 1))
    found = h.new_empty(9, *h.shape)
    for part, (i, j) in zip(found.unbind(), SHIFTS, strict=True):
        part.copy_(wide[:, :, i : i + height, j : j + width])
    return found


def _gather(y: Tensor) -> Tensor:
    c, n, height, width = y.shape[1:]
    wide = y.new_zeros(c, n, height + 2, width + 2)
    for part, (i, j) in zip(y.unbind(), SHIFTS, strict=True):
        wide[:, :, i : i + height, j : j + width] += part
    return wide[:, :, 1:-1, 1:-1].contiguous()


def _spread_stepwise(h: Tensor) -> Tensor:
    height, width = h.shape[2:]
    wide = F.pad(h, (1, 1, 1, 1))
    return torch.stack([wide[:, :, i : i + height, j : j + width] for i, j in SHIFTS])


def _gather_stepwise(y: Tensor) -> Tensor:
    height, width = y.shape[3:]
    back = [(2 - i, 2 - j) for i, j in SHIFTS]
    parts = [
        F.pad(part, (1, 1, 1, 1))[:, :, i : i + height, j : j + width] for part, (i, j) in zip(y, back, strict=True)
    ]
    return torch.stack(parts).sum(0)
