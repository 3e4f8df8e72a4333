"""The fit: which start it takes, and that what was chosen in a trial is repeated."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from diffeo import fitting, outset
from diffeo.config import FitConfig
from diffeo.errors import ModelError
from diffeo.model import Model
from diffeo.outset import Start
from diffeo.training import State

CONFIG = FitConfig(budget=4.0, hidden=8, members=1)


def rows(n: int = 300) -> np.ndarray:
    rng = np.random.default_rng(0)
    a = rng.normal(size=n)
    return np.stack([a, np.sin(3 * a) + 0.05 * rng.normal(size=n)], 1)


def try_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short budgets and few rows are tried too."""
    for name, value in {"TRIED": 1.0, "MANY": 1, "AMPLE": 1e9}.items():
        monkeypatch.setattr(outset, name, value)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Start, Start]]:
    """What was compared."""
    seen: list[tuple[Start, Start]] = []
    ahead = fitting._ahead

    def spy(first: Any, rival: Any, *rest: Any) -> Any:
        other = rival()
        seen.append((first.start, other.start))
        return ahead(first, lambda: other, *rest)

    try_all(monkeypatch)
    monkeypatch.setattr(fitting, "_ahead", spy)
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
def test_the_better_one_goes_on_and_is_repeated(winner: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the numbers' validation figure after a trial, whose steps are kept."""
    try_all(monkeypatch)
    figures = iter([(1.0, 0.0), (0.0, 1.0)][winner])
    courses: list[State] = []
    ahead, course = fitting._ahead, fitting._course

    def spied(*given: Any) -> Any:
        made = course(*given)
        courses.append(made.state)
        return made

    def judged(first: Any, rival: Any, *rest: Any) -> Any:
        def stopped(made: Any) -> Any:
            for _ in range(3):
                record = next(made.records)
            steps.append(record["step"])
            return made

        return ahead(stopped(first), lambda: stopped(rival()), *rest)

    steps: list[int] = []
    monkeypatch.setattr(fitting, "_course", spied)
    monkeypatch.setattr(fitting, "_ahead", judged)
    monkeypatch.setattr(fitting, "_score", lambda course: next(figures))
    model = Model.fit(rows(), config=CONFIG, out=tmp_path / "m")
    assert model.card.plan.layers == (0, outset.LAYERS)[winner]
    assert model.card.start.startswith(("a Gaussian mixture", f"{outset.LAYERS} affine layers")[winner])
    assert courses[winner].step == model.card.steps > steps[winner] > 0
    monkeypatch.undo()
    again = Model.fit(rows(), config=CONFIG, schedule=tmp_path / "m")
    for name, value in model.density.state_dict().items():
        assert torch.equal(value, again.density.state_dict()[name]), name


@pytest.mark.parametrize(
    ("curve", "score"),
    [
        ({0: -9.0}, -9.0),
        ({0: -9.0, 20: -3.0}, -3.0),  # no half of it is known
        ({0: -9.0, 20: -3.0, 40: -1.0}, 1.0),
        ({0: -9.0, 20: -3.0, 40: -1.0, 60: -1.5, 80: -0.5}, 0.0),
    ],
)
def test_what_learns_faster_promises_more(curve: dict[int, float], score: float) -> None:
    history = [{"step": step, "parts": {"masses": 7.0, "numbers": value}} for step, value in curve.items()]
    course: Any = SimpleNamespace(state=State(history=history))
    assert fitting._score(course) == score


def test_members_and_layers_do_not_go_together() -> None:
    with pytest.raises(ModelError, match="members: only the recipe auto without layers averages"):
        Model.fit(rows(), config=FitConfig(epochs=1, members=2, layers=1))
    with pytest.raises(ModelError, match="members: only the recipe auto without layers averages"):
        Model.fit(rows(), config=FitConfig(epochs=1, members=2, recipe="maf"))
