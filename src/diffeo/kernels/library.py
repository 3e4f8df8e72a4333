"""The compiled library: found, trusted if it was made of the C files beside it, and called by addresses."""

import ctypes
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = ["LIBRARY", "VARIABLE", "Library", "allowed", "in_use", "opened", "stand_back", "threads"]

VARIABLE = "DIFFEO_KERNELS"
THREADED = 8192  # numbers from which threads are worth their start
TARGETS = ("plain", "x86-64-v3", "x86-64-v4")
HERE = Path(__file__).parent
_INTS, _ADDRESSES = [ctypes.c_int] * 4, [ctypes.c_void_p] * 7


class Library(NamedTuple):
    """``spline``, ``stack`` and ``affine`` are the C functions; ``target`` is the best set of instructions here;
    ``threaded``: made with OpenMP."""

    spline: Callable[..., None]
    stack: Callable[..., None]
    affine: Callable[..., None]
    target: int
    threaded: bool


def opened(folder: Path = HERE) -> Library | None:
    """The library in a folder; None, with a line in the log at debug level, where there is none or a wrong one."""
    try:
        return _opened(folder)
    except (OSError, AttributeError, ValueError) as error:
        stand_back(error)
        return None


def allowed() -> bool:
    """Whether kernels may be used at all."""
    return os.environ.get(VARIABLE, "").lower() != "off"


def stand_back(reason: object) -> None:
    """Say in the log that the formulas are computed by tensor operations."""
    logging.getLogger("diffeo").debug("kernels: the reference path is taken: %s", reason)


def _opened(folder: Path) -> Library:
    if not allowed():
        raise ValueError(f"{VARIABLE}=off")
    library = ctypes.CDLL(str(folder / "libkernels.so"))
    library.diffeo_source.restype = ctypes.c_char_p
    made_of = library.diffeo_source().decode(errors="replace")
    source = b"".join(file.read_bytes() for file in sorted(folder.glob("*.[ch]")))
    if made_of != hashlib.sha256(source).hexdigest()[:16]:
        raise ValueError("libkernels.so was made of other C files; make it again with python hatch_build.py")
    spline, stack, affine = library.diffeo_spline, library.diffeo_stack, library.diffeo_affine
    spline.argtypes = [*_INTS, ctypes.c_int64, ctypes.c_int, ctypes.c_int, ctypes.c_double, *_ADDRESSES]
    stack.argtypes = [*_INTS[:3], ctypes.c_int64, *_ADDRESSES[:5], *_ADDRESSES]
    affine.argtypes = [*_INTS[:3], ctypes.c_int64, ctypes.c_int, ctypes.c_double, *_ADDRESSES]
    for function in (spline, stack, affine):
        function.restype = None
    return Library(spline, stack, affine, library.diffeo_best(), bool(library.diffeo_threaded()))


LIBRARY = opened()
_PROCESS = os.getpid()  # OpenMP's threads do not outlive a fork


def threads(numbers: int) -> int:
    """How many threads are to go through so many numbers; one in a process that was forked off."""
    if numbers < THREADED or LIBRARY is None or not LIBRARY.threaded or os.getpid() != _PROCESS:
        return 1
    return torch.get_num_threads()


def in_use() -> str:
    """Which kernels are in use, in a few words.

    >>> in_use().split(" ")[0] in ("C", "reference")
    True
    """
    if LIBRARY is None:
        return "reference (PyTorch)"
    return f"C ({TARGETS[LIBRARY.target]}, {'OpenMP' if LIBRARY.threaded else 'one thread'})"
