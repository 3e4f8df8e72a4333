"""Inference: what columns of all sorts are taken for, what is left out and why, and what a user may overrule."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from diffeo.data import files
from diffeo.data.schema import Column, Schema
from diffeo.errors import DataError

RNG = np.random.default_rng(0)
N = 2000
OTHER = RNG.normal(size=N)


def _kind(cells: Any, name: str = "c") -> Column:
    return Schema.infer(pa.table({name: cells, "other": OTHER[: len(cells)]}))[name]


def _why(cells: Any, name: str = "c") -> str:
    table = pa.table({name: cells, "other": OTHER[: len(cells)]})
    return dict(Schema.infer(table).left_out)[name]


def test_numbers() -> None:
    assert _kind(RNG.normal(size=N)).kind == "continuous"
    assert _kind(RNG.normal(size=N).astype("f4")).kind == "continuous"
    assert _kind(np.exp(RNG.normal(size=N))).kind == "positive"
    assert _kind(RNG.uniform(size=N)).kind == "unit"
    assert _kind(RNG.uniform(0.2, 0.9, size=N)).kind == "continuous"
    assert _kind(RNG.poisson(2, size=N)).kind == "integer"
    assert _kind(RNG.integers(0, 2, size=30)).levels == (0.0, 1.0)
    assert _kind(RNG.integers(43, 97, size=272)).kind == "rounded"
    price = _kind(RNG.integers(326, 18823, size=N))
    assert (price.kind, price.positive, price.grid.step) == ("rounded", True, 1.0)
    assert not _kind(RNG.integers(0, 18823, size=N) - 50).positive
    assert _kind(RNG.choice([0, 0.06, 0.12, 0.25, 0.5, 1, 2.5, 10], size=N)).kind == "integer"
    tens = _kind(RNG.integers(0, 37, size=N) * 10.0, "wind_dir")
    assert (tens.kind, len(tens.levels)) == ("integer", 37)
    assert _kind(np.round(RNG.normal(size=N), 2)).describe().startswith("c: rounded to 0.01, ")


def test_rates_on_few_values_of_a_fine_grid_have_exact_masses() -> None:
    rates = np.round(np.sort(RNG.uniform(5, 29, 40)), 2)
    assert _kind(RNG.choice(rates, size=N)).kind == "integer"


def test_directions() -> None:
    turn = RNG.uniform(-180, 180, size=N)
    assert _kind(turn, "lon").period == (-180.0, 360.0)
    assert _kind(turn, "latent").kind == "continuous"
    assert _kind(RNG.uniform(0, 2 * np.pi, size=N).astype("f4"), "ra_rad").period == (0.0, 2 * np.pi)
    assert _kind(RNG.uniform(0, 200, size=N), "direction").kind == "continuous"


def test_spikes() -> None:
    rain = np.round(np.where(RNG.uniform(size=N) < 0.3, 0.0, RNG.gamma(0.7, 8, size=N) + 0.06), 1)
    column = _kind(rain)
    assert (column.kind, column.atoms, column.positive) == ("rounded", (0.0,), True)
    amount = np.where(RNG.uniform(size=N) < 0.1, 0.0, np.exp(RNG.normal(size=N)))
    column = _kind(amount)
    assert (column.kind, column.atoms) == ("positive", (0.0,))
    schema = Schema.infer(pa.table({"c": amount, "other": OTHER}))
    assert schema.notes[0].startswith("c: 9.") or schema.notes[0].startswith("c: 10.")
    table = pa.table({"c": amount, "other": OTHER})
    assert schema.decode(schema.encode(table)).equals(table)
    twice = np.repeat(RNG.normal(size=N // 2), 2)
    assert "repeat a value" in Schema.infer(pa.table({"c": twice, "other": OTHER})).notes[0]


def test_words() -> None:
    assert _kind(["a", "b"] * 100).kind == "category"
    assert _kind(["true", "false"] * 100).levels == ("false", "true")
    assert _kind(pa.array([True, False] * 100)).kind == "boolean"
    words = pa.DictionaryArray.from_arrays(pa.array([0, 2] * 50), ["low", "mid", "high"], ordered=True)
    assert (_kind(words).kind, _kind(words).levels) == ("ordered", ("low", "high"))
    assert _kind(pa.array(["b", "a"] * 50).dictionary_encode()).levels == ("a", "b")


def test_dates() -> None:
    hours = [str(t) + "Z" for t in np.datetime64("2013-01-01T06", "s") + np.arange(N) * 3600]
    column = _kind(hours)
    assert (column.kind, column.grid.step, column.type) == ("datetime", 3600.0, "string")
    assert column.describe() == "c: datetime every 3600 s, 2013-01-01T06:00:00 to 2013-03-25T13:00:00"
    assert _kind(["2020-01-01", "2020-01-03"] * 50).grid.step == 2 * 86_400
    assert _kind(["2020-01-01", "2020-01-03x"] * 50).kind == "category"
    assert _kind(["2020-01-01", None, "2020-01-03", "NA"] * 50).missing == 100


def test_columns_left_out() -> None:
    assert _why(np.full(N, 2013)) == "constant: 2013 in every row"
    assert _why(np.arange(1, N + 1)) == "a row number: 1 to 2000 in order"
    assert _why(RNG.permutation(N)) == "a row number: 0 to 1999, each once"
    assert _why([f"k{i}" for i in range(N)]) == "an identifier: its text is different in every row"
    assert _why(RNG.normal(size=N), "Unnamed: 0") == "an identifier by its name, and different in every row"
    assert _why([f"k{i % 700}" for i in range(N)]).startswith("text with 700 different values in 2000 rows, too many")
    assert _why([f"k{min(i, 150)}" for i in range(200)]).startswith("text that mostly occurs once")
    assert _why([None] * N) == "every cell is missing"
    assert _why(pa.array([float("nan")] * N)) == "every cell is missing"
    assert _why([1.0 * i if i % 3 == 0 else None for i in range(N)]).endswith("cells are missing, more than half")
    assert _why([[1, 2]] * N).startswith("its type, list")
    assert _why(pa.array([b"x", b"y"] * (N // 2))).startswith("its type, binary")
    assert "2^53" in _why(RNG.integers(2**60, 2**62, size=N))


def test_copies_and_given_columns() -> None:
    table = pa.table({"a": RNG.integers(0, 99, N), "b": ["x", "y"] * (N // 2), "c": ["x", "y"] * (N // 2)})
    table = table.append_column("d", table["a"].cast(pa.float64()))
    assert dict(Schema.infer(table).left_out) == {"c": "an exact copy of 'b'", "d": "an exact copy of 'a'"}
    schema = Schema.infer(table, given=["d"])
    assert dict(schema.left_out) == {"a": "an exact copy of 'd'", "c": "an exact copy of 'b'"}
    numbered = pa.table({"id": range(N), "x": OTHER})
    assert Schema.infer(numbered, kinds={"id": "rounded"}).names == ("id", "x")
    assert Schema.infer(numbered, given=["id"]).names == ("id", "x")


def test_choice_of_columns() -> None:
    table = pa.table({"a": OTHER, "b": OTHER**2, "c": OTHER**3})
    schema = Schema.infer(table, columns=["a", "b"], drop=["b"])
    assert schema.left_out == (("b", "dropped, as asked"), ("c", "not among the columns asked for"))
    assert schema.encode(table).shape == (N, 1)
    for option in ({"columns": ["z"]}, {"drop": ["z"]}, {"given": ["z"]}, {"kinds": {"z": "integer"}}):
        with pytest.raises(DataError, match="there is no column 'z'"):
            Schema.infer(table, **option)
    with pytest.raises(DataError, match="both given and dropped"):
        Schema.infer(table, given=["a"], drop=["a"])


def test_tables_without_anything_to_learn() -> None:
    for table, match in (
        (pa.table({"a": [1.0, 1.0]}), r"no column is left to learn from \(a: constant: 1.0 in every row\)"),
        (pa.table({"a": [1.0]}), "the table has 1 row; a density needs at least 2"),
        (pa.table({"a": pa.array([], pa.float64())}), "the table has 0 rows"),
        (
            pa.table({"a": [1.0, None, 2.0], "b": [None, 3.0, 1.0]}),
            "only 1 row of 3 without a missing cell.*--drop a,b",
        ),
        (pa.table({"a": [1.0, np.inf, 2.0, 3.5]}), "column 'a', row 2: inf is not a number"),
        (pa.table({}), "there are no columns"),
    ):
        with pytest.raises(DataError, match=match) as caught:
            Schema.infer(table)
        assert "\n" not in str(caught.value)


TABLE = pa.table(
    {
        "x": np.round(RNG.normal(size=100), 1),
        "zero": [0.0, 1.0, 2.5, 4.0] * 25,
        "w": ["b", "a", "c", "a"] * 25,
        "id": [f"k{i}" for i in range(100)],
        "when": ["2020-01-01", "2020-01-05"] * 50,
        "z": RNG.normal(size=100),
    }
)
OVERRIDES = {
    "x=posotive": r"'posotive' is no kind; did you mean 'positive'\? \(known: continuous, positive",
    "w=continuous": r"column 'w' is text and cannot be continuous; leave it out with --drop w",
    "when=continuous": r"--kind when=datetime",
    "w=datetime": r"column 'w' is text and no date",
    "zero=positive": r"column 'zero', row 1: 0 is not above 0",
    "zero=bounded:1:5": r"row 1: 0 is not between 1 and 5 .*; widen them, as in --kind zero=bounded:-0.05:4",
    "zero=unit": r"column 'zero', row 1: 0 is not between 0 and 1",
    "zero=bounded": r"write bounded:0:10",
    "zero=bounded:5:1": r"must be finite and rising",
    "zero=bounded:a:b": r"has a part that is no number",
    "zero=circular": r"do not show their period; say it, as in --kind zero=circular:360",
    "zero=rounded:1": r"column 'zero', row 3: 2.5 is no multiple of 1",
    "z=rounded": r"its values lie on no grid",
    "z=integer": r"its values are no multiples of one step",
    "w=ordered": r"say the order of its levels, as in --kind 'w=ordered:a<b<c'",
    "w=ordered:a<b": r"column 'w', row 3: 'c' is not among the levels a < b",
    "w=ordered:a": r"needs two or more different levels",
    "w=boolean": r"has 3 different values, so it cannot be boolean",
    "id=category": r"column 'id' is no category: 100 different values in 100 rows",
    "x=unit:3": r"is not how to ask for unit",
}


@pytest.mark.parametrize("asked", OVERRIDES)
def test_overrides_that_do_not_fit(asked: str) -> None:
    name, _, kind = asked.partition("=")
    with pytest.raises(DataError, match=OVERRIDES[asked]) as caught:
        Schema.infer(TABLE, kinds={name: kind})
    assert "\n" not in str(caught.value)


def test_overrides_that_fit() -> None:
    kinds = {"x": "rounded:0.1", "zero": "ordered", "w": "ordered:c<b<a", "when": "category", "z": "circular:20"}
    schema = Schema.infer(TABLE, kinds=kinds)
    assert [column.kind for column in schema.columns] == ["rounded", "ordered", "ordered", "category", "circular"]
    assert schema["w"].levels == ("c", "b", "a")
    assert schema["z"].period == (-10.0, 20.0)
    assert schema.decode(schema.encode(TABLE)).equals(TABLE.select(schema.names))
    assert Schema.infer(TABLE, kinds={"x": "integer"})["x"].grid.step == pytest.approx(0.1)


def test_everything_continuous() -> None:
    with pytest.raises(DataError, match="column 'w' is text and cannot be continuous"):
        Schema.infer(TABLE, kinds={"*": "continuous"})
    schema = Schema.infer(TABLE, kinds={"*": "continuous", "w*": "category"})
    assert dict(schema.left_out) == {"id": "an identifier by its name, and different in every row"}
    for name in ("x", "zero", "z"):
        column = schema[name]
        assert (column.kind, column.grid, column.atoms, column.levels) == ("continuous", None, (), ())


def test_a_large_table_is_quick() -> None:
    n = 100_000
    table = pa.table({f"c{i}": RNG.normal(size=n) if i % 2 else np.round(RNG.normal(size=n), 3) for i in range(10)})
    schema = Schema.infer(table)
    assert [column.kind for column in schema.columns] == ["rounded", "continuous"] * 5


EXPECTED = {
    "airports": {"lat": "continuous", "lon": "circular", "elevation": "rounded", "country": "category", "icao": None},
    "diamonds": {"carat": "rounded", "cut": "category", "price": "rounded", "x": "rounded", "rownames": None},
    "faithful": {"eruptions": "rounded", "waiting": "rounded", "rownames": None},
    "galaxy": dict.fromkeys(["redshift", "u", "g", "r", "i", "z", "y"], "continuous"),
    "kershaw": {"Time": "datetime", "Batter": "category", "Zone": "integer", "HPos": "rounded", "rownames": None},
    "lending_club": {"int_rate": "integer", "total_bal_il": "rounded", "term": "category", "delinq_2yrs": "integer"},
    "rain": {"rain": "rounded", "rainfc.1": "rounded", "rownames": None},
    "stars": {
        "b_v": "rounded", "v_i": "rounded", "M_hp": "continuous", "log_vt": "continuous",
        "log_dist_pc": "rounded", "ra_rad": "circular", "dec_rad": "continuous",
    },
    "weather": {
        "time_hour": "datetime", "wind_dir": "integer", "visib": "integer", "wind_speed": "rounded",
        "precip": "rounded", "year": None, "wind_gust": None, "rownames": None, "origin": "category", "hour": "integer",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_real_tables(data_dir: Path, name: str) -> None:
    table = files.read(data_dir / "tables" / f"{name}.parquet")
    schema = Schema.infer(table)
    kinds = {column.name: column.kind for column in schema.columns} | {left: None for left, _ in schema.left_out}
    assert {key: kinds[key] for key in EXPECTED[name]} == EXPECTED[name]
    assert schema.decode(schema.encode(table)).equals(table.select(schema.names))
    if name == "stars":
        grid = schema["log_dist_pc"].grid
        assert grid is not None
        assert (grid.warp, grid.step) == ("exp10neg", pytest.approx(1e-5))
    if name == "rain":
        assert all(schema[column].atoms == (0.0,) for column in schema.names)
