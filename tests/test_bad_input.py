"""Input that is wrong: each is one line that names what is wrong and where, with exit code 2, before any training."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from functools import lru_cache
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
from diffeo.data.schema import Schema
from diffeo.errors import DataError, DiffeoError, ModelError, ShapeError
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
    columns["share"] = list(np.random.default_rng(1).beta(2, 3, 40))
    config = FitConfig(**QUICK, kinds={"day": "datetime", "share": "unit"})
    return Model.fit(
        pa.table({n: list(c) for n, c in columns.items()}), config=config, out=tmp_path_factory.mktemp("m")
    )


def row(**changes: Any) -> dict[str, list[Any]]:
    columns = {"a": 0.5, "b": 0.5, "kind": "x", "count": 1, "day": "2020-01-05", "share": 0.5, **changes}
    return {name: [cell] for name, cell in columns.items() if cell is not ...}


SCORES: dict[str, tuple[dict[str, Any], str]] = {
    "column missing": ({"b": ...}, "the column 'b' is missing; the model needs a, b, kind, count, day, share"),
    "column renamed": ({"kind": ..., "kinds": "x"}, "'kind' is missing.*'kinds'"),
    "column extra": ({"c": 1.0}, "the column 'c' is not one that the model knows"),
    "text for a number": ({"a": "high"}, "'a' is text .row 1: 'high'."),
    "number for text": ({"kind": 3}, "'kind' is number .row 1: 3."),
    "boolean for a number": ({"a": True}, "'a' is .*(boolean|bool)"),
    "category never seen": ({"kind": "z"}, "'kind', row 1: 'z' was never seen"),
    "no date": ({"day": "yesterday"}, "'day', row 1: 'yesterday' is no date"),
    "infinite": ({"a": float("inf")}, "'a', row 1: inf"),
    "out of bounds": ({"share": 1.5}, "'share', row 1: 1.5 is not between 0 and 1, which unit means"),
    "nested": ({"a": [1.0]}, "'a' is list<.*but the model knows it as a number"),
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


@pytest.mark.parametrize("name", FILES)
def test_fit_on_bad_files(name: str, refused: Callable[..., str], tmp_path: Path) -> None:
    content, said = FILES[name]
    path = tmp_path / "data.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refused("fit", path, "-o", tmp_path / "model", "-q", "--epochs", "1")
    assert line.startswith("diffeo: ")
    assert re.search(said, line)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", SCORES)
def test_score_on_bad_files(name: str, refused: Callable[..., str], model: Model, tmp_path: Path) -> None:
    changes, said = SCORES[name]
    pq.write_table(pa.table(row(**changes)), tmp_path / "data.parquet")
    out = tmp_path / "scores.csv"
    out.write_text("mine")
    line = refused("score", model.folder, tmp_path / "data.parquet", "-o", out, "--overwrite")
    assert re.search(said, line), line
    assert out.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


def copied(model: Model, place: Path) -> Path:
    assert model.folder is not None
    return Path(shutil.copytree(model.folder, place / "model"))


def test_a_full_disk(
    refused: Callable[..., str], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old model is whole, and nothing is left of the new one."""
    table, folder = tmp_path / "table.csv", copied(model, tmp_path)
    files.write(pa.table(good()), table)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    scores = model.log_prob(row())
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:

            def full(*_: Any) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            patch.setattr(os, name, full)
            line = refused("fit", table, "-o", folder, "--overwrite", "-q", "--epochs", "1", "--hidden", "4")
            assert "No space left on device" in line
            line = refused("sample", folder, "-n", "5", "-o", table, "--overwrite")
            assert "cannot be written, the disk is full; nothing was left behind" in line
        assert files.read(table).num_rows == 40
        assert len(list(tmp_path.iterdir())) == 2
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert np.array_equal(Model.load(folder).log_prob(row()), scores)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc here")
def test_a_place_that_cannot_be_written(refused: Callable[..., str], model: Model, tmp_path: Path) -> None:
    files.write(pa.table(good()), tmp_path / "table.csv")
    assert "/proc/diffeo.csv" in refused("sample", model.folder, "-n", "5", "-o", "/proc/diffeo.csv")
    assert "cannot write in /proc/diffeo" in refused("fit", tmp_path / "table.csv", "-o", "/proc/diffeo", "-q")


def test_damaged_weights_end_with_one_line(refused: Callable[..., str], model: Model, tmp_path: Path) -> None:
    folder = copied(model, tmp_path)
    (weights,) = folder.glob("weights-*")
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    assert "sha256 differs" in refused("sample", folder, "-n", "5")
    weights.write_bytes(data[:-100])
    assert "size" in refused("sample", folder, "-n", "5")


