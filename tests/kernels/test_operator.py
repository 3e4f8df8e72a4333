"""The kernel as an operator of torch, and the transformations under which the formulas stand in for it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from diffeo import scalars
from diffeo.kernels import library
from diffeo.kernels import spline as kernel
from diffeo.scalars import rational
from tests.kernels.inputs import NEEDS, Case, drawn

CASE = Case(8, 5.0, False, 1.5)
SCALAR = scalars.spline(8, 5.0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the C function is asked for: 0 forward, 1 its gradient, 2 inverse, 3 its gradient."""
    found: list[int] = []
    if library.LIBRARY is not None:
        run = library.LIBRARY.spline
        monkeypatch.setattr(
            library,
            "LIBRARY",
            library.LIBRARY._replace(spline=lambda what, *rest: (found.append(what), run(what, *rest))),
        )
    return found


@NEEDS
def test_who_takes_it(calls: list[int]) -> None:
    x, raw = (v.requires_grad_() for v in drawn(CASE, 50))
    for scalar in (SCALAR, scalars.spline(7, learned_bound=True), scalars.spline(7, tails="circular")):
        calls.clear()
        for step in (scalar.forward, scalar.inverse):
            sum(v.sum() for v in step(x, raw[: scalar.width])).backward()
        assert calls == [0, 1, 2, 3]


@NEEDS
def test_half_precision_is_computed_in_float32(calls: list[int]) -> None:
    x, raw = drawn(CASE, 50)
    for dtype in (torch.float16, torch.bfloat16):
        y, log_slope = SCALAR.forward(x.to(dtype), raw.to(dtype))
        wide = SCALAR.forward(x.to(dtype).float(), raw.to(dtype).float())
        assert torch.equal(y, wide[0].to(dtype))
        assert torch.equal(log_slope, wide[1])
    assert calls == [0] * 4


@NEEDS
@pytest.mark.parametrize("inverse", [False, True])
def test_the_operator_is_lawful(inverse: bool) -> None:
    x, raw = drawn(CASE, 30)
    how = (8, 5.0, inverse)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(
        torch.ops.diffeo.spline.default, (x.requires_grad_(), raw.requires_grad_(), *how), test_utils=checks
    )
    x, raw = x.detach(), raw.detach()
    torch.library.opcheck(torch.ops.diffeo.spline_gradient.default, (x, raw, x, x, *how), test_utils=checks)


@NEEDS
def test_compile_takes_the_operator(calls: list[int]) -> None:
    torch.compiler.reset()
    x, raw = (v.requires_grad_() for v in drawn(CASE, 50))

    def round_trip(x: Tensor, raw: Tensor) -> Tensor:
        y, log_slope = SCALAR.forward(x, raw)
        back, log_back = SCALAR.inverse(0.9 * y, raw)
        return (y * back + log_slope * log_back).sum()

    expected = torch.autograd.grad(round_trip(x, raw), (x, raw))
    calls.clear()
    total = torch.compile(round_trip, backend="aot_eager", fullgraph=True)(x, raw)
    torch.testing.assert_close(torch.autograd.grad(total, (x, raw)), expected)
    assert sorted(calls) == [0, 1, 2, 3]


def _vmapped(x: Tensor, raw: Tensor, step: Callable) -> tuple:
    return torch.func.vmap(step, in_dims=(0, 1))(x, raw)


def _forward_mode(x: Tensor, raw: Tensor, step: Callable) -> tuple:
    with torch.autograd.forward_ad.dual_level():
        duals = [torch.autograd.forward_ad.make_dual(v, torch.ones_like(v)) for v in (x, raw)]
        return tuple(torch.autograd.forward_ad.unpack_dual(v).tangent for v in step(*duals))


def _jvp(x: Tensor, raw: Tensor, step: Callable) -> tuple:
    return torch.func.jvp(step, (x, raw), (torch.ones_like(x), torch.ones_like(raw)))


def _jacobian(x: Tensor, raw: Tensor, step: Callable) -> tuple:
    return torch.func.jacrev(lambda a: step(a, raw))(x)


def _second(x: Tensor, raw: Tensor, step: Callable) -> Tensor:
    return torch.func.hessian(lambda a: sum(v.sum() for v in step(a, raw)))(x)


def _traced(x: Tensor, raw: Tensor, step: Callable) -> tuple:
    return make_fx(lambda a, r: step(a, r))(0.5 * x, raw)(x, raw)


def _exported(x: Tensor, raw: Tensor, step: Callable) -> tuple:
    class Module(torch.nn.Module):
        def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
            return step(x, raw)

    return torch.export.export(Module(), (0.5 * x, raw)).module()(x, raw)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own rules of jvp
@pytest.mark.parametrize("way", [_vmapped, _forward_mode, _jvp, _jacobian, _second, _traced, _exported])
@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_transformed_functions_take_the_formulas(way: Callable, inverse: bool, calls: list[int]) -> None:
    """And give what the formulas give."""
    x, raw = drawn(CASE, 20)
    found = way(x, raw, SCALAR.inverse if inverse else SCALAR.forward)
    assert calls == []
    expected = way(x, raw, lambda a, r: rational._reference(a, r, 8, 5.0, inverse))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_what_does_not_fit() -> None:
    x, raw = drawn(CASE, 5)
    assert not kernel.fits(x.to("meta"), raw.to("meta"))
    assert not kernel.fits(x, raw.float())
    assert not kernel.fits(x.half(), raw.half())
    with torch._subclasses.FakeTensorMode() as fake:
        assert not kernel.fits(fake.from_tensor(x), fake.from_tensor(raw))
        assert SCALAR.forward(fake.from_tensor(x), fake.from_tensor(raw))[0].shape == (5,)
