"""A column of the kind that the user asked for, or the reason why it cannot be, with the row at fault."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diffeo.data.arrow import is_date, is_number, is_text, numbers, word
from diffeo.data.coding import check_finite
from diffeo.data.column import Column
from diffeo.data.grid import Grid
from diffeo.data.infer import Facts, above_zero, datetime_column, full_turn, grid_levels
from diffeo.data.kinds import Wish
from diffeo.data.leaving import most_levels
from diffeo.data.rounding import find_grid
from diffeo.data.spread import Spread
from diffeo.errors import DataError

_MOST_INTEGERS = 4096


def asked_column(name: str, column: pa.Array, layout: str | None, wish: Wish) -> Column:
    """The column as the wish has it; `column` [n] has NaN as null. DataError where the values do not fit.

    >>> asked_column("a", pa.array([0.5, 2.0]), None, Wish("bounded", (0.0, 3.0))).describe()
    'a: bounded by 0 and 3, positive, 0.5 to 2'
    """
    base: Facts = {"name": name, "type": str(column.type), "missing": column.null_count}
    cells = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    if wish.kind == "datetime":
        if layout is None and not is_date(cells.type):
            raise DataError(
                f"column {name!r} is {word(cells.type)} and no date; write ISO dates such as 2013-01-01T06:00:00Z"
            )
        return datetime_column(base, cells, layout)
    if wish.kind in ("category", "boolean", "ordered"):
        return Column(**base, kind=wish.kind, levels=_levels(name, column, cells, wish))
    if not is_number(cells.type):
        raise DataError(
            f"column {name!r} is {word(cells.type)} and cannot be {wish.kind}; leave it out with --drop {name}, "
            f"or overrule it with --kind {name}={'datetime' if layout or is_date(cells.type) else 'category'}"
        )
    x = numbers(cells)
    check_finite(name, x)
    v = x[~np.isnan(x)]
    base |= {"low": float(v.min()), "high": float(v.max())}
    if wish.kind == "integer":
        return _integer(base, v, pa.types.is_float32(cells.type))
    if wish.kind == "rounded":
        grid = _grid(name, x, wish, pa.types.is_float32(cells.type))
        return Column(**base, kind="rounded", grid=grid, positive=above_zero(v, grid))
    facts: Facts = {"kind": wish.kind, "positive": bool(v.min() > 0)}
    return Column(**base, **facts, **_support(name, x, wish))


def _row(mask: np.ndarray) -> int:
    return int(np.flatnonzero(mask)[0]) + 1


def _support(name: str, x: np.ndarray, wish: Wish) -> Facts:
    """Bounds or period of the wish, checked against every row."""
    if wish.kind == "positive" and (bad := x <= 0).any():
        row = _row(bad)
        raise DataError(
            f"column {name!r}, row {row}: {x[row - 1]:g} is not above 0, so the column cannot be positive; "
            f"say --kind {name}=continuous or leave the row out"
        )
    if wish.kind in ("unit", "bounded"):
        low, high = wish.numbers or (0.0, 1.0)
        if wish.kind == "bounded" and not wish.numbers:
            raise DataError(f"column {name!r}: say its bounds, as in --kind {name}=bounded:0:10")
        if (bad := (x <= low) | (x >= high)).any():
            row, least, most = _row(bad), float(np.nanmin(x)), float(np.nanmax(x))
            room = 0.01 * (max(most, high) - min(least, low))
            raise DataError(
                f"column {name!r}, row {row}: {x[row - 1]:g} is not between {low:g} and {high:g} (a density has none "
                f"on its bounds); widen them, as in --kind {name}=bounded:{least - room:g}:{most + room:g}"
            )
        return {"bounds": (low, high)}
    return {"period": _period(name, x[~np.isnan(x)], wish)} if wish.kind == "circular" else {}


def _period(name: str, v: np.ndarray, wish: Wish) -> tuple[float, float]:
    if len(wish.numbers) == 2:
        return wish.numbers[0], wish.numbers[1] - wish.numbers[0]
    if len(wish.numbers) == 1:
        length = wish.numbers[0]
        return (-length / 2 if v.min() < 0 and v.max() <= length / 2 else 0.0), length
    found = full_turn(v)
    if found is None:
        raise DataError(
            f"column {name!r}: its values ({v.min():g} to {v.max():g}) do not show their period; "
            f"say it, as in --kind {name}=circular:360"
        )
    return found


def _integer(base: Facts, v: np.ndarray, single: bool) -> Column:
    spread = Spread.of(v)
    name = base["name"]
    if len(spread.values) < 2:
        raise DataError(f"column {name!r} is constant and cannot be integer")
    grid = find_grid(spread.values, stored_single=single)
    if grid is None:
        raise DataError(f"column {name!r}: its values are no multiples of one step, so it cannot be integer")
    ends = grid.index(spread.values[[0, -1]])
    if ends[1] - ends[0] >= _MOST_INTEGERS:
        raise DataError(
            f"column {name!r} would have {ends[1] - ends[0] + 1:.0f} levels, too many for exact masses "
            f"(at most {_MOST_INTEGERS}); say --kind {name}=rounded"
        )
    levels = grid_levels(spread, grid)
    return Column(**base, kind="integer", grid=grid, levels=levels, positive=above_zero(v, grid))


def _grid(name: str, x: np.ndarray, wish: Wish, single: bool) -> Grid:
    """The grid asked for, or the one found; every row lies on it."""
    v = x[~np.isnan(x)]
    if not wish.numbers:
        grid = find_grid(np.unique(v), stored_single=single, warps=True)
        if grid is None:
            raise DataError(
                f"column {name!r}: its values lie on no grid, so it cannot be rounded; say --kind {name}=continuous"
            )
        return grid
    step = wish.numbers[0]
    digits = next((digits for digits in range(13) if abs(step * 10**digits - round(step * 10**digits)) < 1e-9), None)
    # the values may all be shifted by the same amount; the first decides
    offset = round(float(v[0]) % step, 12)
    offset = 0.0 if min(offset, step - offset) < 1e-3 * step else offset
    if offset and digits is not None:
        digits = next((d for d in range(digits, 13) if abs(offset * 10**d - round(offset * 10**d)) < 1e-9), None)
    grid = Grid(step=step, offset=offset, digits=digits, single=single)
    stray = np.abs(x - grid.snap(x))
    if (bad := stray > 1e-3 * step + np.spacing(np.abs(x)) * 4).any():
        row = _row(bad)
        raise DataError(
            f"column {name!r}, row {row}: {x[row - 1]:.10g} is no multiple of {step:g}; give the step that the values "
            f"have, or --kind {name}=rounded to find it"
        )
    worst = float(np.nanmax(stray))
    return grid.model_copy(update={"slack": worst * (1 + 1e-9)}) if worst else grid


def _levels(name: str, column: pa.Array, cells: pa.Array, wish: Wish) -> tuple[bool | float | str, ...]:
    """The levels of a wish for category, boolean or ordered."""
    if is_date(cells.type):
        raise DataError(f"column {name!r} is a date and cannot be {wish.kind}; say --kind {name}=datetime")
    if is_number(cells.type):
        cells = pa.array(numbers(cells), from_pandas=True)
    seen = pc.value_counts(cells.drop_null())
    found, counts = seen.field(0).to_pylist(), seen.field(1).to_numpy()
    if wish.levels:
        return _given_levels(name, cells, wish)
    if wish.kind == "boolean" and len(found) != 2:
        raise DataError(f"column {name!r} has {len(found)} different values, so it cannot be boolean; say category")
    too_many = max(_MOST_INTEGERS, most_levels(len(cells)))
    if len(found) > too_many or (is_text(cells.type) and len(found) == counts.sum() > 2):
        raise DataError(
            f"column {name!r} is no category: {len(found)} different values in {int(counts.sum())} rows; "
            f"leave it out with --drop {name}"
        )
    if wish.kind == "ordered" and is_text(cells.type):
        if pa.types.is_dictionary(column.type) and column.type.ordered:
            return tuple(level for level in column.dictionary.to_pylist() if level in set(found))
        example = "<".join(sorted(found)[:4])
        raise DataError(f"column {name!r}: say the order of its levels, as in --kind '{name}=ordered:{example}'")
    return tuple(sorted(found))


def _given_levels(name: str, cells: pa.Array, wish: Wish) -> tuple[bool | float | str, ...]:
    levels: tuple[bool | float | str, ...] = wish.levels
    if not is_text(cells.type):
        try:
            levels = tuple(float(level) for level in wish.levels)
        except ValueError:
            raise DataError(f"column {name!r} holds numbers, but {wish.levels} are not all numbers") from None
    unknown = pc.and_(cells.is_valid(), pc.invert(pc.is_in(cells, pa.array(levels)))).to_numpy(zero_copy_only=False)
    if unknown.any():
        row = _row(unknown)
        raise DataError(
            f"column {name!r}, row {row}: {cells[row - 1].as_py()!r:.60} is not among the levels "
            f"{' < '.join(wish.levels)}; add it where it belongs"
        )
    return levels
