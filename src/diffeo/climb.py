"""EM for Gaussian mixtures with full covariances (Dempster, Laird & Rubin 1977), as two products of matrices a step.

Rows are unfolded once into all their products, phi(z) = (1, z, z_i z_j for i <= j). Every log-density is then linear in
phi, and so is every moment: L = Phi Theta, and S = R' Phi with the shares R of components in rows.
"""

import numpy as np

__all__ = ["climbed", "clusters", "heights"]

STEPS = 60  # of EM at most
GAIN = 1e-3  # nats a row and step, with less EM ends
BLOCK = 400_000  # numbers of Phi at a time
SEEDED = 5_000  # rows among which the first centres are sought
ROUNDS = 30  # of k-means at most
LOG_2PI = float(np.log(2 * np.pi))


def climbed(
    z: np.ndarray, size: int, ridge: float, seed: int, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [k], means [k, d] and covariances [k, d, d] of k = `size` components, from `clusters` or from `labels`
    [n] of rows z [n, d] in about unit spread. `ridge` is added to every variance. Raises ValueError where a component
    collapses nevertheless.

    >>> rng = np.random.default_rng(0)
    >>> z = np.concatenate([rng.normal(-3, 1, (900, 2)), rng.normal(3, 1, (100, 2))])
    >>> weights, means, _ = climbed(z, 2, 1e-6, seed=0)
    >>> np.sort(weights).round(1), np.sort(means[:, 0]).round()
    (array([0.1, 0.9]), array([-3.,  3.]))
    """
    labels = clusters(z, size, seed) if labels is None else labels
    n, d = z.shape
    rows = max(1, BLOCK // (1 + d + d * (d + 1) // 2))
    starts = range(0, n, rows)
    kept = [_unfolded(z[i : i + rows]) for i in starts] if n * d * d < 20 * BLOCK else None
    moments = np.zeros((size, 1 + d + d * (d + 1) // 2))
    for i in starts:
        moments += (np.arange(size)[:, None] == labels[i : i + rows]).astype(float) @ _block(z, kept, i, rows)
    reached = -np.inf
    for _ in range(STEPS):
        weights, means, covariances = _parameters(moments, d, ridge)
        theta, total, moments = _linear(weights, means, covariances), 0.0, np.zeros_like(moments)
        for i in starts:
            phi = _block(z, kept, i, rows)
            each = phi @ theta
            top = each.max(1, keepdims=True)
            shares = np.exp(each - top)
            whole = shares.sum(1, keepdims=True)
            total += float((top + np.log(whole)).sum())
            shares /= whole
            moments += shares.T @ phi
        before, reached = reached, total / n
        if abs(reached - before) < GAIN:
            break
    return _parameters(moments, d, ridge)


def heights(z: np.ndarray, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """The log-density of every row of z [n, d], in about unit spread: [n]."""
    theta, rows = _linear(weights, means, covariances), max(1, BLOCK // (1 + z.shape[1]) ** 2)
    found = [np.zeros(0)]
    for i in range(0, len(z), rows):
        each = _unfolded(z[i : i + rows]) @ theta
        top = each.max(1)
        found.append(top + np.log(np.exp(each - top[:, None]).sum(1)))
    return np.concatenate(found)


def clusters(z: np.ndarray, size: int, seed: int, tries: int = 1) -> np.ndarray:
    """The nearest of `size` centres to every row of z [n, d]: [n], by k-means (Lloyd 1982) from centres that are drawn
    far from one another (Arthur & Vassilvitskii 2007), on some of the rows; the tightest of so many tries."""
    if size == 1:
        return np.zeros(len(z), int)
    rng = np.random.default_rng(seed)
    centres = [_centres(z, size, rng) for _ in range(tries)]
    return _nearest(z, centres[0] if tries == 1 else min(centres, key=lambda one: _spread(z, one)))


def _spread(z: np.ndarray, centres: np.ndarray) -> float:
    return float(np.square(z - centres[_nearest(z, centres)]).sum())


def _centres(z: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    some = z[rng.permutation(len(z))[:SEEDED]]
    centres, nearest = [some[rng.integers(len(some))]], np.full(len(some), np.inf)
    tries = 2 + int(np.log(size))
    for _ in range(size - 1):
        nearest = np.minimum(nearest, np.square(some - centres[-1]).sum(1))
        whole = nearest.sum()
        chance = nearest / whole if whole > 0 else None
        drawn = some[rng.choice(len(some), tries, p=chance)]
        left = [np.minimum(nearest, np.square(some - one).sum(1)).sum() for one in drawn]
        centres.append(drawn[int(np.argmin(left))])
    centre = np.stack(centres)
    labels = _nearest(some, centre)
    for _ in range(ROUNDS):
        member = labels == np.arange(size)[:, None]
        count = member.sum(1)
        centre = np.where(count[:, None] > 0, (member.astype(float) @ some) / np.maximum(count, 1)[:, None], centre)
        before, labels = labels, _nearest(some, centre)
        if np.array_equal(before, labels):
            break
    return centre


def _nearest(z: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.asarray((np.square(centres).sum(1) - 2 * z @ centres.T).argmin(1))


def _block(z: np.ndarray, kept: list[np.ndarray] | None, start: int, rows: int) -> np.ndarray:
    return _unfolded(z[start : start + rows]) if kept is None else kept[start // rows]


def _unfolded(z: np.ndarray) -> np.ndarray:
    """phi of rows z [n, d]: [n, 1 + d + d (d + 1) / 2]."""
    first, second = np.triu_indices(z.shape[1])
    return np.concatenate([np.ones((len(z), 1)), z, z[:, first] * z[:, second]], 1)


def _parameters(moments: np.ndarray, d: int, ridge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and covariances of components whose shares sum to these moments [k, p]."""
    counts = moments[:, 0] + 10 * np.finfo(float).eps
    means = moments[:, 1 : 1 + d] / counts[:, None]
    covariances = np.empty((len(moments), d, d))
    first, second = np.triu_indices(d)
    covariances[:, first, second] = moments[:, 1 + d :] / counts[:, None] - means[:, first] * means[:, second]
    covariances[:, second, first] = covariances[:, first, second]
    own = np.arange(d)
    covariances[:, own, own] = np.maximum(covariances[:, own, own], 0.0) + ridge
    return counts / counts.sum(), means, covariances


def _linear(weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Theta [p, k]: log(w_k N(z; mu_k, Sigma_k)) is phi(z) times its column k."""
    d = means.shape[1]
    first, second = np.triu_indices(d)
    try:
        roots = np.linalg.cholesky(covariances)
    except np.linalg.LinAlgError:
        raise ValueError("a component collapsed; a stronger ridge is needed") from None
    inverse = np.linalg.inv(roots)
    precisions = inverse.transpose(0, 2, 1) @ inverse
    slopes = (precisions @ means[:, :, None])[:, :, 0]
    level = np.log(weights) + np.log(np.diagonal(inverse, axis1=1, axis2=2)).sum(1)
    level = level - 0.5 * (d * LOG_2PI + (means * slopes).sum(1))
    squares = np.where(first == second, -0.5, -1.0) * precisions[:, first, second]
    return np.concatenate([level[:, None], slopes, squares], 1).T
