"""The same formulas made fast: C that is compiled when diffeo is installed, and stood in for by `scalars/` elsewhere;
and perceptrons, whose products of matrices go to the library that is the fastest at them.

Whether kernels are used decides how fast a flow is, and nothing else: results agree to rounding.
"""

from diffeo.kernels.affine import moved_by_line
from diffeo.kernels.dense import linear, perceptron
from diffeo.kernels.fused import slopes_again
from diffeo.kernels.library import VARIABLE, in_use
from diffeo.kernels.rows import linear_rows
from diffeo.kernels.spline import fits, fused

__all__ = [
    "VARIABLE",
    "fits",
    "fused",
    "in_use",
    "linear",
    "linear_rows",
    "moved_by_line",
    "perceptron",
    "slopes_again",
]
