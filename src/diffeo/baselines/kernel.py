"""A kernel density estimate: a Gaussian bell at each of some rows (Rosenblatt 1956, Parzen 1962)."""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from diffeo.baselines.common import LOG_2PI, Cells, Codes, drawn, log_normal_mass, of_whole, prepared
from diffeo.baselines.mixture import standardised
from diffeo.data.schema import Schema

FACTORS = (0.1, 0.2, 0.35, 0.6, 1.0)  # of Scott's bandwidth (1992), n^(-1/(k+4)) standard deviations
CENTRES = 5_000
JUDGES = 500  # rows that choose the factor, and are centres only afterwards
WIDE = 3.0  # standard deviations of one more bell, with the weight of one row, for what lies far from every row
FINE = 0.3  # bandwidths; the mass of a narrower cell is density times width, to 0.4 %
_FURTHEST = 1e50  # standard deviations
_CHUNK = 2_000_000  # pairs of row and centre at a time


@dataclass(frozen=True, eq=False)
class Kernels:
    """A Gaussian kernel density of all numeric columns, with one bandwidth for each, times the frequencies of each
    discrete column and of atoms. The mass of a rounding cell is exact."""

    schema: Schema
    codes: Codes
    mean: np.ndarray  # [k]
    scale: np.ndarray  # [k], standard deviations
    centres: np.ndarray  # [m, k], in standard units
    bandwidth: float  # standard units
    factor: float

    @staticmethod
    def fit(x: np.ndarray, schema: Schema, weights: np.ndarray | None = None, seconds: float = 2.0) -> "Kernels | None":
        """Fit to the rows x [n, D] that have no hole, with weights [n] that are not negative, in about so many
        seconds; None where no column is numeric. The factor of the bandwidth is the one under which rows that are no
        centres are most likely."""
        rng, columns = np.random.default_rng(0), schema.row_columns
        k = sum(not column.discrete for column in columns)
        if not k:
            return None
        codes = Codes.fit(columns, *prepared(x, schema, weights))
        few = drawn(x, schema, weights, int(min(CENTRES, max(500, 2_500 * seconds))), rng)
        cells = Cells.of(columns, few)
        z, mean, scale = standardised(cells, rng)
        judges = min(JUDGES, len(z) // 5)

        def made(centres: np.ndarray, factor: float) -> "Kernels":
            bandwidth = factor * len(centres) ** (-1.0 / (k + 4))
            return Kernels(schema, codes, mean, scale, centres, bandwidth, factor)

        if not judges:
            return made(z, FACTORS[-1])
        scores = [made(z[judges:], factor).numbers(cells.at(slice(judges))).mean() for factor in FACTORS]
        return made(z, FACTORS[int(np.argmax(scores))])

    @property
    def name(self) -> str:
        return f"kernel density of {len(self.centres):,} rows"

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Log-density [n] in nats of encoded rows x [n, D]; NaN where a cell is missing."""
        columns = self.schema.row_columns
        return of_whole(x, self.schema, lambda r: self.codes.log_prob(r) + self.numbers(Cells.of(columns, r)))

    def numbers(self, cells: Cells) -> np.ndarray:
        """The part of the numeric columns [n]."""
        total, rows = np.zeros(len(cells.middle)), max(1, _CHUNK // len(self.centres))
        for which, kept in cells.patterns():
            for i in range(0, len(which) if len(kept) else 0, rows):
                part = which[i : i + rows]
                total[part] = self._kept(cells.at(np.ix_(part, kept)), kept)
        return total

    def _kept(self, cells: Cells, kept: np.ndarray) -> np.ndarray:
        m, scale = len(self.centres), self.scale[kept]
        with np.errstate(over="ignore", invalid="ignore"):
            z = np.clip((cells.middle - self.mean[kept]) / scale, -_FURTHEST, _FURTHEST)
            width = cells.width / scale
            volume = np.log(np.where(cells.width > 0, cells.width, 1.0)) - np.log(scale)
        near = _log_bells(z, width, volume, self.centres[:, kept], self.bandwidth)
        far = _log_bells(z, width, volume, np.zeros((1, len(kept))), WIDE)
        return np.asarray(np.logaddexp(logsumexp(near, axis=1), far[:, 0]) - np.log(m + 1))


def _log_bells(
    z: np.ndarray, width: np.ndarray, volume: np.ndarray, centres: np.ndarray, bandwidth: float
) -> np.ndarray:
    """Log-probabilities [n, m] of cells of `width` about z [n, l] under a bell at each of the centres [m, l]."""
    wide = width.max(0) > FINE * bandwidth
    fine = ~wide
    a, b = z[:, fine] / bandwidth, centres[:, fine] / bandwidth
    constant = fine.sum() * (np.log(bandwidth) + 0.5 * LOG_2PI)
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    found = volume[:, fine].sum(1)[:, None] - constant - 0.5 * np.maximum(square, 0.0)
    for j in np.flatnonzero(wide):
        edges = np.stack([z[:, j] - width[:, j] / 2, z[:, j] + width[:, j] / 2], 1)
        cells, which = np.unique(edges, axis=0, return_inverse=True)
        low, high = ((cells[:, end, None] - centres[:, j]) / bandwidth for end in (0, 1))
        found += log_normal_mass(low, high)[which.ravel()]
    return np.asarray(found)
