"""Encoded rows, sorted by what a density has to do with each cell: exact masses, angles, numbers, and what is given.

A rounded number stands for its whole rounding cell [low, low + width]; a number that is one of its column's atoms (a
value with a spike of mass) gets a code of its own among the masses, and its place among the numbers is left free.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from diffeo.data.column import Column
from diffeo.data.schema import Schema

__all__ = ["Layout", "Rows"]

OFF_GRID = 1e-6  # of a cell: further from its grid value (exact masses) or its cell, a value is impossible


@dataclass(frozen=True)
class Rows:
    """n rows: codes [n, q], angles [n, a], low and width [n, d], which cells are atoms [n, d], what is given."""

    codes: Tensor
    angles: Tensor
    low: Tensor
    width: Tensor
    atom: Tensor
    given_codes: Tensor
    given_numbers: Tensor
    possible: Tensor

    def __getitem__(self, index: Tensor | slice) -> "Rows":
        """The rows at indices, a slice or a mask."""
        return Rows(*(part[index] for part in self.parts()))

    def to(self, device: torch.device) -> "Rows":
        return Rows(*(part.to(device) for part in self.parts()))

    def parts(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    @property
    def n(self) -> int:
        return int(self.possible.shape[0])


@dataclass(frozen=True)
class Layout:
    """Where the columns of encoded rows x [n, D] go; `D_row` of them are modelled, the rest given."""

    schema: Schema

    @cached_property
    def _placed(self) -> list[tuple[int, Column]]:
        return list(enumerate(self.schema.columns))

    @cached_property
    def discrete(self) -> list[tuple[int, Column]]:
        """Place in x and column of everything with exact masses."""
        return [(i, c) for i, c in self._placed if c.role == "row" and c.discrete]

    @cached_property
    def angular(self) -> list[tuple[int, Column]]:
        return [(i, c) for i, c in self._placed if c.role == "row" and c.kind == "circular"]

    @cached_property
    def smooth(self) -> list[tuple[int, Column]]:
        """The numbers: everything else of the row."""
        taken = {i for i, _ in self.discrete + self.angular}
        return [(i, c) for i, c in self._placed if c.role == "row" and i not in taken]

    @cached_property
    def spiked(self) -> list[tuple[int, Column]]:
        """Place among the numbers, and column, of those that have atoms."""
        return [(j, c) for j, (_, c) in enumerate(self.smooth) if c.atoms]

    @cached_property
    def sizes(self) -> list[int]:
        """How many levels each code has: the discrete columns', then none-or-which atom of each spiked number."""
        return [len(c.levels) for _, c in self.discrete] + [1 + len(c.atoms) for _, c in self.spiked]

    @cached_property
    def open_ended(self) -> list[bool]:
        """Which codes may run past their levels at either end: whole numbers and other grids."""
        return [_open(c) for _, c in self.discrete] + [False] * len(self.spiked)

    @cached_property
    def ordinal(self) -> list[bool]:
        """Which codes have an order."""
        return [c.kind in ("integer", "ordered") for _, c in self.discrete] + [False] * len(self.spiked)

    @cached_property
    def given_discrete(self) -> list[tuple[int, Column]]:
        return [(i, c) for i, c in self._placed if c.role == "given" and c.discrete]

    @cached_property
    def given_numeric(self) -> list[tuple[int, Column]]:
        return [(i, c) for i, c in self._placed if c.role == "given" and not c.discrete]

    @cached_property
    def free(self) -> list[int]:
        """Place among the numbers of those that have free places: a rounding cell, or atoms."""
        return [j for j, (_, c) in enumerate(self.smooth) if c.grid is not None or c.atoms]

    @cached_property
    def given_sizes(self) -> list[int]:
        return [len(c.levels) for _, c in self.given_discrete]

    @cached_property
    def given_ordinal(self) -> list[bool]:
        return [c.kind != "category" for _, c in self.given_discrete]

    @property
    def rounded(self) -> list[str]:
        """The names of the columns whose part of a log-probability is a bound."""
        return [self.smooth[j][1].name for j in self.free]

    def rows(self, x: np.ndarray) -> Rows:
        """Encoded rows x [n, D], without a missing cell -> Rows."""
        possible = np.ones(len(x), bool)
        codes = np.zeros((len(x), len(self.sizes)), np.int64)
        for k, (i, column) in enumerate(self.discrete):
            codes[:, k], on_level = _codes(column, x[:, i])
            possible &= on_level
        low, width = np.zeros((2, len(x), len(self.smooth)))
        atom = np.zeros((len(x), len(self.smooth)), bool)
        for j, (i, column) in enumerate(self.smooth):
            low[:, j] = x[:, i]
            if column.grid is not None:
                low[:, j], high = column.grid.cell(x[:, i])
                width[:, j] = high - low[:, j]
                near = OFF_GRID * width[:, j] + column.grid.slack
                possible &= (x[:, i] >= low[:, j] - near) & (x[:, i] <= high + near)  # a warp has no cells below 0
        for k, (j, column) in enumerate(self.spiked, len(self.discrete)):
            for which, value in enumerate(column.atoms, 1):
                codes[x[:, self.smooth[j][0]] == value, k] = which
            atom[:, j] = codes[:, k] > 0
        given_codes = [_codes(c, x[:, i])[0].clip(0, len(c.levels) - 1) for i, c in self.given_discrete]
        return Rows(
            torch.from_numpy(codes),
            torch.from_numpy(_stack([_angle(c, x[:, i]) for i, c in self.angular], len(x))),
            torch.from_numpy(low),
            torch.from_numpy(width),
            torch.from_numpy(atom),
            torch.from_numpy(_stack(given_codes, len(x), np.int64)),
            torch.from_numpy(_stack([f for i, c in self.given_numeric for f in _numbers(c, x[:, i])], len(x))),
            torch.from_numpy(possible),
        )

    def encoded(self, codes: np.ndarray, angles: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """The row columns [n, D_row] of encoded rows, from codes, angles and numbers; the inverse of `rows`."""
        x = np.full((len(codes), len(self.schema.columns)), np.nan)
        for k, (i, column) in enumerate(self.discrete):
            x[:, i] = codes[:, k] if column.coded else column.stepped(codes[:, k])
        for k, (i, column) in enumerate(self.angular):
            start, length = column.turn
            x[:, i] = start + np.mod(angles[:, k] + np.pi, 2 * np.pi) / (2 * np.pi) * length
        for j, (i, column) in enumerate(self.smooth):
            x[:, i] = _inside(column, numbers[:, j])
        for k, (j, column) in enumerate(self.spiked, len(self.discrete)):
            value = np.array([np.nan, *column.atoms])[codes[:, k]]
            i = self.smooth[j][0]
            x[:, i] = np.where(codes[:, k] > 0, value, x[:, i])
        return x[:, [i for i, c in self._placed if c.role == "row"]]


def _open(column: Column) -> bool:
    return column.kind == "integer" and column.grid is not None and len(column.levels) > 2


def _codes(column: Column, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The place of each value among the levels (beyond them for whole numbers), and whether it is possible at all."""
    if column.coded:
        place = np.rint(x)
        on_grid = place == x
    else:
        assert column.grid is not None
        place = column.steps(x)
        low, high = column.grid.cell(x)
        on_grid = np.abs(column.stepped(place) - x) <= OFF_GRID * (high - low) + column.grid.slack
    seen = (place >= 0) & (place < len(column.levels))
    return np.clip(place, -(2.0**40), 2.0**40).astype(np.int64), on_grid & (seen | _open(column))


def _inside(column: Column, x: np.ndarray) -> np.ndarray:
    """Values x [n] within the support and the finite numbers of the column's type, which a draw far out may leave."""
    kind = {"float": np.float32, "halffloat": np.float16}.get(column.type, np.float64)
    positive = column.kind == "positive" or (column.grid is not None and column.grid.warp == "reciprocal")
    ends = np.array(column.bounds or (0.0 if positive else -np.inf, np.inf), dtype=kind)
    low, high = np.nextafter(ends, ends[::-1])
    return np.clip(x, low, high)


def _angle(column: Column, x: np.ndarray) -> np.ndarray:
    """Radians in [-pi, pi) of a circular column."""
    start, length = column.turn
    return np.mod((x - start) / length, 1.0) * 2 * np.pi - np.pi


def _numbers(column: Column, x: np.ndarray) -> list[np.ndarray]:
    """What a net reads of a given number: itself, or its sine and cosine on the circle."""
    if column.kind != "circular":
        return [x]
    angle = _angle(column, x)
    return [np.sin(angle), np.cos(angle)]


def _stack(columns: Sequence[np.ndarray], n: int, dtype: type = np.float64) -> np.ndarray:
    return np.stack(columns, 1).astype(dtype) if columns else np.zeros((n, 0), dtype)
