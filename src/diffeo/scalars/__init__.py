"""How one number moves: pure increasing maps of the real line or of the circle, each steered by a few raw parameters.

A scalar knows no tensor but the numbers it moves. Its raw parameters come width first, ``raw[k]`` broadcasting against
x, so that rows of a table or pixels stay contiguous in memory; ``raw = 0`` is the identity. Arithmetic is never below
float32: a half-precision x comes back in its own dtype, its log-slope in float32.
"""

from diffeo.scalars.affines import additive, affine
from diffeo.scalars.base import Move, Scalar, within, working_dtype
from diffeo.scalars.rational import spline

__all__ = ["Move", "Scalar", "additive", "affine", "spline", "within", "working_dtype"]
