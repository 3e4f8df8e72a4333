"""Circles and arcs of circles, blurred by a Gaussian.

A point at distance rho from the centre of an arc of radius R has the density, with s the noise and u the angle
between the point and a place of the arc, L the arc's angle and k = rho R / s^2,

    p(x) = exp(-(rho - R)^2 / 2 s^2) / (2 pi s^2 L) * integral over the arc of exp(-k (1 - cos u)) du,

which for a whole circle is a Bessel function, 2 pi exp(-k) I0(k). On either side of the nearest place the integrand
falls for ever; it is summed by Gauss-Legendre from there to where 40 nats of it are lost, so that the density is as
exact far away as on the arc.
"""

import numpy as np
from scipy.special import i0e

from diffeo.data.toys.normals import LOG_2PI, Draw, log_sum
from diffeo.data.toys.record import CHUNK, Toy, counted, entropy_on_grid, panels, positive, weighed
from diffeo.errors import DataError, shown

LOST = 40.0  # nats
NODE, WEIGHT = np.polynomial.legendre.leggauss(32)
NODE, WEIGHT = (NODE + 1) / 2, WEIGHT / 2
REACH = 12.0  # standard deviations that an integral goes beyond the curve


def moons(noise: float = 0.1) -> Toy:
    """Two half circles that grip each other, blurred: scikit-learn's ``make_moons``.

    That places its points evenly along the arcs and then shuffles them; the density is that of one row, in the limit
    of many.

    >>> round(moons().entropy, 5)
    1.00758
    """
    noise = positive("noise", noise)

    def draw(n: int, seed: int) -> np.ndarray:
        from sklearn.datasets import make_moons

        return np.asarray(make_moons(n, noise=noise, random_state=seed, shuffle=True)[0])

    def log_density(x: np.ndarray) -> np.ndarray:
        upper = log_arc(x, 1.0, 0.0, np.pi, noise)
        lower = log_arc(x - np.array([1.0, 0.5]), 1.0, np.pi, 2 * np.pi, noise)
        return np.asarray(np.logaddexp(upper, lower) - np.log(2))

    def entropy() -> float:
        low, high = np.array([-1.0, -0.5]) - REACH * noise, np.array([2.0, 1.0]) + REACH * noise
        return entropy_on_grid(log_density, low, high, noise / 3)

    return Toy("moons", "two half moons", 2, draw, log_density, entropy)


def circles(noise: float = 0.1, factor: float = 0.8) -> Toy:
    """Two circles about the origin, of radius 1 and ``factor``, blurred: scikit-learn's ``make_circles``.

    That places its points evenly along the circles and then shuffles them; the density is that of one row.

    >>> round(circles().entropy, 5)
    1.17483
    """
    noise, factor = positive("noise", noise), positive("factor", factor)
    if factor >= 1:
        raise DataError(f"factor: expected a number below 1, got {shown(factor)}")

    def draw(n: int, seed: int) -> np.ndarray:
        from sklearn.datasets import make_circles

        return np.asarray(make_circles(n, noise=noise, factor=factor, random_state=seed, shuffle=True)[0])

    return _rings("circles", "two circles, one in the other", np.array([1.0, factor]), noise, draw)


