"""Which rows are held out for validation: by a hash of their number, by a column that says so, or the latest ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from diffeo.data.arrow import is_text
from diffeo.errors import DataError

_HELD = frozenset({"valid", "validation", "val", "test", "held", "heldout", "held_out", "true", "1", "1.0", "yes"})
_KEPT = frozenset({"train", "training", "fit", "false", "0", "0.0", "no"})


def _mixed(z: np.ndarray) -> np.ndarray:
    """splitmix64's output function: uint64 [n] -> uint64 [n] (Steele, Lea and Flood 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def held_out(n: int, fraction: float = 0.1, seed: int = 0, first_row: int = 0) -> np.ndarray:
    """Boolean [n], true for about this fraction of the rows; a row's fate depends on its number and the seed alone.

    `first_row` is the number of the first of the n rows, for files read in parts.

    >>> whole = held_out(1000, 0.1)
    >>> bool((whole[500:] == held_out(500, 0.1, first_row=500)).all()), int(whole.sum())
    (True, 102)
    """
    if not 0 <= fraction < 1:
        raise DataError(f"the fraction held out must be at least 0 and below 1, got {fraction:g}")
    step = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        start = _mixed(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64) + step)
        u = _mixed(start + step * np.arange(first_row + 1, first_row + n + 1, dtype=np.uint64))
    return (u >> np.uint64(11)).astype(float) * 2.0**-53 < fraction


def split_by_column(values: pa.ChunkedArray | pa.Array | Sequence[Any], name: str = "split") -> np.ndarray:
    """Boolean [n]: true where the column says valid, test, true or 1; false where train, false or 0.

    Raises DataError, naming the row, for other words, and where either side is empty.

    >>> split_by_column(["train", "valid", "train"]).tolist()
    [False, True, False]
    """
    cells = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    said = [None if cell is None else str(cell).strip().lower() for cell in cells.to_pylist()]
    for row, cell in enumerate(said, 1):
        if cell not in _HELD and cell not in _KEPT:
            raise DataError(
                f"column {name!r}, row {row}: {cell!r} does not say whether to hold the row out; "
                "write train or valid (or false, true, 0, 1)"
            )
    mask = np.array([cell in _HELD for cell in said], bool)
    if not mask.any() or mask.all():
        raise DataError(f"column {name!r}: {'every' if mask.any() else 'no'} row is held out; both sides need rows")
    return mask


def split_by_time(values: np.ndarray | pa.ChunkedArray | pa.Array, fraction: float = 0.1) -> np.ndarray:
    """Boolean [n]: true for the latest rows, about this fraction; rows of the same moment stay together.

    `values` are numbers, dates, or text that sorts as it should (ISO dates). Raises DataError for missing ones and
    where all rows would fall on one side.

    >>> split_by_time(np.array([3.0, 1.0, 2.0, 4.0]), 0.25).tolist()
    [False, False, False, True]
    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        if values.null_count:
            row = values.is_null().to_pylist().index(True) + 1
            raise DataError(f"row {row} has no time, so it cannot be split by time; drop the row or split another way")
        text = is_text(values.type)
        values = (
            np.array(values.to_pylist())
            if text
            else np.asarray(
                values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.to_numpy()
            )
        )
    order = np.sort(values)
    if len(order) and (order[-1] != order[-1]):
        raise DataError("a row has no time, so it cannot be split by time; drop the row or split another way")
    place = min(len(order) - 1, max(0, round(len(order) * (1 - fraction))))
    mask = np.asarray(values >= order[place]) if len(order) else np.zeros(0, bool)
    if mask.all():
        mask = np.asarray(values > order[0]) if len(order) else mask
    if not mask.any():
        raise DataError("all rows are of one moment, so none are later than others; split another way")
    return mask
