"""How tables are written in each format: delimited text, JSON lines, Parquet, Arrow, NPY."""

import json
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diffeo.data.arrow import is_number, is_text, numbers, whole, word
from diffeo.errors import DataError

_FORMULA = r"^'*[=+\-@\t\r\x00]"  # text that a spreadsheet would run, or that is already marked


class Form(Protocol):
    """How one format is written into an open binary file."""

    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


def _joined(parts: list[pa.Array], between: str) -> pa.Array:
    if len(parts) == 1:
        return parts[0]
    return pc.binary_join_element_wise(
        *[part.cast(pa.large_string()) for part in parts], pa.scalar(between, pa.large_string())
    )


def _lines(rows: pa.Array) -> bytes:
    return "".join(f"{row}\n" for row in rows.to_pylist()).encode()


def _as_text(cells: pa.Array) -> pa.Array:
    """Numbers in the fewest digits that give them back, NaN and null as null; dates in ISO; booleans true, false."""
    if pa.types.is_floating(cells.type):
        cells = pc.if_else(pc.is_nan(cells), pa.scalar(None, cells.type), cells)
    try:
        return cells.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return pa.array([None if cell is None else str(cell) for cell in cells.to_pylist()], pa.string())


def _undictionaried(column: pa.ChunkedArray) -> pa.Array:
    cells = whole(column)
    return cells.dictionary_decode() if pa.types.is_dictionary(cells.type) else cells


class _Delimited:
    """CSV or TSV (RFC 4180); text that a spreadsheet would take for a formula is marked with an apostrophe."""

    def __init__(self, file: BinaryIO, delimiter: str) -> None:
        self._file, self._delimiter, self._begun = file, delimiter, False
        self._special = '["\\r\\n' + ("\\t" if delimiter == "\t" else delimiter) + "]"

    def _quoted(self, text: pa.Array) -> pa.Array:
        text = pc.if_else(pc.match_substring_regex(text, _FORMULA), pc.binary_join_element_wise("'", text, ""), text)
        doubled = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
        needed = pc.or_(pc.match_substring_regex(text, self._special), pc.equal(text, ""))
        return pc.if_else(needed, doubled, text)

    def _cells(self, column: pa.ChunkedArray) -> pa.Array:
        cells = _undictionaried(column)
        text = self._quoted(cells) if is_text(cells.type) else _as_text(cells)
        return pc.fill_null(text, "")

    def write(self, table: pa.Table) -> None:
        """Append the rows, after the header the first time."""
        if not self._begun:
            names = self._quoted(pa.array(table.column_names, pa.string())).to_pylist()
            self._file.write((self._delimiter.join(names) + "\n").encode())
            self._begun = True
        if table.num_rows:
            self._file.write(_lines(_joined([self._cells(column) for column in table.columns], self._delimiter)))

    def close(self) -> None:
        """Nothing is left to write."""


class _JsonLines:
    """One flat object a line; infinities as 1e999, which every reader takes for one and which is valid JSON."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def _cells(self, name: str, column: pa.ChunkedArray) -> pa.Array:
        cells = _undictionaried(column)
        text = _as_text(cells)
        if pa.types.is_floating(cells.type):
            text = pc.replace_substring(text, "inf", "1e999")
        elif not (is_number(cells.type) or pa.types.is_boolean(cells.type)):
            words = text.dictionary_encode()
            quoted = pa.array(
                [json.dumps(word, ensure_ascii=False) for word in words.dictionary.to_pylist()], pa.string()
            )
            text = quoted.take(words.indices)
        key = json.dumps(name, ensure_ascii=False) + ": "
        return pc.binary_join_element_wise(key, pc.fill_null(text, "null"), "")

    def write(self, table: pa.Table) -> None:
        """Append the rows."""
        if table.num_rows:
            cells = [self._cells(name, column) for name, column in zip(table.column_names, table.columns, strict=True)]
            self._file.write(_lines(pc.binary_join_element_wise("{", _joined(cells, ", ").cast(pa.string()), "}", "")))

    def close(self) -> None:
        """Nothing is left to write."""


class _Columnar:
    """Parquet or Arrow: the first table settles the columns."""

    def __init__(self, begin: Callable[[pa.Schema], Any]) -> None:
        self._begin = begin
        self._inner: Any = None
        self._schema: pa.Schema | None = None

    def write(self, table: pa.Table) -> None:
        """Append the rows."""
        if self._inner is None:
            self._schema = table.schema
            self._inner = self._begin(table.schema)
        self._inner.write_table(table.cast(self._schema))

    def close(self) -> None:
        """Write the footer."""
        if self._inner is not None:
            self._inner.close()


class _Array:
    """NPY: float64 [n, d]; the length in the header is filled in at the end."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name, self._rows, self._width = file, name, 0, 0

    def _header(self) -> bytes:
        shape = f"({self._rows}, {self._width})"
        text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
        return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"

    def write(self, table: pa.Table) -> None:
        """Append the rows."""
        for field in table.schema:
            if not (is_number(field.type) or pa.types.is_boolean(field.type)):
                raise DataError(
                    f"{self._name}: .npy holds numbers only, but {field.name!r} is {word(field.type)}; use .parquet"
                )
        if not self._width:
            self._width = table.num_columns
            self._file.write(self._header())
        self._file.write(np.stack([numbers(column) for column in table.columns], axis=1).astype("<f8").tobytes())
        self._rows += table.num_rows

    def close(self) -> None:
        """Write the header again, now with the number of rows."""
        self._file.seek(0)
        self._file.write(self._header())


def form_of(kind: str, file: BinaryIO, name: str) -> Form:
    """The writer of a format into an open file; `name` is for messages."""
    if kind == "parquet":
        return _Columnar(lambda schema: pq.ParquetWriter(file, schema))
    if kind == "arrow":
        return _Columnar(lambda schema: pa.ipc.new_file(file, schema))
    if kind == "jsonl":
        return _JsonLines(file)
    return _Array(file, name) if kind == "npy" else _Delimited(file, "\t" if kind == "tsv" else ",")
