"""Gaussian mixtures: one of all numbers, or one for each combination of the discrete columns."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from diffeo.baselines.common import LOG_2PI, RIDGE, Cells, Codes, codes_of, drawn, moments, of_whole, prepared
from diffeo.climb import climbed, heights
from diffeo.data.schema import Schema
from diffeo.quantized import POINTS, lattice

SIZES = (1, 2, 4, 8, 16)
ITERATIONS = 60
ROWS = 20_000  # EM looks at so many at most
FINE = 0.3  # standard deviations of a component; the mass of a narrower cell is density times width, to 0.4 %
MOST = 30  # combinations of levels that get a mixture of their own
ROWS_EACH = 10  # rows for each combination, times one more than the numbers
_FURTHEST = 1e50  # standard deviations
_CHUNK = 200_000  # numbers whitened at a time


def affordable_rows(k: int, seconds: float) -> int:
    """How many rows of k numbers EM can look at in so many seconds, by a rough model of its cost; a function of the
    numbers alone, so that a run can be repeated.

    >>> affordable_rows(5, 100.0), 300 <= affordable_rows(5, 0.4) < affordable_rows(2, 0.4)
    (20000, True)
    """
    each = ITERATIONS * sum(SIZES) * (1.2e-10 * k * k + 1e-8)
    return int(min(ROWS, max(300, seconds / each)))


def standardised(cells: Cells, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(z [n, k], mean [k], scale [k]): standardised numbers, each at a random place of its rounding cell, and standard
    normal in the place of an atom."""
    even = cells.middle + cells.width * (rng.random(cells.width.shape) - 0.5)
    mean, scale = moments(even, (~cells.atom).astype(float))
    return np.where(cells.atom, rng.normal(size=even.shape), (even - mean) / scale), mean, scale


@dataclass(frozen=True, eq=False)
class Numbers:
    """A Gaussian mixture of k numbers in standard units: weights [m], means [m, k], covariances [m, k, k]."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @staticmethod
    def fit(cells: Cells, rng: np.random.Generator, seed: int = 0) -> "Numbers":
        """By EM, the size by the Bayesian information criterion (Schwarz 1978): doubled as long as that helps."""
        z, mean, scale = standardised(cells, rng)
        n, k = z.shape
        if not k:
            return Numbers(mean, scale, np.ones(1), np.zeros((1, 0)), np.zeros((1, 0, 0)))
        best, least = None, np.inf
        for size in (size for size in SIZES if size == 1 or size * (k + 1) <= n):
            try:
                fit = climbed(z, size, RIDGE, seed)
            except ValueError:  # a component collapsed
                break
            numbers = size * (1 + k + k * (k + 1) // 2) - 1
            score = numbers * np.log(n) - 2 * float(heights(z, *fit).sum())
            if not score < least:
                break
            best, least = fit, score
        if best is None:
            return Numbers(mean, scale, np.ones(1), z.mean(0)[None], np.diag(z.var(0) + RIDGE)[None])
        return Numbers(mean, scale, *best)

    @property
    def size(self) -> int:
        return len(self.weights)

    def log_prob(self, cells: Cells) -> np.ndarray:
        """[n]; of a cell's mass the bound that a model's has too: the mean over fixed points of the cell."""
        total = np.zeros(len(cells.middle))
        for which, kept in cells.patterns():
            if len(kept):
                total[which] = self._kept(cells.at(np.ix_(which, kept)), kept)
        return total

    def _kept(self, cells: Cells, kept: np.ndarray) -> np.ndarray:
        """The marginal of the columns `kept` [l], of which no cell is an atom."""
        scale, width = self.scale[kept], cells.width / self.scale[kept]
        covariances = self.covariances[:, kept[:, None], kept]
        narrowest = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2)).min(0)
        wide = np.flatnonzero(width.max(0, initial=0.0) > FINE * narrowest)
        place = np.zeros((POINTS if len(wide) else 1, len(kept)))
        place[:, wide] = lattice(len(place), len(wide)).numpy() - 0.5
        with np.errstate(over="ignore", invalid="ignore"):
            z = np.clip((cells.middle - self.mean[kept]) / scale, -_FURTHEST, _FURTHEST)
            volume = np.log(np.where(cells.width > 0, cells.width, 1.0)).sum(1) - np.log(scale).sum()
        roots, rows = np.linalg.cholesky(covariances), max(1, _CHUNK // (len(place) * len(kept)))
        found = np.empty(len(z))
        for i in range(0, len(z), rows):
            part = (z[i : i + rows, None] + place * width[i : i + rows, None]).reshape(-1, len(kept))
            each = _log_mixture(part, self.weights, self.means[:, kept], roots)
            found[i : i + rows] = logsumexp(each.reshape(-1, len(place)), axis=1) - np.log(len(place))
        return np.asarray(found + volume)


def _log_mixture(z: np.ndarray, weights: np.ndarray, means: np.ndarray, roots: np.ndarray) -> np.ndarray:
    """Of rows z [n, l]: [n]; `roots` [m, l, l], the lower Cholesky factors of the covariances."""
    heights = np.log(weights + 1e-300) - np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(1)
    each = [
        height - 0.5 * np.square(solve_triangular(root, (z - mean).T, lower=True, check_finite=False)).sum(0)
        for height, mean, root in zip(heights, means, roots, strict=True)
    ]
    return np.asarray(logsumexp(each, axis=0)) - 0.5 * z.shape[1] * LOG_2PI


@dataclass(frozen=True, eq=False)
class Mixture:
    """A Gaussian mixture of all numeric columns, times the frequencies of each discrete column and of atoms.

    >>> import pyarrow as pa
    >>> rng = np.random.default_rng(0)
    >>> schema = Schema.infer(pa.table({"a": np.concatenate([rng.normal(-5, 1, 200), rng.normal(5, 1, 200)])}))
    >>> x = np.concatenate([rng.normal(-5, 1, (200, 1)), rng.normal(5, 1, (200, 1))])
    >>> Mixture.fit(x, schema).name
    'Gaussian mixture of 2 (BIC)'
    """

    schema: Schema
    codes: Codes
    numbers: Numbers

    @staticmethod
    def fit(x: np.ndarray, schema: Schema, weights: np.ndarray | None = None, seconds: float = 2.0) -> "Mixture | None":
        """Fit to the rows x [n, D] that have no hole, with weights [n] that are not negative, in about so many
        seconds; None where no column is numeric."""
        rng, columns = np.random.default_rng(0), schema.row_columns
        k = sum(not column.discrete for column in columns)
        if not k:
            return None
        codes = Codes.fit(columns, *prepared(x, schema, weights))
        few = drawn(x, schema, weights, affordable_rows(k, seconds), rng)
        return Mixture(schema, codes, Numbers.fit(Cells.of(columns, few), rng))

    @property
    def name(self) -> str:
        return f"Gaussian mixture of {self.numbers.size} (BIC)"

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Log-density [n] in nats of encoded rows x [n, D]; NaN where a cell is missing."""
        return of_whole(x, self.schema, self.of_rows)

    def of_rows(self, rows: np.ndarray) -> np.ndarray:
        """Of rows without a hole [n, D_row]."""
        return self.codes.log_prob(rows) + self.numbers.log_prob(Cells.of(self.schema.row_columns, rows))


