"""Densities that a flow must beat: the product of the marginals, and one Gaussian of all numbers.

Both score encoded rows x [n, D] of a schema in nats and in the units of the file, as a model does: a density where a
column is continuous, the probability of the rounding cell where it is rounded, a probability where it is discrete.
Columns that are given are no part of either.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from diffeo.data.column import Column
from diffeo.data.grid import Grid
from diffeo.data.schema import Schema
from diffeo.errors import DataError, ShapeError

__all__ = ["Gaussian", "Marginals", "log_normal_mass", "row_part"]

_LOG_2PI = float(np.log(2 * np.pi))
_RIDGE = 1e-6  # of each variance
_NARROW = 1e-4  # standard deviations; below, the mass of a cell is a short series
_FARTHEST = 1e150  # standard deviations, so that squares stay finite


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
    low, high = np.clip(low, -_FARTHEST, _FARTHEST), np.clip(high, -_FARTHEST, _FARTHEST)
    flip = low + high > 0  # to the left half, where log_ndtr is exact
    low, high = np.where(flip, -high, low), np.where(flip, -low, high)
    width, middle = high - low, low / 2 + high / 2
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        t = np.abs(middle) * width / 2
        bulge = np.where(t < 1e-3, t**2 / 6, t - np.log(2 * t) + np.log1p(-np.exp(-2 * t)))
        narrow = -0.5 * middle**2 - 0.5 * _LOG_2PI + np.log(width) + bulge
        drop = np.minimum(log_ndtr(low) - log_ndtr(high), -width * np.maximum(-high, 0.0))
        wide = log_ndtr(high) + np.log(-np.expm1(drop))
    return np.where(width < _NARROW, narrow, wide)


@dataclass(frozen=True, eq=False)
class _Bell:
    """A Gaussian of one column, in the units of the file; integrated over the rounding cell where there is one."""

    mean: float
    deviation: float
    grid: Grid | None

    def log_prob(self, v: np.ndarray) -> np.ndarray:
        if self.grid is None:
            z = np.clip((v - self.mean) / self.deviation, -_FARTHEST, _FARTHEST)
            return -0.5 * z**2 - 0.5 * _LOG_2PI - np.log(self.deviation)
        low, high = ((edge - self.mean) / self.deviation for edge in self.grid.cell(v))
        return log_normal_mass(low, high)


@dataclass(frozen=True, eq=False)
class _Masses:
    """The smoothed frequencies of the levels of one discrete column, as logarithms [L]."""

    column: Column
    logs: np.ndarray

    @staticmethod
    def fit(column: Column, v: np.ndarray, weights: np.ndarray) -> "_Masses":
        codes, levels = column.codes(v), len(column.levels)
        counts = np.bincount(codes[codes >= 0], weights[codes >= 0], minlength=levels)
        return _Masses(column, np.log((counts + 1) / (counts.sum() + levels)))

    def log_prob(self, v: np.ndarray) -> np.ndarray:
        codes = self.column.codes(v)
        return np.where(codes < 0, -np.inf, self.logs[codes])


def _prepared(x: np.ndarray, schema: Schema, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
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


def _moments(v: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations [k] of columns [n, k]; safe for any magnitude, and never zero."""
    size = np.maximum(np.abs(v).max(0), np.finfo(float).tiny)
    scaled = v / size
    mean = np.average(scaled, axis=0, weights=weights)
    deviation = np.sqrt(np.average((scaled - mean) ** 2, axis=0, weights=weights))
    return mean * size, np.maximum(deviation, 1e-9) * size


def _scored(rows: np.ndarray, log_prob: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(rows).any(1), np.nan, log_prob)


