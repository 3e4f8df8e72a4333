"""Input that is wrong: each is one line that names what is wrong and where, with exit code 2, before any training."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffeo.cli import main
from diffeo.config import FitConfig
from diffeo.data import files
from diffeo.errors import DataError, DiffeoError, ModelError
from diffeo.model import Model

QUICK = {"epochs": 1, "hidden": 4, "components": 2}
RNG = np.random.default_rng(0)
A, B = list(RNG.normal(size=40)), list(RNG.normal(size=40))
KIND = ["x", "y"] * 20


def csv(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def good(**changes: Any) -> dict[str, Any]:
    columns = {"a": A, "b": B, "kind": KIND, **changes}
    return {name: cells for name, cells in columns.items() if cells is not None}


def but(cells: list[Any], row: int, cell: Any) -> list[Any]:
    """The cells with another one in a row, counted from 1."""
    return [*cells[: row - 1], cell, *cells[row:]]


def one_line(fault: BaseException) -> str:
    text = str(fault)
    assert "\n" not in text
    assert 10 < len(text) < 500
    return text


# Files --------------------------------------------------------------------------------------------------------------

FILES: dict[str, tuple[str | bytes | None, str]] = {
    "missing": (None, "no such file"),
    "empty": ("", "empty"),
    "header only": ("a,b\n", "no rows"),
    "one row": (csv("a,b", "1,2"), "1 row"),
    "ragged": (csv("a,b", "1,2", "3", "4,5"), "(line|row) [23]"),
    "names twice": (csv("a,a", "1,2", "3,4"), "'a'"),
    "binary": (b"\x00\x01\xff\xfe" * 50, ""),
    "constant": (csv("a,b", "1,x", "1,x", "1,x"), "no column is left to learn from.*a: .*b: "),
    "all missing": (csv("a,b", ",", ",", ","), "no column is left|without a missing cell|only 0"),
    "holes everywhere": (
        csv("a,b,c", *["1.5,2.5,", ",2.25,3", "3.5,,1.25"] * 4),
        "only 0 rows of 12 without a missing cell",
    ),
    "infinite": (csv("a,b", "1,2", "inf,4", "5,6"), "'a', row 2: inf"),
    "minus infinite": (csv("a,b", "1,2", "3,4", "5,-inf"), "'b', row 3: -inf"),
    "text only, each once": (csv("name", *(f"person {i}" for i in range(50))), "no column is left.*name: "),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, tmp_path: Path) -> None:
    content, said = FILES[name]
    path = tmp_path / "data.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        Model.fit(path, config=FitConfig(**QUICK), out=tmp_path / "model")
    assert re.search(said, one_line(caught.value))
    assert caught.value.exit_code == 2
    assert not (tmp_path / "model").exists()


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table(good()), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"data\.parquet") as caught:
        Model.fit(path, config=FitConfig(**QUICK))
    one_line(caught.value)


# Frames and options -------------------------------------------------------------------------------------------------

FITS: dict[str, tuple[Any, dict[str, Any], type[DiffeoError], str]] = {
    "no frame": (3, {}, DataError, "cannot read int"),
    "complex": (np.ones((9, 2)) * 1j, {}, DataError, "complex"),
    "3 dimensions": (np.ones((9, 2, 2)), {}, DataError, r"shape \[rows\] or \[rows, columns\]"),
    "lengths differ": ({"a": [1, 2], "b": [1]}, {}, DataError, "differ in length"),
    "names twice": (pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), {}, DataError, "'a'"),
    "infinite": (good(b=but(B, 7, float("inf"))), {}, DataError, "'b', row 7: inf"),
    "two rows": ({"a": [1.0, 2.0]}, {}, DataError, "too few"),
    "column unknown": (good(), {"columns": ("a", "bb")}, DataError, "--columns: there is no column 'bb'.*'b'"),
    "drop unknown": (good(), {"drop": ("c",)}, DataError, "--drop: there is no column 'c'"),
    "drop all": (good(), {"drop": ("a", "b", "kind")}, DataError, "no column is left"),
    "given unknown": (good(), {"given": ("kin",)}, DataError, "--given: there is no column 'kin'.*'kind'"),
    "given and dropped": (good(), {"given": ("a",), "drop": ("a",)}, DataError, "'a' is both given and dropped"),
    "all given": (good(), {"given": ("a", "b", "kind")}, DataError, "all columns are given"),
    "kind unknown": (good(), {"kinds": {"a": "contnuous"}}, DataError, "contnuous.*continuous"),
    "kind of no column": (good(), {"kinds": {"aa": "continuous"}}, DataError, "'aa'"),
    "text is no number": (good(), {"kinds": {"kind": "continuous"}}, DataError, "kind.*(text|'x')"),
    "negative is not positive": (good(), {"kinds": {"a": "positive"}}, DataError, "'a'"),
    "missing refused": (good(a=but(A, 5, None)), {"missing": "error"}, DataError, "'a', row 5: the cell is missing"),
    "weight unknown": (good(), {"weight": "w"}, DataError, "no column 'w'; the table has a, b, kind"),
    "weight text": (good(), {"weight": "kind"}, DataError, "'kind': weights are numbers, got string"),
    "weight negative": (good(w=but([1.0] * 40, 3, -1.0)), {"weight": "w"}, DataError, r"'w', row 3: .* got -1\.0"),
    "weight missing": (good(w=but([1.0] * 40, 3, None)), {"weight": "w"}, DataError, "'w', row 3: .* got nan"),
    "weight NaN": (good(w=but([1.0] * 40, 3, float("nan"))), {"weight": "w"}, DataError, "'w', row 3: .* got nan"),
    "weight infinite": (good(w=but([1.0] * 40, 3, float("inf"))), {"weight": "w"}, DataError, "'w', row 3: .* got inf"),
    "weights all zero": (good(w=[0.0] * 40), {"weight": "w"}, DataError, "'w': all weights are 0"),
    "weight of one row": (good(w=but([0.0] * 40, 3, 1.0)), {"weight": "w"}, DataError, "too few rows"),
    "weight given": (good(w=B), {"weight": "w", "given": ("w",)}, DataError, "'w'"),
    "split unknown": (good(), {"split": "part"}, DataError, "no column 'part'"),
    "split of other words": (good(), {"split": "kind"}, DataError, "'kind', row 1: 'x' does not say"),
    "split on one side": (good(part=["train"] * 40), {"split": "part"}, DataError, "'part': no row is held out"),
    "time unknown": (good(), {"time": "day"}, DataError, "no column 'day'"),
    "time of one moment": (good(day=[1] * 40), {"time": "day"}, DataError, "one moment"),
    "time missing": (good(day=but(list(range(40)), 2, None)), {"time": "day"}, DataError, "row 2 has no time"),
    "split and time": (good(), {"time": "a", "split": "b"}, DataError, "--split and --time .* choose one"),
    "recipe unknown": (good(), {"recipe": "glow"}, ModelError, "recipe: expected one of auto, .*'glow'"),
    "no such device": (good(), {"device": "cuda:99"}, ModelError, "there is no cuda:99 here"),
}


@pytest.mark.parametrize("name", FITS)
def test_fits(name: str) -> None:
    data, options, kind, said = FITS[name]
    stages = []
    with pytest.raises(kind) as caught:
        Model.fit(data, config=FitConfig(**{**QUICK, **options}), progress=lambda record: stages.append(record))
    assert re.search(said, one_line(caught.value)), str(caught.value)
    assert caught.value.exit_code == 2
    assert not any(record.get("stage") == "training" for record in stages)


CONFIGS = {
    "epochs": [0, -1, 1.5, "many", None],
    "budget": [0, -1, float("inf"), float("nan"), "soon", "0s", "-2m"],
    "valid_fraction": [0, 1, -0.1, float("nan")],
    "seed": [-1, 2**31, 0.5],
    "learning_rate": [0, -1, 2, float("nan"), float("inf")],
    "hidden": [0, 4097],
    "layers": [0, 65],
    "bins": [1, 65],
    "components": [0, 513],
    "batch_size": [0, 1],
    "threads": [0, 2000],
    "device": ["tpu", "cuda:x"],
    "missing": ["keep"],
    "kinds": [3, {"a": 3}],
    "epoch": [1],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations(name: str) -> None:
    for value in CONFIGS[name]:
        if name == "epochs" and value is None:
            continue
        with pytest.raises(DiffeoError) as caught:
            FitConfig.read(**{name: value})
        text = one_line(caught.value)
        assert caught.value.exit_code == 2
        assert name in text or "duration" in text


# Scoring ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    columns = good(count=[i % 5 for i in range(40)], day=pd.date_range("2020-01-01", periods=40).strftime("%Y-%m-%d"))
    config = FitConfig(**QUICK, kinds={"day": "datetime"})
    return Model.fit(
        pa.table({n: list(c) for n, c in columns.items()}), config=config, out=tmp_path_factory.mktemp("m")
    )


def row(**changes: Any) -> dict[str, list[Any]]:
    columns = {"a": 0.5, "b": 0.5, "kind": "x", "count": 1, "day": "2020-01-05", **changes}
    return {name: [cell] for name, cell in columns.items() if cell is not ...}


SCORES: dict[str, tuple[dict[str, Any], str]] = {
    "column missing": ({"b": ...}, "the column 'b' is missing; the model needs a, b, kind, count, day"),
    "column renamed": ({"kind": ..., "kinds": "x"}, "'kind' is missing.*'kinds'"),
    "column extra": ({"c": 1.0}, "the column 'c' is not one that the model knows"),
    "text for a number": ({"a": "high"}, "'a' is text .row 1: 'high'."),
    "number for text": ({"kind": 3}, "'kind' is number .row 1: 3."),
    "boolean for a number": ({"a": True}, "'a' is .*(boolean|bool)"),
    "category never seen": ({"kind": "z"}, "'kind', row 1: 'z' was never seen"),
    "no date": ({"day": "yesterday"}, "'day', row 1: 'yesterday' is no date"),
    "infinite": ({"a": float("inf")}, "'a', row 1: inf"),
    "off the grid": ({"count": 1.5}, "'count', row 1: 1.5"),
}


@pytest.mark.parametrize("name", SCORES)
def test_scores(name: str, model: Model, tmp_path: Path) -> None:
    changes, said = SCORES[name]
    for score in (model.log_prob, lambda data: model.score_table(pa.table(data))):
        with pytest.raises(DataError) as caught:
            score(row(**changes))
        assert re.search(said, one_line(caught.value)), str(caught.value)
        assert caught.value.exit_code == 2
    assert np.isfinite(model.log_prob(row())).all()


# The command line ---------------------------------------------------------------------------------------------------


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The last line on stderr of a command that must end with exit code 2 and write nothing to stdout."""
    monkeypatch.setattr("diffeo.cli._close_stdout", lambda: None)

    def run(*words: Any) -> str:
        done = click.testing.CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
        assert (done.exit_code, done.stdout) == (2, ""), done.stderr
        return str(done.stderr.splitlines()[-1])

    return run


