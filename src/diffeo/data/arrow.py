"""Arrow tables in plain types: what every file and every frame is brought to before diffeo looks at it."""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diffeo.errors import DataError

_DICTIONARY = re.compile(r"dictionary<values=(.+), indices=(\w+), ordered=([01])>")
_ZONED = re.compile(r"timestamp\[(\w+), tz=(.+)\]")


def is_text(kind: pa.DataType) -> bool:
    """Whether cells of this type are words.

    >>> is_text(pa.string()), is_text(pa.float64())
    (True, False)
    """
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether cells of this type are numbers (booleans are not).

    >>> is_number(pa.int8()), is_number(pa.bool_())
    (True, False)
    """
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_date(kind: pa.DataType) -> bool:
    """Whether cells of this type are moments or days.

    >>> is_date(pa.date32()), is_date(pa.string())
    (True, False)
    """
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def word(kind: pa.DataType) -> str:
    """What to call cells of this type in a message.

    >>> word(pa.int32()), word(pa.string()), word(pa.list_(pa.int8()))
    ('number', 'text', 'list<item: int8>')
    """
    if pa.types.is_dictionary(kind):
        return word(kind.value_type)
    for test, name in ((is_text, "text"), (is_number, "number"), (is_date, "date")):
        if test(kind):
            return name
    return "boolean" if pa.types.is_boolean(kind) else str(kind)


def parse_type(text: str) -> pa.DataType:
    """The Arrow type whose `str()` is the text.

    >>> parse_type("timestamp[ms, tz=UTC]"), parse_type("double")
    (TimestampType(timestamp[ms, tz=UTC]), DataType(double))
    """
    if match := _DICTIONARY.fullmatch(text):
        return pa.dictionary(parse_type(match[2]), parse_type(match[1]), ordered=match[3] == "1")
    if match := _ZONED.fullmatch(text):
        return pa.timestamp(match[1], tz=match[2])
    return pa.type_for_alias(text)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The simpler type that a column of this type is cast to."""
    if is_text(kind):
        return pa.string()
    if pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_date64(kind):
        return pa.timestamp("ms")
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _plain_type(kind.value_type), ordered=kind.ordered)
    return kind


def _plain_column(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], type=kind.storage_type)
        return _plain_column(name, column)
    if pa.types.is_run_end_encoded(kind):
        chunks = [pc.run_end_decode(chunk) for chunk in column.chunks]
        return _plain_column(name, pa.chunked_array(chunks, type=kind.value_type))
    if pa.types.is_dictionary(kind):
        column = column.unify_dictionaries()
    wanted = _plain_type(kind)
    try:
        return column if wanted == kind else column.cast(wanted)
    except pa.ArrowInvalid as fault:
        raise DataError(f"column {name!r} ({kind}) cannot be read as {wanted}: {one_line(fault)}") from fault


def one_line(fault: object) -> str:
    """The first line of a library's complaint, shortened.

    >>> one_line("bad\\nvery bad")
    'bad'
    """
    text = str(fault).strip().split("\n")[0]
    return text if len(text) <= 160 else text[:157] + "..."


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse column names that occur twice, and tables without any column.

    >>> check_names(["a", "b", "a"], "t.csv")
    Traceback (most recent call last):
    diffeo.errors.DataError: t.csv: the column name 'a' occurs twice (columns 1 and 3); rename one of them
    """
    if not names:
        raise DataError(f"{where}: there are no columns")
    seen: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        if name in seen:
            raise DataError(
                f"{where}: the column name {name!r} occurs twice (columns {seen[name]} and {place}); rename one of them"
            )
        seen[name] = place


def plain(table: pa.Table, where: str = "the table") -> pa.Table:
    """The same table in plain types: one kind of text, float32 or float64 numbers, no metadata, unique names.

    >>> plain(pa.table({"a": pa.array(["x"], pa.large_string())})).schema.types
    [DataType(string)]
    """
    if not isinstance(table, pa.Table):
        raise DataError(f"{where}: expected a pyarrow table, got {type(table).__name__}; `diffeo.fit` takes any frame")
    check_names(table.column_names, where)
    columns = [_plain_column(name, table[name]) for name in table.column_names]
    return pa.table(columns, names=table.column_names)


def numbers(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A column of numbers or booleans as float64 [n]; null becomes NaN.

    >>> numbers(pa.array([1, None]))
    array([ 1., nan])
    """
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return np.array(column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy(), float)


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The column as one array.

    >>> len(whole(pa.chunked_array([[1], [2]])))
    2
    """
    if isinstance(column, pa.Array):
        return column
    merged = column.combine_chunks()
    return merged if isinstance(merged, pa.Array) else pa.concat_arrays(merged.chunks)
