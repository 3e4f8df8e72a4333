"""The kernel of the spline against the formulas of `scalars/rational.py`, and where it has to step back."""

import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffeo import scalars
from diffeo.kernels import library
from diffeo.scalars import rational
from tests.kernels.inputs import CASES, EXTREME, NEEDS, Case, drawn, everything, knots

pytestmark = NEEDS
DIRECTIONS = pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
QUANTILES = torch.tensor([0.5, 0.9, 0.99, 0.995], dtype=torch.float64)


@pytest.mark.parametrize("case", CASES + EXTREME, ids=str)
@DIRECTIONS
def test_float64_is_the_formulas(case: Case, inverse: bool, target: int) -> None:
    """Values, log-slopes and gradients to 1e-10, relative to the largest gradient of the spline in question; gradients
    to 1e-8 where slopes change a millionfold from knot to knot."""
    x, raw = drawn(case, 1001)
    got, expected = (everything(case, x, raw, inverse, kernel=k) for k in (True, False))
    for ours, theirs in zip(got, expected, strict=True):
        scale = theirs.abs() if theirs.ndim == 1 else theirs.abs().amax(0)
        worst = (ours - theirs).abs() / scale.clamp(min=1)
        assert worst.max() <= (1e-10 if case.std < 10 or theirs is expected[0] else 1e-8), worst.max()


@pytest.mark.parametrize("case", CASES, ids=str)
@DIRECTIONS
def test_float32_is_as_exact(case: Case, inverse: bool, target: int) -> None:
    """Against float64, errors are at most twice those of the formulas in float32 (or a rounding, where these are
    exact): at every quantile, and for the worst of two hundred numbers. That is the median over blocks, as which of
    two roundings does the most harm where a spline is steepest is chance; and no number is far out."""
    x, raw = drawn(case, 20_000, torch.float32)
    got, usual = (everything(case, x, raw, inverse, kernel=k) for k in (True, False))
    exact = everything(case, x.double(), raw.double(), inverse, kernel=False)
    near = ((knots(case, raw, int(inverse))[:-1] - x.double()).abs() < 1e-5 * case.bound).any(0)
    for name, ours, theirs, true in zip(("y", "log-slope", "dx", "draw"), got, usual, exact, strict=True):
        rounding = 2**-24 * true.abs().median().clamp(min=1)
        mine, his = ((v.double() - true).abs().reshape(-1, len(x)).amax(0) for v in (ours, theirs))
        assert (mine.quantile(QUANTILES) <= 2 * his.quantile(QUANTILES) + rounding).all(), name
        worst = [v.view(100, 200).amax(1).median() for v in (mine, his)]
        assert worst[0] <= 2 * worst[1] + rounding, (name, worst)
        assert mine[~near].max() <= 10 * his[~near].max() + rounding, name


@pytest.mark.parametrize("case", [Case(8, 8.0, False, 2.0), Case(1, 1.0, False, 2.0), Case(5, 3.0, True, 2.0)], ids=str)
@DIRECTIONS
def test_second_derivatives_are_the_formulas(case: Case, inverse: bool) -> None:
    x, raw = drawn(case, 40)
    x = 0.9 * x

    def second(step: Callable) -> list[Tensor]:
        a, r = x.clone().requires_grad_(), raw.clone().requires_grad_()
        y, log_slope = step(a, r, case.bins, case.bound, inverse)
        first = torch.autograd.grad((y.sin() + log_slope.sin()).sum(), (a, r), create_graph=True)
        return list(torch.autograd.grad(sum(v.square().sum() for v in first), (a, r)))

    torch.testing.assert_close(second(rational._move), second(rational._reference), rtol=1e-8, atol=1e-8)


