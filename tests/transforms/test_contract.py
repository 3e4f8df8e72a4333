"""Every transform under the same contract."""

import inspect
import math

import pytest
import torch

from diffeo import contract, transforms
from diffeo.transforms import Transform
from tests.transforms.cases import CASES, Case

PARAMETERS = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@PARAMETERS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_contract(case: Case, dtype: torch.dtype) -> None:
    report = contract.check_transform(
        case.transform(),
        event_shape=case.event,
        context_features=case.context,
        dtype=dtype,
        inputs=case.rows(),
        skip=case.skip,
    )
    assert report.ok, f"\n{report}"


@pytest.mark.parametrize("case", [case for case in CASES if case.skip], ids=lambda case: case.name)
def test_exemptions_are_needed(case: Case) -> None:
    """What is exempted is a property that there is, and fails where it is looked at; in one dtype at least."""
    failing: set[str] = set()
    for dtype in (torch.float64, torch.float32):
        report = contract.check_transform(case.transform(), event_shape=case.event, dtype=dtype, inputs=case.rows())
        failing |= {row.name for row in report.failures}
    assert failing == set(case.skip)


def test_every_transform_is_a_case() -> None:
    def concrete(kind: type) -> set[type]:
        own = set() if inspect.isabstract(kind) or kind.__name__.startswith("_") else {kind}
        return own.union(*map(concrete, kind.__subclasses__()))

    ours = {kind for kind in concrete(Transform) if kind.__module__.startswith("diffeo.")}
    tried = {type(module) for case in CASES for module in case.build().modules()}
    assert {kind.__name__ for kind in ours - tried} == set()
    assert {kind.__name__ for kind in ours} <= set(transforms.__all__)


class Faulty(Transform):
    """Twice x, with one thing wrong with it."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault, self.calls = fault, 0

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        log_det = torch.full((len(x),), x[:1].numel() * math.log(2), dtype=x.dtype)
        wrong = {
            "sign": lambda: (2 * x, -log_det),
            "term": lambda: (2 * x, log_det - math.log(2)),
            "batch": lambda: (2 * x + x.mean(), log_det),
            "noise": lambda: (2 * x + 0 * torch.rand(()), log_det),
            "in place": lambda: (self.spoil(x), log_det),
            "clamp": lambda: (2 * x.clamp(-1, 1), log_det),
            "not onto": lambda: (2 * x, log_det),
            "nan": lambda: (2 * x, log_det + 0 * torch.exp(x.abs().amax(1))),
            "dtype": lambda: (2 * x, log_det.float()),
            "context": lambda: (2 * x, log_det),
            "counter": lambda: (2 * x + self.count(), log_det),
        }
        return wrong[self.fault]()

    def spoil(self, x: torch.Tensor) -> torch.Tensor:
        z = 2 * x
        with torch.no_grad():
            x.add_(1e-3)
        return z

    def count(self) -> float:
        self.calls += 1
        return 1e-3 * self.calls

    def inverse(self, z: torch.Tensor, context: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        log_det = torch.full((len(z),), -z[:1].numel() * math.log(2), dtype=z.dtype)
        z = z.clamp(-4, 4) if self.fault == "not onto" else z
        return z / 2, -log_det if self.fault == "sign" else log_det


@pytest.mark.parametrize(
    ("fault", "caught"),
    {
        "sign": "log_det is autograd's",
        "term": "log_det is autograd's",
        "batch": "rows do not depend on their batch mates",
        "noise": "random state untouched",
        "in place": "inputs and weights unchanged",
        "clamp": "round trip z -> x -> z",
        "not onto": "round trip z -> x -> z",
        "nan": "finite values far outside the data",
        "dtype": "dtypes follow the input",
        "context": "context is looked at",
        "counter": "same input, same output",
    }.items(),
)
@pytest.mark.filterwarnings("ignore")
def test_faults_are_caught(fault: str, caught: str) -> None:
    features = 2 if fault == "context" else 0
    report = contract.check_transform(Faulty(fault), event_shape=(3,), context_features=features)
    assert caught in {row.name for row in report.failures}, f"\n{report}"
    assert "FAIL" in str(report)
