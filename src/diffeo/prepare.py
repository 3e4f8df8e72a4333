"""From a table and the choices of a fit to rows to learn from: kinds inferred, holes left out, rows held out.

Everything that is left out or held out is counted and said.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from diffeo.config import FitConfig
from diffeo.data.arrow import is_number, numbers
from diffeo.data.files import read
from diffeo.data.frames import Restore, to_table
from diffeo.data.schema import Schema
from diffeo.data.split import held_out, split_by_column, split_by_time
from diffeo.errors import DataError
from diffeo.rows import Layout, Rows

__all__ = ["Prepared", "frame_kind", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """What a fit learns from and validates on; `numbers` and `valid_numbers`: the row numbers, from 1, of the training
    rows and of the held-out rows, each in the file that it is of; `restore` makes of a table the kind of frame that the
    data came in."""

    schema: Schema
    layout: Layout
    x_train: np.ndarray
    x_valid: np.ndarray
    train: Rows
    valid: Rows
    weights: Tensor
    valid_weights: Tensor
    asked: bool  # whether it was asked which rows are held out
    numbers: np.ndarray
    valid_numbers: np.ndarray
    rows: int
    holes: dict[str, int]
    rows_with_holes: int
    fingerprint: str
    source: str
    frame: str
    restore: Restore


def prepare(data: Any, valid: Any, config: FitConfig, say: Callable[[str], None]) -> Prepared:
    """Read, infer, encode, split. Raises DataError by name for everything that is not as it should be."""
    _one_split(valid, config)
    table, restore = to_table(data)
    schema = _schema(table, config)
    for line in (*schema.describe(), *schema.notes):
        say(line)
    x = schema.encode(table)
    weights = _weights(table, config.weight, len(x))
    whole = _whole(x, schema, config, say)
    if valid is None:
        held = _held(table, config, whole & (weights > 0))
        x_valid, valid_weights, kept = x, weights, whole & held
    else:
        held = np.zeros(len(x), bool)
        other = read(valid, types=schema.types) if isinstance(valid, str | Path) else to_table(valid)[0]
        x_valid = schema.encode(other)
        valid_weights = _weights(other, config.weight, len(x_valid))
        kept = _whole(x_valid, schema, config, say)
    learned, kept = whole & ~held & (weights > 0), kept & (valid_weights > 0)
    x_train, x_valid, weights, valid_weights = x[learned], x_valid[kept], weights[learned], valid_weights[kept]
    _enough(x_train, x_valid)
    say(f"{len(x_train)} rows to learn from, {len(x_valid)} held out for validation")
    layout = Layout(schema)
    holes = {c.name: int(np.isnan(x[:, i]).sum()) for i, c in enumerate(schema.columns)}
    return Prepared(
        schema=schema,
        layout=layout,
        x_train=x_train,
        x_valid=x_valid,
        train=layout.rows(x_train),
        valid=layout.rows(x_valid),
        weights=torch.from_numpy(weights / weights.mean()).float(),
        valid_weights=torch.from_numpy(valid_weights / valid_weights.mean()).double(),
        asked=valid is not None or config.split is not None or config.time is not None,
        numbers=np.flatnonzero(learned) + 1,
        valid_numbers=np.flatnonzero(kept) + 1,
        rows=len(x),
        holes={name: count for name, count in holes.items() if count},
        rows_with_holes=int((~whole).sum()),
        fingerprint=_fingerprint(schema, x_train, x_valid, weights, valid_weights),
        source=Path(str(data)).name if isinstance(data, str | Path) else f"a {type(data).__name__}",
        frame=frame_kind(data),
        restore=restore,
    )


def _one_split(valid: Any, config: FitConfig) -> None:
    """Only one thing can say what is held out."""
    asked = [("valid", valid), ("split", config.split), ("time", config.time)]
    named = [f"--{name}" for name, choice in asked if choice is not None]
    if len(named) > 1:
        raise DataError(f"{' and '.join(named)} each say which rows validate; choose one")


def _fingerprint(schema: Schema, *arrays: np.ndarray) -> str:
    """The sha256 of all that is learned from and validated on."""
    found = hashlib.sha256(schema.model_dump_json().encode())
    for array in arrays:
        found.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def frame_kind(data: Any) -> str:
    """What kind of frame samples are to come back in: array, vector, tensor, pandas, polars, dict or arrow."""
    if isinstance(data, str | Path):
        return "arrow"
    root = type(data).__module__.split(".")[0]
    if root == "numpy" and data.ndim == 1 and not data.dtype.names:
        return "vector"
    return {"numpy": "array", "torch": "tensor", "pandas": "pandas", "polars": "polars", "builtins": "dict"}.get(
        root, "arrow"
    )


def _schema(table: pa.Table, config: FitConfig) -> Schema:
    """The schema, with the columns of weights and of the split left out for what they are."""
    aside = {config.weight: "holds the weights of the rows", config.split: "says which rows are held out"}
    for name in aside:
        if name is not None and name not in table.column_names:
            raise DataError(f"there is no column {name!r}; the table has {', '.join(table.column_names[:12])}")
    reasons = {name: reason for name, reason in aside.items() if name is not None}
    schema = Schema.infer(
        table,
        kinds=config.kinds,
        columns=config.columns,
        drop=(*config.drop, *(name for name in reasons if name not in config.drop)),
        given=config.given,
    )
    left = tuple((name, reasons.get(name, reason)) for name, reason in schema.left_out)
    return schema.model_copy(update={"left_out": left})


def _weights(table: pa.Table, name: str | None, n: int) -> np.ndarray:
    if name is None:
        return np.ones(n)
    if name not in table.column_names:
        raise DataError(f"the column of weights {name!r} is missing")
    if not is_number(table[name].type):
        raise DataError(f"column {name!r}: weights are numbers, got {table[name].type}")
    weights = numbers(table[name])
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"column {name!r}, row {row + 1}: a weight is a number of 0 or more, got {weights[row]}")
    if not weights.any():
        raise DataError(f"column {name!r}: all weights are 0, so there is nothing to learn from")
    return weights


def _whole(x: np.ndarray, schema: Schema, config: FitConfig, say: Callable[[str], None]) -> np.ndarray:
    """Which rows have no missing cell; the others are counted aloud, or refused."""
    missing = np.isnan(x)
    whole = ~missing.any(1)
    if whole.all():
        return whole
    counts = {c.name: int(count) for c, count in zip(schema.columns, missing.sum(0), strict=True) if count}
    if config.missing == "error":
        row, column = np.argwhere(missing)[0]
        name, total = schema.columns[column].name, sum(counts.values())
        raise DataError(
            f"column {name!r}, row {row + 1}: the cell is missing (one of {total}); "
            "fill it, drop the column, or leave such rows out with --missing drop"
        )
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
    say(f"{int((~whole).sum())} of {len(x)} rows have missing cells and are left out: {listed}")
    return whole


def _held(table: pa.Table, config: FitConfig, whole: np.ndarray) -> np.ndarray:
    if config.split is not None:
        return split_by_column(table[config.split], config.split)
    if config.time is not None:
        if config.time not in table.column_names:
            raise DataError(f"there is no column {config.time!r} to order by")
        return split_by_time(table[config.time], config.valid_fraction)
    held = held_out(len(whole), config.valid_fraction, config.seed)
    rows = np.flatnonzero(whole)
    if not held[rows].any():
        held[rows[-1]] = True
    if held[rows].all():
        held[rows[0]] = False
    return held


def _enough(x_train: np.ndarray, x_valid: np.ndarray) -> None:
    if len(x_train) < 2 or not len(x_valid):
        raise DataError(
            f"{len(x_train)} to learn from and {len(x_valid)} held out are too few rows; a density needs at least 2 "
            "and 1, without missing cells and of positive weight"
        )
