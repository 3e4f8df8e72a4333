"""A schema: the columns of a table and their kinds, found once, and the pair encode <-> decode that stands on them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from diffeo.data.arrow import parse_type, plain, whole
from diffeo.data.asked import asked_column
from diffeo.data.coding import decode_column, encode_column
from diffeo.data.column import KINDS, Column, Kind, printable
from diffeo.data.grid import Grid, Warp
from diffeo.data.infer import infer_column, layout_of_column
from diffeo.data.kinds import Wish, did_you_mean, wishes
from diffeo.data.leaving import fingerprint, holes_as_null, identifies_rows, reason_to_leave
from diffeo.errors import DataError, ShapeError

__all__ = ["KINDS", "Column", "Grid", "Kind", "Schema", "Warp"]

_NOT_CHOSEN = "not among the columns asked for"
_DROPPED = "dropped, as asked"


class Schema(BaseModel):
    """The modelled columns in the order of the file, the columns left out with the reasons, and notes for the reader.

    >>> table = pa.table({"row": range(1, 41), "cut": ["Good", "Ideal"] * 20, "carat": [0.1, 0.2, 0.3, 0.4] * 10})
    >>> schema = Schema.infer(table, kinds={"cut": "ordered:Good<Ideal"})
    >>> for line in schema.describe():
    ...     print(line)
    cut: ordered, 2 levels: Good < Ideal
    carat: integer in steps of 0.1, 4 levels, 0.1 to 0.4
    row: left out, a row number: 1 to 40 in order
    >>> schema.decode(schema.encode(table)).equals(table.select(["cut", "carat"]))
    True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[Column, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @staticmethod
    def infer(
        table: pa.Table,
        *,
        kinds: Mapping[str, str] | None = None,
        columns: Sequence[str] | None = None,
        drop: Sequence[str] = (),
        given: Sequence[str] = (),
    ) -> "Schema":
        """The kinds of a table's columns, as found or as `kinds` (name or pattern -> kind) overrules.

        `columns` chooses the columns to model and `drop` leaves some out; `given` are those that a density is
        conditioned on. Raises DataError, naming column and row, for names not in the table, overrides that do not
        fit, infinite values, and tables of which nothing is left.
        """
        table = plain(table)
        if table.num_rows < 2:
            raise DataError(f"the table has {_counted(table.num_rows, 'row')}; a density needs at least 2")
        given = tuple(given)
        chosen = _chosen(table.column_names, columns, drop, given)
        wanted = wishes(kinds or {}, table.column_names)
        cells = {name: holes_as_null(whole(table[name])) for name in chosen if chosen[name] is None}
        layouts = {name: layout_of_column(column) for name, column in cells.items()}
        reasons = {name: reason for name, reason in chosen.items() if reason}
        for name in sorted(cells, key=lambda name: name not in given):
            if reason := _reason(name, cells, layouts, wanted, given, reasons):
                reasons[name] = reason
        kept = [name for name in cells if name not in reasons]
        _complete(cells, kept, given, reasons)
        found: list[Column] = []
        notes: list[str] = []
        for name in kept:
            if name in reasons:
                continue
            if wish := wanted.get(name):
                column = asked_column(name, cells[name], layouts[name], wish)
            else:
                column, words = infer_column(name, cells[name], layouts[name])
                notes.extend(words)
            found.append(column.model_copy(update={"role": "given"}) if name in given else column)
        left = tuple((name, reasons[name]) for name in table.column_names if name in reasons)
        return Schema(columns=tuple(found), left_out=left, notes=tuple(notes))

    @property
    def row_columns(self) -> tuple[Column, ...]:
        """The columns that the density is of."""
        return tuple(column for column in self.columns if column.role == "row")

    @property
    def given_columns(self) -> tuple[Column, ...]:
        """The columns that the density is conditioned on."""
        return tuple(column for column in self.columns if column.role == "given")

    @property
    def discrete(self) -> tuple[Column, ...]:
        """The row columns with exact masses."""
        return tuple(column for column in self.row_columns if column.discrete)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all modelled columns."""
        return tuple(column.name for column in self.columns)

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The Arrow type of each modelled column, for reading further files."""
        return {column.name: parse_type(column.type) for column in self.columns}

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise DataError(f"there is no column {name!r}{did_you_mean(name, self.names)}")

    def describe(self) -> list[str]:
        """One line a column, then one for each column left out."""
        lines = [column.describe() for column in self.columns]
        return lines + [f"{printable(name)}: left out, {printable(reason, 200)}" for name, reason in self.left_out]

    def encode(
        self, table: pa.Table, *, given_only: bool = False, row_optional: bool = False, first_row: int = 1
    ) -> np.ndarray:
        """float64 [n, D] over `columns` in order, NaN where a cell is missing (null or NaN).

        `given_only`: [n, D_given] over `given_columns`, from a table that may lack the row columns. `row_optional`:
        row columns that are absent count as missing. `first_row`: the number of the table's first row, for messages.

        Raises DataError, naming column and row, for a column missing, unknown or of another type, a level never seen,
        and +-inf.
        """
        table = plain(table)
        wanted = self.given_columns if given_only else self.columns
        self._check_columns(table.column_names, wanted, row_optional)
        x = np.full((table.num_rows, len(wanted)), np.nan)
        for place, column in enumerate(wanted):
            if column.name in table.column_names:
                x[:, place] = encode_column(column, table[column.name], first_row)
        return x

    def _check_columns(self, present: Sequence[str], wanted: Sequence[Column], row_optional: bool) -> None:
        for column in wanted:
            if column.name not in present and not (row_optional and column.role == "row"):
                others = [name for name in present if name not in self.names]
                raise DataError(
                    f"the column {column.name!r} is missing{did_you_mean(column.name, others)}; "
                    f"the model needs {_listed([column.name for column in wanted])}"
                )
        known = {*self.names, *(name for name, _ in self.left_out)}
        for name in present:
            if name not in known:
                raise DataError(
                    f"the column {name!r} is not one that the model knows{did_you_mean(name, known)}; "
                    "remove it, or fit again with it"
                )

    def decode(self, x: np.ndarray, columns: Sequence[Column] | None = None) -> pa.Table:
        """The table, in the types of the file, of encoded rows x [n, D], [n, D_row], or [n, len(columns)].

        Sampled values are brought onto the column's grid, levels and support; encoded ones come back exactly.
        """
        x = np.asarray(x, float)
        if columns is None:
            width = x.shape[-1] if x.ndim == 2 else -1
            columns = self.columns if width == len(self.columns) else self.row_columns
        if x.ndim != 2 or x.shape[1] != len(columns):
            raise ShapeError(f"expected encoded rows of shape [n, {len(columns)}], got {list(x.shape)}")
        arrays: list[Any] = [decode_column(column, x[:, place]) for place, column in enumerate(columns)]
        return pa.table(arrays, names=[column.name for column in columns])


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _chosen(
    names: Sequence[str], columns: Sequence[str] | None, drop: Sequence[str], given: Sequence[str]
) -> dict[str, str | None]:
    """For each column of the table why the user does not want it; None where he does."""
    for option, asked in (("--columns", columns or ()), ("--drop", drop), ("--given", given)):
        for name in asked:
            if name not in names:
                raise DataError(f"{option}: there is no column {name!r}{did_you_mean(name, names)} in {_listed(names)}")
    if both := [name for name in given if name in drop]:
        raise DataError(f"{both[0]!r} is both given and dropped; choose one")
    chosen: dict[str, str | None] = {}
    for name in names:
        taken = columns is None or name in columns or name in given
        chosen[name] = _DROPPED if name in drop else None if taken else _NOT_CHOSEN
    return chosen


def _reason(
    name: str,
    cells: Mapping[str, pa.Array],
    layouts: Mapping[str, str | None],
    wanted: Mapping[str, Wish],
    given: Sequence[str],
    reasons: Mapping[str, str],
) -> str | None:
    """Why a column is to be left out; columns that the user speaks of by name stay if they can be modelled at all."""
    column = cells[name]
    if reason := reason_to_leave(column):
        return reason
    spoken_of = name in given or (name in wanted and wanted[name].named)
    if not spoken_of and (reason := identifies_rows(name, column, layouts[name] is not None)):
        return reason
    mark = fingerprint(column)
    for other, cells_there in cells.items():
        earlier = other not in reasons and ((other in given) > (name in given) or other in _before(name, cells, given))
        if earlier and cells_there.null_count == column.null_count and fingerprint(cells_there) == mark:
            return f"an exact copy of {other!r}"
    return None


def _before(name: str, cells: Mapping[str, pa.Array], given: Sequence[str]) -> list[str]:
    """The columns of the same role that stand before this one."""
    names = list(cells)
    return [other for other in names[: names.index(name)] if (other in given) == (name in given)]


def _complete(
    cells: Mapping[str, pa.Array], kept: Sequence[str], given: Sequence[str], reasons: dict[str, str]
) -> None:
    """Leave out what is constant among the complete rows; refuse a table with nothing left to learn."""
    full = np.ones(len(next(iter(cells.values()))) if cells else 0, bool)
    for name in kept:
        full &= cells[name].is_valid().to_numpy(zero_copy_only=False)
    if kept and full.sum() < 2:
        holes = sorted(kept, key=lambda name: -cells[name].null_count)[:3]
        raise DataError(
            f"only {_counted(int(full.sum()), 'row')} of {len(full)} without a missing cell, and a density needs 2; "
            f"leave out the columns with most holes: --drop {','.join(holes)}"
        )
    if not full.all():
        for name in kept:
            if len(pc.unique(cells[name].filter(pa.array(full)))) < 2:
                reasons[name] = "constant in the rows that have no missing cell"
    if all(name in reasons or name in given for name in cells):
        said = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:6])
        raise DataError(f"no column is left to learn from ({said or 'all columns are given'})")
