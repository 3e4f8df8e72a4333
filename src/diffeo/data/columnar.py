"""Parquet and Arrow files -> tables, block by block, with what their headers claim held against their size."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from diffeo.data.arrow import one_line
from diffeo.data.source import Source, guess_format
from diffeo.errors import DataError

_MOST_BYTES_A_BYTE = 5_000  # Parquet's run lengths pack equal cells so tightly, and honestly


def _damaged(source: Source, claim: str, fault: object, head: bytes) -> DataError:
    guess = guess_format(head)
    hint = f"it looks like {guess}" if guess != claim else "it is damaged or cut short"
    return DataError(f"{source.name}: is no {claim.capitalize()} file, {hint} ({one_line(fault)})")


def _whole_input(source: Source, stream: BinaryIO) -> Any:
    """Something that Arrow can seek in: the mapped file, or the bytes of a pipe."""
    if source.seekable:
        return pa.memory_map(str(source.path))
    return pa.BufferReader(stream.read())


def parquet_blocks(source: Source, stream: BinaryIO, head: bytes, rows: int) -> Iterator[pa.Table]:
    """The rows of a Parquet file, at most `rows` at a time."""
    try:
        file = pq.ParquetFile(_whole_input(source, stream))
        _check_claims(source, file)
        names = file.schema_arrow.names
        yield pa.table([pa.array([], kind) for kind in file.schema_arrow.types], names=names)
        for batch in file.iter_batches(batch_size=rows, use_threads=False):
            yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError, MemoryError) as fault:
        raise _damaged(source, "parquet", fault, head) from fault


def _check_claims(source: Source, file: pq.ParquetFile) -> None:
    size = Path(source.path).stat().st_size if source.seekable and source.path else None
    meta = file.metadata
    claimed = sum(meta.row_group(group).total_byte_size for group in range(meta.num_row_groups))
    rows = sum(meta.row_group(group).num_rows for group in range(meta.num_row_groups))
    if rows != meta.num_rows or meta.num_rows < 0 or claimed < 0:
        raise DataError(f"{source.name}: its footer claims {meta.num_rows} rows but its parts {rows}; it is damaged")
    if size is not None and claimed > max(1 << 30, _MOST_BYTES_A_BYTE * size):
        raise DataError(f"{source.name}: its footer claims {claimed} bytes in a file of {size}; it is damaged")


def arrow_blocks(source: Source, stream: BinaryIO, head: bytes) -> Iterator[pa.Table]:
    """The record batches of an Arrow or Feather file, or of an Arrow stream; every one is checked before use."""
    try:
        data = _whole_input(source, stream) if head.startswith(b"ARROW1") or source.seekable else stream
        for schema, batches in [_reader(data, head)]:
            yield pa.table([pa.array([], kind) for kind in schema.types], names=schema.names)
            for batch in batches:
                batch.validate(full=True)
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError, MemoryError, IndexError) as fault:
        raise _damaged(source, "arrow", fault, head) from fault


def _reader(data: Any, head: bytes) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    if head.startswith(b"ARROW1"):
        file = pa.ipc.open_file(data)
        return file.schema, (file.get_batch(place) for place in range(file.num_record_batches))
    if head.startswith(b"FEA1"):
        raise pa.ArrowInvalid("Feather version 1 is not read; write it again as version 2")
    live = pa.ipc.open_stream(data)
    return live.schema, iter(live)


def rechunked(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `rows`, the last one shorter.

    >>> [len(part) for part in rechunked(iter([pa.table({"a": range(5)}), pa.table({"a": range(2)})]), 3)]
    [3, 3, 1]
    """
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        if count < rows:
            continue
        merged = _joined(waiting)
        whole = count - count % rows
        for start in range(0, whole, rows):
            yield merged.slice(start, rows)
        waiting, count = [merged.slice(whole)], count % rows
    if count:
        yield _joined(waiting)


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    kept = [table for table in tables if table.num_rows] or [tables[0]]
    return pa.concat_tables(kept, promote_options="permissive")