@DIRECTIONS
def test_at_the_knots(inverse: bool, target: int) -> None:
    """Values and log-slopes at the knots and beside them, where a rounding may choose either bin."""
    case = Case(8, 5.0, False, 2.0)
    _, raw = drawn(case, 500)
    at = knots(case, raw, int(inverse))[:-1]
    up, down = (torch.full_like(at, v) for v in (math.inf, -math.inf))
    for x in (at, at.nextafter(up), at.nextafter(down)):
        full = raw[:, None].expand(-1, *x.shape)
        got, expected = (step(x, full, 8, 5.0, inverse) for step in (rational._move, rational._reference))
        torch.testing.assert_close(got[0], expected[0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(got[1], expected[1], rtol=0, atol=1e-6)  # it bends by up to 1e9 there


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (3, 5), (2, 63), (1, 64), (65,), (2, 3, 7)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Any shape; each number by itself, to the last bit, wherever it stands."""
    generator = torch.Generator().manual_seed(0)
    x = 4 * torch.randn(shape, generator=generator).to(dtype)
    raw = torch.randn(23, *shape, generator=generator).to(dtype)
    for inverse in (False, True):
        y, log_slope = rational._move(x, raw, 8, 5.0, inverse)
        assert y.shape == log_slope.shape == shape
        assert y.dtype == log_slope.dtype == dtype
        flat, flat_raw = x.reshape(-1), raw.reshape(23, -1)
        for i in range(x.numel()):
            alone = rational._move(flat[i], flat_raw[:, i], 8, 5.0, inverse)
            assert torch.equal(torch.stack(alone), torch.stack([y.reshape(-1)[i], log_slope.reshape(-1)[i]]))


def test_broadcast_and_strided() -> None:
    case = Case(8, 5.0, False, 2.0)
    scalar = scalars.spline(8, 5.0)
    x = drawn(case, 60)[0].view(4, 15)
    raw = torch.randn(23, 4, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    strided = raw.expand(-1, -1, 15).transpose(1, 2).contiguous().transpose(1, 2)
    for step, other in ((scalar.forward, False), (scalar.inverse, True)):
        full = rational._reference(x, raw.expand(-1, -1, 15), 8, 5.0, other)
        expected = torch.autograd.grad(sum(v.square().sum() for v in full), raw)
        for given, at in ((raw, x), (strided, x), (raw, x.T.contiguous().T), (raw.expand(-1, -1, 15), x)):
            got = step(at, given)
            torch.testing.assert_close(got, full)
            found = torch.autograd.grad(sum(v.square().sum() for v in got), raw, retain_graph=True)
            torch.testing.assert_close(found, expected)


@DIRECTIONS
@pytest.mark.parametrize("case", [Case(4, 5.0, False, 1.0), Case(4, 5.0, True, 1.0)], ids=str)
def test_odd_numbers(case: Case, inverse: bool, target: int) -> None:
    """NaN and infinities, in x and in raw, come out as from the formulas: there, and nowhere else."""
    n = 4 + 3 * case.width
    _, raw = drawn(case, n, torch.float32)
    x = torch.linspace(-4.5, 4.5, n)
    x[:3] = torch.tensor([math.nan, math.inf, -math.inf])
    if case.circular:
        x[1:3] = 0.0
    for i in range(3 * case.width):
        raw[i % case.width, 4 + i] = (math.nan, math.inf, -math.inf)[i // case.width]
    got, expected = (everything(case, x, raw, inverse, kernel=k) for k in (True, False))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours.isnan(), theirs.isnan())
        torch.testing.assert_close(ours, theirs, equal_nan=True, rtol=1e-3, atol=1e-3)


@DIRECTIONS
def test_one_gradient_at_a_time(inverse: bool) -> None:
    """Of x alone, of raw alone, of one of the two outputs alone."""
    case = Case(8, 5.0, False, 1.0)
    x, raw = drawn(case, 70)
    for wanted in ((True, False), (False, True), (True, True)):
        for output in (0, 1):
            found = []
            for step in (rational._move, rational._reference):
                values = [v.clone().requires_grad_(flag) for v, flag in zip((x, raw), wanted, strict=True)]
                outputs = step(*values, 8, 5.0, inverse)
                found.append(torch.autograd.grad(outputs[output].sum(), [v for v in values if v.requires_grad]))
            torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


def test_threads_change_nothing() -> None:
    case = Case(8, 5.0, False, 2.0)
    x, raw = drawn(case, 3 * library.THREADED + 5, torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append([everything(case, x, raw, inverse, kernel=True) for inverse in (False, True)])
    finally:
        torch.set_num_threads(before)
    for one, several in zip(*found, strict=True):
        assert all(map(torch.equal, one, several))


FORKED = """
import os, sys, torch
from diffeo.scalars import spline
torch.set_num_threads(2)
x, raw = torch.linspace(-6, 6, 20_000), torch.zeros(23, 20_000)
y = spline(8, 5.0).forward(x, raw)[0]
child = os.fork()
if child == 0:
    again = spline(8, 5.0).forward(x, raw)[0]
    os._exit(0 if bool((again - x).abs().max() < 1e-5) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork on Windows")
def test_a_forked_process_goes_on() -> None:
    """A child that would wait for threads of its parent would wait for ever."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], timeout=60, check=False)
    assert done.returncode == 0