ASKED: dict[str, tuple[Callable[[Model], object], type[DiffeoError], str]] = {
    "score nothing": (lambda m: m.log_prob(None), DataError, "cannot read NoneType as a table; give a path"),
    "score no columns": (lambda m: m.log_prob({}), DataError, "the dictionary: there are no columns"),
    "score lengths": (lambda m: m.log_prob({"a": [1.0], "b": [1.0, 2.0]}), DataError, "differ in length .a: 1, b: 2"),
    "score objects": (lambda m: m.log_prob(row(a=object())), DataError, "the column 'a' is no sequence of numbers"),
    "score 1e400": (lambda m: m.log_prob(row(a=10**400)), DataError, "the column 'a' is no sequence of numbers"),
    "score a missing file": (lambda m: m.log_prob("none.csv"), DataError, r"none\.csv: there is no such file"),
    "sample 0": (lambda m: m.sample(0), DataError, "n: expected a number of rows, 1 or more, got 0"),
    "sample True": (lambda m: m.sample(True), DataError, "n: expected a number of rows, 1 or more, got True"),
    "sample 2.0": (lambda m: m.sample(2.0), DataError, r"n: expected a number of rows, 1 or more, got 2\.0"),
    "seed -1": (lambda m: m.sample(3, seed=-1), ShapeError, "seed: expected a whole number, 0 or more, got -1"),
    "seed 1.5": (lambda m: m.sample(3, seed=1.5), ShapeError, r"seed: expected a whole number, 0 or more, got 1\.5"),
    "given": (lambda m: m.sample(3, given=row()), DataError, "given: this density is not conditioned on any column"),
    "report of one row": (lambda m: m.report(row()), DataError, "fewer than 2 rows without missing cells"),
    "load 3": (lambda m: Model.load(3), ModelError, "expected the path of a model's folder, got 3"),
    "load nothing": (lambda m: Model.load(""), ModelError, "expected the path of a model's folder, got ''"),
    "save None": (lambda m: m.save(None), ModelError, "expected the path of a model's folder, got None"),
    "fit, config": (lambda m: Model.fit(good(), config={"epochs": 1}), ModelError, "config: expected a FitConfig, got"),
    "fit, out": (lambda m: Model.fit(good(), out=3), ModelError, "expected the path of a model's folder, got 3"),
    "fit, valid": (
        lambda m: Model.fit(good(), valid={"a": [1.0]}, config=FitConfig(**QUICK)),
        DataError,
        "the column 'b' is missing; the model needs a, b, kind",
    ),
    "schema of a dictionary": (lambda m: Schema.infer(good()), DataError, "expected a pyarrow table, got dict"),
    "encode a dictionary": (lambda m: m.schema.encode(row()), DataError, "expected a pyarrow table, got dict"),
    "decode a width": (lambda m: m.schema.decode(np.zeros((3, 9))), ShapeError, r"shape \[n, 6\], got \[3, 9\]"),
    "density of an array": (lambda m: m.density.log_prob(np.zeros((3, 6))), ShapeError, "x: expected a torch.Tensor"),
    "density draws -1": (lambda m: m.density.sample(-1), ShapeError, "n: expected a whole number, 0 or more, got -1"),
    "many categories": (
        lambda m: Model.fit(
            good(name=[f"p{i}" for i in range(40)]), config=FitConfig(**QUICK, kinds={"name": "category"})
        ),
        DataError,
        "column 'name' is no category: 40 different values in 40 rows; leave it out with --drop name",
    ),
    "conditioned, nothing given": (
        lambda m: conditioned().sample(3),
        DataError,
        "given: this .* conditioned on kind; pass",
    ),
    "conditioned, never seen": (
        lambda m: conditioned().sample(3, given={"kind": ["z"]}),
        DataError,
        "column 'kind', row 1: 'z' was never seen",
    ),
    "conditioned, missing": (
        lambda m: conditioned().sample(3, given={"kind": [None]}),
        DataError,
        "given: row 1 lacks 'kind'; fill it or drop the row",
    ),
}


@lru_cache
def conditioned() -> Model:
    return Model.fit(good(), config=FitConfig(**QUICK, given=("kind",)))


@pytest.mark.parametrize("name", ASKED)
def test_what_cannot_be_asked_of_a_model(name: str, model: Model) -> None:
    ask, kind, said = ASKED[name]
    with pytest.raises(DiffeoError) as caught:
        ask(model)
    assert type(caught.value) is kind
    assert re.search(said, one_line(caught.value)), str(caught.value)
    assert caught.value.exit_code == 2


def test_the_tables_are_long() -> None:
    """Of wrong inputs to the public door alone; those to the core are in test_wrong_inputs."""
    assert len(FILES) + len(FITS) + sum(map(len, CONFIGS.values())) + len(SCORES) + len(ASKED) >= 120


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
