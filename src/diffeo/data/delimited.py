"""Delimited text (CSV, TSV) <-> tables: every cell is read as text first, and columns get their types by one rule."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from diffeo.data.arrow import check_names, is_date, is_text, one_line, parse_type
from diffeo.data.dates import MISSING_WORDS, find_layout
from diffeo.data.source import HEAD
from diffeo.errors import DataError

Types = Mapping[str, pa.DataType | str]
_BLOCK = 4 << 20  # bytes; a row longer than this is refused
_MOST_COLUMNS = 16_384
_GUARDED = r"^'+[=+\-@\t\r\x00]"  # how our own writer marks text that a spreadsheet would take for a formula
_ROW = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")


def header_of(name: str, head: bytes, tabs: bool) -> tuple[list[str], str]:
    """(column names, delimiter) from the first bytes of a file.

    >>> header_of("a.csv", b"x;y\\n1;2\\n", tabs=False)
    (['x', 'y'], ';')
    """
    text = head.decode("utf-8-sig", errors="strict" if len(head) < HEAD else "ignore")
    lines = text.splitlines(keepends=True)
    start = next((place for place, line in enumerate(lines) if line.strip("\r\n")), None)
    if start is None:
        raise DataError(f"{name}: has no header line; the first line must name the columns")
    first = lines[start]
    delimiter = "\t" if tabs else max(",;\t", key=lambda mark: first.count(mark) if "," not in first else mark == ",")
    rows = csv.reader(lines[start:], delimiter=delimiter)
    try:
        names = next(rows)
    except csv.Error as fault:
        raise DataError(f"{name}: its header cannot be read ({one_line(fault)})") from fault
    if len(head) >= HEAD and sum(map(len, names)) > HEAD // 2:
        raise DataError(
            f"{name}: the header is longer than {HEAD // 2} characters; is it delimited text, are quotes closed?"
        )
    if len(names) > _MOST_COLUMNS:
        raise DataError(f"{name}: has {len(names)} columns; at most {_MOST_COLUMNS} are read")
    if names[0].startswith("\x1f"):
        raise DataError(f"{name}: is no text")
    check_names(names, name)
    return names, delimiter


def _explained(name: str, fault: Exception) -> DataError:
    text = str(fault)
    if match := _ROW.search(text):
        row, expected, got = match.groups()
        remedy = "a quote may not be closed" if '"' in text else "mend or remove it"
        return DataError(f"{name}: line {row} has {got} cells, the header has {expected}; {remedy}")
    if "straddling" in text or "out of sync" in text:
        return DataError(f"{name}: has a row longer than {_BLOCK >> 20} MiB; is a quote not closed?")
    if "UTF8" in text:
        found = re.search(r"column #(\d+): Row #(\d+)", text)
        place = f" (line {found[2]}, column {found[1]})" if found else ""
        return DataError(f"{name}: is no UTF-8 text{place}; save it as UTF-8")
    return DataError(f"{name}: cannot be read as delimited text ({one_line(text)})")


def text_blocks(name: str, stream: BinaryIO, head: bytes, tabs: bool) -> Iterator[pa.Table]:
    """The rows in blocks, every cell as text, empty ones null; DataError naming the line of a ragged row."""
    names, delimiter = header_of(name, head, tabs)
    options = {
        "read_options": pa.csv.ReadOptions(block_size=_BLOCK, use_threads=False, column_names=None),
        "parse_options": pa.csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=len(names) > 1
        ),
        "convert_options": pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=len(names) == 1,
        ),
    }
    try:
        with pa.csv.open_csv(stream, **options) as reader:
            for batch in reader:
                table = pa.Table.from_batches([batch])
                yield pa.table([_unguarded(table[key]) for key in names], names=[_bare(key) for key in names])
    except pa.ArrowInvalid as fault:
        if "Empty CSV" in str(fault):
            raise DataError(f"{name}: is empty") from fault
        raise _explained(name, fault) from fault


def _bare(text: str) -> str:
    return text[1:] if re.match(_GUARDED, text) else text


def _unguarded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    marked = pc.match_substring_regex(column, _GUARDED)
    if not pc.any(marked).as_py():
        return column
    return pc.if_else(marked, pc.utf8_slice_codeunits(column, 1), column)


def _as_number(cells: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Text as int64 or float64 where every cell is a number; words for a missing one become null."""
    trimmed = pc.utf8_trim_whitespace(cells)
    missing = pc.is_in(trimmed, pa.array(MISSING_WORDS))
    bare = pc.if_else(missing, pa.scalar(None, pa.string()), trimmed)
    if pc.any(pc.match_substring_regex(bare, r"^[+-]?0[0-9xX]")).as_py():
        return None  # 007 is a name, not a number
    for kind in (pa.int64(), pa.float64()):
        try:
            return bare.cast(kind)
        except pa.ArrowInvalid:
            continue
    return None


