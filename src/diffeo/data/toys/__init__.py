"""Sets of points whose density is known exactly: what a density estimator can be measured against.

    >>> moons = toy("moons", noise=0.1)
    >>> x = moons.sample(1000, seed=0)
    >>> round(float(-moons.log_prob(x).mean()), 2), round(moons.entropy, 2)
    (1.01, 1.01)

KL(p || q) of a model q is the mean of ``toy.log_prob(x) - q.log_prob(x)`` over fresh points x.
"""

import difflib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from diffeo.data.toys.arcs import circles, moons, rings
from diffeo.data.toys.normals import ON_THE_LINE, eight_gaussians, grid, mixture, on_the_line, rotated, three
from diffeo.data.toys.record import Toy
from diffeo.data.toys.shapes import checkerboard, pinwheel
from diffeo.data.toys.spirals import spiral, two_spirals
from diffeo.errors import DataError, shown

__all__ = ["TOYS", "Toy", "sample_2d_datasets", "toy"]

TOYS: dict[str, Callable[..., Toy]] = {
    "moons": moons,
    "circles": circles,
    "grid": grid,
    "rotated": rotated,
    "mixture": mixture,
    "spiral": spiral,
    "checkerboard": checkerboard,
    "rings": rings,
    "two-spirals": two_spirals,
    "pinwheel": pinwheel,
    "eight-gaussians": eight_gaussians,
    "three": three,
    **{name: partial(on_the_line, name) for name in ON_THE_LINE},
}


def toy(name: str, /, **options: Any) -> Toy:
    """The set of this name with these options. Raises DataError for an unknown name, option or value.

    >>> toy("moon")
    Traceback (most recent call last):
    diffeo.errors.DataError: moon: there is no such toy; did you mean 'moons'?
    """
    if name not in TOYS:
        close = difflib.get_close_matches(str(name), TOYS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(TOYS)}"
        raise DataError(f"{name if isinstance(name, str) else shown(name)}: there is no such toy; {hint}")
    known = [] if name in ON_THE_LINE else list(inspect.signature(TOYS[name]).parameters)
    for option in options:
        if option not in known:
            hint = f"there are: {', '.join(known)}" if known else "it has none"
            raise DataError(f"{name}: there is no option {option!r}; {hint}")
    return TOYS[name](**options)


def sample_2d_datasets(dist_type: str, num_samples: int = 1000, seed: int = 0, num_gaussians: int = 5) -> np.ndarray:
    """Points [num_samples, 2] of Circles, Moons, GaussiansGrid or GaussiansRot, the names of a course's exercise for
    circles, moons, grid and rotated; equal bit for bit to its calls of scikit-learn. Raises NotImplementedError for
    another name.

    >>> sample_2d_datasets("GaussiansRot", 4, num_gaussians=3).shape
    (4, 2)
    """
    made: dict[str, Callable[[], Toy]] = {"Circles": circles, "Moons": moons, "GaussiansGrid": grid}
    made["GaussiansRot"] = partial(rotated, num_gaussians)
    if dist_type not in made:
        raise NotImplementedError(f"dist_type: expected one of {', '.join(made)}, got {shown(dist_type)}")
    return made[dist_type]().sample(num_samples, seed)
