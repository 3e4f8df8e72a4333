"""The same formulas made fast: C that is compiled when diffeo is installed, and stood in for by `scalars/` elsewhere.

Whether kernels are used decides how fast a flow is, and nothing else: results agree to rounding.
"""

from diffeo.kernels.affine import moved_by_line
from diffeo.kernels.library import VARIABLE, in_use
from diffeo.kernels.spline import fits, fused, watched

__all__ = ["VARIABLE", "fits", "fused", "in_use", "moved_by_line", "watched"]
