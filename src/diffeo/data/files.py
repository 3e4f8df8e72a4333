"""A file <-> a table: read whole, streamed in constant memory, written; every fault is one line with its remedy."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from diffeo.data.arrays import npy_blocks, npz_blocks
from diffeo.data.arrow import check_names, plain, word
from diffeo.data.columnar import arrow_blocks, parquet_blocks, rechunked
from diffeo.data.delimited import Types, convert, infer_types, kinds_of, text_blocks
from diffeo.data.lines import json_blocks, settled
from diffeo.data.sinks import Writer, write, writer
from diffeo.data.source import Source, faults, locate, opened
from diffeo.errors import DataError

__all__ = ["Writer", "read", "stream", "write", "writer"]

_ROWS = 65_536


def _blocks(source: Source, file: BinaryIO, kind: str, head: bytes, rows: int) -> Iterator[pa.Table]:
    """The rows of a source as the format gives them: text from delimited files, types from the others."""
    if kind in ("csv", "tsv"):
        return text_blocks(source.name, file, head, tabs=kind == "tsv")
    if kind == "jsonl":
        return json_blocks(source.name, file, rows)
    if kind == "parquet":
        return parquet_blocks(source, file, head, rows)
    if kind == "arrow":
        return arrow_blocks(source, file, head)
    return npy_blocks(source, file, rows) if kind == "npy" else npz_blocks(source, file, rows)


def read(source: str | Path, types: Types | None = None) -> pa.Table:
    """The table in a file (or `-`, standard input), in plain types.

    CSV and TSV (also .gz; comma, semicolon or tab; the first line names the columns), Parquet, Arrow and Feather,
    JSON lines (also .gz), NPY and NPZ: an array [n, d] has columns x0.. or the names in the archive's `columns`;
    `FILE.npz:KEY` names one of several arrays. Nothing is ever unpickled. `types` (name -> Arrow type) says
    what columns of text files are to be read as; the others are read as what all their cells are.

    Raises DataError, one line that names the file and where in it: for a file missing, empty, without rows,
    damaged, ragged, not of the format that its name claims, too large unpacked, or with a column name twice.
    """
    place = locate(source)
    with opened(place) as (file, kind, head), faults(place.name):
        parts = list(_blocks(place, file, kind, head, _ROWS))
    if not parts or not sum(part.num_rows for part in parts):
        raise _no_rows(place)
    try:
        table = pa.concat_tables([part for part in parts if part.num_rows], promote_options="permissive")
    except pa.ArrowException as fault:
        raise _mixed(place, parts) from fault
    check_names(table.column_names, place.name)
    if kind in ("csv", "tsv"):
        known = {name: wanted for name, wanted in (types or {}).items() if name in table.column_names}
        free = infer_types(table.select([name for name in table.column_names if name not in known]))
        typed = convert(place.name, table.select(list(known)), known)
        table = pa.table({name: (typed if name in known else free)[name] for name in table.column_names})
    return plain(table, place.name)


def stream(source: str | Path, rows: int = _ROWS, types: Types | None = None) -> Iterator[pa.Table]:
    """The same rows as `read`, `rows` at a time, in memory that does not grow with the file.

    What `types` does not say of a text file's columns is settled by the first block (whole numbers then are
    float64, so that later blocks fit). A file without rows is refused. Raises DataError as `read` does, the
    fault of a later block when that block is reached.
    """
    if rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")
    place = locate(source)
    with opened(place) as (file, kind, head), faults(place.name):
        blocks = _blocks(place, file, kind, head, rows)
        if kind == "jsonl":
            blocks = settled(place.name, blocks)
        known: dict[str, pa.DataType | str] | None = None
        row = 1
        for block in rechunked(blocks, rows):
            if kind in ("csv", "tsv"):
                known = {**kinds_of(infer_types(block)), **(types or {})} if known is None else known
                block = convert(place.name, block, known, row)
            yield plain(block, place.name)
            row += block.num_rows
        if row == 1:
            raise _no_rows(place)


def _no_rows(place: Source) -> DataError:
    return DataError(f"{place.name}: has no rows, only a header or less; a density needs rows")


def _mixed(place: Source, parts: list[pa.Table]) -> DataError:
    """Which column changed its type within the file."""
    seen: dict[str, str] = {}
    for part in parts:
        for field in part.schema:
            kind = word(field.type)
            if seen.setdefault(field.name, kind) != kind:
                return DataError(f"{place.name}: {field.name!r} is {seen[field.name]} at first, but {kind} later")
    return DataError(f"{place.name}: its parts have different columns")
