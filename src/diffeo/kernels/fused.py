"""What a kernel computes as one node of the graph: its gradient by a kernel too, what is beyond it by the formulas."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Fused", "slopes_again"]


class Fused(torch.autograd.Function):
    """moved(x, raw) -> two tensors like x; keeps x and raw alone.

    ``gradient(x, raw, gy, gl)`` gives what x and raw get for the gradients of both outcomes (None: zero), and
    ``reference(x, raw)`` is moved by tensor operations, of which higher derivatives are taken.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        raw: Tensor,
        moved: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        gradient: Callable[..., tuple[Tensor, Tensor]],
        reference: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, raw)
        ctx.gradient, ctx.reference = gradient, reference
        ctx.set_materialize_grads(False)
        return moved(x, raw)

    @staticmethod
    def backward(ctx: Any, gy: Tensor | None, gl: Tensor | None) -> tuple[Tensor | None, ...]:
        x, raw = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return *ctx.gradient(x, raw, gy, gl), None, None, None
        weights = [torch.zeros_like(x) if g is None else g for g in (gy, gl)]
        return *slopes_again(ctx.reference, (x, raw), weights), None, None, None


def slopes_again(
    act: Callable[..., Sequence[Tensor]], given: Sequence[Tensor], weights: Sequence[Tensor]
) -> list[Tensor | None]:
    """Gradients of act(*given), so weighted, that can be differentiated again; None for what is not learned.

    What is given may be made of one another (parameters of what they move): it is taken through views, so that no
    gradient is followed from one to the other.

    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> (slope,) = slopes_again(lambda x: [x * x], [x], [torch.ones(())])
    >>> torch.autograd.grad(slope, x)
    (tensor(2.),)
    """
    given = [v.view_as(v) for v in given]
    wanted = [v for v in given if v.requires_grad]
    found = iter(torch.autograd.grad(act(*given), wanted, weights, create_graph=True))
    return [next(found) if v.requires_grad else None for v in given]
