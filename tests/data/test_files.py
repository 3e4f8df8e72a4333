"""Files: what is written is read back, streaming equals reading, formats and their doors."""

import contextlib
import gzip
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffeo.data import files
from diffeo.errors import DataError

TABLE = pa.table(
    {
        "n": pa.array([1, -2, None, 2**53], pa.int64()),
        "x": [0.1, 1e-300, None, -1.5e20],
        "word": ["plain", 'a "quote", comma', "", "two\nlines"],
        "yes": [True, False, None, True],
        "=formula": ["=1+1", "'=1", "-5 to 0", None],
    }
)
TYPED = ["t.parquet", "t.arrow", "t.feather"]
TEXT = ["t.csv", "t.tsv", "t.csv.gz", "t.tsv.gz", "t.jsonl", "t.ndjson", "t.jsonl.gz"]


@pytest.mark.parametrize("name", TYPED + TEXT)
def test_written_tables_are_read_back(tmp_path: Path, name: str) -> None:
    files.write(TABLE, tmp_path / name)
    assert files.read(tmp_path / name).equals(TABLE)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", TYPED + TEXT)
def test_streaming_equals_reading(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({"a": rng.normal(size=1000), "b": [f"w{i % 7}" for i in range(1000)], "c": range(1000)})
    with files.writer(tmp_path / name) as out:
        for start in range(0, 1000, 300):
            out.write(table.slice(start, 300))
    parts = list(files.stream(tmp_path / name, rows=64, types={"c": pa.int64()}))
    assert [len(part) for part in parts] == [64] * 15 + [40]
    streamed = pa.concat_tables(parts)
    assert streamed.cast(table.schema).equals(table)
    assert files.read(tmp_path / name).equals(table)


def test_npy_and_npz(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(100, 3))
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "flat.npy", np.arange(5, dtype=">i2"))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(x.astype("f4")))
    np.savez_compressed(tmp_path / "b.npz", train=x, valid=x[:10], columns=np.array(["p", "q", "r"]))
    table = files.read(tmp_path / "a.npy")
    assert table.column_names == ["x0", "x1", "x2"]
    assert np.array_equal(np.stack([c.to_numpy() for c in table.columns], 1), x)
    assert files.read(tmp_path / "flat.npy")["x0"].to_pylist() == [0, 1, 2, 3, 4]
    assert files.read(tmp_path / "fortran.npy")["x2"].to_pylist() == x[:, 2].astype("f4").tolist()
    assert files.read(f"{tmp_path}/b.npz:valid").column_names == ["p", "q", "r"]
    for name in ("a.npy", "fortran.npy", "b.npz:train"):
        parts = pa.concat_tables(files.stream(f"{tmp_path}/{name}", rows=33))
        assert parts.equals(files.read(f"{tmp_path}/{name}"))
    with pytest.raises(DataError, match=r"2 arrays; name one of them: .*b.npz:train, .*b.npz:valid"):
        files.read(tmp_path / "b.npz")
    with pytest.raises(DataError, match="has no array 'nope'; it has train, valid"):
        files.read(f"{tmp_path}/b.npz:nope")


def test_npy_is_written(tmp_path: Path) -> None:
    with files.writer(tmp_path / "o.npy") as out:
        out.write(pa.table({"a": [1.0, None], "b": [1, 2]}))
        out.write(pa.table({"a": [3.0], "b": [3]}))
    assert np.array_equal(np.load(tmp_path / "o.npy"), [[1, 1], [np.nan, 2], [3, 3]], equal_nan=True)
    with pytest.raises(DataError, match=r"\.npy holds numbers only, but 'w' is text"):
        files.write(pa.table({"w": ["a"]}), tmp_path / "p.npy")
    assert sorted(os.listdir(tmp_path)) == ["o.npy"]


