"""The rational-quadratic spline by its C kernel, as tensors, as a function with a gradient, and as an operator.

Everywhere x [*shape] and raw [3 bins - 1 or 3 bins, *shape]: with 3 bins - 1 the spline is the identity outside
[-bound, bound], with 3 bins x lies within. An inverse's x is what the spline gives.
"""

import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from diffeo.kernels import library
from diffeo.kernels.fused import Fused
from diffeo.tracing import is_watched

__all__ = ["fits", "fused", "gradient", "moved"]

Reference = Callable[[Tensor, Tensor, int, float, bool], tuple[Tensor, Tensor]]
DTYPES = (torch.float32, torch.float64)


def fits(x: Tensor, raw: Tensor) -> bool:
    """Whether the kernel can stand in for the formulas: on plain tensors of one device that nobody watches."""
    if x.dtype not in DTYPES or raw.dtype != x.dtype or x.device != raw.device:
        return False
    if not (x.is_cpu and library.LIBRARY is not None) and not (x.is_cuda and library.allowed()):
        return False
    if torch.compiler.is_compiling():
        return x.is_cpu and not torch.compiler.is_exporting()
    return not is_watched(x, raw)


def fused(
    x: Tensor, raw: Tensor, bins: int, bound: float, inverse: bool, reference: Reference
) -> tuple[Tensor, Tensor]:
    """(y, log dy/dx) of the spline or (x, log dx/dy) of its inverse, where it `fits`.

    ``reference`` computes the same by tensor operations: second derivatives are those of it.
    """
    if torch.compiler.is_compiling():
        return torch.ops.diffeo.spline(x, raw, bins, bound, inverse)
    if x.is_cuda and not trusted(x.device, reference):
        return reference(x, raw, bins, bound, inverse)
    if torch.is_grad_enabled() and (x.requires_grad or raw.requires_grad):
        ahead = partial(moved, bins=bins, bound=bound, inverse=inverse)
        back = partial(gradient, bins=bins, bound=bound, inverse=inverse)
        return Fused.apply(x, raw, ahead, back, lambda x, raw: reference(x, raw, bins, bound, inverse))
    return moved(x, raw, bins, bound, inverse)


def _triton() -> Any:
    """The kernels of a GPU."""
    from diffeo.kernels import gpu

    return gpu


@cache
def trusted(device: torch.device, reference: Reference) -> bool:
    """Whether the kernels of this GPU are there, and give what ``reference`` gives; looked at once a device."""
    try:
        agreed = agree(_triton(), device, reference)
    except Exception as error:
        library.stand_back(f"no kernel for {device}: {error}")
        return False
    if not agreed:
        warnings.warn(
            f"the spline's kernel for {device} is wrong there and is not used; please report it", stacklevel=2
        )
    return agreed


def agree(kernel: Any, device: torch.device | str, reference: Reference) -> bool:
    """Whether values and gradients of ``kernel``, which has `moved` and `gradient`, are those of ``reference``, in
    float64 on 1,000 numbers of all bins and tails, both ways."""
    generator = torch.Generator().manual_seed(0)
    x, gy, gl = torch.randn(3, 1000, generator=generator, dtype=torch.float64).to(device)
    raw = torch.randn(23, 1000, generator=generator, dtype=torch.float64).to(device)
    for inverse in (False, True):
        leaves = [(3 * x).requires_grad_(), raw.clone().requires_grad_()]
        with torch.enable_grad():
            values = reference(leaves[0], leaves[1], 8, 5.0, inverse)
            wanted = (*values, *torch.autograd.grad(values, leaves, (gy, gl)))
        found = (*kernel.moved(3 * x, raw, 8, 5.0, inverse), *kernel.gradient(3 * x, raw, gy, gl, 8, 5.0, inverse))
        if not all(torch.allclose(a, b, rtol=1e-7, atol=1e-7) for a, b in zip(found, wanted, strict=True)):
            return False
    return True


def moved(x: Tensor, raw: Tensor, bins: int, bound: float, inverse: bool) -> tuple[Tensor, Tensor]:
    """As `fused`, no gradient kept."""
    x, raw = x.contiguous(), raw.contiguous()
    if x.is_cuda:
        return _triton().moved(x, raw, bins, bound, inverse)
    y, log_slope = torch.empty_like(x), torch.empty_like(x)
    _call(2 * inverse, x, raw, bins, bound, (None, None, y, log_slope, None))
    return y, log_slope


def gradient(
    x: Tensor, raw: Tensor, gy: Tensor | None, gl: Tensor | None, bins: int, bound: float, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to x and raw where those of the two that `moved` gives are gy and gl (None: zero)."""
    x, raw = x.contiguous(), raw.contiguous()
    if x.is_cuda:
        weights = [torch.zeros_like(x) if g is None else g.contiguous() for g in (gy, gl)]
        return _triton().gradient(x, raw, *weights, bins, bound, inverse)
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
