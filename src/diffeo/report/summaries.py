"""Values -> bins, counts, quantiles and dependence: what is kept of the data once its rows are gone."""

import math

import numpy as np

from diffeo.data.column import Column

__all__ = ["bin_edges", "binned", "binned_pair", "nice", "quantiles", "strongest_pairs"]

_LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_TRIM = 0.001  # of the rows, beyond the bins on each side
_HUGE = 1e150
_RANK_BINS = 16
_MOST_COLUMNS = 64
_LOG_RATIO = 1000.0  # between the largest and the smallest value of a positive column


def nice(step: float, whole: bool = False) -> float:
    """The least of 1, 2, 2.5, 5, 10, 20, 25, ... and their decimals that is not below the step.

    >>> nice(0.03), nice(21.0), nice(2.1), nice(2.1, whole=True)
    (0.05, 25.0, 2.5, 5.0)
    """
    power = 10.0 ** math.floor(math.log10(step))
    for factor in (1.0, 2.0, 2.5, 5.0, 10.0):
        value = float(f"{factor * power:.12g}")
        if value >= step * (1 - 1e-9) and not (whole and value % 1):
            return value
    return 10 * power


def _range(v: np.ndarray) -> tuple[float, float]:
    """The 0.1 % and 99.9 % quantiles, taken inwards so that one far value never stretches the picture."""
    if not len(v):
        return 0.0, 1.0
    v = np.clip(v, -_HUGE, _HUGE)
    low = float(np.quantile(v, _TRIM, method="higher"))
    high = float(np.quantile(v, 1 - _TRIM, method="lower"))
    return (low, high) if low <= high else (float(v.min()), float(v.max()))


