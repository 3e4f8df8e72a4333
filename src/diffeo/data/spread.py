"""How the values of a column lie: distinct ones and their counts, spikes of mass, smoothness, skew."""

from typing import NamedTuple

import numpy as np

_SPIKE_SHARE = 0.02  # of the rows
_SPIKE_RATIO = 10.0  # times the average of its neighbours
_FEWEST = 10  # rows in a spike
_NEAR = 8  # neighbours on each side
_MOST_LEVELS = 128
_ROWS_A_LEVEL = 20
_FEW = 12  # levels that need but two rows each
_UNSEEN = 0.002  # the share of new rows that may fall between the levels (Good and Turing: the share seen once)
_ROUGH = 0.5  # nats that a smooth density would lose


class Spread(NamedTuple):
    """The distinct values [m] of a column in rising order, with their counts [m].

    >>> Spread.of(np.array([2.0, 0.0, 2.0]))
    Spread(values=array([0., 2.]), counts=array([1, 2]))
    """

    values: np.ndarray
    counts: np.ndarray

    @staticmethod
    def of(v: np.ndarray) -> "Spread":
        """The spread of finite values [n]."""
        return Spread(*np.unique(v, return_counts=True))

    @property
    def rows(self) -> int:
        """How many values there were."""
        return int(self.counts.sum())

    def share(self, value: float) -> float:
        """The share of the rows that hold exactly this value."""
        return float(self.counts[np.searchsorted(self.values, value)]) / self.rows

    def _near(self, place: int, index: np.ndarray | None) -> float:
        """The average count nearby, the greater of both sides: of the nearest values, or of grid cells (empty too)."""
        left, right = self.counts[max(0, place - _NEAR) : place], self.counts[place + 1 : place + 1 + _NEAR]
        averages = [float(side.mean()) for side in (left, right) if len(side) >= _NEAR // 2]
        if index is not None:
            for low, high in ((index[place] - _NEAR, index[place] - 1), (index[place] + 1, index[place] + _NEAR)):
                if low >= index.min() and high <= index.max():
                    averages.append(float(self.counts[(index >= low) & (index <= high)].sum()) / _NEAR)
        return max(averages, default=float(np.delete(self.counts, place).mean()))

    def atoms(self, index: np.ndarray | None) -> list[float]:
        """Values that hold a spike of mass, the greatest first; `index` [m] are the places on the grid, if any.

        >>> Spread(np.array([0.0, 1, 2, 3]), np.array([90, 3, 4, 3])).atoms(None)
        [0.0]
        """
        often = np.flatnonzero(self.counts > max(_SPIKE_SHARE * self.rows, _FEWEST))
        spikes = [place for place in often if self.counts[place] > _SPIKE_RATIO * self._near(int(place), index)]
        spikes.sort(key=lambda place: -self.counts[place])
        return [float(self.values[place]) for place in spikes]

    def roughness(self, index: np.ndarray) -> float:
        """Nats a row lost where the masses are smoothed over the nine nearest cells: 0 for a smooth histogram.

        >>> round(Spread(np.arange(0.0, 50, 5), np.full(10, 7)).roughness(np.arange(0.0, 50, 5)), 1)
        2.1
        """
        order = np.argsort(index)
        k, counts = index[order], self.counts[order]
        total = np.concatenate(([0], np.cumsum(counts)))
        low, high = np.maximum(k - 4, k[0]), np.minimum(k + 4, k[-1])
        inside = total[np.searchsorted(k, high, side="right")] - total[np.searchsorted(k, low)]
        return float(np.average(np.log(counts * (high - low + 1) / inside), weights=counts))

    def better_as_levels(self, index: np.ndarray | None, atoms: list[float]) -> bool:
        """Whether few, irregular values take all the mass, so that each deserves its own exact mass."""
        if len(self.values) > _MOST_LEVELS or np.count_nonzero(self.counts == 1) > _UNSEEN * self.rows:
            return False
        kept = ~np.isin(self.values, atoms[:4])
        if np.count_nonzero(kept) <= _FEW:
            kept[:] = True
        values, counts = self.values[kept], self.counts[kept]
        enough = counts.sum() >= _ROWS_A_LEVEL * len(values) or (
            len(self.values) <= _FEW and 2 * len(self.values) <= self.rows
        )
        rough = index is None or Spread(values, counts).roughness(index[kept]) > _ROUGH
        return bool(enough and rough)


def skewness(v: np.ndarray) -> float:
    """The third standardised moment.

    >>> round(skewness(np.array([0.0, 0.0, 1.0])), 3)
    0.707
    """
    u = v / (np.abs(v).max() or 1.0)
    scale = u.std()
    return float(np.mean(((u - u.mean()) / scale) ** 3)) if scale > 0 else 0.0


def more_normal_as_log(v: np.ndarray) -> bool:
    """Whether positive values [n] are clearly skewed to the right and a logarithm mends that.

    >>> more_normal_as_log(np.exp(np.random.default_rng(0).normal(size=500)))
    True
    """
    plain = skewness(v)
    return plain > 1.0 and abs(skewness(np.log(v))) < 0.7 * plain


def looks_bounded(v: np.ndarray, low: float, high: float) -> bool:
    """Whether values [n] fill the open interval up to 2 % at both ends, and none lies outside.

    >>> looks_bounded(np.linspace(0.001, 0.999, 200), 0.0, 1.0), looks_bounded(np.linspace(0.2, 0.9, 200), 0.0, 1.0)
    (True, False)
    """
    u = (v - low) / (high - low)
    if len(u) < 50 or u.min() <= 0 or u.max() >= 1 or u.min() > 0.02 or u.max() < 0.98:
        return False
    filled = np.histogram(u, bins=5, range=(0.0, 1.0))[0]
    return bool(filled.min() >= 0.005 * len(u))
