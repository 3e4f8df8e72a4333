"""The best Gaussian mixtures of the data, by EM: what a density starts from, and so is never worse than.

Sizes and ridges are compared on validation rows. Where rows are few, the mixtures of several restarts are pooled into
one (an average of densities is a density, and its log is at least the average of the logs).
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

__all__ = ["MixtureFit", "affordable_rows", "best_mixtures"]

ROWS = 20_000  # EM looks at so many rows at most
FEW = 6_000  # below so many rows, ridges matter, and restarts are cheap and worth pooling
POOLED = 6
CANDIDATES = 8  # of sizes and ridges, whose restarts are pooled
RIDGES = (1e-6, 1e-3, 1e-1)  # on the diagonals of covariances, in unit spread; the first for many rows
SHRUNK = (0.3, 0.7, 1.0)  # of the way from a covariance to its diagonal, where rows are few for its d (d + 1) / 2
ROWS_EACH = 5  # rows for each of those numbers, below which they are few
PATIENT = 3  # sizes in a row that may do worse than the best
TAILS = ((3.0, 1e-3), (10.0, 2e-4), (50.0, 5e-5), (300.0, 2e-5))  # (spread, weight) of wide components for outliers
FAR = 100.0  # spreads; EM sees nothing beyond this
SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)


def affordable_rows(d: int, seconds: float | None, most: int = 32) -> int:
    """How many rows of d numbers the search can look at in so many seconds, by a rough model of EM's cost.

    It is a function of the numbers alone and not of a clock, so that a run can be repeated.

    >>> affordable_rows(7, None), affordable_rows(7, 36.0) > affordable_rows(7, 3.0) > 500
    (20000, True)
    """
    if seconds is None:
        return ROWS
    work = 60 * sum(size for size in SIZES if size <= most)
    return int(min(ROWS, max(500, seconds / (work * (1.5e-9 * d * d + 1e-8 * d + 2e-8)))))


class MixtureFit(NamedTuple):
    """Weights [k], means [k, d], covariances [k, d, d]; the mean log-density of the validation rows, a word on how it
    was found, and after how many runs of EM."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    valid: float
    found: str
    fits: int = 0

    def log_prob(self, z: np.ndarray) -> np.ndarray:
        """Of rows z [n, d]: [n]."""
        roots = np.linalg.cholesky(self.covariances)
        heights = np.log(self.weights) - np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(1)
        heights = heights - 0.5 * z.shape[1] * np.log(2 * np.pi)
        each = [
            height - 0.5 * np.square(solve_triangular(root, (z - mean).T, lower=True)).sum(0)
            for height, mean, root in zip(heights, self.means, roots, strict=True)
        ]
        return np.asarray(logsumexp(each, axis=0))


