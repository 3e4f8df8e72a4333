"""Gaussian mixtures of few parameters: what some rows can bear, chosen by the Bayesian information criterion.

Where rows are few, every covariance that need not be learned leaves an error less. The families are those of
Banfield & Raftery (1993) and Celeux & Govaert (1995): how components may differ in extent, shape and weight.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from diffeo.climb import clusters

__all__ = ["FAMILIES", "Family", "MixtureFit", "affordable_size", "anew", "simplest"]

MOST = 24  # components at most
PATIENT = 3  # sizes in a row that may do worse than the best
STEPS = 100  # of EM
GAIN = 1e-5  # nats a row and step, with less EM ends
RIDGE = 1e-6  # on every variance, in unit spread
ROWS_EACH = 2  # rows for each number and one more, below which a component is a chance


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
        return np.asarray(logsumexp(self.log_joint(z), axis=0))

    def log_joint(self, z: np.ndarray) -> np.ndarray:
        """log(w_k N(z; mu_k, Sigma_k)) of rows z [n, d]: [k, n]."""
        roots = np.linalg.cholesky(self.covariances)
        heights = np.log(self.weights) - np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(1)
        heights = heights - 0.5 * z.shape[1] * np.log(2 * np.pi)
        return np.stack(
            [
                height - 0.5 * np.square(solve_triangular(root, (z - mean).T, lower=True, check_finite=False)).sum(0)
                for height, mean, root in zip(heights, self.means, roots, strict=True)
            ]
        )


class Family(NamedTuple):
    """What the components of a mixture have in common. `covariance`: variances of the numbers for all components
    (same) or each its own (diag), one matrix for all (tied), one each (full). None depends on the numbers' units."""

    name: str
    covariance: str
    equal: bool = False

    def size(self, k: int, d: int) -> int:
        """Free numbers of a mixture of k components in d dimensions."""
        square = d * (d + 1) // 2
        shape = {"same": d, "diag": k * d, "tied": square, "full": k * square}[self.covariance]
        return k * d + shape + (0 if self.equal else k - 1)


FAMILIES = {
    family.name: family
    for family in (
        Family("upright ellipses of one shape and weight", "same", True),
        Family("upright ellipses of one shape", "same"),
        Family("upright ellipses", "diag"),
        Family("ellipses of one shape", "tied"),
        Family("ellipses", "full"),
    )
}


def affordable_size(n: int, d: int, seconds: float | None) -> int:
    """Components of the largest mixture that the search may try in so many seconds, by a rough model of EM's cost: a
    function of the numbers alone and not of a clock, so that a run can be repeated.

    >>> affordable_size(1000, 2, None), affordable_size(5000, 30, 1.0)
    (24, 1)
    """
    if seconds is None:
        return MOST
    each = len(FAMILIES) * STEPS / 2 * n * (3e-9 * d * d + 2e-8 * d + 6e-8)
    return int(min(MOST, max(1, np.sqrt(2 * seconds / each))))


def simplest(z: np.ndarray, seed: int, most: int = MOST) -> tuple[MixtureFit, Family]:
    """The mixture of rows z [n, d] in unit spread, of any family and of up to `most` components, with the least
    criterion -2 log-likelihood + (free numbers) log n (Schwarz 1978).

    >>> rng = np.random.default_rng(0)
    >>> z = np.concatenate([rng.normal(-3, 1, (300, 2)), rng.normal(3, 1, (300, 2))])
    >>> fit, family = simplest(z, seed=0)
    >>> len(fit.weights), family.name
    (2, 'upright ellipses of one shape and weight')
    """
    n, d = z.shape
    best, least, chosen = None, np.inf, FAMILIES["ellipses"]
    lowest, worse = dict.fromkeys(FAMILIES, np.inf), dict.fromkeys(FAMILIES, 0)
    for k in range(1, max(1, min(most, n // (ROWS_EACH * (d + 1)))) + 1):
        parts = _parted(z, k, seed)
        for name, family in FAMILIES.items():
            if worse[name] >= PATIENT:
                continue
            fit = _climbed(z, parts, family)
            criterion = family.size(k, d) * np.log(n) - 2 * n * fit.valid
            if not (fit.weights * n >= ROWS_EACH * (d + 1)).all():
                criterion = np.inf
            worse[name] = 0 if criterion < lowest[name] else worse[name] + 1
            lowest[name] = min(lowest[name], criterion)
            if best is None or criterion < least:
                best, least, chosen = fit, criterion, family
    assert best is not None
    return best, chosen


def anew(z: np.ndarray, k: int, family: Family, seed: int) -> MixtureFit:
    """The mixture of k components of a family that EM finds in rows z [n, d] from a start of its own."""
    return _climbed(z, _parted(z, k, seed, 1), family)


def _parted(z: np.ndarray, k: int, seed: int, tries: int = 2) -> np.ndarray:
    """Which of k clusters each row is in: [k, n], zeros and ones."""
    labels = clusters(z, k, seed % 2**31, tries)
    return np.asarray(labels == np.arange(k)[:, None], float)


def _climbed(z: np.ndarray, shares: np.ndarray, family: Family) -> MixtureFit:
    """EM from the shares [k, n] that components have in rows; `valid` is the mean log-density of z itself."""
    reached = -np.inf
    for _ in range(STEPS):
        fit = _moments(z, shares, family)
        joint = fit.log_joint(z)
        each = logsumexp(joint, axis=0)
        shares, before, reached = np.exp(joint - each), reached, float(each.mean())
        if reached - before < GAIN:
            break
    return fit._replace(valid=reached)


def _moments(z: np.ndarray, shares: np.ndarray, family: Family) -> MixtureFit:
    """The likeliest mixture of a family for rows z [n, d] of which components have these shares [k, n]."""
    (n, d), k, eye = z.shape, len(shares), np.eye(z.shape[1])
    counts = shares.sum(1) + 1e-9
    means = shares @ z / counts[:, None]
    if family.covariance in ("tied", "full"):
        scatter = np.stack([(own[:, None] * (z - m)).T @ (z - m) for own, m in zip(shares, means, strict=True)])
        covariances = scatter / counts[:, None, None] if family.covariance == "full" else scatter.sum(0)[None] / n
    else:
        scatter = shares @ z**2 - counts[:, None] * means**2  # [k, d]
        spread = scatter.sum(0, keepdims=True) / n if family.covariance == "same" else scatter / counts[:, None]
        covariances = spread.clip(0)[:, :, None] * eye
    weights = np.full(k, 1 / k) if family.equal else counts / counts.sum()
    return MixtureFit(weights, means, np.broadcast_to(covariances, (k, d, d)) + RIDGE * eye, 0.0, family.name)
