"""Which library multiplies, and that both find the same."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffeo.cli.doctor import findings
from diffeo.kernels import VARIABLE, products
from tests.kernels.inputs import anyway

NUMBERS = torch.Generator().manual_seed(0)
OPERANDS = {
    "rows": lambda m, k: torch.randn(m, k, generator=NUMBERS),
    "columns": lambda m, k: torch.randn(k, m, generator=NUMBERS).T,
    "every second": lambda m, k: torch.randn(2 * m, 2 * k, generator=NUMBERS)[::2, ::2],
    "part": lambda m, k: torch.randn(m + 3, k + 5, generator=NUMBERS)[3:, 5:],
    "expanded": lambda m, k: torch.randn(m, 1, generator=NUMBERS).expand(m, k),
    "expanded down": lambda m, k: torch.randn(k, generator=NUMBERS).expand(m, k),
    "one number": lambda m, k: torch.ones(()).expand(m, k),
}


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    faster = products._faster
    faster.cache_clear()
    yield
    faster.cache_clear()


@pytest.mark.parametrize("sizes", [(5, 7, 11), (1, 7, 11), (5, 1, 11), (5, 7, 1), (1, 1, 1), (130, 67, 65)], ids=str)
@pytest.mark.parametrize("left", OPERANDS)
@pytest.mark.parametrize("right", OPERANDS)
def test_any_strides(left: str, right: str, sizes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    anyway(monkeypatch)
    m, k, n = sizes
    a, b = OPERANDS[left](m, k), OPERANDS[right](k, n)
    assert products.is_large(a, b)
    found = products.mm(a, b)
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-5 * k**0.5)


def test_inputs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    anyway(monkeypatch)
    a, b = (torch.randn(9, 9, generator=NUMBERS) for _ in range(2))
    before = a.clone(), b.clone()
    assert torch.equal(products.mm(a, b), products.mm(a, b))
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


def test_small_and_empty_ones_and_doubles_stay_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    anyway(monkeypatch, least=100)
    assert products.is_large(torch.ones(4, 5), torch.ones(5, 5))
    for a, b in [(4, 4), (0, 100)]:
        assert not products.is_large(torch.ones(a, 5), torch.ones(5, b))
    assert not products.is_large(torch.ones(9, 9).double(), torch.ones(9, 9).double())
    assert products.mm(torch.ones(0, 5), torch.ones(5, 3)).shape == (0, 3)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch's own, of its setting
def test_the_setting_of_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    anyway(monkeypatch)
    a = torch.ones(9, 9)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not products.is_large(a, a)
        assert findings()["products"] == products.in_use() == "PyTorch's own"
    assert products.is_large(a, a)
    assert findings()["products"] == products.in_use() == "oneDNN (float32, larger ones)"


def refused(caplog: pytest.LogCaptureFixture) -> str:
    """The one line that is logged, at debug level, where oneDNN is not taken."""
    with caplog.at_level(logging.DEBUG, "diffeo"):
        assert not products._faster()
        assert not products._faster()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("diffeo", logging.DEBUG)
    return record.getMessage()


def suits(monkeypatch: pytest.MonkeyPatch, folder: Path, vendor: str = "AuthenticAMD") -> None:
    """As if on a processor for which oneDNN is the faster."""
    (folder / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nmodel\t\t: 2\n")
    monkeypatch.setattr(products, "CPUINFO", folder / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(products.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_taken_where_it_suits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suits(monkeypatch, tmp_path)
    assert products._faster()


def test_not_taken_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    suits(monkeypatch, tmp_path, "GenuineIntel")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert "Intel" in refused(caplog)


@pytest.mark.parametrize(
    ("place", "name", "value", "why"),
    [
        (torch.backends.cpu, "get_cpu_capability", lambda: "AVX2", "AVX2"),
        (products.platform, "machine", lambda: "arm64", "processor"),
        (torch.backends.mkl, "is_available", lambda: False, "without MKL"),
        (products, "CPUINFO", Path("/nowhere"), "nowhere"),
        (products, "_product", lambda a, b: a @ b + 1e-6 * (a @ b), "other numbers"),
    ],
)
def test_not_taken_where_something_is_missing(
    place: object,
    name: str,
    value: object,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    suits(monkeypatch, tmp_path)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(place, name, value)
    assert why in refused(caplog)


def test_an_operator_that_is_gone_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    suits(monkeypatch, tmp_path)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)

    def gone(a: Tensor, b: Tensor) -> Tensor:
        return torch.ops.mkldnn._no_such_product(a, b)

    monkeypatch.setattr(products, "_product", gone)
    assert "_no_such_product" in refused(caplog)


def test_turned_off_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    code = "from diffeo.kernels.products import in_use; print(in_use())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("PyTorch's own\n", "")
