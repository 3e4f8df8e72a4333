"""From the cells of a column to its kind: what the values look like, unless the user says."""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diffeo.data.arrow import is_date, is_text, numbers
from diffeo.data.coding import check_finite
from diffeo.data.column import Column, Kind
from diffeo.data.dates import PER_SECOND, Dates, find_layout, ticks_of, unit_of, unit_of_type
from diffeo.data.grid import Grid
from diffeo.data.rounding import find_grid
from diffeo.data.spread import Spread, looks_bounded, more_normal_as_log

_MOST_MASSES = 64  # grid values of an integer with exact masses
_MOST_SPARSE_MASSES = 4096  # the same where few of them hold all the mass
_ROWS_A_LEVEL = 20
_ANGLES = frozenset(
    {"direction", "dir", "angle", "azimuth", "az", "bearing", "heading", "aspect", "phase", "theta", "phi"}
    | {"lon", "lng", "long", "longitude", "ra", "rightascension"}
)
_TRUE_FALSE = ("false", "true")
Facts = dict[str, Any]


def layout_of_column(column: pa.Array) -> str | None:
    """The layout of a text column of ISO dates; None for anything else."""
    return find_layout(column) if is_text(column.type) else None


def infer_column(name: str, column: pa.Array, layout: str | None) -> tuple[Column, list[str]]:
    """The column's kind by its values, with notes for the reader; `column` [n] has NaN as null and some non-null cells.

    >>> infer_column("n", pa.array([0, 1, 2] * 40), None)[0].describe()
    'n: integer, 3 levels, 0 to 2'
    """
    base: Facts = {"name": name, "type": str(column.type), "missing": column.null_count}
    kind = column.type
    if pa.types.is_dictionary(kind):
        return Column(**base, **_category_of_dictionary(column)), []
    if layout is not None or is_date(kind):
        return datetime_column(base, column, layout), []
    if pa.types.is_boolean(kind):
        return Column(**base, kind="boolean", levels=(False, True)), []
    if is_text(kind):
        return Column(**base, **_category(column)), []
    v = numbers(column)
    check_finite(name, v)
    return _numeric(base, v[~np.isnan(v)], kind)


def _category(column: pa.Array) -> Facts:
    levels = sorted(pc.unique(column.drop_null()).to_pylist())
    if tuple(sorted(level.lower() for level in levels if isinstance(level, str))) == _TRUE_FALSE:
        return {"kind": "boolean", "levels": tuple(sorted(levels, key=str.lower))}
    return {"kind": "category", "levels": tuple(levels)}


def _category_of_dictionary(column: pa.Array) -> Facts:
    seen = set(pc.unique(column.dictionary_decode().drop_null()).to_pylist())
    if not column.type.ordered:
        return {"kind": "category", "levels": tuple(sorted(seen))}
    return {"kind": "ordered", "levels": tuple(level for level in column.dictionary.to_pylist() if level in seen)}


def datetime_column(base: Facts, column: pa.Array, layout: str | None) -> Column:
    """A column of moments: seconds since its first cell, on the grid of the greatest common gap."""
    unit = unit_of(layout) if layout else unit_of_type(column.type)
    ticks = ticks_of(column, unit, layout)
    assert ticks is not None
    known = ticks[ticks != np.iinfo(np.int64).min]
    dates = Dates(origin=int(known[0]), unit=unit, layout=layout)
    seconds = dates.seconds(known)
    gaps = np.diff(np.unique(known))
    step = float(np.gcd.reduce(gaps)) if len(gaps) else 1.0
    step = step * 86_400 if unit == "D" else step / PER_SECOND[unit]
    facts: Facts = {"kind": "datetime", "dates": dates, "grid": Grid(step=step)}
    facts |= {"low": float(seconds.min()), "high": float(seconds.max()), "missing": len(ticks) - len(known)}
    return Column(**(base | facts))