def rings(count: int = 4, radius: float = 3.0, noise: float = 0.08) -> Toy:
    """Circles about the origin at even distances up to ``radius``, equally likely, blurred; independent draws."""
    count, radius, noise = counted("count", count), positive("radius", radius), positive("noise", noise)
    radii = radius * np.arange(1, count + 1) / count

    def draw(n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        at, angle = rng.choice(radii, n), rng.uniform(0, 2 * np.pi, n)
        return np.stack([at * np.cos(angle), at * np.sin(angle)], 1) + noise * rng.normal(size=(n, 2))

    return _rings("rings", "circles in one another", radii, noise, draw)


def _rings(name: str, title: str, radii: np.ndarray, noise: float, draw: Draw) -> Toy:
    def radial(distance: np.ndarray) -> np.ndarray:
        return log_sum(log_ring(distance[:, None], radii, noise)) - np.log(len(radii))

    def entropy() -> float:
        edges = np.arange(0.0, radii.max() + REACH * noise, noise)
        distance, weight = panels(edges)
        return -2 * np.pi * float(weight @ (distance * weighed(radial(distance))))

    return Toy(name, title, 2, draw, lambda x: radial(np.hypot(x[:, 0], x[:, 1])), entropy)


def log_ring(distance: np.ndarray, radius: np.ndarray, noise: float) -> np.ndarray:
    """Log-density of a blurred circle at such a distance from its centre, shapes as they broadcast."""
    bessel = i0e(distance / noise * (radius / noise))
    return np.asarray(-0.5 * ((distance - radius) / noise) ** 2 + np.log(bessel) - LOG_2PI - 2 * np.log(noise))


def log_arc(x: np.ndarray, radius: float, start: float, stop: float, noise: float) -> np.ndarray:
    """Log-density [n] at x [n, 2] of a blurred arc about the origin, from one angle to another, at most a whole turn
    further.

    >>> x = np.array([[0.3, 0.4], [40.0, 0.0]])
    >>> np.allclose(log_arc(x, 1.0, 0.0, 2 * np.pi, 0.1), log_ring(np.hypot(*x.T), np.array(1.0), 0.1))
    True
    """
    size = max(1, CHUNK // (4 * len(NODE)))
    parts = [_log_arc(x[i : i + size], radius, start, stop, noise) for i in range(0, max(1, len(x)), size)]
    return np.concatenate(parts)


def _log_arc(x: np.ndarray, radius: float, start: float, stop: float, noise: float) -> np.ndarray:
    distance = np.hypot(x[:, 0], x[:, 1])
    first = np.arctan2(x[:, 1], x[:, 0])
    first = -np.pi + (start - first + np.pi) % (2 * np.pi)  # the angle from the point to the arc's start
    last = first + (stop - start)
    sharpness = distance / noise * (radius / noise)
    pieces = []
    for turn in (-1, 0, 1, 2):  # half turns, on each of which the integrand is monotone
        low, high = (np.clip(u, turn * np.pi, (turn + 1) * np.pi) for u in (first, last))
        if turn % 2:  # mirrored, so that it falls
            low, high = (turn + 1) * np.pi - high, (turn + 1) * np.pi - low
        else:
            low, high = low - turn * np.pi, high - turn * np.pi
        pieces.append(log_slope_integral(low, high, sharpness))
    whole = log_sum(np.stack(pieces, -1)) - np.log(stop - start)
    return np.asarray(whole - 0.5 * ((distance - radius) / noise) ** 2 - LOG_2PI - 2 * np.log(noise))


def log_slope_integral(low: np.ndarray, high: np.ndarray, sharpness: np.ndarray) -> np.ndarray:
    """log of the integral of exp(-k (1 - cos u)) from low to high, within 0 .. pi; k is the sharpness, all [n].

    >>> k = np.array([0.0, 3.0, 1e9])
    >>> np.allclose(log_slope_integral(np.zeros(3), np.full(3, np.pi), k), np.log(np.pi * i0e(k)))
    True
    """
    reach = LOST / 2 / np.maximum(sharpness, 1e-300)
    end = 2 * np.arcsin(np.sqrt(np.minimum(np.sin(low / 2) ** 2 + reach, 1.0)))
    middle = np.maximum(np.sin((low + end) / 2), 1e-300)
    width = np.minimum(high - low, 2 * np.arcsin(np.minimum(reach / middle, 1.0)))
    step = width[:, None] * NODE
    fall = 2 * sharpness[:, None] * np.sin(low[:, None] + step / 2) * np.sin(step / 2)
    log_width = np.where(width > 0, np.log(np.maximum(width, 1e-300)), -np.inf)
    return np.asarray(log_width + np.log(np.exp(-fall) @ WEIGHT) - 2 * sharpness * np.sin(low / 2) ** 2)
