"""How one number moves: pure increasing maps of the real line or of the circle, each steered by a few raw parameters.

A scalar knows no tensor but the numbers it moves. Its raw parameters come width first, ``raw[k]`` broadcasting against
x, so that rows of a table or pixels stay contiguous in memory; ``raw = 0`` is the identity (nearly so, where components
have to start apart). Arithmetic is never below float32: a half-precision x comes back in its own dtype, its log-slope
in float32.
"""

from diffeo.scalars.affines import additive, affine
from diffeo.scalars.base import Move, Scalar, within, working_dtype
from diffeo.scalars.mixture import mixture_cdf, mixture_start, sigmoidal
from diffeo.scalars.piecewise import linear_spline, quadratic_spline
from diffeo.scalars.polynomial import bernstein
from diffeo.scalars.rational import spline

__all__ = [
    "Move",
    "Scalar",
    "additive",
    "affine",
    "bernstein",
    "linear_spline",
    "mixture_cdf",
    "mixture_start",
    "quadratic_spline",
    "sigmoidal",
    "spline",
    "within",
    "working_dtype",
]
