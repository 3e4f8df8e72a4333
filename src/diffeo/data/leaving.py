"""Which columns say nothing that a density could learn, and why: constants, row numbers, copies, mostly holes."""

import hashlib
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diffeo.data.arrow import is_date, is_number, is_text, numbers, word

_INDEX_NAMES = frozenset(
    {"rownames", "row_names", "rowname", "row", "rowid", "row_id", "rownumber", "index", "id", "uid", "uuid", "key"}
    | {"__index_level_0__", "unnamed: 0", "x.1", "recordid", "record_id", "objectid", "object_id", ""}
)
_LEAST_LEVELS = 256


def most_levels(rows: int) -> int:
    """How many different texts may make a category: 256, or the square root of the rows where that is more.

    Each level costs weights of its own and needs rows to learn them from; at the square root the average level
    still has as many rows as there are levels.

    >>> most_levels(1_000), most_levels(1_000_000)
    (256, 1000)
    """
    return max(_LEAST_LEVELS, math.isqrt(rows))


def holes_as_null(column: pa.Array) -> pa.Array:
    """The column with NaN as null."""
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column


def _values(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def reason_to_leave(column: pa.Array) -> str | None:
    """Why a column [n] (NaN as null) is left out whatever the user says of its kind; None where it is not.

    >>> reason_to_leave(pa.array([2013, 2013, None]))
    'constant: 2013 in every row that has it'
    """
    cells = _values(column)
    rows, holes = len(cells), cells.null_count
    if holes == rows:
        return "every cell is missing"
    kind = cells.type
    if not (is_number(kind) or is_text(kind) or is_date(kind) or pa.types.is_boolean(kind)):
        return f"its type, {word(kind)}, is neither number, text, boolean nor date"
    if 2 * holes > rows:
        return f"{holes} of {rows} cells are missing, more than half"
    if pa.types.is_integer(kind) and pc.max(pc.abs(cells.drop_null().cast(pa.float64(), safe=False))).as_py() > 2.0**53:
        return "its whole numbers are beyond 2^53, where a float64 cannot tell them apart"
    if len(pc.unique(cells.drop_null())) == 1:
        return f"constant: {str(cells.drop_null()[0].as_py())[:40]} in every row" + (" that has it" if holes else "")
    return None


def identifies_rows(name: str, column: pa.Array, is_dated: bool) -> str | None:
    """Why a column [n] (NaN as null) merely names its rows; None where it does not.

    >>> identifies_rows("n", pa.array(range(1, 31)), False)
    'a row number: 1 to 30 in order'
    """
    cells = _values(column)
    rows = len(cells)
    if cells.null_count or rows < 3 or len(pc.unique(cells)) < rows:
        return _too_many_texts(cells) if is_text(cells.type) and not is_dated else None
    if is_number(cells.type):
        v = numbers(cells)
        in_order = bool(np.all(np.diff(v) == 1))
        if v.min() in (0, 1) and v.max() - v.min() == rows - 1 and (in_order or rows > 100):
            return f"a row number: {v.min():g} to {v.max():g}" + (" in order" if in_order else ", each once")
    if name.strip().lower() in _INDEX_NAMES:
        return "an identifier by its name, and different in every row"
    return "an identifier: its text is different in every row" if is_text(cells.type) and not is_dated else None


def _too_many_texts(cells: pa.Array) -> str | None:
    counts = pc.value_counts(cells.drop_null()).field(1).to_numpy()
    rows = int(counts.sum())
    if len(counts) > most_levels(rows):
        return f"text with {len(counts)} different values in {rows} rows, too many for a category ({most_levels(rows)})"
    if 2 * np.count_nonzero(counts == 1) > rows:
        return f"text that mostly occurs once ({len(counts)} different values in {rows} rows)"
    return None


def fingerprint(column: pa.Array) -> bytes:
    """A digest that equal columns share, whatever number type holds them."""
    cells = _values(column)
    digest = hashlib.blake2b(word(cells.type).encode())
    if is_number(cells.type) or pa.types.is_boolean(cells.type):
        digest.update((numbers(cells) + 0.0).tobytes())
    elif is_text(cells.type):
        codes = cells.dictionary_encode()
        digest.update(codes.indices.fill_null(-1).to_numpy(zero_copy_only=False).tobytes())
        digest.update(repr(codes.dictionary.to_pylist()).encode())
    else:
        digest.update(str(cells.type).encode() + repr(cells.null_count).encode())
        wide = cells.cast(pa.int32()) if pa.types.is_date32(cells.type) else cells
        digest.update(wide.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False).tobytes())
    return digest.digest()
