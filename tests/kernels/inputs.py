"""Splines and numbers on which the kernel is held against the formulas, and how products are made to go to oneDNN."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from diffeo.kernels import library, products
from diffeo.scalars import rational

NEEDS = pytest.mark.skipif(library.LIBRARY is None, reason="no kernels here: compile them by python hatch_build.py")
TARGETS = range(1 + (library.LIBRARY.target if library.LIBRARY else 0))


class Case(NamedTuple):
    bins: int
    bound: float
    circular: bool
    std: float  # of the raw numbers

    @property
    def width(self) -> int:
        return 3 * self.bins - 1 + self.circular


CASES = [
    Case(bins, bound, circular, std)
    for bins, bound in ((1, 3.0), (2, 5.1), (8, 8.0), (50, 4.0))
    for circular in (False, True)
    for std in (1.0, 3.0)
]
EXTREME = [Case(bins, 5.0, circular, 30.0) for bins in (1, 2, 8, 50) for circular in (False, True)]


def drawn(case: Case, n: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """n numbers inside, at and beyond the ends, one spline each; all of them are float32 numbers."""
    generator = torch.Generator().manual_seed(seed)
    reach = 1.0 if case.circular else 1.2
    x = case.bound * reach * (2 * torch.rand(n, generator=generator) - 1)
    raw = case.std * torch.randn(case.width, n, generator=generator)
    edges = case.bound * torch.tensor([1.0, -1.0, 0.0, -0.0, 0.999999, -0.999999])
    x[: min(n, len(edges))] = edges[:n]
    return x.to(dtype), raw.to(dtype)


def weights(x: Tensor) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(x.shape, generator=generator).to(x.dtype) for _ in range(2))  # type: ignore[return-value]


def everything(case: Case, x: Tensor, raw: Tensor, inverse: bool, kernel: bool) -> list[Tensor]:
    """Value, log-slope, and the gradients of their weighted sum with respect to x and raw."""
    x, raw = x.clone().requires_grad_(), raw.clone().requires_grad_()
    step = rational._move if kernel else rational._reference
    y, log_slope = step(x, raw, case.bins, case.bound, inverse)
    assert ("Fused" in y.grad_fn.name()) == kernel  # type: ignore[union-attr]
    gradients = torch.autograd.grad((y, log_slope), (x, raw), weights(x), allow_unused=True)
    return [y.detach(), log_slope.detach(), *(v for v in gradients if v is not None)]


def knots(case: Case, raw: Tensor, axis: int) -> Tensor:
    """Where the documented knots lie [bins, n], the upper end of each bin: of x (axis 0) or of y (axis 1)."""
    sizes = raw[axis * case.bins : (axis + 1) * case.bins].double()
    shares = 1e-3 + (1 - 1e-3 * case.bins) * torch.softmax(sizes, 0)
    return case.bound * (2 * shares.cumsum(0) - 1)


def anyway(monkeypatch: pytest.MonkeyPatch, least: int = 1) -> None:
    """Products of this size go to oneDNN on every processor that has it."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch without oneDNN")
    monkeypatch.setattr(products, "_faster", lambda: True)
    monkeypatch.setattr(products, "LEAST", least)
