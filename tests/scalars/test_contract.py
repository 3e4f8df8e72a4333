"""Every scalar under the same contract."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.scalars.cases import CASES, Case

PARAMETERS = pytest.mark.parametrize("case", CASES, ids=lambda case: case.scalar.name)


def draw(case: Case, n: int = 300, std: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = 3 * torch.randn(n, generator=generator, dtype=torch.float64)
    raw = std * torch.randn(case.scalar.width, n, generator=generator, dtype=torch.float64)
    return (turn(x) if case.circular else x).to(dtype), raw.to(dtype)


def turn(x: Tensor) -> Tensor:
    return torch.remainder(x + math.pi, 2 * math.pi) - math.pi


@PARAMETERS
def test_zero_is_the_identity(case: Case) -> None:
    x, raw = draw(case)
    for step in (case.scalar.forward, case.scalar.inverse):
        y, log_slope = step(x, torch.zeros_like(raw))
        torch.testing.assert_close(y, x, rtol=0, atol=case.identity)
        torch.testing.assert_close(log_slope, torch.zeros_like(x), rtol=0, atol=10 * case.identity)


@PARAMETERS
def test_log_slope_is_autograds(case: Case) -> None:
    x, raw = draw(case, std=2.0)
    x.requires_grad_()
    for step in (case.scalar.forward, case.scalar.inverse):
        y, log_slope = step(x, raw)
        (slope,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(log_slope.exp(), slope, rtol=1e-7, atol=1e-12)


@PARAMETERS
def test_gradients(case: Case) -> None:
    """First and second derivatives of both directions, against finite differences."""
    x, raw = (v.requires_grad_() for v in draw(case, n=case.rows))
    for step in (case.scalar.forward, case.scalar.inverse):
        assert torch.autograd.gradcheck(step, (x, raw))
        assert torch.autograd.gradgradcheck(step, (x, raw), atol=1e-4)


@PARAMETERS
def test_round_trip(case: Case) -> None:
    x, raw = draw(case, std=3.0)
    y, log_slope = case.scalar.forward(x, raw)
    back, log_back = case.scalar.inverse(y, raw)
    gap = turn(back - x) if case.circular else back - x
    assert gap.abs().max() < 1e-7
    assert (log_slope + log_back).abs().max() < 1e-5


@PARAMETERS
def test_increasing(case: Case) -> None:
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    if case.circular:
        x = torch.linspace(-math.pi, math.pi, 4001, dtype=torch.float64)[:-1]
    raw = 2 * torch.randn(case.scalar.width, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    steps = case.scalar.forward(x, raw)[0].diff()
    assert int((steps <= 0).sum()) <= int(case.circular)  # the seam may lie anywhere


@PARAMETERS
def test_shapes_broadcast_and_dtypes(case: Case) -> None:
    raw = torch.randn(case.scalar.width, 1, 5)
    for dtype, log_dtype in ((torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16,) * 2):
        y, log_slope = case.scalar.forward(torch.zeros(4, 5, dtype=dtype), raw)
        assert y.shape == log_slope.shape == (4, 5)
        assert y.dtype == dtype
        assert log_slope.dtype == (torch.float32 if log_dtype == torch.bfloat16 else log_dtype)
    assert case.scalar.forward(torch.zeros(0), torch.zeros(case.scalar.width, 0))[0].shape == (0,)


@PARAMETERS
def test_half_precision_log_slopes_are_float32s(case: Case) -> None:
    x, raw = (v.bfloat16() for v in draw(case, std=0.5))
    got = case.scalar.forward(x, raw)[1]
    torch.testing.assert_close(got, case.scalar.forward(x.float(), raw.float())[1], rtol=0, atol=0)


@PARAMETERS
def test_finite_everywhere(case: Case) -> None:
    """Values and gradients at any float32 number, whatever the parameters."""
    edge = case.bound or math.pi
    far = [0.0, -0.0, 1e-45, edge, -edge, 1e6, -1e6, 1e30, -1e30]
    x = torch.tensor(far).repeat(50).requires_grad_()
    for std in (0.0, 1.0, 100.0, 1e4):
        raw = std * torch.randn(case.scalar.width, len(x), generator=torch.Generator().manual_seed(0))
        raw.requires_grad_()
        for step in (case.scalar.forward, case.scalar.inverse):
            y, log_slope = step(x, raw)
            gradients = torch.autograd.grad(y.sum() / 1e8 + log_slope.sum(), (x, raw), allow_unused=True)
            for value in (y, log_slope, *gradients):
                assert value is None or value.isfinite().all()


@PARAMETERS
def test_a_nan_keeps_to_itself(case: Case) -> None:
    x, raw = draw(case)
    clean = case.scalar.forward(x, raw)
    x[3] = math.nan
    for got, expected in zip(case.scalar.forward(x, raw), clean, strict=True):
        assert torch.equal(got[4:], expected[4:])


@pytest.mark.parametrize("case", [c for c in CASES if c.bound], ids=lambda case: case.scalar.name)
def test_linear_tails(case: Case) -> None:
    outside = torch.tensor([case.bound, case.bound * 1.001, 1e20]).repeat_interleave(100)
    x = torch.cat([outside, -outside])
    raw = 10 * torch.randn(case.scalar.width, len(x), generator=torch.Generator().manual_seed(0))
    beyond = x.abs() > case.bound
    for step in (case.scalar.forward, case.scalar.inverse):
        y, log_slope = step(x, raw)
        assert torch.equal(y[beyond], x[beyond])
        assert (log_slope[beyond] == 0).all()
        torch.testing.assert_close(y[~beyond], x[~beyond], rtol=1e-6, atol=0)
        if not case.kinked:
            torch.testing.assert_close(log_slope[~beyond], torch.zeros(200), rtol=0, atol=2e-3)


@PARAMETERS
def test_vmap_and_export(case: Case) -> None:
    x, raw = draw(case, n=20)
    for step in (case.scalar.forward, case.scalar.inverse):
        expected = step(x, raw)
        mapped = torch.func.vmap(step, in_dims=(0, 1))(x, raw)
        slope = torch.func.vmap(torch.func.grad(lambda a, r, f=step: f(a, r)[0]), in_dims=(0, 1))(x, raw)
        torch.testing.assert_close(mapped, expected)
        torch.testing.assert_close(slope, expected[1].exp())

    class Module(torch.nn.Module):
        def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
            return case.scalar.forward(x, raw)

    torch.testing.assert_close(torch.export.export(Module(), (x, raw)).module()(x, raw), case.scalar.forward(x, raw))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.floats(0.5, 50), st.floats(-60, 60), st.floats(0, 1e4), st.integers(0, 2**31))
def test_spline_of_any_size(bins: int, bound: float, at: float, std: float, seed: int) -> None:
    from diffeo.scalars import spline

    scalar = spline(bins, bound)
    raw = std * torch.randn(scalar.width, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = torch.tensor([at], dtype=torch.float64)
    y, log_slope = scalar.forward(x, raw)
    back, log_back = scalar.inverse(y, raw)
    again, _ = scalar.forward(back, raw)
    assert min((back - x).abs().item(), (again - y).abs().item()) < 1e-12 * max(1, abs(at))
    assert log_slope.isfinite().all()
    assert log_back.isfinite().all()
