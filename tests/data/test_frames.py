"""Frames go in, and come back as the same kind of thing."""

from pathlib import Path
from typing import Any

import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from diffeo.data import files
from diffeo.data.frames import to_table
from diffeo.data.schema import Schema
from diffeo.errors import DataError

DATA = {"n": [1, 2, 3], "x": [0.5, None, 1.5], "w": ["a", None, "b"], "ok": [True, False, True]}


def test_arrow_and_paths(tmp_path: Path) -> None:
    table = pa.table(DATA)
    for data in (table, table.to_batches()[0]):
        out, restore = to_table(data)
        assert out.equals(table)
        assert restore(out) is out
    files.write(table, tmp_path / "a.parquet")
    for path in (tmp_path / "a.parquet", str(tmp_path / "a.parquet")):
        out, restore = to_table(path)
        assert isinstance(restore(out), pa.Table)
        assert out.equals(table)


def test_polars() -> None:
    frame = pl.DataFrame(DATA).with_columns(
        c=pl.Series(["p", "q", "p"], dtype=pl.Categorical), e=pl.Series(["u", "v", "u"], dtype=pl.Enum(["u", "v"]))
    )
    for data in (frame, frame.lazy(), nw.from_native(frame)):
        table, restore = to_table(data)
        assert table["w"].to_pylist() == DATA["w"]
        back = restore(table)
        assert isinstance(back, pl.DataFrame)
        assert back.equals(frame)
        assert back.schema == frame.schema
    assert restore(table.select(["x"]).append_column("score", pa.array([1.0, 2, 3]))).columns == ["x", "score"]


def test_pandas() -> None:
    frame = pd.DataFrame(
        {
            "n": pd.array([1, 2, None], "Int64"),
            "x": [0.5, np.nan, 1.5],
            "w": ["a", None, "b"],
            "c": pd.Categorical(["p", "q", "p"]),
            "t": pd.to_datetime(["2020-01-01", "2020-01-02", None]),
            7: [1, 2, 3],
        },
        index=[10, 20, 30],
    )
    table, restore = to_table(frame)
    assert table.column_names == ["n", "x", "w", "c", "t", "7"]
    assert table["x"].null_count == 1
    pd.testing.assert_frame_equal(restore(table), frame.reset_index(drop=True))
    with pytest.raises(DataError, match="column of mixed or foreign cells"):
        to_table(pd.DataFrame({"a": [1, "x", object()]}))
    with pytest.raises(DataError, match="the column name 'a' occurs twice"):
        to_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i4", "u1", ">f8"])
def test_arrays(dtype: str) -> None:
    x = np.arange(6).reshape(3, 2).astype(dtype)
    table, restore = to_table(x)
    assert table.column_names == ["x0", "x1"]
    back = restore(table)
    assert back.dtype == np.float64
    assert np.array_equal(back, x)
    table, restore = to_table(x[:, 0])
    assert restore(table).shape == (3,)


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    x = torch.randn(4, 3, requires_grad=True)
    table, restore = to_table(x)
    back = restore(table)
    assert isinstance(back, torch.Tensor)
    assert torch.equal(back, x)
    assert to_table(torch.ones(4, dtype=torch.bfloat16))[0].num_columns == 1
    assert to_table(torch.arange(4))[1](to_table(torch.arange(4))[0]).dtype == torch.float64


def test_dictionaries() -> None:
    table, restore = to_table({"a": np.array([1.5, 2.5]), "b": ["x", "y"], "c": range(2)})
    assert restore(table) == {"a": [1.5, 2.5], "b": ["x", "y"], "c": [0, 1]}


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (3, "cannot read int as a table; give a path"),
        (None, "cannot read NoneType as a table"),
        (np.zeros((2, 2, 2)), r"expected an array of shape \[rows\] or \[rows, columns\], got \[2, 2, 2\]"),
        (np.zeros(()), r"got \[\]"),
        (np.zeros((2, 2), complex), "complex numbers"),
        (np.array([[object()]]), "an array of type object is not read"),
        ({"a": [1, 2], "b": [1]}, r"differ in length \(a: 2, b: 1\)"),
        ({"a": 3}, "the column 'a' is no sequence"),
        ({}, "there are no columns"),
        (np.zeros((3, 0)), "there are no columns"),
    ],
)
def test_what_is_no_table(data: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        to_table(data)


def test_schema_round_trip_through_frames() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "a": rng.normal(size=200),
            "k": pl.Series(rng.choice(["u", "v"], 200).tolist(), dtype=pl.Enum(["u", "v"])),
            "d": pl.Series(pd.date_range("2020-01-01", periods=200, freq="h")),
        }
    )
    table, restore = to_table(frame)
    schema = Schema.infer(table)
    assert restore(schema.decode(schema.encode(table))).equals(frame)
