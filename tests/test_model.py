"""A model: frames in and out, scores, samples, what is held out, weights, reports, and equality after loading."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import diffeo
from diffeo.config import FitConfig
from diffeo.data import files
from diffeo.data.frames import to_table
from diffeo.errors import DataError, ModelError, TrainingError
from diffeo.mixed import Mixed
from diffeo.model import Model

QUICK = FitConfig(epochs=1, hidden=8, components=2)


def numbers(n: int = 200) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    a = rng.normal(size=n)
    return {"a": a, "b": 100 + 10 * a + rng.normal(size=n)}


def mixed(n: int = 200) -> dict[str, Any]:
    """Numbers, a category, a rounded column and one with holes."""
    rng = np.random.default_rng(1)
    kind = rng.choice(["red", "green", "blue"], n)
    price = np.where(rng.random(n) < 0.05, np.nan, rng.lognormal(3, 1, n))
    return {**numbers(n), "kind": list(kind), "size": rng.integers(0, 4, n), "price": price}


def table(columns: dict[str, Any]) -> pa.Table:
    return pa.table({name: pa.array(cells, from_pandas=True) for name, cells in columns.items()})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    files.write(table(mixed()), folder / "data.csv")
    return Model.fit(folder / "data.csv", config=QUICK, out=folder / "saved")


@pytest.fixture(scope="module")
def plain() -> Model:
    return Model.fit(table(numbers()), config=QUICK)


# Equality -----------------------------------------------------------------------------------------------------------

SCORED_ELSEWHERE = """
import sys, numpy as np
from diffeo.model import Model
model = Model.load(sys.argv[1])
sys.stdout.write(model.log_prob(sys.argv[2]).tobytes().hex())
"""


def test_a_loaded_model_scores_bit_for_bit_the_same_elsewhere(model: Model) -> None:
    assert model.folder is not None
    data = model.folder.parent / "data.csv"
    done = subprocess.run(
        [sys.executable, "-c", SCORED_ELSEWHERE, model.folder, data], capture_output=True, text=True, check=True
    )
    here = model.log_prob(data)
    assert np.array_equal(np.frombuffer(bytes.fromhex(done.stdout.split()[0])), here, equal_nan=True)
    loaded = Model.load(model.folder)
    assert np.array_equal(loaded.log_prob(data), here, equal_nan=True)
    assert loaded.card == model.card
    assert loaded.findings == model.findings
    assert loaded.sample(50, seed=3) == model.sample(50, seed=3)


def test_saving_a_loaded_model_changes_nothing(model: Model, tmp_path: Path) -> None:
    assert model.folder is not None
    Model.load(model.folder).save(tmp_path / "copy")
    for name in ("model.json", "findings.json", "history.jsonl"):
        assert (tmp_path / "copy" / name).read_bytes() == (model.folder / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == sorted(
        path.name for path in model.folder.iterdir()
    )


@pytest.mark.parametrize("recipe", ["auto", "maf", "realnvp", "spline-coupling", "spline-autoregressive"])
def test_same_seed_same_model(recipe: str) -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        config = FitConfig(recipe=recipe, epochs=1, hidden=8, components=2, layers=2, seed=seed)
        return Model.fit(numbers(), config=config).density.state_dict()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_randomness_outside_is_left_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = torch.get_rng_state()
    model = Model.fit(mixed(), config=QUICK)
    model.log_prob(mixed())
    model.sample(10, seed=1)
    model.sample(10)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.random() == 0.22199317108973948  # noqa: NPY002 (the first number after seed 5)
    assert torch.is_grad_enabled()


# Frames -------------------------------------------------------------------------------------------------------------

FRAMES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dict": dict,
    "pandas": pd.DataFrame,
    "polars": lambda columns: pl.DataFrame(columns, nan_to_null=True),
    "arrow": table,
}


@pytest.mark.parametrize("kind", FRAMES)
def test_every_frame_scores_alike_and_comes_back(kind: str, model: Model, tmp_path: Path) -> None:
    assert model.folder is not None
    frame = FRAMES[kind](mixed())
    expected = model.log_prob(model.folder.parent / "data.csv")
    assert np.array_equal(model.log_prob(frame), expected, equal_nan=True)
    own = Model.fit(frame, config=QUICK, out=tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    for fitted in (own, loaded):
        drawn = fitted.sample(7, seed=0)
        assert type(drawn) is type(frame)
        assert to_table(drawn)[0].column_names == list(mixed())
    assert to_table(own.sample(7, seed=0))[0] == to_table(loaded.sample(7, seed=0))[0]


@pytest.mark.parametrize("shape", [(200, 2), (200,)])
def test_arrays_and_tensors_come_back(shape: tuple[int, ...], tmp_path: Path) -> None:
    x = np.stack(list(numbers().values()), 1)[:, : len(shape)].reshape(shape)
    model = Model.fit(x, config=QUICK, out=tmp_path / "array")
    for fitted in (model, Model.load(tmp_path / "array")):
        drawn = fitted.sample(5, seed=0)
        assert isinstance(drawn, np.ndarray)
        assert drawn.shape == (5, *shape[1:])
    tensor = torch.from_numpy(x)
    of_tensor = Model.fit(tensor, config=QUICK, out=tmp_path / "tensor")
    assert np.array_equal(of_tensor.log_prob(x), model.log_prob(tensor))
    for fitted in (of_tensor, Model.load(tmp_path / "tensor")):
        assert isinstance(fitted.sample(5), torch.Tensor)
    np.save(tmp_path / "x.npy", x)
    assert np.array_equal(model.log_prob(tmp_path / "x.npy"), model.log_prob(x))


def test_embedded_data_by_name() -> None:
    model = diffeo.fit("stars", epochs=1, hidden=8, components=1, recipe="maf", layers=1)
    assert model.card.source.startswith("stars")
    assert np.isfinite(model.log_prob("stars")).mean() > 0.99


# Scores -------------------------------------------------------------------------------------------------------------


def test_score_table_has_a_line_a_row(model: Model) -> None:
    rows = table(mixed())
    scored = model.score_table(rows)
    assert scored.column_names == ["log_prob", "percentile", "reason"]
    assert scored.num_rows == rows.num_rows
    holes = rows["price"].is_null().to_pylist()
    assert sum(holes) > 0
    assert scored["log_prob"].is_null().to_pylist() == scored["percentile"].is_null().to_pylist() == holes
    assert [reason == "missing: price" for reason in scored["reason"].to_pylist()] == holes
    nothing = model.score_table(rows.slice(0, 0))
    assert nothing.num_rows == 0
    assert nothing.schema == scored.schema
    assert np.array_equal(model.log_prob(rows), scored["log_prob"].to_numpy(), equal_nan=True)
    assert model.card.holes == {"price": sum(holes)}
    assert model.card.rows_with_holes == sum(holes)


def test_percentiles_are_shares_of_the_training_rows(plain: Model) -> None:
    each = plain.score_table(table(numbers()))["percentile"].to_numpy()
    assert ((each >= 0) & (each <= 100)).all()
    assert abs(np.median(each) - 50) < 5
    far = plain.score_table(pa.table({"a": [1e6], "b": [-1e6]}))
    assert far["percentile"].to_pylist() == [0.0]
    assert np.isfinite(far["log_prob"].to_pylist()[0])


def test_impossible_rows_are_minus_infinity() -> None:
    flips = {"coin": [0, 1] * 50, "x": list(np.random.default_rng(0).normal(size=100))}
    model = Model.fit(flips, config=FitConfig(epochs=1, hidden=8, components=1, kinds={"coin": "integer"}))
    scored = model.score_table(pa.table({"coin": [0, 7], "x": [0.0, 0.0]}))
    assert np.isfinite(scored["log_prob"].to_pylist()[0])
    assert scored["log_prob"].to_pylist()[1] == -np.inf
    assert scored["percentile"].to_pylist()[1] == 0.0
    assert scored["reason"].to_pylist() == [None, None]


def test_faults_of_later_blocks_name_their_row(model: Model) -> None:
    bad = table(mixed()).slice(0, 3).set_column(2, "kind", pa.array(["red", "pink", "red"]))
    with pytest.raises(DataError, match="'kind', row 1002: 'pink'"):
        model.score_table(bad, first_row=1001)


# Samples ------------------------------------------------------------------------------------------------------------


def test_samples_in_parts_are_the_samples(plain: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = plain.sample(25, seed=4)
    assert whole == plain.sample(25, seed=4)
    assert whole != plain.sample(25, seed=5)
    assert plain.sample(25) != plain.sample(25)
    monkeypatch.setattr("diffeo.model.SAMPLE_ROWS", 10)
    parts = list(plain.samples(25, seed=4))
    assert [part.num_rows for part in parts] == [10, 10, 5]
    assert pa.concat_tables(parts) == plain.sample(25, seed=4)
    assert parts[0] == plain.sample(10, seed=4)


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "3"])
def test_how_many_samples(plain: Model, n: Any) -> None:
    with pytest.raises(DataError, match="n: expected a number of rows"):
        plain.sample(n)


def test_given_columns(tmp_path: Path) -> None:
    data = mixed()
    del data["price"]
    config = FitConfig(epochs=1, hidden=8, components=2, given=("kind", "a"))
    model = Model.fit(table(data), config=config, out=tmp_path / "model")
    assert np.isfinite(model.log_prob(table(data))).all()
    known = pa.table({"a": [0.0, 1.0], "kind": ["red", "blue"]})
    for fitted in (model, Model.load(tmp_path / "model")):
        drawn = fitted.sample(5, given=known, seed=0)
        assert drawn.column_names == ["a", "b", "kind", "size"]
        assert drawn["a"].to_pylist() == [0.0, 1.0, 0.0, 1.0, 0.0]
        assert drawn["kind"].to_pylist() == ["red", "blue", "red", "blue", "red"]
        assert drawn == fitted.sample(5, given=known, seed=0)
    with pytest.raises(DataError, match="conditioned on a, kind"):
        model.sample(5)
    with pytest.raises(DataError, match="'kind' is missing"):
        model.sample(2, given=known.select(["a"]))
    with pytest.raises(DataError, match="row 2 lacks 'a'"):
        model.sample(2, given=pa.table({"a": [0.0, None], "kind": ["red", "red"]}))
    with pytest.raises(DataError, match="at least one row"):
        model.sample(2, given=known.slice(0, 0))
    page = model.report()
    assert page.exists()
    assert json.loads((tmp_path / "model" / "report.json").read_text())["rows_sampled"] == 2500
    plain = Model.fit(table(numbers()), config=QUICK)
    with pytest.raises(DataError, match="leave given= out"):
        plain.sample(2, given=known)


# What is held out ---------------------------------------------------------------------------------------------------


def test_held_out_by_a_column_and_by_time() -> None:
    data = numbers(100)
    marked = {**data, "part": ["train"] * 70 + ["valid"] * 30}
    model = Model.fit(marked, config=FitConfig(epochs=1, hidden=8, components=1, split="part"))
    assert (model.card.rows_train, model.card.rows_valid) == (70, 30)
    assert ("part", "says which rows are held out") in model.schema.left_out
    held = {name: cells[70:] for name, cells in data.items()}
    assert model.card.valid_log_prob == pytest.approx(model.log_prob(held).mean(), abs=1e-6)
    timed = {**data, "day": list(range(100, 0, -1))}
    config = FitConfig(epochs=1, hidden=8, components=1, time="day", drop=("day",), valid_fraction=0.2)
    by_time = Model.fit(timed, config=config)
    latest = {name: cells[:20] for name, cells in data.items()}
    assert by_time.card.rows_valid == 20
    assert by_time.card.valid_log_prob == pytest.approx(by_time.log_prob(latest).mean(), abs=1e-6)


def test_rows_of_ones_own_to_validate_on(tmp_path: Path) -> None:
    data, other = mixed(), {name: cells[:50] for name, cells in mixed(300).items()}
    files.write(table(other), tmp_path / "valid.csv")
    said: list[str] = []
    model = Model.fit(
        data,
        config=QUICK,
        valid=tmp_path / "valid.csv",
        progress=lambda record: said.append(record["message"]) if "message" in record else None,
    )
    scores = model.log_prob(other)
    assert model.card.rows_valid == np.isfinite(scores).sum() < 50
    assert model.card.valid_log_prob == pytest.approx(np.nanmean(scores), abs=1e-6)
    assert any("of 200 rows have missing cells and are left out: price" in line for line in said)
    assert any("of 50 rows have missing cells and are left out: price" in line for line in said)
    with pytest.raises(DataError, match="choose one"):
        Model.fit(data, config=FitConfig(time="a"), valid=other)


# Weights ------------------------------------------------------------------------------------------------------------


def test_validation_is_weighted() -> None:
    data = numbers(100)
    weight = np.where(np.arange(100) % 3 == 0, 5.0, 1.0)
    marked = {**data, "part": ["train"] * 70 + ["valid"] * 30, "w": weight}
    config = FitConfig(epochs=1, hidden=8, components=1, split="part", weight="w")
    model = Model.fit(marked, config=config)
    scores = model.log_prob({name: cells[70:] for name, cells in data.items()})
    assert model.card.valid_log_prob == pytest.approx(np.average(scores, weights=weight[70:]), abs=1e-6)
    assert sum(model.card.parts.values()) == pytest.approx(model.card.valid_log_prob, abs=1e-6)
    assert model.findings.model.mean == model.card.valid_log_prob
    history = [step.valid for step in model.findings.history]
    assert max(step for step in history if step is not None) == pytest.approx(model.card.valid_log_prob, abs=1e-3)
    assert ("w", "holds the weights of the rows") in model.schema.left_out


@pytest.mark.parametrize("columns", [numbers, mixed])
def test_rows_of_weight_zero_are_as_good_as_absent(columns: Callable[[int], dict[str, Any]]) -> None:
    """Outliers of weight zero, among those learned from and those held out; same kinds, so that only they differ."""
    data = {**columns(100), "part": ["train"] * 70 + ["valid"] * 30, "w": [1.0] * 100}
    extra = {name: [*cells, *cells[68:72]] for name, cells in data.items()}
    extra["w"][100:] = [0.0] * 4
    extra["a"][100:] = [5.0, -5.0, 5.0, -5.0]
    config = FitConfig(epochs=2, hidden=8, components=2, split="part", weight="w")
    without, having = Model.fit(data, config=config), Model.fit(extra, config=config)
    assert having.card.rows_train == without.card.rows_train
    first, second = without.density.state_dict(), having.density.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert having.card.valid_log_prob == without.card.valid_log_prob


# Telling ------------------------------------------------------------------------------------------------------------


def test_report(model: Model, tmp_path: Path) -> None:
    assert model.folder is not None
    page = Model.load(model.folder).report(folder=tmp_path / "report")
    assert page == tmp_path / "report" / "report.html"
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    assert found["rows_sampled"] == 10_000
    assert found["model"]["mean"] == model.card.valid_log_prob
    other = model.report(model.folder.parent / "data.csv", folder=tmp_path / "other")
    found = json.loads((tmp_path / "other" / "report.json").read_text())
    assert other.exists()
    assert found["model"]["mean"] == pytest.approx(np.nanmean(model.log_prob(mixed())), abs=1e-9)
    with pytest.raises(DataError, match="fewer than 2 rows"):
        model.report(table(mixed()).slice(0, 1), folder=tmp_path)


def test_evidence_is_kept_and_made_anew_for_other_rows(model: Model, tmp_path: Path) -> None:
    """Row numbers without values at the fit; the values of the file where they are asked for."""
    assert model.folder is not None
    found = model.findings
    assert found.evidence is not None
    assert found.verdict is not None
    assert found.verdict.trust == "with care"  # few rows are held out
    assert found.evidence.rows == model.card.rows_valid
    scores = model.log_prob(mixed())
    for extreme in (*found.most_likely, *found.least_likely):
        assert extreme.values is None
        assert extreme.log_prob == pytest.approx(scores[extreme.row - 1], abs=1e-4)
    model.report(table(mixed()), folder=tmp_path, rows=True)
    other = json.loads((tmp_path / "report.json").read_text())
    least = other["least_likely"][0]
    assert least["row"] == int(np.nanargmin(scores)) + 1
    assert float(least["values"]["a"]) == mixed()["a"][least["row"] - 1]
    assert other["evidence"]["rows"] == np.isfinite(scores).sum()
    assert "held out" not in other["verdict"]["sentence"]
    with pytest.raises(DataError, match="keeps no row of the data; name the data"):
        model.report(folder=tmp_path, rows=True)


def test_report_of_an_unsaved_model(plain: Model, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not saved"):
        plain.report()
    assert plain.report(folder=tmp_path).exists()


def test_repr(tmp_path: Path) -> None:
    data = numbers()
    model = Model.fit({"<b>a</b>": data["a"], "b": data["b"]}, config=QUICK)
    assert "held-out row" in repr(model)
    assert "<b>a</b>: continuous" in repr(model)
    html = model._repr_html_()
    assert "&lt;b&gt;a&lt;/b&gt;" in html
    assert "<b>" not in html


def test_progress_has_what_is_promised() -> None:
    records: list[dict[str, Any]] = []
    Model.fit(numbers(), config=QUICK, progress=records.append)
    rounds = [record for record in records if "message" not in record]
    promised = {"epoch", "step", "train", "valid", "rows_per_second", "progress", "seconds", "seconds_left", "stage"}
    assert rounds
    assert all(promised <= record.keys() for record in rounds)
    assert all("message" in record or record in rounds for record in records)
    json.dumps(records, allow_nan=False)


def test_keywords_of_fit() -> None:
    assert diffeo.fit(numbers(), epochs=1, hidden=8, components=1, seed=3).card.config.seed == 3
    with pytest.raises(ModelError, match="layer"):
        diffeo.fit(numbers(), layer=3)
    with pytest.raises(ModelError, match="not both"):
        diffeo.fit(numbers(), epochs=1, budget="3s")


def test_a_run_by_the_clock_is_repeated_from_its_folder(tmp_path: Path) -> None:
    config = FitConfig(budget=3.0, hidden=8)
    timed = Model.fit(mixed(), config=config, out=tmp_path / "timed")
    again = Model.fit(mixed(), config=FitConfig(epochs=2, hidden=8), schedule=tmp_path / "timed")
    first, second = timed.density.state_dict(), again.density.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert again.card.schedule == timed.card.schedule
    with pytest.raises(ModelError, match=r"hidden: .*8, now 9"):
        Model.fit(mixed(), config=FitConfig(budget=3.0, hidden=9), schedule=tmp_path / "timed")
    with pytest.raises(ModelError, match=r"is not what .* learned from"):
        Model.fit(mixed(201), config=config, schedule=tmp_path / "timed")


def test_training_that_diverges_names_rows_and_columns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The density is no number at one outlier, which stands in row 42 of the table."""
    data = numbers()
    data["b"][41] = 1e4
    whole = Mixed.learned_log_probs

    def spoilt(self: Mixed, codes: Any, angles: Any, features: Any, numbers: Any) -> torch.Tensor:
        found, b = whole(self, codes, angles, features, numbers), numbers[0][:, 1]
        return torch.where((b == b.max())[:, None], float("nan"), found)

    monkeypatch.setattr(Mixed, "learned_log_probs", spoilt)
    config = FitConfig(epochs=50, hidden=8, components=2, batch_size=180, split="part")
    marked = {**data, "part": ["train"] * 180 + ["valid"] * 20}
    with pytest.raises(TrainingError, match=r"rows in question: 42; columns furthest out: b; look at") as caught:
        Model.fit(marked, config=config, out=tmp_path / "model")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "model").exists()
