"""Files that cannot be read: each is one line that names the file, the place in it and the remedy."""

import contextlib
import gzip
import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffeo.data import files, source
from diffeo.errors import DataError

BAD_TEXT = {
    "empty.csv": (b"", r"the file is empty"),
    "header.csv": (b"a,b\n", r"has no rows, only a header"),
    "blank.csv": (b"\n\n", r"has no header line"),
    "ragged.csv": (b"a,b\n1,2\n3,4,5\n", r"line 3 has 3 cells, the header has 2"),
    "short.csv": (b"a,b\n1,2\n3\n", r"line 3 has 1 cells, the header has 2"),
    "quote.csv": (b'a,b\n1,2\n"3,4\n5,6\n', r"line 3 has 1 cells, the header has 2; a quote may not be closed"),
    "longquote.csv": (
        b'a,b\n"1,2\n' + b"7,8\n" * 2_000_000,
        r"line 2 .* a quote may not be closed|row longer than 4 MiB; is a quote not closed\?",
    ),
    "twice.csv": (b"a,b,a\n1,2,3\n", r"the column name 'a' occurs twice \(columns 1 and 3\)"),
    "latin.csv": (b"a,b\n1,caf\xe9\n", r"no UTF-8 text"),
    "utf16.csv": ("a,b\n1,2\n".encode("utf-16"), r"UTF-16 text; save it as UTF-8"),
    "utf16le.csv": ("a,b\n1,2\n".encode("utf-16-le"), r"UTF-16 text; save it as UTF-8"),
    "zero.csv": (b"a,b\n1,\x00\n", r"zero byte at offset 6"),
    "wide.csv": (b",".join(b"c%d" % i for i in range(20_000)) + b"\n", r"has 20000 columns; at most 16384"),
    "long.csv": (b"x" * (1 << 20) + b"\n1\n", r"its header cannot be read"),
    "parquet.csv": (b"PAR1" + b"\x00" * 50, r"is not csv but parquet; rename it to \.parquet"),
    "plain.csv.gz": (b"a,b\n1,2\n", r"is named \.gz but is not gzip"),
    "cut.csv.gz": (gzip.compress(b"a,b\n" + b"1,2\n" * 99)[:-12], r"is damaged or cut short"),
    "bad.jsonl": (b'{"a": 1}\n{"a": \n', r"line 2 is no JSON object"),
    "list.jsonl": (b"[1, 2]\n", r"line 1 is no JSON object but list"),
    "nested.jsonl": (b'{"a": 1}\n{"a": [2]}\n', r"line 2: 'a' is nested"),
    "mixed.jsonl": (b'{"a": 1}\n{"a": "x"}\n', r"line 2: 'a' is str, but int before"),
    "repeat.jsonl": (b'{"a": 1, "a": 2}\n', r"line 1 is no JSON object \(a name occurs twice\)"),
    "deep.jsonl": (b'{"a": ' + b"[" * 100_000 + b"\n", r"line 1 is no JSON object"),
    "text.parquet": (b"a,b\n1,2\n", r"is no Parquet file, it looks like csv"),
    "cut.parquet": (b"PAR1" + b"\x01" * 100, r"is no Parquet file, it is damaged or cut short"),
    "text.arrow": (b"a,b\n1,2\n", r"is no Arrow file"),
    "cut.arrow": (b"ARROW1\x00\x00" + b"\x01" * 100, r"is no Arrow file, it is damaged or cut short"),
    "text.npy": (b"a,b\n1,2\n", r"is no NumPy array file"),
    "text.npz": (b"a,b\n1,2\n", r"is no NumPy archive"),
    "a.xlsx": (b"PK", r"unknown file extension \(\.xlsx\); known: \.csv"),
    "a": (b"1", r"unknown file extension \(none\)"),
    "a.parquet.gz": (b"1", r"unknown file extension \(\.parquet\.gz\)"),
    "a.pkl": (b"\x80\x04", r"\.pkl files can run code when loaded and are never read"),
}


def _refused(path: str | Path, match: str) -> None:
    for action in (files.read, lambda place: list(files.stream(place))):
        with pytest.raises(DataError, match=match) as caught:
            action(path)
        assert "\n" not in str(caught.value)
        assert str(path).split(":")[0] in str(caught.value)


