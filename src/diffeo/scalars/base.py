"""What a scalar is, and how its numbers are made ready."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Move", "Scalar", "aligned", "spread", "within", "working_dtype"]

Move = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Scalar(NamedTuple):
    """A family of increasing maps of one number.

    ``forward(x, raw)`` gives (y, log dy/dx) and ``inverse(y, raw)`` gives (x, log dx/dy), both of x's shape, for raw
    [width, *x.shape] or anything that broadcasts to it. ``start(values [n, d])``, where there is one, gives the raw
    [width, d] that suit d columns of numbers.
    """

    name: str
    width: int
    forward: Move
    inverse: Move
    start: Callable[[Tensor], Tensor] | None = None


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype to compute in: the widest of the tensors', never below float32."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def within(x: Tensor) -> Tensor:
    """x, but no further out than the root of the largest number of its dtype, so that what it is multiplied by leaves
    it and its gradients finite (a sum of infinities is no number).

    >>> within(torch.tensor([1.0, 3e38]))
    tensor([1.0000e+00, 1.8447e+19])
    """
    limit = math.sqrt(torch.finfo(x.dtype).max)
    return x.clamp(-limit, limit)


def aligned(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """x and raw in the working dtype, raw with as many dimensions behind its width as x has, at least."""
    dtype = working_dtype(x, raw)
    ones = (1,) * (x.ndim + 1 - raw.ndim)
    return x.to(dtype), raw.to(dtype).reshape(raw.shape[0], *ones, *raw.shape[1:])


def spread(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """x and raw in the working dtype, raw [width, *x.shape] in full."""
    x, raw = aligned(x, raw)
    if x.shape == raw.shape[1:]:
        return x, raw
    x, _ = torch.broadcast_tensors(x, raw[0])
    return x, raw.expand(-1, *x.shape)
