"""Products of matrices, by whichever of torch's two libraries is the faster.

torch multiplies float32 matrices by MKL, which on other processors than Intel's leaves half of their width unused:
AVX2 where there is AVX-512. oneDNN, which torch has for convolutions and compiled programs, uses all of it. So larger
products go there on such processors. Which way a product goes depends on the machine, the settings and its sizes
alone, so that numbers can be repeated.
"""

import functools
import logging
import os
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffeo.kernels.library import VARIABLE
from diffeo.tracing import is_plain

__all__ = ["addmm", "in_use"]

LEAST = 2_000_000  # multiplications and additions, from which a call of oneDNN is worth what it costs
CPUINFO = Path("/proc/cpuinfo")


def addmm(added: Tensor, weight: Tensor, h: Tensor) -> Tensor:
    """``added`` [m, 1] or [m, n] + ``weight`` [m, k] @ ``h`` [k, n], as `torch.addmm` has it, to rounding.

    >>> addmm(torch.ones(2, 1), torch.eye(2), torch.zeros(2, 3))
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    if torch.compiler.is_compiling() or weight.shape[0] * h.numel() < LEAST or not _fits(added, weight, h):
        return torch.addmm(added, weight, h)
    if torch.is_grad_enabled() and (added.requires_grad or weight.requires_grad or h.requires_grad):
        return _Addmm.apply(added, weight, h)
    return _product(weight, h).add_(added)


def in_use() -> str:
    """Which library multiplies larger matrices, in a few words.

    >>> in_use().split(" ")[0] in ("oneDNN", "PyTorch's")
    True
    """
    return "oneDNN (float32, larger ones)" if _faster() and torch._C._get_mkldnn_enabled() else "PyTorch's own"


def _fits(*tensors: Tensor) -> bool:
    """Whether oneDNN can stand in: float32 on a processor for which it is faster, and nobody watches."""
    return (
        all(tensor.dtype == torch.float32 and tensor.is_cpu for tensor in tensors)
        and _faster()
        and torch._C._get_mkldnn_enabled()
        and not torch.is_autocast_enabled("cpu")
        and is_plain(*tensors)
    )


@functools.cache
def _faster() -> bool:
    """Whether oneDNN is there and the faster of the two, looked up once; if not, why not is a line in the log."""
    try:
        _look()
    except Exception as error:  # torch promises nothing about this operator
        logging.getLogger("diffeo").debug("products: torch's own are taken: %s", error)
        return False
    return True


def _look() -> None:
    """Raises where oneDNN is not to be taken."""
    if os.environ.get(VARIABLE, "").lower() == "off":
        raise ValueError(f"{VARIABLE}=off")
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        raise ValueError("torch was built without MKL or without oneDNN")
    capability = torch.backends.cpu.get_cpu_capability()
    if platform.machine() not in ("x86_64", "AMD64") or not capability.startswith("AVX512"):
        raise ValueError(f"a processor with {capability}, which both use alike")
    lines = CPUINFO.read_text().splitlines()
    vendor = next(line.split(":")[1].strip() for line in lines if line.startswith("vendor_id"))
    if vendor == "GenuineIntel":
        raise ValueError("a processor of Intel's, which both use alike")
    a, b = torch.arange(15.0).view(5, 3), torch.arange(21.0).view(3, 7)
    with torch.no_grad():
        for left, right in ((a, b), (a, b.T.contiguous().T), (b.T, a.T)):
            if not torch.equal(_product(left, right), left @ right):  # whole numbers: no rounding
                raise ValueError("the operator gives other numbers")


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a [m, k] @ b [k, n] by oneDNN, whose linear layer it is: rows a, weights b.T."""
    return torch.ops.mkldnn._linear_pointwise.default(_dense(a), _dense(b.T), None, "none", [], "")


def _dense(matrix: Tensor) -> Tensor:
    """The matrix with its rows or its columns each in one run of memory."""
    (rows, columns), (down, across) = matrix.shape, matrix.stride()
    return matrix if (across == 1 and down >= columns) or (down == 1 and across >= rows) else matrix.contiguous()


class _Addmm(torch.autograd.Function):
    """The same with its gradient, of which the products are as large."""

    @staticmethod
    def forward(ctx: Any, added: Tensor, weight: Tensor, h: Tensor) -> Tensor:
        ctx.save_for_backward(weight, h)
        ctx.alike = added.shape[1] == h.shape[1]
        return _product(weight, h).add_(added)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        weight, h = ctx.saved_tensors
        product = torch.mm if torch.is_grad_enabled() or not _fits(g) else _product
        by_added, by_weight, by_h = ctx.needs_input_grad
        return (
            (g if ctx.alike else g.sum(1, keepdim=True)) if by_added else None,
            product(g, h.T) if by_weight else None,
            product(weight.T, g) if by_h else None,
        )
