"""The check of a model of pictures: a healthy one passes, and every sabotage is caught where it should be."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffeo.check import check_lines, check_model, pictures
from diffeo.check.lines import Line
from diffeo.config import PictureConfig
from diffeo.data.pictures import read_pictures
from diffeo.errors import DataError
from diffeo.pictures.model import PictureModel
from diffeo.quantized import Quantized
from diffeo.transforms import Transform

SMALL = {"epochs": 1, "budget": None, "hidden": 8, "layers": 1, "threads": 1}


def fitted(**more: Any) -> PictureModel:
    config = PictureConfig.read(**SMALL, **more)
    assert isinstance(config, PictureConfig)
    return PictureModel.fit("digits8:test", config=config)


@pytest.fixture(scope="module")
def model() -> PictureModel:
    return fitted()


def lines_of(model: PictureModel, data: Any = None) -> dict[str, Line]:
    return {line.name: line for line in check_lines(model, data)}


def failing(model: PictureModel, data: Any = None) -> set[str]:
    return {name for name, line in lines_of(model, data).items() if not line.passed}


@pytest.mark.parametrize("data", [None, "digits8:test"])
def test_a_healthy_model_passes(model: PictureModel, data: str | None) -> None:
    lines = lines_of(model, data)
    assert len(lines) == 13
    assert [str(line) for line in lines.values() if not line.passed or line.skipped] == []


def test_one_given_classes_passes_with_labels_and_without() -> None:
    model = fitted(label=True)
    report = check_model(model)
    assert report.ok, str(report)
    assert not failing(model, "digits8:test")
    assert not failing(model, read_pictures("digits8:test").pixels[:5])


def test_large_pictures_have_no_jacobian(model: PictureModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_PLACES", 63)
    line = lines_of(model)["log-determinant against autograd"]
    assert line.skipped
    assert "64 x 64" in line.skipped


def test_pictures_of_another_size_are_refused(model: PictureModel) -> None:
    with pytest.raises(DataError, match="9x9"):
        lines_of(model, torch.zeros(3, 9, 9, dtype=torch.uint8).numpy())


def test_the_global_generator_is_left_alone(model: PictureModel) -> None:
    before = torch.random.get_rng_state()
    lines_of(model)
    assert torch.equal(torch.random.get_rng_state(), before)


# Sabotage -----------------------------------------------------------------------------------------------------------


class Bent(Transform):
    """A transform whose maps are wrong on purpose."""

    def __init__(self, inner: Transform, **wrong: Callable[..., Any]) -> None:
        super().__init__()
        self.inner, self.wrong = inner, wrong

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.inner(x, context)
        return self.wrong.get("forward", lambda x, z, d: (z, d))(x, z, log_det)  # type: ignore[no-any-return]

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = self.inner.inverse(z, context)
        return self.wrong.get("inverse", lambda z, x, d: (x, d))(z, x, log_det)  # type: ignore[no-any-return]


def bent(model: PictureModel, **wrong: Callable[..., Any]) -> PictureModel:
    density = copy.deepcopy(model.density)
    density.flow.transform = Bent(density.flow.transform, **wrong)
    return PictureModel(model.card, density, model.findings)


class Restless(Quantized):
    def log_prob(self, x: Tensor, context: Tensor | None = None, points: int | None = None) -> Tensor:
        return super().log_prob(x, context, points) + torch.rand(())


class Dark(Quantized):
    def log_prob(self, x: Tensor, context: Tensor | None = None, points: int | None = None) -> Tensor:
        found = super().log_prob(x, context, points)
        return torch.where((x == 0).flatten(1).all(1), torch.nan, found)


class Falling(Quantized):
    def log_prob(self, x: Tensor, context: Tensor | None = None, points: int | None = None) -> Tensor:
        return super().log_prob(x, context, points) - 10.0 * float((points or 1) > 4)


class Brighter(Quantized):
    def from_latent(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return super().from_latent(z, context) + 1


def become(model: PictureModel, kind: type[Quantized]) -> PictureModel:
    density = copy.deepcopy(model.density)
    density.__class__ = kind
    return PictureModel(model.card, density, model.findings)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("log-determinant against autograd", {"forward": lambda x, z, d: (z, d * 1.001)}),
        ("log-determinants there and back cancel", {"inverse": lambda z, x, d: (x, d + 0.1)}),
        ("noise comes back from its pictures", {"inverse": lambda z, x, d: (x + 1e-4, d)}),
        ("pictures come back from their noise", {"inverse": lambda z, x, d: (x + 0.05, d)}),
        ("every grey level comes back", {"inverse": lambda z, x, d: (x.clamp(max=0.93), d)}),
        ("pictures do not depend on their batch", {"forward": lambda x, z, d: (z, d + x.mean())}),
        ("finite for noise, black and white", {"forward": lambda x, z, d: (z, d / (x.amax((1, 2, 3)) > 0.1))}),
    ],
)
def test_bent_flows_are_caught(model: PictureModel, name: str, wrong: dict[str, Any]) -> None:
    assert name in failing(bent(model, **wrong), "digits8:test")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("the same again: scores", Restless),
        ("finite for noise, black and white", Dark),
        ("16 draws raise the bound of one", Falling),
        ("draws are grey levels", Brighter),
        ("loaded equals saved: draws", Brighter),
    ],
)
def test_wrong_densities_are_caught(model: PictureModel, name: str, kind: type[Quantized]) -> None:
    assert name in failing(become(model, kind), "digits8:test")