def test_commands_end_with_one_line(refused: Callable[..., str], model: Model, tmp_path: Path) -> None:
    assert model.folder is not None
    table, wrong = tmp_path / "table.csv", tmp_path / "wrong.csv"
    files.write(pa.table(good()), table)
    files.write(pa.table(good(a=but(A, 9, float("inf")))), wrong)
    fit = ("-q", "--epochs", "1", "--hidden", "4")
    assert refused("fit", tmp_path / "none.csv", "-o", tmp_path / "m", *fit).startswith("diffeo: ")
    assert "'a', row 9: inf" in refused("fit", wrong, "-o", tmp_path / "m", *fit)
    assert "is a file" in refused("fit", table, "-o", wrong, *fit)
    assert "other things" in refused("fit", table, "-o", tmp_path, *fit)
    assert "--overwrite" in refused("fit", table, "-o", model.folder, *fit)
    assert "cannot write" in refused("fit", table, "-o", wrong / "m", *fit)
    assert "'w'" in refused("fit", table, "-o", tmp_path / "m", "--weight", "w", *fit)
    assert "glow" in refused("fit", table, "-o", tmp_path / "m", "--recipe", "glow", *fit)
    assert "no interrupted run" in refused("fit", table, "-o", tmp_path / "m", "--resume", *fit)
    assert "not a diffeo model" in refused("fit", table, "-o", tmp_path / "m", "--schedule", tmp_path, *fit)
    assert "'count' is missing" in refused("score", model.folder, table)
    assert "not a diffeo model" in refused("score", tmp_path, table)
    assert "not a diffeo model" in refused("sample", tmp_path / "none")
    assert "not a diffeo model" in refused("report", table)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "wrong.csv"]


@pytest.mark.parametrize(("change", "said"), [("format", "not written by diffeo"), ("format_version", "newer")])
def test_commands_on_foreign_and_newer_models(
    change: str, said: str, refused: Callable[..., str], model: Model, tmp_path: Path
) -> None:
    assert model.folder is not None
    record = json.loads((model.folder / "model.json").read_text())
    record[change] = 99
    (tmp_path / "model.json").write_text(json.dumps(record))
    for command in ("info", "sample", "report"):
        assert said in refused(command, tmp_path)
    (tmp_path / "model.json").write_text("{")
    assert "cannot be read as JSON" in refused("info", tmp_path)