def _numeric(base: Facts, v: np.ndarray, kind: pa.DataType) -> tuple[Column, list[str]]:
    spread = Spread.of(v)
    name, n = base["name"], len(v)
    single = pa.types.is_float32(kind)
    grid = find_grid(spread.values, stored_single=single, warps=len(spread.values) <= 0.9 * n)
    if grid is not None and not pa.types.is_integer(kind) and not _grid_matters(spread, grid):
        grid = None
    facts: Facts = base | {"low": float(v.min()), "high": float(v.max())}
    index = None if grid is None else grid.index(spread.values)
    atoms = spread.atoms(index)
    levels = spread.better_as_levels(index, atoms)
    if grid is not None and (
        _few_enough(_cells(spread, grid), n) or (levels and _cells(spread, grid) <= _MOST_SPARSE_MASSES)
    ):
        return Column(
            **facts, kind="integer", grid=grid, levels=grid_levels(spread, grid), positive=above_zero(v, grid)
        ), []
    if levels:
        return Column(**base, kind="ordered", levels=tuple(spread.values.tolist())), []
    atoms = atoms[:4]
    body = v[~np.isin(v, atoms)]
    facts |= {"atoms": tuple(atoms), "positive": above_zero(body, grid)}
    notes = [f"{name}: {spread.share(atom):.1%} of the rows are exactly {atom:g}" for atom in atoms]
    if grid is not None:
        return Column(**facts, kind="rounded", grid=grid), notes
    repeats = n - len(spread.values) - sum(round(spread.share(atom) * n) - 1 for atom in atoms)
    if repeats > 0.05 * n:
        notes.append(f"{name}: {repeats} cells repeat a value of another row, though no rounding explains it")
    return Column(**facts, **_smooth(name, body, facts["positive"])), notes


def _grid_matters(spread: Spread, grid: Grid) -> bool:
    """Whether rounding is coarse enough to show: rows share values, or there are few cells for the rows."""
    index = np.unique(grid.index(spread.values))
    return bool(len(index) <= 0.9 * spread.rows or index[-1] - index[0] <= _ROWS_A_LEVEL * spread.rows)


def _cells(spread: Spread, grid: Grid) -> int:
    index = grid.index(spread.values[[0, -1]])
    return int(abs(index[1] - index[0])) + 1


def _few_enough(levels: int, rows: int) -> bool:
    """Whether so many rows can teach the exact mass of each level."""
    return levels <= _MOST_MASSES and (
        _ROWS_A_LEVEL * levels <= rows or (levels <= 12 and 2 * levels <= rows) or levels <= 2
    )


def grid_levels(spread: Spread, grid: Grid) -> tuple[float, ...]:
    """Every value of the grid from the lowest to the highest seen."""
    ends = grid.index(spread.values[[0, -1]])
    return tuple(sorted(grid.value(np.arange(ends.min(), ends.max() + 1)).tolist()))


def above_zero(v: np.ndarray, grid: Grid | None) -> bool:
    """Whether all values, with their whole rounding cells, are above zero."""
    if not len(v) or v.min() <= 0:
        return False
    return grid is None or bool(grid.cell(np.array([v.min()]))[0][0] >= 0)


def _smooth(name: str, v: np.ndarray, positive: bool) -> Facts:
    """The kind of numbers without a grid: circular, unit, positive or plain."""
    if name_of_angle(name) and (period := full_turn(v)):
        return {"kind": "circular", "period": period}
    if looks_bounded(v, 0.0, 1.0):
        return {"kind": "unit", "bounds": (0.0, 1.0)}
    kind: Kind = "positive" if positive and more_normal_as_log(v) else "continuous"
    return {"kind": kind}


def name_of_angle(name: str) -> bool:
    """Whether a column's name speaks of a direction.

    >>> name_of_angle("windDirection"), name_of_angle("ra_rad"), name_of_angle("rain")
    (True, True, False)
    """
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    return not _ANGLES.isdisjoint(words)


def full_turn(v: np.ndarray) -> tuple[float, float] | None:
    """(low, length) of the turn that the values fill up to 2 % at its ends; None where they fill none.

    >>> full_turn(np.linspace(-179.9, 180.0, 50))
    (-180.0, 360.0)
    """
    low, high = float(v.min()), float(v.max())
    for length in (360.0, 2 * np.pi, 24.0):
        for start in (0.0, -length / 2):
            before, after = low - start, start + length - high
            slack = 1e-6 * length
            if before >= -slack and after >= -slack and before + after <= 0.02 * length:
                return start, length
    return None
