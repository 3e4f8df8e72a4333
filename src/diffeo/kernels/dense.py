"""Linear layers, feature first, with ReLU between them: one node of the graph, its gradient written out.

Small nets cost less so, as nothing stands between the products; large ones as all products go the faster way.
"""

from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo.kernels.fused import slopes_again
from diffeo.kernels.products import is_large, mm
from diffeo.tracing import is_watched

__all__ = ["linear", "perceptron"]

DTYPES = (torch.float32, torch.float64)
_kind, _learns = attrgetter("dtype", "is_cpu"), attrgetter("requires_grad")


def linear(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``weight`` [m, k] @ ``h`` [k, n] + ``bias`` [m].

    >>> linear(torch.zeros(2, 3), torch.eye(2), torch.ones(2))
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    if torch.compiler.is_compiling() or not is_large(weight, h):
        return torch.addmm(bias.unsqueeze(1), weight, h)
    return perceptron(h, weight, bias)


def perceptron(h: Tensor, *layers: Tensor) -> Tensor:
    """h [k, n] through linear layers, given as weight [m, k], bias [m], weight, bias, ..., with ReLU between them.

    >>> perceptron(-torch.ones(1, 2), torch.eye(1), torch.zeros(1), torch.eye(1), torch.ones(1))
    tensor([[1., 1.]])
    """
    if not _fits(h, *layers):
        return _stepwise(h, *layers)
    if torch.is_grad_enabled() and any(map(_learns, (h, *layers))):
        return _Perceptron.apply(h, *layers)
    return _passed(h, layers)


def _fits(h: Tensor, *layers: Tensor) -> bool:
    """Whether it can be computed at once: plain tensors of a processor, all of one dtype, and nobody watches."""
    if is_watched(h, *layers) or torch.is_autocast_enabled("cpu"):
        return False
    return h.dtype in DTYPES and set(map(_kind, (h, *layers))) == {(h.dtype, True)}


def _stepwise(h: Tensor, *layers: Tensor) -> Tensor:
    """The same, step by step."""
    for i in range(0, len(layers), 2):
        h = torch.addmm(layers[i + 1].unsqueeze(1), layers[i], F.relu(h) if i else h)
    return h


def _passed(h: Tensor, layers: tuple[Tensor, ...], read: list[Tensor] | None = None) -> Tensor:
    """The same without a gradient; what layers but the first read is added to ``read``."""
    for i in range(0, len(layers), 2):
        weight, bias = layers[i], layers[i + 1].unsqueeze(1)
        if i:
            h.relu_()
            if read is not None:
                read.append(h)
        h = mm(weight, h).add_(bias) if is_large(weight, h) else torch.addmm(bias, weight, h)
    return h


class _Perceptron(torch.autograd.Function):
    """Keeps what each layer read; higher derivatives are autograd's of the single steps."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, *layers: Tensor) -> Tensor:
        read = list[Tensor]()
        found = _passed(h, layers, read)
        ctx.save_for_backward(h, *layers, *read)
        ctx.count = 1 + len(layers)
        return found

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # looked at once: under a checkpoint each look recomputes
        given, hidden = saved[: ctx.count], saved[ctx.count :]
        needed = ctx.needs_input_grad
        if torch.is_grad_enabled():
            return tuple(slopes_again(lambda *given: [_stepwise(*given)], given, [g]))
        product = torch.mm if is_watched(g) else mm
        read, found = (given[0], *hidden), list[Tensor | None]([None] * ctx.count)
        for i in range(len(hidden), -1, -1):
            at = 1 + 2 * i
            if needed[at]:
                found[at] = product(g, read[i].T)
            if needed[at + 1]:
                found[at + 1] = g.sum(1)
            if not any(needed[:at]):
                break
            g = product(given[at].T, g)
            g = torch.ops.aten.threshold_backward(g, read[i], 0) if i else g
        found[0] = g if needed[0] else None
        return tuple(found)
