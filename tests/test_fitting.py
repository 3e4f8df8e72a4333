"""The fit: which start it takes, and that what was chosen in a trial is repeated."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffeo import fitting, outset
from diffeo.config import FitConfig
from diffeo.errors import ModelError
from diffeo.model import Model
from diffeo.outset import Start

CONFIG = FitConfig(budget=4.0, hidden=8, members=1)


def rows(n: int = 300) -> np.ndarray:
    rng = np.random.default_rng(0)
    a = rng.normal(size=n)
    return np.stack([a, np.sin(3 * a) + 0.05 * rng.normal(size=n)], 1)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Start, Start]]:
    """Short budgets are tried too; what was compared."""
    seen: list[tuple[Start, Start]] = []
    better = fitting.better

    def spy(first: Start, second: Start, *rest: Any) -> Start:
        seen.append((first, second))
        return better(first, second, *rest)

    monkeypatch.setattr(outset, "TRIED", 1.0)
    monkeypatch.setattr(fitting, "better", spy)
    return seen


def test_layers_are_tried_where_the_budget_is_the_limit(tried: list[tuple[Start, Start]]) -> None:
    config = CONFIG.model_copy(update={"members": None})
    Model.fit(rows(), config=config)
    assert not tried  # few rows: the budget bears several members
    for change in ({"recipe": "maf"}, {"components": 3}, {"layers": 1}, {"members": 2}):  # or something was asked for
        Model.fit(rows(), config=config.model_copy(update=change))
    assert not tried
    model = Model.fit(rows(), config=CONFIG)
    ((first, second),) = tried
    assert (first.plan.layers, second.plan.layers) == (0, outset.LAYERS)
    assert model.card.plan in (first.plan, second.plan)


@pytest.mark.parametrize("winner", [0, 1])
def test_the_better_one_is_taken(winner: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the numbers' validation figure after a trial; what the trial did is not kept."""
    monkeypatch.setattr(outset, "TRIED", 1.0)
    figures = iter([(0.0, 1.0), (1.0, 0.0)][1 - winner])
    real = outset.train

    def train(problem: Any, settings: Any, state: Any, budget: Any, stop: Any) -> Any:
        yield from real(problem, settings, state, budget, stop)
        if budget == outset.TRIAL * 4.0:
            state.best[-1] = next(figures)

    monkeypatch.setattr(outset, "train", train)
    model = Model.fit(rows(), config=CONFIG)
    assert model.card.plan.layers == (0, outset.LAYERS)[winner]
    assert model.card.start.startswith(("a Gaussian mixture", f"{outset.LAYERS} affine layers")[winner])


def test_what_a_trial_chose_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outset, "TRIED", 1.0)
    monkeypatch.setattr(fitting, "better", lambda first, second, *rest: second)
    model = Model.fit(rows(), config=CONFIG, out=tmp_path / "m")
    assert model.card.plan.layers == outset.LAYERS
    monkeypatch.undo()
    again = Model.fit(rows(), config=CONFIG, schedule=tmp_path / "m")
    for name, value in model.density.state_dict().items():
        assert torch.equal(value, again.density.state_dict()[name]), name


def test_members_and_layers_do_not_go_together() -> None:
    with pytest.raises(ModelError, match="members: only the recipe auto without layers averages"):
        Model.fit(rows(), config=FitConfig(epochs=1, members=2, layers=1))
    with pytest.raises(ModelError, match="members: only the recipe auto without layers averages"):
        Model.fit(rows(), config=FitConfig(epochs=1, members=2, recipe="maf"))
