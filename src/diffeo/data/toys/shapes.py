"""A checkerboard, whose density has edges, and a pinwheel, whose arms are bent by a map that keeps areas."""

import numpy as np

from diffeo.data.toys.normals import LOG_2PI, log_sum
from diffeo.data.toys.record import Toy, counted, entropy_on_grid, positive

MOST = 20.0  # radius beyond which a pinwheel is not bent further
REACH = 12.0


def checkerboard(side: float = 2.0) -> Toy:
    """Uniform on the eight squares of one colour of a board of four by four about the origin; -inf elsewhere. A square
    has its lower edges and not its upper ones.

    >>> round(checkerboard().entropy, 5), checkerboard().log_prob([[1.0, 1.0], [1.0, 3.0]]).round(3).tolist()
    (3.46574, [-3.466, -inf])
    """
    side = positive("side", side)
    area = 8 * side**2

    def draw(n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        column = rng.integers(-2, 2, n)
        row = 2 * rng.integers(-1, 1, n) + column % 2
        return side * (np.stack([column, row], 1) + rng.random((n, 2)))

    def log_density(x: np.ndarray) -> np.ndarray:
        square = np.floor(x / side)
        inside = ((square >= -2) & (square < 2)).all(1) & (square.clip(-3, 3).sum(1) % 2 == 0)
        return np.where(inside, -np.log(area), -np.inf)

    return Toy("checkerboard", "the squares of one colour", 2, draw, log_density, lambda: float(np.log(area)))


def pinwheel(arms: int = 5, radial: float = 0.3, tangential: float = 0.1, rate: float = 0.25) -> Toy:
    """Long Gaussians around the origin, bent into the arms of a pinwheel.

    (a, b) ~ N((1, 0), diag(radial^2, tangential^2)) is turned by one of the arms' angles and then by
    rate * exp(r), r = hypot(a, b), and doubled. As the second angle depends on the radius alone, the map is
    invertible and keeps areas (but for the doubling), so that the density is that of the Gaussians, exactly. The angle
    does not grow further beyond r = 20.
    """
    arms, rate = counted("arms", arms), positive("rate", rate)
    spread = np.array([positive("radial", radial), positive("tangential", tangential)])
    angles = 2 * np.pi * np.arange(arms) / arms

    def bend(v: np.ndarray, sign: float) -> np.ndarray:
        return turned(v, sign * rate * np.exp(np.minimum(np.hypot(v[:, 0], v[:, 1]), MOST)))

    def draw(n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        v = np.array([1.0, 0.0]) + spread * rng.normal(size=(n, 2))
        return 2 * bend(turned(v, rng.choice(angles, n)), 1.0)

    def straight(v: np.ndarray) -> np.ndarray:
        """Log-density of the arms before they are bent."""
        away = (np.stack([turned(v, -angle) for angle in angles]) - np.array([1.0, 0.0])) / spread  # [arms, n, 2]
        return log_sum(-0.5 * (away**2).sum(2).T) - np.log(arms) - np.log(spread).sum() - LOG_2PI

    def entropy() -> float:
        reach = np.full(2, 1 + REACH * spread.max())
        return entropy_on_grid(straight, -reach, reach, spread.min() / 3) + float(np.log(4))

    return Toy("pinwheel", "a pinwheel", 2, draw, lambda x: straight(bend(x / 2, -1.0)) - np.log(4), entropy)


def turned(v: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """Rows v [n, 2] turned anticlockwise."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * v[:, 0] - sin * v[:, 1], sin * v[:, 0] + cos * v[:, 1]], 1)
