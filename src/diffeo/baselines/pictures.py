"""What is known of pictures without a model, in bits per dimension: a compressor, a histogram a pixel, one Gaussian.

A density of pictures that is not far below all of these has learned little. Every figure is of test pictures, each by
itself, from training pictures alone. Also the training pictures nearest to given ones: are samples copies of them?
"""

import math
import zlib
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from diffeo.baselines.common import LOG_2PI
from diffeo.errors import ShapeError, shown, whole

__all__ = ["PixelGaussian", "PixelHistogram", "anchors", "nearest", "zlib_bits"]

ALPHA = 0.05  # of the logit: the grey levels fill so much less than [0, 1] at either end
_DRAWS = 4  # points of a cell where there is no closed form
_TOGETHER = 2048  # pictures at a time
_MOST_LEARNED = 20_000  # training pictures that a covariance is taken from
_LEAST_VARIANCE = 1e-9


def _rows(pixels: np.ndarray, name: str, dimensions: int | None = None) -> np.ndarray:
    """Pictures as rows, uint8 [n, D]. Raises ShapeError where they are none, or of another D."""
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim < 2 or 0 in pixels.shape:
        raise ShapeError(f"{name}: expected pictures uint8 [n, ...], got {pixels.dtype} {list(pixels.shape)}")
    rows = pixels.reshape(len(pixels), -1)
    if dimensions is not None and rows.shape[1] != dimensions:
        raise ShapeError(f"{name}: expected pictures of {dimensions} numbers, got {rows.shape[1]}")
    return rows


def _check_levels(rows: np.ndarray, grays: int, name: str) -> None:
    if not 2 <= whole("grays", grays) <= 256 or int(rows.max()) >= grays:
        raise ShapeError(f"{name}: expected grey levels 0 to grays - 1, got {rows.max()} with grays {shown(grays)}")


def zlib_bits(pixels: np.ndarray) -> np.ndarray:
    """Bits per dimension [n] of pictures uint8 [n, C, H, W], each compressed alone by zlib at its best: 8 times the
    bytes of its stream (six of them its frame), channel after channel and row after row, over D = C H W.

    >>> zlib_bits(np.zeros((1, 1, 28, 28), np.uint8)) < 0.2
    array([ True])
    """
    rows = _rows(pixels, "pixels")
    return np.array([8 * len(zlib.compress(row.tobytes(), 9)) for row in rows]) / rows.shape[1]


@dataclass(frozen=True, eq=False)
class PixelHistogram:
    """Every number of a picture by itself: the share of each grey level at its place, plus one count of each.

        P(x) = prod_j (n_j(x_j) + 1) / (n + grays)

    `bits` [D, grays]: -log2 of these. Exact probabilities, no bound.
    """

    bits: np.ndarray

    @classmethod
    def fit(cls, train: np.ndarray, grays: int = 256) -> "PixelHistogram":
        """Count the levels of pictures uint8 [n, C, H, W] in 0..grays-1."""
        rows = _rows(train, "train")
        _check_levels(rows, grays, "train")
        counts = np.stack([np.bincount(column, minlength=grays) for column in rows.T])
        return cls(np.log2(len(rows) + grays) - np.log2(counts + 1.0))

    def bits_per_dim(self, test: np.ndarray) -> np.ndarray:
        """Bits per dimension [n] of pictures uint8 [n, C, H, W].

        >>> levels = np.array([[0, 1], [0, 0]], np.uint8)
        >>> PixelHistogram.fit(levels, 2).bits_per_dim(levels[1:]).round(4)
        array([0.7075])
        """
        rows = _rows(test, "test", len(self.bits))
        _check_levels(rows, self.bits.shape[1], "test")
        places = np.arange(len(self.bits))
        parts = (rows[start : start + _TOGETHER] for start in range(0, len(rows), _TOGETHER))
        return np.concatenate([self.bits[places, part].mean(1) for part in parts])


