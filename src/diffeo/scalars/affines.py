"""Affine maps of one number: a shift, and a scale that stays within bounds."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo import kernels
from diffeo.errors import ShapeError, shown
from diffeo.nets import soft_clip
from diffeo.scalars.base import Scalar, within, working_dtype

__all__ = ["additive", "affine"]

MOST_TANH = 80.0
MOST_RAW = 30.0  # e^31 times a million is below the root of the largest number of float32


def additive() -> Scalar:
    """y = x + raw: volume preserving (NICE, arXiv 1410.8516).

    >>> y, log_slope = additive().forward(torch.tensor([1.0]), torch.tensor([[2.0]]))
    >>> y.item(), log_slope.item()
    (3.0, 0.0)
    """

    def shift(x: Tensor, amount: Tensor) -> tuple[Tensor, Tensor]:
        dtype = working_dtype(x, amount)
        y = x.to(dtype) + amount.to(dtype)
        return y.to(x.dtype), torch.zeros_like(y)

    return Scalar("additive", 1, lambda x, raw: shift(x, raw[0]), lambda y, raw: shift(y, -raw[0]))


def affine(limit: float | None = None, scale: Literal["tanh", "exp", "sigmoid"] = "tanh") -> Scalar:
    """y = x exp(s) + raw[1], where s is made of raw[0] (RealNVP, arXiv 1605.08803), 0 for 0.

    ``scale="tanh"``: s = limit tanh(raw[0] / limit), so |s| < limit, by default 2: the bound keeps a trained layer
    invertible in floating point everywhere (arXiv 2006.09347). A RealNVP written with 2 tanh(r) gives raw[0] = 2 r
    here; one with exp(a tanh(r) + b), a and b learned, is this with a for the limit.

    ``scale="exp"``: s = raw[0], as in exp(factor * r) with a learned factor. No bound is wanted, so that none is felt
    below ``limit``, by default 30; beyond it s bends towards limit + 1, where float32 is not yet full.

    ``scale="sigmoid"``: exp(s) = sigmoid(raw[0] + 2) / sigmoid(2), as in Glow (arXiv 1807.03039), but 1 for raw 0:
    scales grow by an eighth at most, and shrink freely; raw[0] is kept to ``limit`` as under ``exp``.

    >>> scalar, raw = affine(), torch.tensor([[0.5], [1.0]])
    >>> y, log_slope = scalar.forward(torch.tensor([3.0]), raw)
    >>> x, _ = scalar.inverse(y, raw)
    >>> round(x.item(), 5)
    3.0
    """
    if scale not in _LOG_SCALES:
        raise ShapeError(f"scale: expected one of {', '.join(_LOG_SCALES)}, got {shown(scale)}")
    most = MOST_TANH if scale == "tanh" else MOST_RAW
    if limit is None:
        limit = 2.0 if scale == "tanh" else MOST_RAW
    if not 0 < limit <= most:
        raise ShapeError(f"limit: expected a number above 0 and up to {most:g}, where exp stays finite, got {limit!r}")
    log_scale_of = _LOG_SCALES[scale]

    def prepare(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dtype = working_dtype(x, raw)
        return within(x.to(dtype)), log_scale_of(raw[0].to(dtype), limit), raw[1].to(dtype)

    def move(inverse: bool, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        reference = backward if inverse else onward
        if scale != "sigmoid":
            dtype = working_dtype(x, raw)
            found = kernels.moved_by_line(x.to(dtype), raw.to(dtype), limit, scale == "tanh", inverse, reference)
            if found is not None:
                return found[0].to(x.dtype), found[1]
        return reference(x, raw)

    def onward(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        wide, log_scale, shift = prepare(x, raw)
        y = wide * log_scale.exp() + shift
        return y.to(x.dtype), log_scale.expand_as(y)

    def backward(y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        wide, log_scale, shift = prepare(y, raw)
        x = (wide - shift) * (-log_scale).exp()
        return x.to(y.dtype), (-log_scale).expand_as(x)

    return Scalar("affine" if scale == "tanh" else f"affine_{scale}", 2, partial(move, False), partial(move, True))


def _by_tanh(raw: Tensor, limit: float) -> Tensor:
    return limit * torch.tanh(raw / limit)


def _by_sigmoid(raw: Tensor, limit: float) -> Tensor:
    return F.logsigmoid(soft_clip(raw, limit) + 2) - F.logsigmoid(raw.new_tensor(2.0))


_LOG_SCALES: dict[str, Callable[[Tensor, float], Tensor]] = {"tanh": _by_tanh, "exp": soft_clip, "sigmoid": _by_sigmoid}
