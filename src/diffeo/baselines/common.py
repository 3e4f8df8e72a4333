"""What the baselines share: the parts of encoded rows, frequencies, moments, masses of cells."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_ndtr

from diffeo.data.column import Column
from diffeo.data.schema import Schema
from diffeo.errors import DataError, ShapeError

LOG_2PI = float(np.log(2 * np.pi))
RIDGE = 1e-6  # of each variance
FARTHEST = 1e150  # standard deviations, so that squares stay finite
_NARROW = 1e-4  # standard deviations; below, the mass of a cell is a short series


def row_part(x: np.ndarray, schema: Schema) -> np.ndarray:
    """The row columns [n, D_row] of encoded rows that hold all columns [n, D], or the row columns alone."""
    x = np.asarray(x, float)
    wide, narrow = len(schema.columns), len(schema.row_columns)
    if x.ndim != 2 or x.shape[1] not in (wide, narrow):
        raise ShapeError(f"expected encoded rows of shape [n, {wide}], got {list(x.shape)}")
    return x[:, [column.role == "row" for column in schema.columns]] if x.shape[1] == wide else x


def log_normal_mass(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """log(Phi(high) - Phi(low)) for low < high, exact far in the tails and for cells of any width.

    A narrow cell of width h around m holds phi(m) h sinh(t)/t with t = m h / 2, but for a factor 1 + O(h^2).

    >>> log_normal_mass(np.array([-1.0, 40.0]), np.array([1.0, 41.0])).round(3).tolist()
    [-0.382, -804.608]
    """
    low, high = np.clip(low, -FARTHEST, FARTHEST), np.clip(high, -FARTHEST, FARTHEST)
    flip = low + high > 0  # to the left half, where log_ndtr is exact
    low, high = np.where(flip, -high, low), np.where(flip, -low, high)
    width, middle = high - low, low / 2 + high / 2
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        t = np.abs(middle) * width / 2
        bulge = np.where(t < 1e-3, t**2 / 6, t - np.log(2 * t) + np.log1p(-np.exp(-2 * t)))
        narrow = -0.5 * middle**2 - 0.5 * LOG_2PI + np.log(width) + bulge
        drop = np.minimum(log_ndtr(low) - log_ndtr(high), -width * np.maximum(-high, 0.0))
        wide = log_ndtr(high) + np.log(-np.expm1(drop))
    return np.where(width < _NARROW, narrow, wide)


def prepared(x: np.ndarray, schema: Schema, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The rows without a hole [m, D_row], and their weights [m], which add up to m."""
    rows = row_part(x, schema)
    w = np.ones(len(rows)) if weights is None else np.asarray(weights, float)
    if w.shape != (len(rows),):
        raise ShapeError(f"expected one weight for each of {len(rows)} rows, got shape {list(w.shape)}")
    whole = ~np.isnan(rows).any(1)
    rows, w = rows[whole], w[whole]
    if not w.sum() > 0:
        raise DataError("there is no row without a missing cell and of positive weight to fit a baseline to")
    return rows, w * (len(w) / w.sum())


