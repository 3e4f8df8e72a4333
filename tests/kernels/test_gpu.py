"""The spline's kernel for a GPU: run by Triton's interpreter where Triton is installed, and never trusted unseen."""

import os
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from diffeo.kernels import spline
from diffeo.scalars.rational import _reference

PROGRAM = """
import torch
from diffeo.kernels import gpu
from diffeo.kernels.spline import agree
from diffeo.scalars.rational import _reference

assert agree(gpu, "cpu", _reference)
torch.manual_seed(0)
for bins, extra, n in ((1, -1, 5), (2, 0, 300), (8, 0, 77), (20, -1, 129), (8, -1, 0)):
    raw = 2 * torch.randn(3 * bins + extra, n)
    x = (4 * torch.randn(n)).clamp(-5, 5) if extra == 0 else 4 * torch.randn(n)
    for inverse in (False, True):
        leaves = [x.double().requires_grad_(), raw.double().requires_grad_()]
        wanted = _reference(*leaves, bins, 5.0, inverse)
        gy, gl = torch.randn(2, n)
        slopes = torch.autograd.grad(wanted, leaves, (gy.double(), gl.double()))
        plain = _reference(x, raw, bins, 5.0, inverse)
        found = gpu.moved(x, raw, bins, 5.0, inverse)
        for a, b, c in zip(found, plain, wanted):
            assert a.dtype == torch.float32
            assert (a - c).abs().median() <= 2 * (b - c).abs().median() + 1e-7 if n else True
            torch.testing.assert_close(a.double(), c.detach(), rtol=1e-3, atol=1e-3)
        for a, c in zip(gpu.gradient(x, raw, gy, gl, bins, 5.0, inverse), slopes):
            assert n == 0 or ((a - c).abs() / (1 + c.abs())).quantile(0.99) < 1e-3
far = torch.tensor([float("nan"), float("inf"), 5.0, -5.0, -1e30])
odd = gpu.moved(far, torch.randn(23, 5), 8, 5.0, False)[0]
assert odd[0].isnan() and torch.equal(odd[1:], far[1:])
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed (pip install triton)")
def test_the_gpu_kernel_agrees_with_the_formulas() -> None:
    """In Triton's interpreter, which computes a kernel by numpy on the processor."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_the_gpu_kernel_is_trusted_on_a_gpu() -> None:
    assert spline.trusted(torch.device("cuda", 0), _reference)


def formulas(error: float) -> SimpleNamespace:
    """Kernels that are the formulas, all but for an error in one gradient."""

    def gradient(x, raw, gy, gl, bins, bound, inverse):  # type: ignore[no-untyped-def]
        x, raw = x.clone().requires_grad_(), raw.clone().requires_grad_()
        gx, graw = torch.autograd.grad(_reference(x, raw, bins, bound, inverse), (x, raw), (gy, gl))
        return gx, graw + error * inverse

    return SimpleNamespace(moved=_reference, gradient=gradient)


def test_a_kernel_is_compared_with_the_formulas_before_it_is_used() -> None:
    assert spline.agree(formulas(0.0), "cpu", _reference)
    assert not spline.agree(formulas(1e-5), "cpu", _reference)


def test_a_kernel_that_disagrees_is_left_alone_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spline, "_triton", lambda: formulas(1e-5))
    with pytest.warns(UserWarning, match="is not used; please report it"):
        assert not spline.trusted.__wrapped__(torch.device("cpu"), _reference)


def test_a_kernel_that_is_not_there_is_left_alone_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("no triton")

    monkeypatch.setattr(spline, "_triton", missing)
    assert not spline.trusted.__wrapped__(torch.device("cpu"), _reference)
