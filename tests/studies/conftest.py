"""Every study once, at the least effort, its pictures small."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffeo.studies import STUDIES, folder
from diffeo.studies.homework import CLASSICS
from diffeo.studies.outcome import Options

EFFORT = 0.0005  # two epochs, 500 points


class Stand:
    """In the place of diffeo's default in the homework, which takes seconds for each of seven sets: one Gaussian."""

    def __init__(self, x: Tensor) -> None:
        self.base = torch.distributions.MultivariateNormal(x.double().mean(0), x.double().T.cov())

    def log_prob(self, x: Any) -> Any:
        return self.base.log_prob(torch.as_tensor(x).double()).numpy()

    def sample(self, n: int, seed: int) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.base.sample((n,)).numpy()


@pytest.fixture(scope="session")
def small() -> Iterator[None]:
    """Pictures of few pixels, and the stand-in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffeo.report.figures.sheet._DPI", 40)
        patch.setattr("diffeo.studies.runs.default", lambda x, *_: Stand(x))
        patch.setattr("diffeo.studies.runs.classical", lambda x, *_: dict.fromkeys(CLASSICS, Stand(x).log_prob))
        yield


@pytest.fixture(scope="session")
def studies(small: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[dict[str, Any]]]]:
    """The folder of every study, and the records that it told on the way."""
    found = {}
    for name in STUDIES:
        records: list[dict[str, Any]] = []
        out = tmp_path_factory.mktemp("studies") / name
        folder.run(name, out, Options(effort=EFFORT), report=records.append)
        found[name] = out, records
    return found
