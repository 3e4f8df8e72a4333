"""The best Gaussian mixtures of the data, by EM: what a density starts from, and so is never worse than.

Sizes and ridges are compared on validation rows. Where rows are few, the mixtures of several restarts are pooled into
one (an average of densities is a density, and its log is at least the average of the logs).
"""

from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp

from diffeo.climb import climbed, heights
from diffeo.parsimonious import Family, MixtureFit, anew

__all__ = ["FAR", "FEW", "MixtureFit", "affordable_rows", "ahead", "best_mixtures", "with_tails"]

ROWS = 20_000  # EM looks at so many rows at most
FEW = 6_000  # below so many rows, ridges matter, and restarts are cheap and worth pooling
POOLED = 6
MOST_POOLED = 64  # components, of simple mixtures
CANDIDATES = 8  # of sizes and ridges, whose restarts are pooled
RIDGES = (1e-6, 1e-3, 1e-1)  # on the diagonals of covariances, in unit spread; the first for many rows
SHRUNK = (0.3, 0.7, 1.0)  # of the way from a covariance to its diagonal, where rows are few for its d (d + 1) / 2
ROWS_EACH = 5  # rows for each of those numbers, below which they are few
PATIENT = 3  # sizes in a row that may do worse than the best
TAILS = ((3.0, 1e-3), (10.0, 2e-4), (50.0, 5e-5), (300.0, 2e-5))  # (spread, weight) of wide components for outliers
TAIL_SCALES = (1.0, 0.1)  # of these weights
FAR = 100.0  # spreads; EM sees nothing beyond this
SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)


def affordable_rows(d: int, seconds: float | None, most: int = 32) -> int:
    """How many rows of d numbers the search can look at in so many seconds, by a rough model of EM's cost.

    It is a function of the numbers alone and not of a clock, so that a run can be repeated.

    >>> affordable_rows(7, None), affordable_rows(7, 1.5) > affordable_rows(7, 0.3) > 500
    (20000, True)
    """
    if seconds is None:
        return ROWS
    work = 60 * sum(size for size in SIZES if size <= most)
    return int(min(ROWS, max(500, seconds / (work * (1.2e-10 * d * d + 1e-8)))))


def best_mixtures(
    z: np.ndarray,
    z_valid: np.ndarray,
    seed: int,
    members: Callable[[int], int] = lambda components: 1,
    components: int | None = None,
    most: int = 32,
    at_most: int = ROWS,
    stop: Callable[[int], bool] = lambda fits: False,
    apart: Callable[[int], np.ndarray | None] = lambda members: None,
) -> list[MixtureFit]:
    """Mixtures of rows z [n, d] in unit spread, of the size and ridge that do best on z_valid, each from restarts of
    its own, with wide components added for outliers; as many as `members` says for so many components.

    `components` fixes the size, `most` bounds it; EM looks at `at_most` rows. `apart(members)`: folds [n], of which the
    mixture in place j of the list is not fitted to fold j, so that its rows can judge it. `stop(fits)` is asked after
    so many runs of EM, at least one; true ends the search with the best so far, taken again where there was no time
    for others.

    >>> rng = np.random.default_rng(0)
    >>> z = np.concatenate([rng.normal(-3, 1, (300, 1)), rng.normal(3, 1, (300, 1))])
    >>> one, other = best_mixtures(z[::2], z[1::2], seed=0, members=lambda components: 2)
    >>> len(one.weights) - len(TAILS) >= 2
    True
    """
    rng = np.random.default_rng(seed)
    z, z_valid = z.clip(-FAR, FAR), z_valid.clip(-FAR, FAR)
    looked = rng.permutation(len(z))[:at_most]
    rows = z[looked]
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
    folds: np.ndarray | None = None

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
    found, wanted, share = [start], members(len(start.weights) + len(TAILS)), 0.0
    folds = apart(wanted)
    if len(rows) < ROWS_EACH * z.shape[1] * (z.shape[1] + 1) / 2:
        shrunk = [(_shrunk(fit, s, z_valid), k, ridge, s) for fit, k, ridge in tried for s in SHRUNK]
        if (best := max(shrunk, key=lambda one: one[0].valid))[0].valid > start.valid:
            start, size, ridge, share = best
            found, count = [start] * wanted, 1
    if folds is not None:  # without a look at the clock, so that all are of one size; one more run is counted in time
        count, fits = (1, fits) if stop(fits) else (count, fits + 1)
        found = []
        for j in range(wanted):
            own, seeds = rows[folds[looked] != j], range(seed + count * j, seed + count * (j + 1))
            fit = _pool([_em(own, z_valid, size, ridge, each) for each in seeds], z_valid)
            found.append(_shrunk(fit, share, z_valid) if share else fit)
    while len(found) < wanted and len(parts := restarts(size, ridge, count * len(found), count)) == count:
        found.append(_pool(parts, z_valid))
    every = np.concatenate([rows, z_valid])
    ends = [with_tails(found[j % len(found)], every) for j in range(wanted)]
    return [fit._replace(valid=float(np.mean(fit.log_prob(z_valid))), fits=fits) for fit in ends]