@dataclass(frozen=True, eq=False)
class Marginals:
    """The product of independent marginals: a Gaussian for each numeric column, frequencies for each discrete one.

    >>> import pyarrow as pa
    >>> table = pa.table({"sex": ["f", "m"] * 50, "tall": np.random.default_rng(0).normal(170, 10, 100)})
    >>> schema = Schema.infer(table)
    >>> x = schema.encode(table)
    >>> Marginals.fit(x, schema).log_prob(x).mean().round(2)  # -log 2, and -(1 + log(2 pi 10^2)) / 2
    np.float64(-4.38)
    """

    schema: Schema
    parts: tuple[_Bell | _Masses, ...]

    @staticmethod
    def fit(x: np.ndarray, schema: Schema, weights: np.ndarray | None = None) -> "Marginals":
        """Fit to the rows x [n, D] that have no hole, with weights [n] that are not negative."""
        rows, w = _prepared(x, schema, weights)
        parts: list[_Bell | _Masses] = []
        for column, v in zip(schema.row_columns, rows.T, strict=True):
            if column.discrete:
                parts.append(_Masses.fit(column, v, w))
            else:
                mean, deviation = _moments(v[:, None], w)
                parts.append(_Bell(float(mean[0]), float(deviation[0]), column.grid))
        return Marginals(schema, tuple(parts))

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Log-density [n] in nats of encoded rows x [n, D]; NaN where a cell is missing."""
        rows = row_part(x, self.schema)
        total = np.zeros(len(rows))
        with np.errstate(invalid="ignore"):
            for part, v in zip(self.parts, rows.T, strict=True):
                total += part.log_prob(v)
        return _scored(rows, total)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """One Gaussian with a full covariance for all numeric columns, times the frequencies of each discrete column.

    The probability of a rounding cell of widths h is taken at its lower bound, the mean log-density over the cell plus
    log h (Jensen): the log-density at the middle, less the trace of inverse covariance times diag(h^2) / 24. It is the
    log-density times the widths where the cells are fine, and no probability above 1 where they are coarse.
    """

    schema: Schema
    masses: tuple[_Masses, ...]
    mean: np.ndarray  # [k]
    scale: np.ndarray  # [k], standard deviations
    root: np.ndarray  # [k, k], the lower Cholesky factor of the correlations

    @staticmethod
    def fit(x: np.ndarray, schema: Schema, weights: np.ndarray | None = None) -> "Gaussian":
        """Fit to the rows x [n, D] that have no hole, with weights [n] that are not negative."""
        rows, w = _prepared(x, schema, weights)
        columns = schema.row_columns
        masses = tuple(_Masses.fit(column, v, w) for column, v in zip(columns, rows.T, strict=True) if column.discrete)
        middle, width = _cells(columns, rows)
        mean, deviation = _moments(middle, w)
        z = (middle - mean) / deviation
        rounding = np.average((width / deviation) ** 2, axis=0, weights=w) / 12 if len(mean) else np.zeros(0)
        covariance = (z * w[:, None]).T @ z / w.sum() + np.diag(rounding + _RIDGE)
        return Gaussian(schema, masses, mean, deviation, np.linalg.cholesky(covariance))

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Log-density [n] in nats of encoded rows x [n, D]; NaN where a cell is missing."""
        rows = row_part(x, self.schema)
        columns = self.schema.row_columns
        discrete = [v for column, v in zip(columns, rows.T, strict=True) if column.discrete]
        total = np.zeros(len(rows))
        for part, v in zip(self.masses, discrete, strict=True):
            total += part.log_prob(v)
        return _scored(rows, total + self._numbers(*_cells(columns, rows)))

    def _numbers(self, middle: np.ndarray, width: np.ndarray) -> np.ndarray:
        """The part of the numeric columns [n]; `width` [n, k] is zero where a column has no cells."""
        count = len(self.mean)
        if not count:
            return np.zeros(len(middle))
        inverse = np.linalg.solve(self.root, np.eye(count))
        with np.errstate(invalid="ignore", over="ignore"):
            z = np.clip((middle - self.mean) / self.scale, -_FARTHEST, _FARTHEST)
            spread = (width / self.scale) ** 2 @ (inverse**2).sum(0) / 12
            square = ((z @ inverse.T) ** 2).sum(1) + spread
            cells = np.log(np.where(width > 0, width, 1.0)).sum(1)
        constant = 0.5 * count * _LOG_2PI + np.log(np.diag(self.root)).sum() + np.log(self.scale).sum()
        return -0.5 * square - constant + cells


def _cells(columns: Sequence[Column], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(middle, width) [n, k] of the rounding cells of the numeric columns; the value and 0 where there are none."""
    middles, widths = [], []
    for column, v in zip(columns, rows.T, strict=True):
        if column.discrete:
            continue
        low, high = column.grid.cell(v) if column.grid is not None else (v, v)
        middles.append(low / 2 + high / 2)
        widths.append(high - low)
    if not middles:
        return np.zeros((len(rows), 0)), np.zeros((len(rows), 0))
    return np.stack(middles, 1), np.stack(widths, 1)
