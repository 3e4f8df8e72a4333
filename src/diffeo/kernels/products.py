"""Products of matrices, by whichever of torch's two libraries is the faster.

torch multiplies float32 matrices by MKL, which on other processors than Intel's leaves half of their width unused:
AVX2 where there is AVX-512. oneDNN, which torch has for convolutions and compiled programs, uses all of it. So larger
products go there on such processors. Which way a product goes depends on the machine, the settings and its sizes
alone, so that numbers can be repeated.
"""

import functools
import logging
import platform
from pathlib import Path

import torch
from torch import Tensor

from diffeo.kernels.library import VARIABLE, allowed

__all__ = ["in_use", "is_large", "mm"]

LEAST = 2_000_000  # multiplications and additions, from which a call of oneDNN is worth what it costs
CPUINFO = Path("/proc/cpuinfo")


def mm(a: Tensor, b: Tensor) -> Tensor:
    """a [m, k] @ b [k, n] of plain tensors of a processor, without a gradient.

    >>> mm(torch.ones(2, 3), torch.eye(3))
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    return _product(a, b) if is_large(a, b) else torch.mm(a, b)


def is_large(a: Tensor, b: Tensor) -> bool:
    """Whether the product of a [m, k] and b [k, n] goes to oneDNN."""
    large = a.shape[0] * b.numel() >= LEAST and a.dtype == torch.float32
    return large and _faster() and torch._C._get_mkldnn_enabled()


def in_use() -> str:
    """Which library multiplies larger matrices, in a few words.

    >>> in_use().split(" ")[0] in ("oneDNN", "PyTorch's")
    True
    """
    return "oneDNN (float32, larger ones)" if _faster() and torch._C._get_mkldnn_enabled() else "PyTorch's own"


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
    if not allowed():
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