def ahead(
    z: np.ndarray,
    z_valid: np.ndarray,
    fold: np.ndarray,
    mixtures: list[MixtureFit],
    simple: MixtureFit,
    family: Family,
    seed: int,
) -> list[MixtureFit]:
    """Mixtures that were each fitted to all folds [n] of z [n, d] but one; or simple ones fitted anew to the same, if
    these are ahead by more than the standard error: on the rows left out, and with what averaging them gains."""
    k = len(simple.weights)
    pool = max(1, min(POOLED, MOST_POOLED // k)) if k > 1 else 1

    def again(j: int, first: int, count: int) -> MixtureFit:
        own = z[fold != j]
        return with_tails(pooled([anew(own, k, family, seed + first + i) for i in range(count)]), own)

    rivals = [mixtures, [again(j, j, 1) for j in range(len(mixtures))]]
    if pool > 1:
        rivals.append([again(j, pool * j, pool) for j in range(len(mixtures))])
    scores = np.stack([_apart(fits, fold, z, z_valid) for fits in rivals])
    best = int(scores.mean(1).argmax())
    lead = scores[best] - scores[0]
    return rivals[best] if lead.mean() > lead.std() / np.sqrt(len(z)) else mixtures


def _apart(fits: list[MixtureFit], fold: np.ndarray, z: np.ndarray, z_valid: np.ndarray) -> np.ndarray:
    """The log-density [n] of every row of z [n, d] under the mixture that was not fitted to its fold, and on average
    what that of all together has ahead of theirs, seen on rows of z_valid."""
    apart = np.zeros(len(z))
    for j, fit in enumerate(fits):
        apart[fold == j] = fit.log_prob(z[fold == j])
    each = np.stack([fit.log_prob(z_valid) for fit in fits])
    return apart + float((logsumexp(each, axis=0) - np.log(len(fits)) - each.mean(0)).mean())


def _em(rows: np.ndarray, z_valid: np.ndarray, size: int, ridge: float, seed: int) -> MixtureFit:
    size = min(size, len(rows))
    for stronger in (1.0, 1e3, 1e6):  # a mixture that collapses gets a larger ridge
        try:
            found = climbed(rows, size, ridge * stronger, seed % 2**31)
            valid = float(np.mean(heights(z_valid, *found)))
        except ValueError:
            continue
        return MixtureFit(*found, valid, f"{size} components")
    raise AssertionError("a ridge as large as the data cannot fail")


def _pool(fits: list[MixtureFit], z_valid: np.ndarray) -> MixtureFit:
    if len(fits) == 1:
        return fits[0]
    found = pooled(fits)
    return found._replace(valid=float(np.mean(found.log_prob(z_valid))))


def pooled(fits: list[MixtureFit]) -> MixtureFit:
    """The average of mixtures, one mixture of all their components."""
    if len(fits) == 1:
        return fits[0]
    weights = np.concatenate([fit.weights / len(fits) for fit in fits])
    means, covariances = (np.concatenate([fit[i] for fit in fits]) for i in (1, 2))
    return MixtureFit(weights, means, covariances, 0.0, f"{len(fits)} times {fits[0].found}, pooled")


def _shrunk(fit: MixtureFit, share: float, z_valid: np.ndarray) -> MixtureFit:
    """With covariances so far on the way to their diagonals."""
    diagonals = fit.covariances * np.eye(fit.means.shape[1])
    shrunk = fit._replace(covariances=(1 - share) * fit.covariances + share * diagonals)
    found = f"{fit.found}, correlations shrunk by {share:.0%}"
    return shrunk._replace(valid=float(np.mean(shrunk.log_prob(z_valid))), found=found)


def with_tails(fit: MixtureFit, rows: np.ndarray) -> MixtureFit:
    """With wide components of little weight, so that no outlier is impossible; of less where rows [n, d] need none."""
    d = fit.means.shape[1]
    means = np.concatenate([fit.means, np.zeros((len(TAILS), d))])
    covariances = np.concatenate([fit.covariances, [spread**2 * np.eye(d) for spread, _ in TAILS]])
    wide = []
    for scale in TAIL_SCALES:
        tails = scale * np.array([weight for _, weight in TAILS])
        weights = np.concatenate([fit.weights * (1 - tails.sum()), tails])
        wide.append(fit._replace(weights=weights, means=means, covariances=covariances))
    return max(wide, key=lambda one: one.log_prob(rows).mean())
