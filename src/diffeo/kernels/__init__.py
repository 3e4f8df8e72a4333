"""The same formulas made fast: C that is compiled when diffeo is installed, and stood in for by `scalars/` elsewhere;
and products of matrices by the library that is the fastest at them.

Whether kernels are used decides how fast a flow is, and nothing else: results agree to rounding.
"""

from diffeo.kernels.library import VARIABLE, in_use
from diffeo.kernels.products import addmm
from diffeo.kernels.spline import fits, fused

__all__ = ["VARIABLE", "addmm", "fits", "fused", "in_use"]