@pytest.mark.parametrize("name", BAD_TEXT)
def test_bad_files(tmp_path: Path, name: str) -> None:
    data, match = BAD_TEXT[name]
    (tmp_path / name).write_bytes(data)
    _refused(tmp_path / name, match)


def test_places(tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text("a\n1\n")
    _refused(tmp_path / "sale.csv", r"there is no such file; did you mean .*sales\.csv'\?")
    _refused(tmp_path, "this is a folder")
    with pytest.raises(DataError, match=r"cannot be opened|no such file"):
        files.read("a\x00.csv")
    with pytest.raises(DataError, match=r"cannot be opened|no such file"):
        files.read("x" * 5000 + ".csv")


def test_ragged_lines_are_named_late_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n" + b"7,8\n" * 200_000 + b"1,2,3\n")
    _refused(tmp_path / "a.csv", "line 200002 has 3 cells")


def _npy(shape: str, descr: str = "<f8", body: bytes = b"") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def test_array_headers_are_held_against_the_file(tmp_path: Path) -> None:
    (tmp_path / "lie.npy").write_bytes(_npy("(4294967296,)"))
    tracemalloc.start()
    _refused(tmp_path / "lie.npy", r"claims an array of shape \[4294967296\], 34359738368 bytes, but only")
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    (tmp_path / "neg.npy").write_bytes(_npy("(-1, 3)"))
    _refused(tmp_path / "neg.npy", "expected an array of shape")
    (tmp_path / "huge.npy").write_bytes(_npy("(99999999999999999999999999, 1)"))
    _refused(tmp_path / "huge.npy", "claims an array")
    (tmp_path / "cube.npy").write_bytes(_npy("(1, 1, 1)", body=b"12345678"))
    _refused(tmp_path / "cube.npy", r"expected an array of shape \[rows\] or \[rows, columns\], got \[1, 1, 1\]")
    (tmp_path / "c.npy").write_bytes(_npy("(1,)", "<c16", b"\0" * 16))
    _refused(tmp_path / "c.npy", "complex numbers")
    (tmp_path / "o.npy").write_bytes(_npy("(1,)", "|O", b"cos\nsystem\n."))
    _refused(tmp_path / "o.npy", "Python objects, which can run code")
    with zipfile.ZipFile(tmp_path / "o.npz", "w") as archive:
        archive.writestr("a.npy", _npy("(1,)", "|O", b"cos\nsystem\n."))
    _refused(tmp_path / "o.npz", "Python objects, which can run code")


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "ALWAYS_ALLOWED", 1 << 20)
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", _npy("(1000000,)", body=bytes(8_000_000)))
    _refused(tmp_path / "b.npz", "unpacks to more than 200 times its size")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"a\n" + b"1\n" * 4_000_000))
    _refused(tmp_path / "b.csv.gz", "unpacks to more than 200 times its size")


def test_damaged_members_and_footers(tmp_path: Path) -> None:
    sink = io.BytesIO()
    np.savez_compressed(sink, a=np.random.default_rng(0).normal(size=1000))
    data = bytearray(sink.getvalue())
    data[200] ^= 255
    (tmp_path / "a.npz").write_bytes(data)
    _refused(tmp_path / "a.npz", "is no NumPy archive, or a damaged one")
    pq.write_table(pa.table({"a": np.random.default_rng(0).normal(size=1000)}), tmp_path / "a.parquet")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    for place in range(4, 300):
        data[place] ^= 255
    (tmp_path / "a.parquet").write_bytes(data)
    _refused(tmp_path / "a.parquet", "is no Parquet file")


def test_numbers_beyond_floats_are_infinite(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1e400\n")
    assert files.read(tmp_path / "a.csv")["a"].to_pylist() == [float("inf")]


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.npy", "t.npz", "t.csv.gz"])
def test_flipped_bytes_never_escape(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(1)
    table = pa.table({"a": rng.normal(size=50), "b": rng.normal(size=50)})
    if name == "t.npz":
        np.savez(tmp_path / name, a=rng.normal(size=(50, 2)))
    else:
        files.write(table, tmp_path / name)
    sound = (tmp_path / name).read_bytes()
    for _ in range(150):
        data = bytearray(sound)
        for place in rng.integers(0, len(data), size=3):
            data[place] = rng.integers(0, 256)
        (tmp_path / name).write_bytes(data[: rng.integers(len(data) // 2, len(data) + 1)])
        with contextlib.suppress(DataError):
            files.read(tmp_path / name)
