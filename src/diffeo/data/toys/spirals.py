"""Spirals: one whose radius is noisy, and two whose points are."""

import numpy as np

from diffeo.data.toys.normals import LOG_2PI, log_sum
from diffeo.data.toys.record import CHUNK, Toy, counted, entropy_on_grid, panels, positive, weighed

REACH = 12.0  # standard deviations that an integral goes beyond the curve
GRADED = 0.25 ** np.arange(1, 11)  # of a panel: where it is cut, ever closer to an end


def spiral(variance: float = 0.25, turns: int = 2) -> Toy:
    """An angle t uniform on [0, 2 pi turns], and a radius from N(t / 2, variance), which may be negative.

    With rho = |x|, phi its angle in [0, 2 pi), and T the number of turns, the density in the plane is

        p(x) = 1/(2 pi T rho) [ sum_k N(rho; (phi + 2 pi k)/2, v) + sum_k N(-rho; (phi' + 2 pi k)/2, v) ],

    k = 0 .. T - 1 and phi' = phi + pi, in [0, 2 pi) too: the second sum is that of negative radii. It grows as 1/rho at
    the origin (where it is given for rho = 1e-300), so that its square has no integral, and makes a step where phi
    goes from 2 pi to 0, and another opposite.

    >>> round(spiral().entropy, 3), round(spiral(variance=0.0625).entropy, 3)
    (4.085, 3.402)
    """
    variance, turns = positive("variance", variance), counted("turns", turns)
    std, wound = float(np.sqrt(variance)), 2 * np.pi * np.arange(turns)

    def draw(n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        angle = rng.uniform(0, 2 * np.pi * turns, n)
        radius = angle / 2 + std * rng.normal(size=n)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)

    def polar(distance: np.ndarray, angle: np.ndarray) -> np.ndarray:
        """Log-density at a distance [n] and an angle [n], from 0 to 2 pi."""
        opposite = (angle + np.pi) % (2 * np.pi)
        ahead = distance[:, None] - (angle[:, None] + wound) / 2
        behind = distance[:, None] + (opposite[:, None] + wound) / 2
        heights = -0.5 * (np.concatenate([ahead, behind], 1) / std) ** 2
        return log_sum(heights) - 0.5 * LOG_2PI - np.log(std) - np.log(2 * np.pi * turns * distance)

    def log_density(x: np.ndarray) -> np.ndarray:
        angle = np.arctan2(x[:, 1], x[:, 0]) % (2 * np.pi)
        return polar(np.maximum(np.hypot(x[:, 0], x[:, 1]), 1e-300), angle % (2 * np.pi))

    def entropy() -> float:
        edges = np.arange(0.0, np.pi * turns + REACH * std, std)
        distance, length = panels(np.concatenate([[0.0], std * GRADED[::-1], edges[1:]]))
        angle, turn = panels(np.linspace(0, 2 * np.pi, 2 * (8 + int(2 / std)) + 1))
        parts = [turn[i] * length @ (distance * weighed(polar(distance, np.full(len(distance), angle[i]))))
                 for i in range(len(angle))]  # fmt: skip
        return -float(np.sum(parts))

    return Toy("spiral", "a spiral of noisy radius", 2, draw, log_density, entropy)


def two_spirals(noise: float = 0.1, turns: float = 1.5) -> Toy:
    """Two arms that wind about each other: +-(t/3)(-cos t, sin t), t = 2 pi turns sqrt(u) with u uniform on [0, 1],
    blurred by a Gaussian. The density is the integral along the curve, by Gauss-Legendre in panels as long as the
    noise, and shorter towards its ends, which are what is nearest to many points far away."""
    noise, turns = positive("noise", noise), positive("turns", turns)
    end = 2 * np.pi * turns

    def curve(t: np.ndarray) -> np.ndarray:
        return np.stack([-t / 3 * np.cos(t), t / 3 * np.sin(t)], 1)

    def draw(n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        arm = rng.choice([-1.0, 1.0], (n, 1))
        return np.asarray(arm * curve(end * np.sqrt(rng.random(n))) + noise * rng.normal(size=(n, 2)))

    def length(t: np.ndarray) -> np.ndarray:
        return np.asarray((t * np.sqrt(1 + t**2) + np.arcsinh(t)) / 6)

    fine = np.linspace(0, end, 4001)
    count = max(16, int(np.ceil(float(length(fine)[-1]) / noise)))
    edges = np.interp(np.linspace(0, length(fine)[-1], count + 1), length(fine), fine)
    edges[0], edges[-1] = 0.0, end
    near, far = edges[1] * GRADED[::-1], end - (end - edges[-2]) * GRADED
    t, weight = panels(np.concatenate([[0.0], near, edges[1:-1], far, [end]]), order=6)
    places = curve(t) / noise
    heights = np.log(weight * 2 * t / end**2) - 0.5 * (places**2).sum(1)

    def both_arms(z: np.ndarray) -> np.ndarray:
        """log of the integral of exp(-|z - c|^2 / 2) along both arms, but for |z|^2 / 2."""
        towards = z @ places.T
        top = (heights + np.abs(towards)).max(1, keepdims=True)
        return np.asarray(np.log(sum(np.exp(heights - top + s * towards).sum(1) for s in (-1, 1))) + top[:, 0])

    def log_density(x: np.ndarray) -> np.ndarray:
        z, size = x / noise, max(1, CHUNK // len(t))
        found = np.concatenate([both_arms(z[i : i + size]) for i in range(0, max(1, len(z)), size)])
        return found - 0.5 * (z**2).sum(1) - np.log(2) - LOG_2PI - 2 * np.log(noise)

    def entropy() -> float:
        reach = np.full(2, end / 3 + REACH * noise)
        return entropy_on_grid(log_density, -reach, reach, noise / 2)

    return Toy("two-spirals", "two spirals in each other", 2, draw, log_density, entropy)
