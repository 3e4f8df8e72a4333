"""Affine maps of one number: a shift, and a scale that stays within bounds."""

import torch
from torch import Tensor

from diffeo.errors import ShapeError
from diffeo.scalars.base import Scalar, within, working_dtype

__all__ = ["additive", "affine"]


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


def affine(limit: float = 2.0) -> Scalar:
    """y = x exp(s) + raw[1] with s = limit tanh(raw[0] / limit), so |s| < limit (RealNVP, arXiv 1605.08803, bounded).

    The bound keeps a trained layer invertible in floating point everywhere (arXiv 2006.09347).

    >>> scalar, raw = affine(), torch.tensor([[0.5], [1.0]])
    >>> y, log_slope = scalar.forward(torch.tensor([3.0]), raw)
    >>> x, _ = scalar.inverse(y, raw)
    >>> round(x.item(), 5)
    3.0
    """
    if not 0 < limit <= 80:
        raise ShapeError(f"limit: expected a number above 0 and up to 80, where exp stays finite, got {limit!r}")

    def prepare(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dtype = working_dtype(x, raw)
        log_scale = limit * torch.tanh(raw[0].to(dtype) / limit)
        return within(x.to(dtype)), log_scale, raw[1].to(dtype)

    def forward(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        wide, log_scale, shift = prepare(x, raw)
        y = wide * log_scale.exp() + shift
        return y.to(x.dtype), log_scale.expand_as(y)

    def inverse(y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        wide, log_scale, shift = prepare(y, raw)
        x = (wide - shift) * (-log_scale).exp()
        return x.to(y.dtype), (-log_scale).expand_as(x)

    return Scalar("affine", 2, forward, inverse)
