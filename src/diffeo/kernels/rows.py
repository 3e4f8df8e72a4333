"""A linear layer of rows as one node of the graph, every product going the faster way."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo.kernels.fused import slopes_again
from diffeo.kernels.products import is_large, mm
from diffeo.tracing import is_watched

__all__ = ["linear_rows"]


def linear_rows(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``h`` [..., k] @ ``weight`` [m, k] transposed + ``bias`` [m]: [..., m].

    >>> linear_rows(torch.ones(2, 3, 4), torch.eye(4), torch.ones(4))[1, 2]
    tensor([2., 2., 2., 2.])
    """
    if not _fits(h, weight, bias):
        return F.linear(h, weight, bias)
    rows = h.flatten(0, -2)
    if torch.is_grad_enabled() and any(v.requires_grad for v in (h, weight, bias)):
        found: Tensor = _Rows.apply(rows, weight, bias)
    else:
        found = mm(rows, weight.T).add_(bias)
    return found.unflatten(0, h.shape[:-1])


def _fits(h: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether products are large ones of a processor, all of one dtype, and nobody watches."""
    if torch.compiler.is_compiling() or not h.is_cpu or h.ndim < 2 or weight.dtype != h.dtype:
        return False
    if h.numel() * len(weight) == 0 or is_watched(h, weight, bias) or torch.is_autocast_enabled("cpu"):
        return False
    return is_large(h.flatten(0, -2), weight.T)


class _Rows(torch.autograd.Function):
    """Higher derivatives are autograd's of the plain layer."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight, bias)
        return mm(rows, weight.T).add_(bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():
            return tuple(slopes_again(lambda *given: [F.linear(*given)], (rows, weight, bias), [g]))
        product = torch.mm if is_watched(g) else mm
        by_rows, by_weight, by_bias = ctx.needs_input_grad
        return (
            product(g, weight) if by_rows else None,
            product(g.T, rows) if by_weight else None,
            g.sum(0) if by_bias else None,
        )
