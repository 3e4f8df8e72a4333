"""The rational-quadratic spline by its C kernel, as tensors, as a function with a gradient, and as an operator.

Everywhere x [*shape] and raw [3 bins - 1 or 3 bins, *shape]: with 3 bins - 1 the spline is the identity outside
[-bound, bound], with 3 bins x lies within. An inverse's x is what the spline gives.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from diffeo.kernels import library

__all__ = ["fits", "fused", "gradient", "moved", "watched"]

Reference = Callable[[Tensor, Tensor, int, float, bool], tuple[Tensor, Tensor]]
DTYPES = (torch.float32, torch.float64)


def watched(*tensors: Tensor) -> bool:
    """Whether somebody looks at the single steps of a computation: a transformation of functions, forward-mode
    gradients, a tracer, tensors that are no numbers. Not to be asked while torch compiles."""
    return (
        any(type(tensor) is not Tensor and type(tensor) is not torch.nn.Parameter for tensor in tensors)
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
    )


def fits(x: Tensor, raw: Tensor) -> bool:
    """Whether the kernel can stand in for the formulas: on plain tensors of a processor that nobody watches."""
    if library.LIBRARY is None or x.dtype not in DTYPES or raw.dtype != x.dtype or not (x.is_cpu and raw.is_cpu):
        return False
    if torch.compiler.is_compiling():
        return not torch.compiler.is_exporting()
    return not watched(x, raw)


def fused(
    x: Tensor, raw: Tensor, bins: int, bound: float, inverse: bool, reference: Reference
) -> tuple[Tensor, Tensor]:
    """(y, log dy/dx) of the spline or (x, log dx/dy) of its inverse, where it `fits`.

    ``reference`` computes the same by tensor operations: second derivatives are those of it.
    """
    if torch.compiler.is_compiling():
        return torch.ops.diffeo.spline(x, raw, bins, bound, inverse)
    if torch.is_grad_enabled() and (x.requires_grad or raw.requires_grad):
        return _Fused.apply(x, raw, bins, bound, inverse, reference)
    return moved(x, raw, bins, bound, inverse)


def moved(x: Tensor, raw: Tensor, bins: int, bound: float, inverse: bool) -> tuple[Tensor, Tensor]:
    """As `fused`, no gradient kept."""
    x, raw = x.contiguous(), raw.contiguous()
    y, log_slope = torch.empty_like(x), torch.empty_like(x)
    _call(2 * inverse, x, raw, bins, bound, (None, None, y, log_slope, None))
    return y, log_slope


def gradient(
    x: Tensor, raw: Tensor, gy: Tensor | None, gl: Tensor | None, bins: int, bound: float, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to x and raw where those of the two that `moved` gives are gy and gl (None: zero)."""
    x, raw = x.contiguous(), raw.contiguous()
    gy, gl = (None if g is None else g.contiguous() for g in (gy, gl))
    gx, graw = torch.empty_like(x), torch.empty_like(raw)
    _call(2 * inverse + 1, x, raw, bins, bound, (gy, gl, gx, None, graw))
    return gx, graw


def _call(what: int, x: Tensor, raw: Tensor, bins: int, bound: float, others: tuple[Tensor | None, ...]) -> None:
    kernel, n = library.LIBRARY, x.numel()
    if not n or kernel is None:
        return
    sizes = n, bins, raw.shape[0] == 3 * bins, bound
    addresses = [None if v is None else v.data_ptr() for v in (x, raw, *others)]
    kernel.spline(what, x.dtype == torch.float64, kernel.target, library.threads(n), *sizes, *addresses)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, raw: Tensor, bins: int, bound: float, inverse: bool, reference: Reference
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, raw)
        ctx.how, ctx.reference = (bins, bound, inverse), reference
        ctx.set_materialize_grads(False)
        return moved(x, raw, bins, bound, inverse)

    @staticmethod
    def backward(ctx: Any, gy: Tensor | None, gl: Tensor | None) -> tuple[Tensor | None, ...]:
        x, raw = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return *gradient(x, raw, gy, gl, *ctx.how), None, None, None, None
        outputs = ctx.reference(x, raw, *ctx.how)
        weights = [torch.zeros_like(x) if g is None else g for g in (gy, gl)]
        wanted = [v for v in (x, raw) if v.requires_grad]
        found = iter(torch.autograd.grad(outputs, wanted, weights, create_graph=True))
        return *(next(found) if v.requires_grad else None for v in (x, raw)), None, None, None, None


_OPERATORS = torch.library.Library("diffeo", "DEF")
_OPERATORS.define("spline(Tensor x, Tensor raw, int bins, float bound, bool inverse) -> (Tensor, Tensor)")
_OPERATORS.define(
    "spline_gradient(Tensor x, Tensor raw, Tensor gy, Tensor gl, int bins, float bound, bool inverse)"
    " -> (Tensor, Tensor)"
)
_OPERATORS.impl("spline", moved, "CPU")
_OPERATORS.impl("spline_gradient", gradient, "CPU")


@torch.library.register_fake("diffeo::spline", lib=_OPERATORS)
def _(x: Tensor, raw: Tensor, bins: int, bound: float, inverse: bool) -> tuple[Tensor, Tensor]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(2))  # type: ignore[return-value]


@torch.library.register_fake("diffeo::spline_gradient", lib=_OPERATORS)
def _(x: Tensor, raw: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return tuple(torch.empty_like(v, memory_format=torch.contiguous_format) for v in (x, raw))  # type: ignore[return-value]


def _keep(ctx: Any, inputs: tuple, output: Any) -> None:
    x, raw, *ctx.how = inputs
    ctx.save_for_backward(x, raw)


def _differentiate(ctx: Any, gy: Tensor, gl: Tensor) -> tuple[Tensor | None, ...]:
    return *torch.ops.diffeo.spline_gradient(*ctx.saved_tensors, gy, gl, *ctx.how), None, None, None


torch.library.register_autograd("diffeo::spline", _differentiate, setup_context=_keep, lib=_OPERATORS)
