"""Mixtures of Gaussians in the plane and on the line, each as wide in every direction as it is in one."""

from collections.abc import Callable, Sequence

import numpy as np

from diffeo.data.toys.record import Toy, counted, entropy_on_grid, positive

LOG_2PI = float(np.log(2 * np.pi))
REACH = 12.0  # standard deviations that an integral goes beyond the outermost mean
FOUR = ((0.0, 0.0), (0.0, 2.0), (2.0, 0.0), (2.0, 2.0))
Draw = Callable[[int, int], np.ndarray]

# Weights, means and standard deviations of Marron and Wand (1992), "Exact mean integrated squared error", table 1,
# but for the first, whose two Gaussians are wider and further apart than theirs.
ON_THE_LINE: dict[str, tuple[str, Sequence[float], Sequence[float], Sequence[float]]] = {
    "bimodal": ("two unit Gaussians at -2 and 2", (0.5, 0.5), (-2.0, 2.0), (1.0, 1.0)),
    "skewed": ("one hump, skewed", (0.2, 0.2, 0.6), (0, 1 / 2, 13 / 12), (1, 2 / 3, 5 / 9)),
    "strongly-skewed": (
        "a cliff with a long tail",
        [1 / 8] * 8,
        [3 * ((2 / 3) ** j - 1) for j in range(8)],
        [(2 / 3) ** j for j in range(8)],
    ),
    "kurtotic": ("a needle on a hump", (2 / 3, 1 / 3), (0, 0), (1, 0.1)),
    "outlier": ("a needle with a tenth of outliers", (0.1, 0.9), (0, 0), (1, 0.1)),
    "separated": ("two humps with a gap", (0.5, 0.5), (-1.5, 1.5), (0.5, 0.5)),
    "skewed-bimodal": ("a hump with a narrow one on its side", (0.75, 0.25), (0, 1.5), (1, 1 / 3)),
    "trimodal": ("two humps and a small one between", (0.45, 0.45, 0.1), (-1.2, 1.2, 0), (0.6, 0.6, 0.25)),
    "claw": ("a hump with five needles", [0.5] + [0.1] * 5, [0, -1, -0.5, 0, 0.5, 1], [1] + [0.1] * 5),
}


def grid(std: float = 0.5) -> Toy:
    """Four equal Gaussians at (0, 0), (0, 2), (2, 0), (2, 2), drawn by scikit-learn's ``make_blobs``.

    >>> round(grid().entropy, 5)
    2.71702
    """
    std = positive("std", std)
    return _mixture("grid", "four Gaussians on a square", FOUR, std, drawn=_blobs(np.array(FOUR), std))


def rotated(gaussians: int = 5, radius: float = 2.5, std: float = float(np.sqrt(0.1))) -> Toy:
    """Equal Gaussians evenly on a circle about the origin, drawn by scikit-learn's ``make_blobs``.

    >>> [round(rotated(k).entropy, 5) for k in (3, 5, 7)]
    [1.6339, 2.14472, 2.47945]
    """
    gaussians, radius, std = counted("gaussians", gaussians), positive("radius", radius), positive("std", std)
    means = _on_a_circle(gaussians, radius)
    return _mixture("rotated", "Gaussians on a circle", means, std, drawn=_blobs(means, std))


def eight_gaussians(radius: float = 4 / np.sqrt(2), std: float = 0.5 / np.sqrt(2)) -> Toy:
    """Eight equal Gaussians evenly on a circle, of independent draws."""
    means = _on_a_circle(8, positive("radius", radius))
    return _mixture("eight-gaussians", "eight Gaussians on a circle", means, positive("std", std))


def mixture(std: float = 0.5) -> Toy:
    """Four equal Gaussians at (0, 0), (0, 2), (2, 0), (2, 2), of independent draws: the density of ``grid``.

    >>> round(mixture(std=1).entropy, 4)
    3.5115
    """
    return _mixture("mixture", "four Gaussians on a square, of independent draws", FOUR, positive("std", std))


def three() -> Toy:
    """Three equal unit Gaussians at (0, 6), (-2.5, 3) and (2.5, 3)."""
    return _mixture("three", "three unit Gaussians", [(0, 6), (-2.5, 3), (2.5, 3)], 1.0)


def on_the_line(name: str) -> Toy:
    """A mixture of Gaussians of one number, by its name in ``ON_THE_LINE``."""
    title, weights, means, stds = ON_THE_LINE[name]
    return _mixture(name, title, np.array(means, float)[:, None], stds, weights)


def _on_a_circle(count: int, radius: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1)


def _blobs(means: np.ndarray, std: float) -> Draw:
    def draw(n: int, seed: int) -> np.ndarray:
        from sklearn.datasets import make_blobs

        return np.asarray(make_blobs(n, centers=means, cluster_std=std, shuffle=True, random_state=seed)[0])

    return draw


def _mixture(
    name: str,
    title: str,
    means: Sequence[Sequence[float]] | np.ndarray,  # [k, d]
    stds: float | Sequence[float],
    weights: Sequence[float] | None = None,
    drawn: Draw | None = None,
) -> Toy:
    means = np.array(means, float)
    k, d = means.shape
    spread = np.broadcast_to(np.asarray(stds, float), (k,))
    share = np.full(k, 1 / k) if weights is None else np.array(weights, float)

    def draw(n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        which = rng.choice(k, n, p=share)
        return np.asarray(means[which] + spread[which, None] * rng.normal(size=(n, d)))

    def log_density(x: np.ndarray) -> np.ndarray:
        square = sum(((x[:, i, None] - means[:, i]) / spread) ** 2 for i in range(d))
        return log_sum(np.log(share) - d * np.log(spread) - 0.5 * d * LOG_2PI - 0.5 * square)

    def entropy() -> float:
        far = REACH * spread[:, None]
        return entropy_on_grid(log_density, (means - far).min(0), (means + far).max(0), spread.min() / 4)

    return Toy(name, title, d, drawn or draw, log_density, entropy)


def log_sum(heights: np.ndarray) -> np.ndarray:
    """log of the sum of exponentials along the last axis, -inf where all are."""
    top = heights.max(-1, keepdims=True)
    top = np.maximum(top, -1e300)
    return np.asarray(np.log(np.exp(heights - top).sum(-1)) + top[..., 0])