@dataclass(frozen=True, eq=False)
class PixelGaussian:
    """One Gaussian over all numbers of a picture, its covariance S shrunk towards its diagonal, and a bound from it.

    The numbers are v = (k + u) / grays with u uniform on [0, 1], or their logit y = logit(alpha + (1 - 2 alpha) v).
    With p the density of v,

        log P(k) = log E_u[p(v)] - D log grays >= E_u[log p(v)] - D log grays;

    without logit the right side is exact, as the expectation of a square is in closed form; with it, it is the log of
    the mean of p over a few random points u, which is below log P(k) on average (arXiv 1509.00519). The weight of the
    diagonal is that of Schaefer and Strimmer (2005), sum_ij var(s_ij) / sum_ij s_ij^2 over i != j.

    `mean` [D], `whiten` [D, D]: the inverse of S's lower Cholesky factor, `log_volume`: the log of its determinant.
    """

    mean: np.ndarray
    whiten: np.ndarray
    log_volume: float
    grays: int
    logit: bool
    seed: int = 0

    @classmethod
    def fit(
        cls, train: np.ndarray, grays: int = 256, *, logit: bool = False, seed: int = 0, most: int = _MOST_LEARNED
    ) -> "PixelGaussian":
        """Mean and covariance of pictures uint8 [n, C, H, W], of `most` evenly spread ones where there are more."""
        rows = _rows(train, "train")
        _check_levels(rows, grays, "train")
        if len(rows) < 2:
            raise ShapeError(f"train: expected two pictures or more, got {len(rows)}")
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]
        noise = np.random.default_rng(seed)
        # without logit the noise enters by its moments: 1/2 and 1/12 of a squared level
        points = _logits(rows, grays, noise)[0] if logit else (rows + 0.5) / grays
        mean = points.mean(0)
        covariance = _shrunk(points - mean)
        covariance[np.diag_indices_from(covariance)] += _LEAST_VARIANCE if logit else 1 / (12 * grays**2)
        factor = np.linalg.cholesky(covariance)
        whiten = solve_triangular(factor, np.eye(len(factor)), lower=True)
        return cls(mean, whiten, float(np.log(np.diag(whiten)).sum()), grays, logit, seed)

    def bits_per_dim(self, test: np.ndarray) -> np.ndarray:
        """Bits per dimension [n] of pictures uint8 [n, C, H, W], bounds from above (with logit: on average).

        >>> pixels = np.random.default_rng(0).integers(0, 256, (500, 1, 2, 2), dtype=np.uint8)
        >>> print(f"{PixelGaussian.fit(pixels).bits_per_dim(pixels).mean():.1f}")  # of noise, 8 at best
        8.3
        """
        rows = _rows(test, "test", len(self.mean))
        _check_levels(rows, self.grays, "test")
        noise = np.random.default_rng(self.seed + 1)
        parts = [rows[start : start + _TOGETHER] for start in range(0, len(rows), _TOGETHER)]
        nats = np.concatenate([self._sampled(part, noise) if self.logit else self._exact(part) for part in parts])
        return -nats / (math.log(2) * len(self.mean)) + math.log2(self.grays)

    def _log_normal(self, points: np.ndarray) -> np.ndarray:
        white = (points - self.mean) @ self.whiten.T
        return -0.5 * ((white**2).sum(1) + len(self.mean) * LOG_2PI) + self.log_volume

    def _exact(self, rows: np.ndarray) -> np.ndarray:
        return self._log_normal((rows + 0.5) / self.grays) - 0.5 * (self.whiten**2).sum() / (12 * self.grays**2)

    def _sampled(self, rows: np.ndarray, noise: np.random.Generator) -> np.ndarray:
        drawn = []
        for _ in range(_DRAWS):
            points, slopes = _logits(rows, self.grays, noise)
            drawn.append(self._log_normal(points) + slopes)
        values = np.stack(drawn)
        top = values.max(0)
        return top + np.log(np.exp(values - top).mean(0))


def _logits(rows: np.ndarray, grays: int, noise: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(logits [n, D] at a random point of every cell, the log of |dy/dv| [n])."""
    inside = ALPHA + (1 - 2 * ALPHA) * (rows + noise.random(rows.shape)) / grays
    slopes = math.log(1 - 2 * ALPHA) - np.log(inside) - np.log1p(-inside)
    return np.log(inside) - np.log1p(-inside), slopes.sum(1)


def _shrunk(centred: np.ndarray) -> np.ndarray:
    """The covariance [D, D] of rows [n, D] without their mean, its other entries brought nearer to 0."""
    count = len(centred)
    covariance = centred.T @ centred / count
    # sum over pairs of the variance of s_ij: (mean of squared products - squared mean of products) / (n - 1)
    spread = ((centred**2).T @ (centred**2) / count - covariance**2) / (count - 1)
    off = ~np.eye(len(covariance), dtype=bool)
    total = float((covariance[off] ** 2).sum())
    weight = min(1.0, max(0.0, float(spread[off].sum()) / total)) if total > 0 else 0.0
    return covariance * np.where(off, 1 - weight, 1.0)


def anchors(train: np.ndarray, test: np.ndarray, grays: int = 256) -> dict[str, tuple[float, float]]:
    """(bits per dimension, standard error of the mean) on test pictures, by name: zlib, a histogram a pixel, a Gaussian
    of grey levels and of their logits. Pictures are uint8 [n, C, H, W] in 0..grays-1.

    >>> pixels = np.random.default_rng(0).integers(0, 256, (400, 1, 4, 4), dtype=np.uint8)
    >>> list(anchors(pixels[:200], pixels[200:]))
    ['zlib', 'histogram', 'gaussian', 'gaussian of logits']
    """
    figures = {
        "zlib": zlib_bits(test),
        "histogram": PixelHistogram.fit(train, grays).bits_per_dim(test),
        "gaussian": PixelGaussian.fit(train, grays).bits_per_dim(test),
        "gaussian of logits": PixelGaussian.fit(train, grays, logit=True).bits_per_dim(test),
    }
    return {name: (float(bits.mean()), _error(bits)) for name, bits in figures.items()}


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def nearest(pictures: np.ndarray, among: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(places int64 [m, k], distances [m, k]) of the k pictures uint8 [n, ...] of `among` that are nearest to each of
    `pictures` uint8 [m, ...], nearest first: the root of the sum of squared differences of grey levels, exact.

    >>> levels = np.array([[0, 0], [3, 4], [250, 1]], np.uint8)
    >>> nearest(levels[:1], levels, k=2)
    (array([[0, 1]]), array([[0., 5.]]))
    """
    wanted = _rows(pictures, "pictures").astype(float)
    rows = _rows(among, "among", wanted.shape[1])
    k = min(whole("k", k), len(rows))
    places, squares = np.empty((len(wanted), 0), np.int64), np.empty((len(wanted), 0))
    for start in range(0, len(rows), _TOGETHER):
        part = rows[start : start + _TOGETHER].astype(float)
        found = (wanted**2).sum(1)[:, None] + (part**2).sum(1) - 2 * wanted @ part.T
        squares = np.concatenate([squares, found], 1)
        here = np.arange(start, start + len(part))
        places = np.concatenate([places, np.broadcast_to(here, found.shape)], 1)
        order = np.argsort(squares, axis=1, kind="stable")[:, :k]
        squares, places = np.take_along_axis(squares, order, 1), np.take_along_axis(places, order, 1)
    return places, np.sqrt(squares)