def test_csv_numbers_are_shortest_and_text_is_no_formula(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([0.1, 2.0, 1 / 3, float("nan")]), "s": pa.array([0.51, 1, 2, 3], pa.float32())})
    files.write(table.append_column("t", pa.array(["@x", "+1", "-2", "\tq"])), tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines == ["x,s,t", "0.1,0.51,'@x", "2,1,'+1", "0.3333333333333333,2,'-2", ",3,'\tq"]
    assert files.read(tmp_path / "a.csv")["t"].to_pylist() == ["@x", "+1", "-2", "\tq"]


def test_jsonl_is_json_even_for_infinities(tmp_path: Path) -> None:
    files.write(pa.table({"a b": [float("-inf"), 1.5], "w": ['"', None]}), tmp_path / "a.jsonl")
    rows = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert rows == [{"a b": float("-inf"), "w": '"'}, {"a b": 1.5, "w": None}]


def test_csv_types_follow_every_cell(tmp_path: Path) -> None:
    text = "i,f,b,code,day,empty,word\n1,1,True,007,2013-01-01,,NA\n-2,NA,False,1,NA,,x\n, 2.5 ,,2,2013-01-02,,\n"
    (tmp_path / "a.csv").write_text("\ufeff" + text)
    table = files.read(tmp_path / "a.csv")
    assert [str(kind) for kind in table.schema.types] == [
        "int64", "double", "bool", "string", "string", "null", "string",
    ]  # fmt: skip
    assert table["f"].to_pylist() == [1.0, None, 2.5]
    assert table["day"].to_pylist() == ["2013-01-01", None, "2013-01-02"]
    assert table["word"].to_pylist() == ["NA", "x", None]
    (tmp_path / "b.csv").write_text("a;b\n1;2\n")
    assert files.read(tmp_path / "b.csv").to_pydict() == {"a": [1], "b": [2]}


def test_wanted_types_hold_in_every_block(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i},0\n" for i in range(100)) + "1.5,x,1\n"
    (tmp_path / "a.csv").write_text("num,cat,flag\n" + rows)
    types = {"num": pa.float64(), "cat": pa.string(), "flag": "bool"}
    table = pa.concat_tables(files.stream(tmp_path / "a.csv", rows=10, types=types))
    assert [str(kind) for kind in table.schema.types] == ["double", "string", "bool"]
    assert table["cat"][-1].as_py() == "x"
    with pytest.raises(DataError, match="column 'cat', row 101: 'x' is not a number"):
        list(files.stream(tmp_path / "a.csv", rows=10))
    with pytest.raises(DataError, match="column 'cat', row 101: 'x' is not a number"):
        files.read(tmp_path / "a.csv", types={"cat": "double"})


def test_one_empty_cell_a_line_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n\n3\n")
    assert files.read(tmp_path / "a.csv")["a"].to_pylist() == [1, None, 3]


def _stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.jsonl", "t.parquet", "t.arrow", "t.npy"])
def test_standard_input_is_known_by_its_first_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    table = pa.table({"x0": [0.5, 1.5], "x1": [1.5, 2.5]})
    files.write(table, tmp_path / name)
    _stdin(monkeypatch, (tmp_path / name).read_bytes())
    assert files.read("-").equals(table)
    _stdin(monkeypatch, (tmp_path / name).read_bytes())
    assert pa.concat_tables(files.stream("-", rows=1)).equals(table)


def test_arrow_stream_and_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, TABLE.schema) as out:
        out.write_table(TABLE)
    _stdin(monkeypatch, sink.getvalue())
    assert files.read("-").equals(TABLE)
    (tmp_path / "s.arrow").write_bytes(sink.getvalue())
    assert files.read(tmp_path / "s.arrow").equals(TABLE)
    read, write = os.pipe()
    os.write(write, b"a\n1\n")
    os.close(write)
    assert files.read(f"/dev/fd/{read}").to_pydict() == {"a": [1]}
    os.close(read)


def test_standard_output_is_csv(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    files.write(pa.table({"a": [1, 2]}), "-")
    files.write(pa.table({"a": [1]}), "-", format="jsonl")
    assert capfdbinary.readouterr().out == b'a\n1\n2\n{"a": 1}\n'


def test_plain_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "d": pa.array(["a", "b", "a"]).dictionary_encode(),
            "big": pa.array(["a", "b", None], pa.large_string()),
            "half": np.array([1, 2, 3], np.float16),
            "dec": pa.array([1, 2, None], pa.decimal128(10, 2)),
        }
    )
    files.write(table, tmp_path / "a.arrow")
    read = files.read(tmp_path / "a.arrow")
    assert [str(kind) for kind in read.schema.types][1:] == ["string", "float", "double"]
    assert read["d"].to_pylist() == ["a", "b", "a"]


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    target = tmp_path / "a.csv"
    target.write_text("old")
    with pytest.raises(DataError, match=r"a\.csv: exists already; name another file, or say --overwrite"):
        files.write(TABLE, target)
    with contextlib.suppress(KeyboardInterrupt), files.writer(target, overwrite=True) as out:
        out.write(TABLE)
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.csv"]
    files.write(TABLE, target, overwrite=True)
    assert files.read(target).equals(TABLE)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "arrow", "jsonl", "npy"])
def test_disk_full_is_one_line(tmp_path: Path, kind: str) -> None:
    table = pa.table({"a": np.random.default_rng(0).normal(size=50_000)})
    with pytest.raises(DataError, match="cannot be written, the disk is full"):
        files.write(table, "/dev/full", format=kind)


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*nowhere'; make it first"):
        files.write(TABLE, tmp_path / "nowhere" / "a.csv")
    with pytest.raises(DataError, match="this is a folder"):
        files.write(TABLE, tmp_path)
    with pytest.raises(DataError, match=r"unknown file extension \(\.xlsx\); known: \.csv"):
        files.write(TABLE, tmp_path / "a.xlsx")
    with pytest.raises(DataError, match=r"\.npz is read but not written"):
        files.write(TABLE, tmp_path / "a.npz")
    with pytest.raises(DataError, match="'xml' is no format to write"):
        files.write(TABLE, tmp_path / "a", format="xml")
    if os.getuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(DataError, match="no permission"):
            files.write(TABLE, tmp_path / "locked" / "a.csv")


def test_gz_may_have_several_members(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a\n1\n") + gzip.compress(b"2\n"))
    assert files.read(tmp_path / "a.csv.gz")["a"].to_pylist() == [1, 2]


def test_parquet_in_row_groups(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(1000)}), tmp_path / "a.parquet", row_group_size=77)
    assert [len(part) for part in files.stream(tmp_path / "a.parquet", rows=400)] == [400, 400, 200]