def best_mixtures(
    z: np.ndarray,
    z_valid: np.ndarray,
    seed: int,
    members: Callable[[int], int] = lambda components: 1,
    components: int | None = None,
    most: int = 32,
    at_most: int = ROWS,
    stop: Callable[[int], bool] = lambda fits: False,
) -> list[MixtureFit]:
    """Mixtures of rows z [n, d] in unit spread, of the size and ridge that do best on z_valid, each from restarts of
    its own, with wide components added for outliers; as many as `members` says for so many components.

    `components` fixes the size, `most` bounds it; EM looks at `at_most` rows. `stop(fits)` is asked after so many runs
    of EM, at least one; true ends the search with the best so far, taken again where there was no time for others.

    >>> rng = np.random.default_rng(0)
    >>> z = np.concatenate([rng.normal(-3, 1, (300, 1)), rng.normal(3, 1, (300, 1))])
    >>> one, other = best_mixtures(z[::2], z[1::2], seed=0, members=lambda components: 2)
    >>> len(one.weights) - len(TAILS) >= 2
    True
    """
    rng = np.random.default_rng(seed)
    z, z_valid = z.clip(-FAR, FAR), z_valid.clip(-FAR, FAR)
    rows = z[rng.permutation(len(z))[:at_most]]
    few = len(z) < FEW
    sizes = [components] if components else [k for k in SIZES if k <= most and (k == 1 or len(rows) >= 8 * k)]
    fits = 0
    tried: list[tuple[MixtureFit, int, float]] = []
    for ridge in RIDGES if few else RIDGES[:1]:
        worse, highest = 0, -np.inf
        for size in sizes:
            if tried and (worse >= PATIENT or stop(fits)):
                break
            fit, fits = _em(rows, z_valid, size, ridge, seed), fits + 1
            worse, highest = (0, fit.valid) if fit.valid > highest else (worse + 1, highest)
            tried.append((fit, size, ridge))
    tried.sort(key=lambda one: -one[0].valid)

    def restarts(size: int, ridge: float, first: int, count: int) -> list[MixtureFit]:
        """As many of `count` more runs of EM as there is time for."""
        nonlocal fits
        found: list[MixtureFit] = []
        while size > 1 and len(found) < count and not stop(fits):
            found.append(_em(rows, z_valid, size, ridge, seed + first + len(found)))
            fits += 1
        return found

    candidates = [(*tried[0], 1)]
    for fit, size, ridge in tried[: CANDIDATES if few else 0]:
        parts = [fit, *restarts(size, ridge, 1, POOLED - 1)]
        candidates.append((_pool(parts, z_valid), size, ridge, len(parts)))
    start, size, ridge, count = max(candidates, key=lambda one: one[0].valid)
    found, wanted = [start], members(len(start.weights) + len(TAILS))
    shrunk: list[MixtureFit] = []
    if len(rows) < ROWS_EACH * z.shape[1] * (z.shape[1] + 1) / 2:
        shrunk = [_shrunk(fit, share, z_valid) for fit, _, _ in tried for share in SHRUNK]
    if shrunk and (best := max(shrunk, key=lambda fit: fit.valid)).valid > start.valid:
        found = [best] * wanted
    while len(found) < wanted and len(parts := restarts(size, ridge, count * len(found), count)) == count:
        found.append(_pool(parts, z_valid))
    return [_with_tails(found[j % len(found)], z_valid)._replace(fits=fits) for j in range(wanted)]


def _em(rows: np.ndarray, z_valid: np.ndarray, size: int, ridge: float, seed: int) -> MixtureFit:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    size = min(size, len(rows))
    for stronger in (1.0, 1e3, 1e6):  # a mixture that collapses gets a larger ridge
        mixture = GaussianMixture(size, reg_covar=ridge * stronger, max_iter=60, random_state=seed % 2**31)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                warnings.simplefilter("ignore", RuntimeWarning)
                mixture.fit(rows)
            break
        except ValueError:
            continue
    else:
        raise AssertionError("a ridge as large as the data cannot fail")
    fit = MixtureFit(mixture.weights_, mixture.means_, mixture.covariances_, 0.0, f"{size} components")
    return fit._replace(valid=float(np.mean(mixture.score_samples(z_valid))))


def _pool(fits: list[MixtureFit], z_valid: np.ndarray) -> MixtureFit:
    if len(fits) == 1:
        return fits[0]
    weights = np.concatenate([fit.weights / len(fits) for fit in fits])
    means, covariances = (np.concatenate([fit[i] for fit in fits]) for i in (1, 2))
    pooled = MixtureFit(weights, means, covariances, 0.0, f"{len(fits)} times {fits[0].found}, pooled")
    return pooled._replace(valid=float(np.mean(pooled.log_prob(z_valid))))


def _shrunk(fit: MixtureFit, share: float, z_valid: np.ndarray) -> MixtureFit:
    """With covariances so far on the way to their diagonals."""
    diagonals = fit.covariances * np.eye(fit.means.shape[1])
    shrunk = fit._replace(covariances=(1 - share) * fit.covariances + share * diagonals)
    found = f"{fit.found}, correlations shrunk by {share:.0%}"
    return shrunk._replace(valid=float(np.mean(shrunk.log_prob(z_valid))), found=found)


def _with_tails(fit: MixtureFit, z_valid: np.ndarray) -> MixtureFit:
    d = fit.means.shape[1]
    share = sum(weight for _, weight in TAILS)
    weights = np.concatenate([fit.weights * (1 - share), [weight for _, weight in TAILS]])
    means = np.concatenate([fit.means, np.zeros((len(TAILS), d))])
    covariances = np.concatenate([fit.covariances, [spread**2 * np.eye(d) for spread, _ in TAILS]])
    wide = MixtureFit(weights, means, covariances, 0.0, fit.found)
    return wide._replace(valid=float(np.mean(wide.log_prob(z_valid))))