def bin_edges(column: Column, v: np.ndarray, most: int) -> np.ndarray:
    """Rising edges of at most so many bins: whole rounding cells, or round numbers, over all but the outermost values.

    >>> column = Column(name="a", kind="continuous", type="double")
    >>> bin_edges(column, np.linspace(0.003, 0.98, 50), 7).tolist()
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    low, high = _range(v)
    if column.period is not None:
        return column.period[0] + column.period[1] * np.linspace(0, 1, min(most, 36) + 1)
    if column.grid is not None and column.grid.warp == "identity":
        step, offset = column.grid.step, column.grid.offset
        first, last = column.grid.index(np.array([low, high])).tolist()
        cells = nice(max((last - first + 1) / (most - 1), 1), whole=True)
        start = math.floor(first / cells) * cells
        count = math.floor((last - start) / cells) + 1
        return _rising(offset + step * (start + cells * np.arange(count + 1) - 0.5))
    if column.kind == "positive" and low > 0 and high > _LOG_RATIO * low:
        return _rising(np.exp(_even(math.log(low), math.log(high), most)))
    edges = _even(low, high, most)
    return _rising(edges if column.bounds is None else np.clip(edges, *column.bounds))


def _even(low: float, high: float, most: int) -> np.ndarray:
    span = max(high - low, 1e-9 * max(abs(low), abs(high)), 1e-290)
    step = nice(span / (most - 2))
    start, end = math.floor(low / step), math.ceil(high / step)
    return np.arange(start, max(end, start + 1) + 1.0) * step


def _rising(edges: np.ndarray) -> np.ndarray:
    """The distinct edges, two at least; arithmetic noise is rounded off."""
    size = float(np.abs(edges).max())
    digits = 12 - math.floor(math.log10(size)) if size > 0 else 0
    edges = np.unique(np.round(edges, digits) if abs(digits) < 290 else edges)
    return edges if len(edges) > 1 else np.array([edges[0], np.nextafter(edges[0], np.inf)])


def binned(v: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, int, int]:
    """(counts [bins], how many lie under, over); the last bin is closed, the others open on the right.

    >>> binned(np.array([-1.0, 0.0, 0.5, 2.0]), np.array([0.0, 1.0, 2.0]))
    (array([2, 1]), 1, 0)
    """
    v = v[~np.isnan(v)]
    return np.histogram(v, edges)[0], int((v < edges[0]).sum()), int((v > edges[-1]).sum())


def binned_pair(u: np.ndarray, v: np.ndarray, u_edges: np.ndarray, v_edges: np.ndarray) -> np.ndarray:
    """Counts [u bins, v bins] of the rows inside both ranges."""
    inside = (u >= u_edges[0]) & (u <= u_edges[-1]) & (v >= v_edges[0]) & (v <= v_edges[-1])
    shape = len(u_edges) - 1, len(v_edges) - 1
    i = np.clip(np.searchsorted(u_edges, u[inside], side="right") - 1, 0, shape[0] - 1)
    j = np.clip(np.searchsorted(v_edges, v[inside], side="right") - 1, 0, shape[1] - 1)
    return np.bincount(i * shape[1] + j, minlength=shape[0] * shape[1]).reshape(shape)


def quantiles(column: Column, v: np.ndarray, edges: np.ndarray) -> dict[str, float]:
    """Quantiles by their level, rounded to a thousandth of the range shown, so that they are no cells of the data."""
    if not len(v):
        return {}
    found = np.quantile(np.clip(v, -_HUGE, _HUGE), _LEVELS, method="linear" if column.grid is None else "inverted_cdf")
    span = float(edges[-1] - edges[0])
    digits = 3 - math.floor(math.log10(span)) if 1e-290 < span < math.inf else 0
    rounded = np.round(found, digits) if abs(digits) < 290 else found
    return {f"{level:g}": float(value) for level, value in zip(_LEVELS, rounded, strict=True)}


def strongest_pairs(rows: np.ndarray, most: int) -> list[tuple[int, int, float, float]]:
    """(i, j, rank correlation, dependence) of the most dependent pairs of columns of rows [n, k], the strongest first.

    Dependence is in nats: the mutual information of a Gaussian of that rank correlation, or that of the 16 x 16
    histogram of the ranks less its bias (bins - 1)^2 / 2n (Miller 1955), whichever is more. Of more than 64 columns
    those of the greatest correlations are looked at.

    >>> u = np.random.default_rng(0).normal(size=(500, 3))
    >>> u[:, 2] = u[:, 0] ** 2
    >>> [(i, j) for i, j, _, _ in strongest_pairs(u, 1)]
    [(0, 2)]
    """
    n, k = rows.shape
    if n < 2 or k < 2:
        return []
    ranks = np.stack([_ranks(v) for v in rows.T], 1) - (n + 1) / 2
    length = np.sqrt((ranks**2).sum(0))
    ranks_unit = ranks / np.where(length > 0, length, 1.0)
    correlation = np.clip(ranks_unit.T @ ranks_unit, -1.0, 1.0)
    looked_at = np.arange(k)
    if k > _MOST_COLUMNS:
        greatest = np.abs(correlation - np.diag(np.diag(correlation))).max(0)
        looked_at = np.sort(np.argsort(-greatest, kind="stable")[:_MOST_COLUMNS])
    bins = np.clip(((ranks / n + 0.5) * _RANK_BINS).astype(int), 0, _RANK_BINS - 1)
    found = []
    for place, i in enumerate(looked_at):
        for j in looked_at[place + 1 :]:
            rho = float(correlation[i, j])
            linear = -0.5 * math.log1p(-min(rho * rho, 1 - 1e-12))
            found.append((int(i), int(j), round(rho, 4), round(max(linear, _information(bins[:, i], bins[:, j])), 4)))
    return sorted(found, key=lambda pair: -pair[3])[:most]


def _ranks(v: np.ndarray) -> np.ndarray:
    """Places 1..n of v [n] in order, equal values sharing their mean place."""
    _, place, count = np.unique(v, return_inverse=True, return_counts=True)
    last = count.cumsum()
    return (last - (count - 1) / 2)[place]


def _information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information in nats of two columns of bin numbers [n], less its bias."""
    counts = np.bincount(a * _RANK_BINS + b, minlength=_RANK_BINS**2).reshape(_RANK_BINS, _RANK_BINS) / len(a)
    p, q = counts.sum(1), counts.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(counts > 0, counts * np.log(counts / np.outer(p, q)), 0.0)
    return float(terms.sum()) - ((p > 0).sum() - 1) * ((q > 0).sum() - 1) / (2 * len(a))