def _as_boolean(cells: pa.ChunkedArray) -> pa.ChunkedArray | None:
    words = set(pc.unique(cells).to_pylist()) - {*MISSING_WORDS, None} if len(cells) else set()
    if not words or not words <= {"true", "false", "True", "False", "TRUE", "FALSE"}:
        return None
    missing = pc.is_in(cells, pa.array(MISSING_WORDS))
    return pc.if_else(missing, pa.scalar(None, pa.bool_()), pc.equal(pc.ascii_lower(cells), "true"))


def infer_types(table: pa.Table) -> pa.Table:
    """A table of text with each column as whole numbers, numbers, booleans or text, whichever all its cells are.

    >>> infer_types(pa.table({"a": ["1", "NA"], "b": ["007", "1"]})).schema.types
    [DataType(int64), DataType(string)]
    """
    columns = []
    for column in table.columns:
        if column.null_count == len(column):
            columns.append(pa.chunked_array([pa.nulls(len(column))]))
            continue
        typed = _as_number(column)
        typed = _as_boolean(column) if typed is None else typed
        columns.append(_dates_without_holes(column) if typed is None else typed)
    return pa.table(columns, names=table.column_names)


def _dates_without_holes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as it is, but words for a missing cell as null in a column of dates."""
    missing = pc.fill_null(pc.is_in(column, pa.array(MISSING_WORDS)), False)
    if not pc.any(missing).as_py() or find_layout(column.combine_chunks()) is None:
        return column
    return pc.if_else(missing, pa.scalar(None, pa.string()), column)


def convert(name: str, table: pa.Table, types: Types, first_row: int = 1) -> pa.Table:
    """A table of text with the columns in the types wanted; DataError naming column and row of a cell that is not."""
    columns = []
    for key, column in zip(table.column_names, table.columns, strict=True):
        wanted = types.get(key)
        columns.append(column if wanted is None else _cast(name, key, column, wanted, first_row))
    return pa.table(columns, names=table.column_names)


def _cast(name: str, key: str, column: pa.ChunkedArray, wanted: pa.DataType | str, first_row: int) -> pa.ChunkedArray:
    kind = parse_type(wanted) if isinstance(wanted, str) else wanted
    stored = kind.value_type if pa.types.is_dictionary(kind) else kind
    if is_text(stored) or pa.types.is_null(stored):
        return column
    cells = pc.utf8_trim_whitespace(column)
    cells = pc.if_else(pc.is_in(cells, pa.array(MISSING_WORDS)), pa.scalar(None, pa.string()), cells)
    if pa.types.is_boolean(stored):
        cells = pc.ascii_lower(cells)
    read_as = pa.float64() if pa.types.is_integer(stored) else stored
    try:
        return _narrowed(cells.cast(read_as), stored)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        row, cell = _first_bad(cells, read_as)
        what = "a date" if is_date(stored) else "true or false" if pa.types.is_boolean(stored) else "a number"
        raise DataError(f"{name}: column {key!r}, row {first_row + row}: {cell!r:.60} is not {what}") from None


def _narrowed(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Whole numbers as integers where all of them are; else as they are."""
    if not pa.types.is_integer(kind):
        return column
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        return column


def _first_bad(cells: pa.ChunkedArray, kind: pa.DataType) -> tuple[int, str]:
    low, high = 0, len(cells)  # the first cell that cannot be cast is in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            cells[low:middle].cast(kind)
            low = middle
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            high = middle
    return low, str(cells[low].as_py())


def kinds_of(table: pa.Table) -> dict[str, pa.DataType]:
    """The types that the first block shows, whole numbers widened to float64 so that later blocks fit.

    >>> kinds_of(pa.table({"a": [1]}))
    {'a': DataType(double)}
    """
    kinds: Sequence[pa.DataType] = table.schema.types
    wide = [pa.float64() if pa.types.is_integer(kind) else kind for kind in kinds]
    return dict(zip(table.column_names, wide, strict=True))