@dataclass(frozen=True, eq=False)
class PerCategory:
    """The smoothed frequency of each combination of levels (atoms count as levels) times a Gaussian mixture of the
    numbers, fitted to its rows. Combinations never seen share the weight of one row, spread as `Mixture` says."""

    schema: Schema
    combinations: np.ndarray  # [c, q]
    logs: np.ndarray  # [c]
    mixtures: tuple[Numbers, ...]
    rest: Mixture
    rest_log: float
    name: ClassVar[str] = "Gaussian mixture per category"

    @staticmethod
    def fit(
        x: np.ndarray, schema: Schema, weights: np.ndarray | None = None, seconds: float = 2.0
    ) -> "PerCategory | None":
        """Fit to the rows x [n, D] that have no hole, with weights [n] that are not negative, in about so many
        seconds. None where it is not defined: without discrete columns or numbers, or where a combination of levels
        has too few rows, or there are more than MOST of them."""
        columns = schema.row_columns
        k = sum(not column.discrete for column in columns)
        rows, w = prepared(x, schema, weights)
        codes = _combined(schema, rows)
        combinations, which, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
        if not k or not codes.shape[1] or len(counts) > MOST or counts.min() < ROWS_EACH * (k + 1):
            return None
        rng, most = np.random.default_rng(0), affordable_rows(k, seconds)
        some = drawn(x, schema, weights, most, rng)
        rest = Mixture(schema, Codes.fit(columns, rows, w), Numbers.fit(Cells.of(columns, some), rng))
        total = np.bincount(which.ravel(), w, len(counts))
        mixtures = []
        for one in range(len(counts)):
            here = which.ravel() == one
            own = drawn(rows[here], schema, w[here], max(most // len(counts), ROWS_EACH * (k + 1)), rng)
            mixtures.append(Numbers.fit(Cells.of(columns, own), rng))
        logs = np.log(total) - np.log(total.sum() + 1)
        return PerCategory(schema, combinations, logs, tuple(mixtures), rest, -float(np.log(total.sum() + 1)))

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Log-density [n] in nats of encoded rows x [n, D]; NaN where a cell is missing."""
        return of_whole(x, self.schema, self._of_rows)

    def _of_rows(self, rows: np.ndarray) -> np.ndarray:
        found, codes = self.rest_log + self.rest.of_rows(rows), _combined(self.schema, rows)
        for combination, log, mixture in zip(self.combinations, self.logs, self.mixtures, strict=True):
            here = (codes == combination).all(1)
            if here.any():
                found[here] = log + mixture.log_prob(Cells.of(self.schema.row_columns, rows[here]))
        return found


def _combined(schema: Schema, rows: np.ndarray) -> np.ndarray:
    """The codes [n, q] of everything discrete in rows [n, D_row]: levels and atoms."""
    pairs = zip(schema.row_columns, rows.T, strict=True)
    codes = [codes_of(column, v) for column, v in pairs if column.discrete or column.atoms]
    return np.stack(codes, 1) if codes else np.zeros((len(rows), 0), np.int64)
