"""Schemas: decode(encode(table)) is the table, sampled rows become cells, every foreign table is refused by name."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffeo.data.column import KINDS
from diffeo.data.schema import Schema
from diffeo.errors import DataError, ShapeError

RNG = np.random.default_rng(0)
N = 400


def _holes(cells: Any, kind: pa.DataType | None = None) -> pa.Array:
    array = pa.array(cells, kind)
    mask = np.arange(len(array)) % 29 == 5
    return pa.array([None if hole else cell for hole, cell in zip(mask, array.to_pylist(), strict=True)], array.type)


def _moments(unit: str, step: int) -> np.ndarray:
    return (np.datetime64("2013-01-01T06:00:00", unit) + np.arange(N) * step).astype(f"datetime64[{unit}]")


EVERY = {
    "continuous": (_holes(RNG.normal(size=N)), "continuous"),
    "single": (_holes(RNG.normal(size=N).astype("f4")), "continuous"),
    "positive": (_holes(np.exp(2 * RNG.normal(size=N))), "positive"),
    "unit": (_holes(RNG.uniform(size=N)), "unit"),
    "bounded": (_holes(RNG.uniform(-3, 5, size=N)), "bounded:-3:5"),
    "direction": (_holes(RNG.uniform(0, 360, size=N)), "circular"),
    "turn": (_holes(RNG.uniform(-20, 40, size=N)), "circular:24"),
    "count": (_holes(RNG.poisson(3, size=N).astype("i2")), "integer"),
    "tens": (_holes(RNG.integers(0, 5, size=N) * 10.0), "integer"),
    "rounded": (_holes(np.round(RNG.normal(size=N), 1)), "rounded"),
    "rounded4": (_holes(np.round(RNG.normal(size=N), 2).astype("f4")), "rounded:0.01"),
    "whole": (_holes(RNG.integers(0, 10_000, size=N)), "rounded"),
    "noisy": (_holes(np.round(RNG.uniform(0, 20, N), 1) * 3 / 3 + 1e-15), "rounded"),
    "ordered": (_holes(RNG.choice(["Fair", "Good", "Ideal"], size=N).tolist()), "ordered:Fair<Good<Ideal"),
    "steps": (_holes(RNG.choice([0.06, 0.12, 0.5, 10.0], size=N)), "ordered"),
    "word": (_holes(RNG.choice(["", "a", "NA", "é,\n"], size=N).tolist()), "category"),
    "number": (_holes(RNG.choice([3, 7, 90], size=N)), "category"),
    "dictionary": (_holes(RNG.choice(["p", "q"], size=N).tolist()).dictionary_encode(), "category"),
    "bool": (_holes(RNG.choice([True, False], size=N).tolist()), "boolean"),
    "yes": (_holes(RNG.choice(["True", "False"], size=N).tolist()), "boolean"),
    "stamp": (_holes(_moments("us", 1_234_567)), "datetime"),
    "nanos": (_holes(_moments("ns", 1)), "datetime"),
    "zoned": (_holes(_moments("ms", 60_000), pa.timestamp("ms", tz="UTC")), "datetime"),
    "day": (_holes([dt.date(2020, 1, 1) + dt.timedelta(days=i % 90) for i in range(N)]), "datetime"),
    "iso": (_holes([str(t) + "Z" for t in _moments("s", 3600)]), "datetime"),
    "isoday": (_holes([str(t) for t in _moments("s", 86_400).astype("datetime64[D]")]), "datetime"),
    "isofine": (_holes([str(t).replace("T", " ") + "+01:00" for t in _moments("ms", 10)]), "datetime"),
}  # fmt: skip
TABLE = pa.table({name: cells for name, (cells, _) in EVERY.items()})
KINDS_ASKED = {name: kind for name, (_, kind) in EVERY.items()}


def _same(one: pa.Table, other: pa.Table) -> None:
    assert one.schema.types == other.schema.types
    for name in other.column_names:
        assert one[name].to_pylist() == other[name].to_pylist(), name


@pytest.mark.parametrize("kinds", [KINDS_ASKED, {}], ids=["asked", "found"])
def test_every_kind_comes_back_exactly(kinds: Mapping[str, str]) -> None:
    schema = Schema.infer(TABLE.append_column("id", pa.array(range(N))), kinds=kinds)
    if kinds:
        assert {column.kind for column in schema.columns} == set(KINDS)
        assert schema.names == tuple(EVERY)
    x = schema.encode(TABLE.select(schema.names))
    assert x.dtype == float
    assert x.shape == (N, len(schema.columns))
    _same(schema.decode(x), TABLE.select(schema.names))
    assert Schema.model_validate_json(schema.model_dump_json()) == schema
    assert all("\n" not in line for line in schema.describe())


def test_discrete_columns_have_codes() -> None:
    schema = Schema.infer(TABLE, kinds=KINDS_ASKED)
    x = schema.encode(TABLE)
    for column, values in zip(schema.columns, x.T, strict=True):
        if column.discrete:
            codes = column.codes(values)
            assert np.array_equal(codes < 0, np.isnan(values))
            assert codes.max() < len(column.levels)
            np.testing.assert_allclose(column.values(codes), values, atol=1e-9)
    assert schema["count"].codes(np.array([-1.0, 1e9, np.nan])).tolist() == [-1, -1, -1]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.floats(0.1, 1e3))
def test_samples_land_on_grids_levels_and_supports(seed: int, spread: float) -> None:
    schema = SAMPLED
    x = np.random.default_rng(seed).normal(0, spread, size=(50, len(schema.columns)))
    table = schema.decode(x)
    assert table.schema.types == TABLE.schema.types
    assert sum(column.null_count for column in table.columns) == 0
    again = schema.encode(table.set_column(0, "continuous", table["continuous"]).select(schema.names))
    for place, column in enumerate(schema.columns):
        v = again[:, place]
        if column.discrete:
            assert column.codes(v).min() >= 0
        if column.grid is not None and column.dates is None:
            assert np.all(np.abs(column.grid.snap(v) - v) <= column.grid.slack)
        if column.bounds:
            assert column.bounds[0] <= v.min() <= v.max() <= column.bounds[1]
        if column.kind == "circular":
            assert np.ptp(v) <= max(column.period[1], column.high - column.low)


# samples of a positive column are positive by construction (an exponential); here it is any number
SAMPLED = Schema.infer(TABLE, kinds=KINDS_ASKED | {"positive": "continuous"})


def test_whole_numbers_beyond_the_levels_come_back() -> None:
    """They can be scored and given, so decoding must not turn them into the last level; a draw off the grid is."""
    schema = Schema.infer(pa.table({"year": list(range(2000, 2010)) * 30, "x": np.arange(300) ** 0.5}))
    assert schema["year"].kind == "integer"
    other = pa.table({"year": [1990, 2005, 2015], "x": [0.5, 1.5, 2.5]})
    assert schema.decode(schema.encode(other)).equals(other)
    assert schema.decode(np.array([[2015.3, 0.5], [1990.2, 0.5]]))["year"].to_pylist() == [2009, 2000]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(-1e300, 1e300, width=64)),
            st.one_of(st.none(), st.integers(-(2**53), 2**53)),
            st.sampled_from(["a", "b", "=c", None]),
            st.one_of(st.none(), st.booleans()),
            st.integers(0, 5),
        ),
        min_size=8,
        max_size=60,
    )
)
def test_any_table_that_is_taken_comes_back(rows: list[tuple[Any, ...]]) -> None:
    kinds = [pa.float64(), pa.int64(), pa.string(), pa.bool_(), pa.int8()]
    names = ["x", "n", "w", "b", "few"]
    cells = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
    table = pa.table(cells, names=names)
    try:
        schema = Schema.infer(table)
    except DataError:
        return  # such as a table with nothing left to learn
    kept = table.select(schema.names)
    _same(schema.decode(schema.encode(table)), kept)


def test_given_columns() -> None:
    table = pa.table({"g": ["a", "b"] * 50, "x": RNG.normal(size=100), "h": RNG.normal(size=100)})
    schema = Schema.infer(table, given=["h", "g"])
    assert [column.name for column in schema.given_columns] == ["g", "h"]
    assert [column.name for column in schema.row_columns] == ["x"]
    context = schema.encode(table.select(["h", "g"]), given_only=True)
    assert np.array_equal(context, schema.encode(table)[:, [0, 2]])
    assert schema.encode(table, given_only=True).shape == (100, 2)
    some = schema.encode(table.select(["h", "g"]), row_optional=True)
    assert some.shape == (100, 3)
    assert np.isnan(some[:, 1]).all()
    with pytest.raises(DataError, match="the column 'h' is missing"):
        schema.encode(table.select(["g", "x"]), row_optional=True)
    x = schema.encode(table)
    assert schema.decode(x).column_names == ["g", "x", "h"]
    assert schema.decode(x[:, [1]]).column_names == ["x"]
    assert schema.decode(x[:, [2]], columns=[schema["h"]]).column_names == ["h"]
    with pytest.raises(ShapeError, match=r"expected encoded rows of shape \[n, 1\], got \[100, 2\]"):
        schema.decode(x[:, :2])


BASE = pa.table(
    {
        "price": np.round(RNG.uniform(1, 100, 200), 1),
        "cut": RNG.choice(["Fair", "Good"], 200).tolist(),
        "count": RNG.integers(0, 4, 200),
        "visib": RNG.choice([0.06, 0.12, 0.25, 10.0], 200),
        "when": [str(np.datetime64("2020-01-01") + i) for i in range(200)],
        "ok": RNG.choice([True, False], 200).tolist(),
        "share": RNG.uniform(size=200),
        "row": range(1, 201),
    }
)


def _with(name: str, cells: Any) -> pa.Table:
    return BASE.slice(0, 3).set_column(BASE.column_names.index(name), name, pa.array(cells))


FOREIGN = {
    "missing": (BASE.drop_columns("price"), r"the column 'price' is missing; the model needs price, cut"),
    "renamed": (BASE.rename_columns(["Price", *BASE.column_names[1:]]), r"'price' is missing; did you mean 'Price'\?"),
    "extra": (
        BASE.append_column("prise", BASE["price"]),
        r"'prise' is not one that the model knows; did you mean 'pri",
    ),
    "text": (_with("price", [None, "7", "8"]), r"column 'price' is text \(row 2: '7'\), .* knows it as a number"),
    "number": (_with("cut", [1, 2, 3]), r"column 'cut' is number \(row 1: 1\), but the model knows it as text"),
    "truth": (_with("ok", [1, 0, 1]), r"column 'ok' is number .* knows it as a boolean"),
    "truths": (_with("price", [True, False, True]), r"column 'price' is boolean"),
    "undated": (_with("when", [1, 2, 3]), r"column 'when' is number .* a date such as 0000-00-00"),
    "no date": (_with("when", ["2020-01-01", None, "soon"]), r"column 'when', row 3: 'soon' is no date of the form"),
    "bad date": (_with("when", ["2020-01-01", "2020-13-45", None]), r"column 'when', row 2: '2020-13-45' is no date"),
    "inf": (_with("price", [1.0, -np.inf, 2.0]), r"column 'price', row 2: -inf is not a number to learn from"),
    "unseen": (_with("cut", ["Fair", "Best", None]), r"column 'cut', row 2: 'Best' was never seen .*\(2 levels, Fair,"),
    "off the grid": (_with("visib", [0.06, 3.007, 10.0]), r"'visib', row 2: 3.007 is no value of this integer column"),
    "half": (_with("count", [1.0, 2.5, 3.0]), r"column 'count', row 2: 2.5 is no value of this integer column"),
    "outside": (_with("share", [0.5, 0.5, 1.5]), r"column 'share', row 3: 1.5 is not between 0 and 1"),
    "twice": (BASE.append_column("cut", BASE["cut"]), r"the column name 'cut' occurs twice"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_tables_are_refused_by_name(case: str) -> None:
    schema = Schema.infer(BASE, kinds={"share": "unit"})
    table, match = FOREIGN[case]
    with pytest.raises(DataError, match=match) as caught:
        schema.encode(table)
    assert "\n" not in str(caught.value)


def test_first_row_counts_on() -> None:
    schema = Schema.infer(BASE)
    with pytest.raises(DataError, match="column 'price', row 1002"):
        schema.encode(_with("price", [1.0, np.inf, 2.0]), first_row=1001)


def test_kindred_types_are_taken() -> None:
    schema = Schema.infer(BASE)
    part = BASE.slice(0, 3)
    whole = schema.encode(part)
    cast = part.set_column(0, "price", part["price"].cast(pa.float32()))
    cast = cast.set_column(2, "count", part["count"].cast(pa.float64())).drop_columns("row")
    cast = cast.set_column(4, "when", pa.array([dt.date.fromisoformat(t) for t in part["when"].to_pylist()]))
    np.testing.assert_allclose(schema.encode(cast), whole, rtol=1e-6)
    empty = part.set_column(1, "cut", pa.nulls(3))
    assert np.isnan(schema.encode(empty)[:, 1]).all()
    assert schema.encode(BASE.slice(0, 0)).shape == (0, 7)
    assert schema.decode(np.zeros((0, 7))).num_rows == 0
