"""The pair encode <-> decode of one column: Arrow cells <-> float64 values, with every wrong cell named."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diffeo.data.arrow import is_date, is_number, is_text, numbers, parse_type, whole, word
from diffeo.data.column import Column, show_level
from diffeo.data.dates import ticks_of, write_ticks
from diffeo.errors import DataError


def _first(mask: np.ndarray) -> int:
    return int(np.flatnonzero(mask)[0])


def _retyped(column: Column, cells: pa.Array, expected: str, first_row: int) -> DataError:
    place = _first(cells.is_valid().to_numpy(zero_copy_only=False))
    return DataError(
        f"column {column.name!r} is {word(cells.type)} (row {first_row + place}: {cells[place].as_py()!r:.60}), "
        f"but the model knows it as {expected}; convert it, or fit again"
    )


def check_finite(name: str, x: np.ndarray, first_row: int = 1) -> None:
    """Refuse infinite values by row.

    >>> check_finite("a", np.array([1.0, np.inf]))
    Traceback (most recent call last):
    diffeo.errors.DataError: column 'a', row 2: inf is not a number to learn from; mend the row or leave the cell empty
    """
    bad = np.isinf(x)
    if bad.any():
        row = _first(bad)
        raise DataError(
            f"column {name!r}, row {first_row + row}: {x[row]} is not a number to learn from; "
            "mend the row or leave the cell empty"
        )


def _seconds(column: Column, cells: pa.Array, first_row: int) -> np.ndarray:
    assert column.dates is not None
    example = f"a date such as {column.dates.layout}" if column.dates.layout else "a date"
    if not (is_date(cells.type) or is_text(cells.type)):
        raise _retyped(column, cells, example, first_row)
    layout = column.dates.layout or "0000-00-00T00:00:00"
    ticks = ticks_of(cells, column.dates.unit, layout)
    if ticks is not None:
        return column.dates.seconds(ticks)
    single = [ticks_of(cells[i : i + 1], column.dates.unit, layout) is None for i in range(min(len(cells), 100_000))]
    row = _first(np.array(single)) if any(single) else 0
    raise DataError(
        f"column {column.name!r}, row {first_row + row}: {cells[row].as_py()!r:.60} is no date of the form {layout} "
        "(digits in place of the zeros); write it so, or leave the cell empty"
    )


def _places(column: Column, cells: pa.Array, first_row: int) -> np.ndarray:
    """Places among the levels, NaN for null; refuses a level never seen."""
    levels = pa.array(column.levels)
    if is_number(cells.type) or pa.types.is_boolean(cells.type):
        cells = cells if pa.types.is_boolean(levels.type) else pa.array(numbers(cells), from_pandas=True)
    place = pc.index_in(cells, value_set=levels)
    unseen = pc.and_(pc.is_valid(cells), pc.is_null(place)).to_numpy(zero_copy_only=False)
    if unseen.any():
        row = _first(unseen)
        if is_number(levels.type):
            remedy = f"fit again with such rows, or with --kind {column.name}=continuous"
        else:
            remedy = "correct it, leave the cell empty, or fit again with such rows"
        raise DataError(
            f"column {column.name!r}, row {first_row + row}: {cells[row].as_py()!r:.60} was never seen when fitting "
            f"({len(column.levels)} levels, {_some(column)}); {remedy}"
        )
    return numbers(place)


def _some(column: Column) -> str:
    return ", ".join(show_level(level) for level in column.levels[:4]) + (", ..." if len(column.levels) > 4 else "")


def encode_column(column: Column, data: pa.ChunkedArray | pa.Array, first_row: int = 1) -> np.ndarray:
    """float64 [n] of the column's cells, NaN where missing; `first_row` is the number of its first row in messages.

    Raises DataError, naming column and row, for another type, a level never seen, a value off an integer's grid, +-inf.
    """
    cells = whole(data)
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if cells.null_count == len(cells):
        return np.full(len(cells), np.nan)
    if column.dates is not None:
        return _seconds(column, cells, first_row)
    kind = parse_type(column.type)
    stored = kind.value_type if pa.types.is_dictionary(kind) else kind
    if word(cells.type) != word(stored):
        raise _retyped(column, cells, f"a {word(stored)}" if word(stored) != "text" else "text", first_row)
    if column.coded:
        return _places(column, cells, first_row)
    x = numbers(cells)
    check_finite(column.name, x, first_row)
    if column.kind == "integer":
        assert column.grid is not None
        off = ~(np.isnan(x) | (np.abs(x - column.grid.snap(x)) <= column.grid.slack + 1e-6 * column.grid.step))
        if off.any():
            row = _first(off)
            raise DataError(
                f"column {column.name!r}, row {first_row + row}: {x[row]:g} is no value of this integer column "
                f"(steps of {column.grid}); round it, or fit again with such rows"
            )
    return _inside(column, x, first_row)


def _inside(column: Column, x: np.ndarray, first_row: int) -> np.ndarray:
    """Refuse values outside the hard support that the kind promises."""
    if column.bounds is not None:
        bad, say = (
            (x < column.bounds[0]) | (x > column.bounds[1]),
            f"between {column.bounds[0]:g} and {column.bounds[1]:g}",
        )
    elif column.kind == "positive":
        bad, say = (x <= 0) & ~np.isin(x, column.atoms), "above 0"
    else:
        return x
    if bad.any():
        row = _first(bad)
        raise DataError(
            f"column {column.name!r}, row {first_row + row}: {x[row]:g} is not {say}, which {column.kind} means; "
            f"mend the row, or fit with --kind {column.name}=continuous"
        )
    return x


def _restored(column: Column, x: np.ndarray) -> np.ndarray:
    """Values x [n] brought onto the grid and into the support of the column; what lies there already stays as it is."""
    v = np.array(x, float)
    there = np.zeros(v.shape, bool)  # on the grid, where an integer may lie beyond its levels
    if column.grid is not None:
        snapped = column.grid.snap(v)
        there = np.abs(v - snapped) <= column.grid.slack
        v = np.where(there, v, snapped)
        if column.positive and column.grid.warp == "identity":
            least = column.grid.value(np.array([np.ceil(0.5 - column.grid.offset / column.grid.step - 1e-9)]))[0]
            v = np.where((v < least - column.grid.slack) & ~np.isin(v, column.atoms), least, v)
    if column.kind == "integer":
        first, last = float(column.levels[0]), float(column.levels[-1])
        slack = column.grid.slack if column.grid is not None else 0.0
        nearest = np.where(v < first - slack, first, np.where(v > last + slack, last, v))
        v = np.where(there, v, nearest)
    if column.bounds is not None:
        v = np.clip(v, *column.bounds)
    if column.period is not None and column.low is not None and column.high is not None:
        low, length = column.period
        out = (v < min(low, column.low)) | (v > max(low + length, column.high))
        v = np.where(out, low + np.mod(v - low, length), v)
    return v


def decode_column(column: Column, x: np.ndarray) -> pa.Array:
    """Cells in the type of the file of encoded values x float64 [n]; null where x is NaN.

    >>> column = Column(name="ok", kind="boolean", type="bool", levels=(False, True))
    >>> decode_column(column, np.array([1.0, np.nan])).to_pylist()
    [True, None]
    """
    kind = parse_type(column.type)
    missing = np.isnan(x)
    safe = np.where(missing, 0.0, x)
    if column.dates is not None:
        if column.grid is not None:
            safe = column.grid.snap(safe)
        return write_ticks(column.dates.ticks(np.where(missing, np.nan, safe)), column.dates, kind)
    if column.coded:
        place = pa.array(np.clip(np.rint(safe), 0, len(column.levels) - 1).astype(np.int64), mask=missing)
        return _of_levels(column, place, kind)
    v = _restored(column, safe)
    if pa.types.is_integer(kind):
        return pa.array(_fitting(np.rint(v), kind), kind, mask=missing)
    if pa.types.is_dictionary(kind):
        return pa.array(v, mask=missing).cast(kind.value_type).dictionary_encode().cast(kind)
    return pa.array(v.astype(np.float32) if pa.types.is_float32(kind) else v, kind, mask=missing)


def _fitting(v: np.ndarray, kind: pa.DataType) -> np.ndarray:
    """Whole numbers clipped into an integer type."""
    of = np.dtype(kind.to_pandas_dtype())
    limits = np.iinfo(of)
    inner = np.clip(v, float(limits.min), np.nextafter(float(limits.max), 0) if limits.max > 2**53 else limits.max)
    return inner.astype(of)


def _of_levels(column: Column, place: pa.Array, kind: pa.DataType) -> pa.Array:
    stored = kind.value_type if pa.types.is_dictionary(kind) else kind
    levels = pa.array(column.levels).cast(stored)
    if not pa.types.is_dictionary(kind):
        return levels.take(place)
    return pa.DictionaryArray.from_arrays(place.cast(kind.index_type), levels, ordered=kind.ordered)
