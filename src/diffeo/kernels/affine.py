"""The affine map by its C kernel, as a function with a gradient: x [*shape] and raw [2, *shape], of which raw[0]
gives the log-scale and raw[1] the shift. An inverse's x is what the map gives."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from diffeo.kernels import library
from diffeo.kernels.fused import Fused
from diffeo.kernels.spline import fits

__all__ = ["moved_by_line"]

Reference = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def moved_by_line(
    x: Tensor, raw: Tensor, limit: float, bent: bool, inverse: bool, reference: Reference
) -> tuple[Tensor, Tensor] | None:
    """(y, log dy/dx) or (x, log dx/dy) where the kernel fits; None elsewhere. Where torch compiles, formulas do better.

    ``bent``: towards the limit by tanh from the start, or else only beyond it. ``reference`` computes the same by
    tensor operations: second derivatives are those of it.
    """
    if torch.compiler.is_compiling() or not x.is_cpu or x.shape != raw.shape[1:] or not fits(x, raw):
        return None
    if torch.is_grad_enabled() and (x.requires_grad or raw.requires_grad):
        moved = partial(_moved, limit=limit, bent=bent, inverse=inverse)
        return Fused.apply(x, raw, moved, partial(_gradient, limit=limit, bent=bent, inverse=inverse), reference)
    return _moved(x, raw, limit, bent, inverse)


def _moved(x: Tensor, raw: Tensor, limit: float, bent: bool, inverse: bool) -> tuple[Tensor, Tensor]:
    x, raw = x.contiguous(), raw.contiguous()
    y, log_slope = torch.empty_like(x), torch.empty_like(x)
    _call(2 * inverse, x, raw, limit, bent, (None, None, y, log_slope, None))
    return y, log_slope


def _gradient(
    x: Tensor, raw: Tensor, gy: Tensor | None, gl: Tensor | None, limit: float, bent: bool, inverse: bool
) -> tuple[Tensor, Tensor]:
    x, raw = x.contiguous(), raw.contiguous()
    gy, gl = (None if g is None else g.contiguous() for g in (gy, gl))
    gx, graw = torch.empty_like(x), torch.empty_like(raw)
    _call(2 * inverse + 1, x, raw, limit, bent, (gy, gl, gx, None, graw))
    return gx, graw


def _call(what: int, x: Tensor, raw: Tensor, limit: float, bent: bool, others: tuple[Tensor | None, ...]) -> None:
    kernel, m = library.LIBRARY, x.numel()
    if m and kernel is not None:
        addresses = [None if v is None else v.data_ptr() for v in (x, raw, *others)]
        kernel.affine(what, x.dtype == torch.float64, kernel.target, m, bent, limit, *addresses)
