"""A model that computes nothing, in the place of the real one: all there is to see is what commands read and write."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import click.testing
import pyarrow as pa
import pytest

from diffeo.cli import main
from diffeo.data.schema import Schema


class Card(SimpleNamespace):
    def model_dump(self, mode: str) -> dict[str, Any]:
        assert mode == "json"
        return {**self.__dict__, "config": self.config.model_dump(mode="json")}


class Interrupted(Exception):  # noqa: N818
    resume_hint = "interrupted after epoch 1"
    run: object = None


class FakeModel:
    """Scores a row by its first column; draws rows that count up."""

    calls: dict[str, Any] = {}  # noqa: RUF012  # what fit was called with
    raises: BaseException | None = None

    def __init__(self) -> None:
        self.schema = Schema.infer(pa.table({"a": [0.5, 1.25, 2.75, 4.0], "b": ["x", "y", "x", "y"]}))
        self.card = Card(recipe="auto", config=None, valid_log_prob=-1.5, valid_standard_error=float("nan"), rows=4)
        self.card.parameters = 7

    @classmethod
    def fit(cls, data: Any, **options: Any) -> "FakeModel":
        cls.calls = {"data": data, **options}
        options["progress"]({"message": "a: continuous"})
        figures = {"rows_per_second": 9.0, "progress": 0.5, "seconds": 1.0, "seconds_left": 1.0, "stage": "training"}
        options["progress"]({"epoch": 1.0, "step": 3, "train": -1.0, "valid": None, **figures})
        if cls.raises is not None:
            raise cls.raises
        model = cls()
        model.card.config = options["config"]
        return model

    @classmethod
    def load(cls, path: str) -> "FakeModel":
        if cls.raises is not None:
            raise cls.raises
        model = cls()
        model.card.config = SimpleNamespace(model_dump=lambda mode: {"budget": float("inf")})
        return model

    def info(self) -> list[str]:
        return ["recipe: auto", "a \x1b[31mred\nname"]

    def score_table(self, table: pa.Table, first_row: int = 1) -> pa.Table:
        log_prob = table["a"].cast(pa.float64())
        holes = log_prob.is_null().to_pylist()
        percentile = pa.array([None if hole else 50.0 for hole in holes], pa.float64())
        reason = pa.array(["a is missing" if hole else None for hole in holes], pa.string())
        return pa.table({"log_prob": log_prob, "percentile": percentile, "reason": reason})

    def samples(self, n: int, *, given: pa.Table | None = None, seed: int | None = None) -> Iterator[pa.Table]:
        for start in range(0, n, 1000):
            count = min(1000, n - start)
            yield pa.table({"a": [float(seed or 0)] * count, "b": ["x"] * count})

    def report(self, data: Any = None, rows: bool = False) -> Path:
        return Path("model", f"{data}-{rows}.html" if data else "report.html")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeModel]:
    for name, member in (
        ("model", {"Model": FakeModel, "load": FakeModel.load}),
        ("training", {"Interrupted": Interrupted}),
    ):
        module = ModuleType(f"diffeo.{name}")
        vars(module).update(member)
        monkeypatch.setitem(sys.modules, f"diffeo.{name}", module)
    monkeypatch.setattr(FakeModel, "raises", None)
    monkeypatch.setattr(FakeModel, "calls", {})
    return FakeModel


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., click.testing.Result]:
    """Run a command; an exception that is no exit is raised, as a bug of ours."""
    monkeypatch.setattr("diffeo.cli._close_stdout", lambda: None)

    def invoke(*words: str | Path, env: dict[str, str] | None = None, input: bytes | None = None) -> Any:
        done = click.testing.CliRunner().invoke(main, [str(word) for word in words], env=env, input=input)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return invoke


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Four rows, one with a hole and one of density zero."""
    path = tmp_path / "table.csv"
    path.write_text("a,b\n0.5,x\n1.5,y\n,x\n4,y\n")
    return path
