"""A stack of affine couplings by its C kernel: rows through all of them, and the gradient."""

import ctypes
import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffeo.kernels import library

__all__ = ["Layout", "addresses", "passed", "pulled_back"]

BLOCK = 64  # rows that go together
MOST_WIDTH, MOST_D, MOST_DEPTH = 64, 32, 8  # beyond, products of the matrix library are as fast, or there is no room
WORK = 4  # kept numbers that are worth one number of a spline


class Layout(NamedTuple):
    """What the C function is told of a stack, and the shapes of its tensors, step by step."""

    plan: bytes
    limits: bytes
    shapes: list[torch.Size]
    kept: int  # numbers of a row within
    offsets: list[int]  # where each tensor starts, and the last one ends, if all lie in one run

    @classmethod
    def of(
        cls,
        shapes: Sequence[Sequence[torch.Size]],
        sizes: tuple[int, int],
        pair: bool,
        bent: bool,
        moves: Sequence[int],
        inverted: Sequence[bool],
        limits: Sequence[float],
    ) -> "Layout | None":
        """For the shapes of each step's tensors (of two nets, first that of the factor), the sizes of the two halves,
        which half moves, which steps are inverted and the limits of log-scales; None where the kernel has no room."""
        d, tensors = sum(sizes), len(shapes[0])
        first = shapes[0][1 : (tensors + 1) // 2] if pair else shapes[0]
        widths = [shape[0] for shape in first[:-2:2]]
        for own, move in zip(shapes, moves, strict=True):
            stay, out = (d, d) if pair else (d - sizes[move], 2 * sizes[move])
            net = [s for a, b in pairwise([stay, *widths, out]) for s in ((b, a), (b,))]
            if [tuple(shape) for shape in own] != ([(d,), *net, *net] if pair else net):
                return None
        if d > MOST_D or len(widths) > MOST_DEPTH or any(not 0 < width <= MOST_WIDTH for width in widths):
            return None
        features = 8 * d + (1 + pair) * sum(widths)
        numbers = [len(shapes), pair, bent, *sizes, features, tensors, len(widths), *widths, *moves, *inverted]
        numbers += [shape.numel() for own in shapes for shape in own]
        plan, most = struct.pack(f"{len(numbers)}q", *numbers), struct.pack(f"{len(limits)}d", *limits)
        flat = [shape for own in shapes for shape in own]
        offsets = [0, *accumulate(shape.numel() for shape in flat)]
        return cls(plan, most, flat, features * len(shapes), offsets)


def addresses(layout: Layout, weights: list[Tensor], dtype: torch.dtype) -> ctypes.Array | None:
    """Where the numbers of all tensors lie; None where one of them is not of the kind that the layout speaks of."""
    if library.LIBRARY is None or len(weights) != len(layout.shapes):
        return None
    found = []
    for weight, shape in zip(weights, layout.shapes, strict=True):
        if type(weight) is not nn.Parameter or weight.dtype is not dtype or weight.shape != shape:
            return None
        if not (weight.is_cpu and weight.is_contiguous()):
            return None
        found.append(weight.data_ptr())
    return (ctypes.c_void_p * len(found))(*found)


def passed(layout: Layout, weights: ctypes.Array, x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows x [n, d] through all steps: z [n, d], log_det [n]."""
    x = x.contiguous()
    z, log_det = torch.empty_like(x), x.new_empty(x.shape[0])
    _call(layout, weights, None, x, (z, log_det), (None, None, None))
    return z, log_det


def pulled_back(
    layout: Layout, weights: list[Tensor], x: Tensor, gz: Tensor, gl: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of x and of all tensors, from those of z and log_det."""
    x, gz, gl, own = x.contiguous(), gz.contiguous(), gl.contiguous(), addresses(layout, weights, x.dtype)
    if own is None:
        raise RuntimeError("weights: expected those of the forward pass, got others; call backward before exchanging")
    gx, found = torch.empty_like(gz), [torch.empty_like(weight) for weight in weights]
    sums = torch.zeros(layout.offsets[-1], dtype=torch.float64)
    start, many = sums.data_ptr(), ctypes.c_void_p * len(found)
    places = many(*[start + 8 * offset for offset in layout.offsets[:-1]]), many(*[g.data_ptr() for g in found])
    _call(layout, own, places, x, (None, None), (gz, gl, gx))
    return gx, found


def _call(
    layout: Layout,
    weights: ctypes.Array,
    gradients: tuple[ctypes.Array, ctypes.Array] | None,
    x: Tensor,
    outcome: tuple[Tensor | None, Tensor | None],
    slopes: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> None:
    kernel, n = library.LIBRARY, x.shape[0]
    if kernel is None or (not n and gradients is None):
        return
    threads = 1 if gradients else library.threads(n * layout.kept // WORK)  # gradients of weights are one sum
    kept = x.new_empty(threads * BLOCK * layout.kept)
    where = [None if v is None else v.data_ptr() for v in (x, *outcome, kept, *slopes)]
    how = x.dtype == torch.float64, kernel.target, threads, n, layout.plan, layout.limits
    kernel.stack(*how, weights, *(gradients or (None, None)), *where)
