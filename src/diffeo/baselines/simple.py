"""The product of the marginals, and one Gaussian of all numbers."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from diffeo.baselines.common import (
    FARTHEST,
    LOG_2PI,
    RIDGE,
    Cells,
    Codes,
    log_normal_mass,
    moments,
    prepared,
    row_part,
    scored,
)
from diffeo.data.schema import Schema


@dataclass(frozen=True, eq=False)
class Marginals:
    """The product of independent marginals: a Gaussian for each numeric column, integrated over the rounding cell where
    there is one, frequencies for each discrete one and for atoms.

    >>> import pyarrow as pa
    >>> table = pa.table({"sex": ["f", "m"] * 50, "tall": np.random.default_rng(0).normal(170, 10, 100)})
    >>> schema = Schema.infer(table)
    >>> x = schema.encode(table)
    >>> Marginals.fit(x, schema).log_prob(x).mean().round(2)  # -log 2, and -(1 + log(2 pi 10^2)) / 2
    np.float64(-4.38)
    """

    schema: Schema
    codes: Codes
    mean: np.ndarray  # [k]
    scale: np.ndarray  # [k], standard deviations
    name: ClassVar[str] = "product of marginals"

    @staticmethod
    def fit(x: np.ndarray, schema: Schema, weights: np.ndarray | None = None) -> "Marginals":
        """Fit to the rows x [n, D] that have no hole, with weights [n] that are not negative."""
        rows, w = prepared(x, schema, weights)
        values = rows[:, [not column.discrete for column in schema.row_columns]]
        atom = Cells.of(schema.row_columns, rows).atom
        return Marginals(schema, Codes.fit(schema.row_columns, rows, w), *moments(values, w[:, None] * ~atom))

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Log-density [n] in nats of encoded rows x [n, D]; NaN where a cell is missing."""
        rows = row_part(x, self.schema)
        numeric = [(i, column) for i, column in enumerate(self.schema.row_columns) if not column.discrete]
        with np.errstate(invalid="ignore"):
            total = self.codes.log_prob(rows)
            for (i, column), mean, scale in zip(numeric, self.mean, self.scale, strict=True):
                v = rows[:, i]
                if column.grid is None:
                    z = np.clip((v - mean) / scale, -FARTHEST, FARTHEST)
                    found = -0.5 * z**2 - 0.5 * LOG_2PI - np.log(scale)
                else:
                    found = log_normal_mass(*((edge - mean) / scale for edge in column.grid.cell(v)))
                total += np.where(np.isin(v, column.atoms), 0.0, found)
        return scored(rows, total)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """One Gaussian with a full covariance for all numeric columns, times the frequencies of each discrete column.

    The probability of a rounding cell of widths h is taken at its lower bound, the mean log-density over the cell plus
    log h (Jensen): the log-density at the middle, less the trace of inverse covariance times diag(h^2) / 24. It is the
    log-density times the widths where the cells are fine, and no probability above 1 where they are coarse. Where a
    number is an atom, what counts is the atom's frequency and the Gaussian of the other numbers.
    """

    schema: Schema
    codes: Codes
    mean: np.ndarray  # [k]
    scale: np.ndarray  # [k], standard deviations
    root: np.ndarray  # [k, k], the lower Cholesky factor of the correlations
    name: ClassVar[str] = "Gaussian"

    @staticmethod
    def fit(x: np.ndarray, schema: Schema, weights: np.ndarray | None = None) -> "Gaussian":
        """Fit to the rows x [n, D] that have no hole, with weights [n] that are not negative."""
        rows, w = prepared(x, schema, weights)
        cells = Cells.of(schema.row_columns, rows)
        each = w[:, None] * ~cells.atom
        mean, deviation = moments(cells.middle, each)
        z = np.where(cells.atom, 0.0, (cells.middle - mean) / deviation)
        rounding = (np.where(cells.atom, 0.0, cells.width / deviation) ** 2 * w[:, None]).sum(0) / w.sum() / 12
        covariance = (z * w[:, None]).T @ z / w.sum()
        # what atoms leave out of a column's spread goes back onto its diagonal
        missing = np.where(cells.atom.any(0), 1.0 - np.diag(covariance), 0.0)
        root = np.linalg.cholesky(covariance + np.diag(missing + rounding + RIDGE))
        return Gaussian(schema, Codes.fit(schema.row_columns, rows, w), mean, deviation, root)

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Log-density [n] in nats of encoded rows x [n, D]; NaN where a cell is missing."""
        rows = row_part(x, self.schema)
        cells = Cells.of(self.schema.row_columns, rows)
        with np.errstate(invalid="ignore"):
            total = self.codes.log_prob(rows)
        covariance = self.root @ self.root.T
        for which, kept in cells.patterns():
            root = self.root if len(kept) == len(self.mean) else np.linalg.cholesky(covariance[np.ix_(kept, kept)])
            total[which] += self._numbers(cells.at(np.ix_(which, kept)), kept, root)
        return scored(rows, total)

    def _numbers(self, cells: Cells, kept: np.ndarray, root: np.ndarray) -> np.ndarray:
        """The part of the numeric columns `kept` [l], whose correlations have the Cholesky factor `root`: [n]."""
        mean, scale, count = self.mean[kept], self.scale[kept], len(kept)
        if not count:
            return np.zeros(len(cells.middle))
        inverse = np.linalg.solve(root, np.eye(count))
        with np.errstate(invalid="ignore", over="ignore"):
            z = np.clip((cells.middle - mean) / scale, -FARTHEST, FARTHEST)
            spread = (cells.width / scale) ** 2 @ (inverse**2).sum(0) / 12
            square = ((z @ inverse.T) ** 2).sum(1) + spread
            widths = np.log(np.where(cells.width > 0, cells.width, 1.0)).sum(1)
        constant = 0.5 * count * LOG_2PI + np.log(np.diag(root)).sum() + np.log(scale).sum()
        return -0.5 * square - constant + widths
