"""The kernel of the affine map against the formulas of `scalars/affines.py`."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffeo import scalars
from diffeo.kernels import library
from tests.kernels.inputs import NEEDS

pytestmark = NEEDS
SCALARS = {
    "tanh": scalars.affine(),
    "tanh 80": scalars.affine(80.0),
    "exp": scalars.affine(scale="exp"),
    "exp 2": scalars.affine(2.0, scale="exp"),
}
LIMITED = pytest.mark.parametrize("name", SCALARS)
DIRECTIONS = pytest.mark.parametrize("direction", ["forward", "inverse"])


def drawn(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x, raw = 3 * torch.randn(shape, generator=generator), 2 * torch.randn(2, *shape, generator=generator)
    return x.to(dtype), raw.to(dtype)


def everything(name: str, direction: str, x: Tensor, raw: Tensor, by_kernel: bool) -> list[Tensor]:
    x, raw = x.clone().requires_grad_(), raw.clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        if not by_kernel:
            patch.setattr(library, "LIBRARY", None)
        outcome = getattr(SCALARS[name], direction)(x, raw)
    assert ("Fused" in outcome[0].grad_fn.name()) == by_kernel
    generator = torch.Generator().manual_seed(4)
    weights = [torch.randn(x.shape, generator=generator).to(x.dtype) for _ in range(2)]
    return [*(v.detach() for v in outcome), *torch.autograd.grad(outcome, (x, raw), weights)]


@LIMITED
@DIRECTIONS
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (2, 63), (64,), (1001,)], ids=str)
def test_float64_is_the_formulas(name: str, direction: str, shape: tuple[int, ...], target: int) -> None:
    found = [everything(name, direction, *drawn(shape), by_kernel) for by_kernel in (True, False)]
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-11)


@LIMITED
@DIRECTIONS
def test_float32_is_as_exact(name: str, direction: str, target: int) -> None:
    """Root mean square errors against float64, relative to the number, are at most twice those of the formulas."""
    x, raw = drawn((20_000,), torch.float32)
    ours, theirs = (everything(name, direction, x, raw, by_kernel) for by_kernel in (True, False))
    true = everything(name, direction, x.double(), raw.double(), False)
    for mine, his, right in zip(ours, theirs, true, strict=True):
        errors = [((v.double() - right) / (1 + right.abs())).square().mean().sqrt() for v in (mine, his)]
        assert errors[0] <= 2 * errors[1] + 2**-25


@LIMITED
@DIRECTIONS
def test_odd_numbers(name: str, direction: str, target: int) -> None:
    """NaN, infinities and numbers far out, in x and in raw, are what they are to the formulas; but the gradient of a
    raw log-scale that is NaN, which these leave 0 where they cut it off, is NaN."""
    x, raw = drawn((40,), torch.float32)
    odd = torch.tensor([math.nan, math.inf, -math.inf, 3e38, -1e30])
    x[:5], raw[0, 10:15], raw[1, 20:25] = odd, odd, odd
    raw[1, 23] = 1e30  # the formulas' products overflow in another order
    found = [everything(name, direction, x, raw, by_kernel) for by_kernel in (True, False)]
    for outcome in found:
        outcome[3][0, 10] = 0.0
    torch.testing.assert_close(*found, equal_nan=True, rtol=1e-4, atol=1e-4)


@LIMITED
@DIRECTIONS
def test_second_derivatives(name: str, direction: str) -> None:
    x, raw = (v.requires_grad_() for v in drawn((6,)))
    step = getattr(SCALARS[name], direction)
    assert torch.autograd.gradcheck(step, (x, raw))
    assert torch.autograd.gradgradcheck(step, (x, raw))


@DIRECTIONS
def test_one_gradient_at_a_time(direction: str) -> None:
    x, raw = drawn((70,))
    for wanted in ((True, False), (False, True)):
        for output in (0, 1):
            found = []
            for by_kernel in (True, False):
                values = [v.clone().requires_grad_(flag) for v, flag in zip((x, raw), wanted, strict=True)]
                with pytest.MonkeyPatch.context() as patch:
                    if not by_kernel:
                        patch.setattr(library, "LIBRARY", None)
                    outcome = getattr(SCALARS["tanh"], direction)(*values)[output]
                if outcome.requires_grad:
                    (v,) = torch.autograd.grad(outcome.sum(), [v for v in values if v.requires_grad])
                    found.append(v)
                else:
                    found.append(torch.zeros_like(next(v for v in values if v.requires_grad)))
            torch.testing.assert_close(*found)


def _vmapped(x: Tensor, raw: Tensor, step: Callable) -> tuple:
    return torch.func.vmap(step, in_dims=(0, 1))(x, raw)


def _jvp(x: Tensor, raw: Tensor, step: Callable) -> tuple:
    return torch.func.jvp(step, (x, raw), (torch.ones_like(x), torch.ones_like(raw)))


def _compiled(x: Tensor, raw: Tensor, step: Callable) -> tuple:
    torch.compiler.reset()
    return torch.compile(step, backend="aot_eager", fullgraph=True)(x, raw)


def _broadcast(x: Tensor, raw: Tensor, step: Callable) -> tuple:
    return step(x, raw[:, :1])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own rules of jvp
@pytest.mark.parametrize("way", [_vmapped, _jvp, _compiled, _broadcast])
@DIRECTIONS
def test_where_the_formulas_stand_in(way: Callable, direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, raw = drawn((20,))
    step, kernel = getattr(SCALARS["tanh"], direction), library.LIBRARY
    assert kernel is not None
    monkeypatch.setattr(library, "LIBRARY", None)
    expected = way(x, raw, step)
    monkeypatch.setattr(library, "LIBRARY", kernel._replace(affine=None))
    torch.testing.assert_close(way(x, raw, step), expected)


def test_half_precision_is_computed_in_float32() -> None:
    x, raw = drawn((50,))
    for dtype in (torch.float16, torch.bfloat16):
        y, log_slope = SCALARS["tanh"].forward(x.to(dtype), raw.to(dtype))
        wide = SCALARS["tanh"].forward(x.to(dtype).float(), raw.to(dtype).float())
        assert torch.equal(y, wide[0].to(dtype))
        assert torch.equal(log_slope, wide[1])
