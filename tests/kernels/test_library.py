"""Which library is trusted, and what is done without one."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffeo import scalars
from diffeo.cli.doctor import findings
from diffeo.kernels import library
from diffeo.kernels import spline as kernel
from tests.kernels.inputs import NEEDS, Case, drawn


def refused(folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    """The one line that is logged, at debug level, where a folder's library is not taken."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "diffeo"):
        assert library.opened(folder) is None
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("diffeo", logging.DEBUG)
    return record.getMessage()


def test_none_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "reference path" in refused(tmp_path, caplog)


def test_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "libkernels.so").write_bytes(b"no library")
    assert "reference path" in refused(tmp_path, caplog)


@NEEDS
def test_stale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Made of other C files than those that lie there."""
    sources = [file.name for file in library.HERE.glob("*.[ch]")]
    assert len(sources) >= 5
    for name in ("libkernels.so", *sources):
        shutil.copy(library.HERE / name, tmp_path / name)
    assert library.opened(tmp_path) is not None
    for name in sources:
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text + "\n")
        assert "other C files" in refused(tmp_path, caplog)
        (tmp_path / name).write_text(text)


def test_turned_off(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(library.VARIABLE, "off")
    assert "DIFFEO_KERNELS=off" in refused(library.HERE, caplog)


def test_turned_off_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.VARIABLE, "off")
    code = "from diffeo.kernels import in_use; print(in_use())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("reference (PyTorch)\n", "")


def test_without_one_the_formulas_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(8, 8.0, False, 1.0)
    x, raw = (v.requires_grad_() for v in drawn(case, 100))
    found = []
    for there in (library.LIBRARY, None):
        monkeypatch.setattr(library, "LIBRARY", there)
        assert kernel.fits(x, raw) == (there is not None)
        assert findings()["kernels"] == library.in_use()
        assert library.in_use().startswith("C (" if there else "reference")
        found.append(scalars.spline().forward(x, raw))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)
