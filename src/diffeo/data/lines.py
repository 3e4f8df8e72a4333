"""JSON lines -> tables: one flat object a line; the line number of everything that is not."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from diffeo.data.arrow import is_number, word
from diffeo.errors import DataError

_LONGEST = 16 << 20  # bytes a line


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _parsed(name: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line, object_pairs_hook=_object)
    except (ValueError, RecursionError) as fault:
        said = fault.msg if isinstance(fault, json.JSONDecodeError) else fault
        raise DataError(f"{name}: line {number} is no JSON object ({said})") from fault
    if not isinstance(row, dict):
        raise DataError(f"{name}: line {number} is no JSON object but {type(row).__name__}; write one object a line")
    return row


def json_blocks(name: str, stream: BinaryIO, rows: int) -> Iterator[pa.Table]:
    """The objects of a file, at most `rows` at a time; whole numbers stay int64 within a block."""
    waiting: list[dict[str, Any]] = []
    keys: dict[str, None] = {}
    number = 0
    while line := stream.readline(_LONGEST):
        number += 1
        if len(line) >= _LONGEST:
            raise DataError(f"{name}: line {number} is longer than {_LONGEST >> 20} MiB; write one object a line")
        text = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
        if not text:
            continue
        row = _parsed(name, number, text)
        keys.update(dict.fromkeys(row))
        waiting.append(row)
        if len(waiting) == rows:
            yield _table(name, waiting, list(keys), number - len(waiting) + 1)
            waiting = []
    if waiting or not keys:
        yield _table(name, waiting, list(keys), number - len(waiting) + 1)


def _table(name: str, objects: list[dict[str, Any]], keys: list[str], first: int) -> pa.Table:
    return pa.table([_column(name, key, [row.get(key) for row in objects], first) for key in keys], names=keys)


def _column(name: str, key: str, cells: list[Any], first: int) -> pa.Array:
    kinds: dict[type, int] = {}
    for place, cell in enumerate(cells):
        kinds.setdefault(type(cell), place)
    kinds.pop(type(None), None)
    for kind, place in kinds.items():
        if kind in (list, dict):
            raise DataError(
                f"{name}: line {first + place}: {key!r} is nested; write one number, text or boolean a name"
            )
    numeric = kinds.keys() <= {int, float}
    if len(kinds) > 1 and not numeric:
        (one, _), (other, place) = sorted(kinds.items(), key=lambda item: item[1])[:2]
        raise DataError(f"{name}: line {first + place}: {key!r} is {other.__name__}, but {one.__name__} before")
    try:
        return pa.array([float(cell) if cell is not None else None for cell in cells] if float in kinds else cells)
    except (pa.ArrowInvalid, OverflowError) as fault:
        raise DataError(f"{name}: {key!r} has a number beyond 64 bits; write it as text or with a point") from fault


def settled(name: str, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same tables, every one with the columns and types of the first (whole numbers as float64)."""
    schema: pa.Schema | None = None
    row = 1
    for table in tables:
        if schema is None:
            fields = [
                pa.field(field.name, pa.float64() if is_number(field.type) else field.type) for field in table.schema
            ]
            schema = pa.schema(fields)
        yield _matched(name, table, schema, row)
        row += table.num_rows


def _matched(name: str, table: pa.Table, schema: pa.Schema, row: int) -> pa.Table:
    if new := [key for key in table.column_names if key not in schema.names]:
        raise DataError(f"{name}: {new[0]!r} first appears after row {row}; give it in the first rows, or null")
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        cells = table[field.name]
        if not (pa.types.is_null(cells.type) or word(cells.type) == word(field.type)):
            raise DataError(
                f"{name}: {field.name!r} is {word(field.type)} at first, but {word(cells.type)} after row {row}"
            )
        columns.append(cells.cast(field.type))
    return pa.table(columns, schema=schema)