def drawn(x: np.ndarray, schema: Schema, weights: np.ndarray | None, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most so many of the rows without a hole [m, D_row], at random; where weights differ, drawn by them."""
    rows, w = prepared(x, schema, weights)
    if np.ptp(w) > 1e-9:
        return rows[rng.choice(len(rows), min(len(rows), most), p=w / w.sum())]
    return rows[rng.permutation(len(rows))[:most]]


def moments(v: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations [k] of columns v [n, k] by weights [n, k]; safe for any magnitude, and never zero;
    0 and 1 where a column has no weight."""
    some = weights.sum(0) > 0
    weights = np.where(some, weights, 1.0)
    v = np.where(weights > 0, v, 0.0)
    size = np.maximum(np.abs(v).max(0), np.finfo(float).tiny)
    mean = (v / size * weights).sum(0) / weights.sum(0)
    deviation = np.sqrt(((v / size - mean) ** 2 * weights).sum(0) / weights.sum(0))
    return np.where(some, mean * size, 0.0), np.where(some, np.maximum(deviation, 1e-9) * size, 1.0)


class Cells(NamedTuple):
    """The numeric columns of n rows: the middle and the width [n, k] of their rounding cells (the value and 0 where
    there are none), and which are atoms [n, k]."""

    middle: np.ndarray
    width: np.ndarray
    atom: np.ndarray

    @staticmethod
    def of(columns: Sequence[Column], rows: np.ndarray) -> "Cells":
        """Of rows [n, D_row]."""
        numeric = [(column, v) for column, v in zip(columns, rows.T, strict=True) if not column.discrete]
        parts = np.zeros((2, len(rows), len(numeric)))
        atom = np.zeros((len(rows), len(numeric)), bool)
        for j, (column, v) in enumerate(numeric):
            low, high = column.grid.cell(v) if column.grid is not None else (v, v)
            parts[:, :, j] = low / 2 + high / 2, high - low
            atom[:, j] = np.isin(v, column.atoms)
        return Cells(parts[0], parts[1], atom)

    def at(self, index: Any) -> "Cells":
        """The cells at an index of rows, or of rows and columns."""
        return Cells(self.middle[index], self.width[index], self.atom[index])

    def patterns(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows [m], columns [l]) for every way in which cells are atoms: those rows, and the columns that are none."""
        for pattern in np.unique(self.atom, axis=0):
            yield np.flatnonzero((self.atom == pattern).all(1)), np.flatnonzero(~pattern)


@dataclass(frozen=True, eq=False)
class Frequencies:
    """The smoothed frequencies, as logarithms [L], of the levels of one discrete column, or of none and each of the
    atoms of a number."""

    column: Column
    logs: np.ndarray

    @staticmethod
    def fit(column: Column, v: np.ndarray, weights: np.ndarray) -> "Frequencies":
        codes = codes_of(column, v)
        levels = len(column.levels) if column.discrete else 1 + len(column.atoms)
        counts = np.bincount(codes[codes >= 0], weights[codes >= 0], minlength=levels)
        return Frequencies(column, np.log((counts + 1) / (counts.sum() + levels)))

    def log_prob(self, v: np.ndarray) -> np.ndarray:
        codes = codes_of(self.column, v)
        return np.where(codes < 0, -np.inf, self.logs[codes])


def codes_of(column: Column, v: np.ndarray) -> np.ndarray:
    """Places among the levels [n], -1 outside; of a number 0, or which of its atoms."""
    if column.discrete:
        return column.codes(v)
    return np.select([v == atom for atom in column.atoms], list(range(1, len(column.atoms) + 1)), 0).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Codes:
    """The frequencies of every discrete column and of atoms, as if they were independent."""

    parts: tuple[Frequencies | None, ...]

    @staticmethod
    def fit(columns: Sequence[Column], rows: np.ndarray, weights: np.ndarray) -> "Codes":
        return Codes(
            tuple(
                Frequencies.fit(column, v, weights) if column.discrete or column.atoms else None
                for column, v in zip(columns, rows.T, strict=True)
            )
        )

    def log_prob(self, rows: np.ndarray) -> np.ndarray:
        """Of rows [n, D_row]: [n]."""
        total = np.zeros(len(rows))
        for part, v in zip(self.parts, rows.T, strict=True):
            if part is not None:
                total += part.log_prob(v)
        return total


def scored(rows: np.ndarray, log_prob: np.ndarray) -> np.ndarray:
    """Log-densities [n] of rows [n, D_row], NaN where a cell is missing."""
    return np.where(np.isnan(rows).any(1), np.nan, log_prob)


def of_whole(x: np.ndarray, schema: Schema, log_prob: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Log-densities [n] of encoded rows x [n, D], asked for the rows without a hole alone; NaN for the others."""
    rows = row_part(x, schema)
    whole = ~np.isnan(rows).any(1)
    found = np.full(len(rows), np.nan)
    found[whole] = log_prob(rows[whole])
    return found
