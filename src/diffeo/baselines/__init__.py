"""Densities that a flow must beat: product of the marginals, one Gaussian, Gaussian mixtures, kernels.

All score encoded rows x [n, D] of a schema in nats and in the units of the file, as a model does: a density where a
column is continuous, the probability of the rounding cell where it is rounded, a probability where it is discrete or
an atom. Columns that are given are no part of them.
"""

from diffeo.baselines.common import log_normal_mass, row_part
from diffeo.baselines.kernel import Kernels
from diffeo.baselines.mixture import Mixture, PerCategory
from diffeo.baselines.simple import Gaussian, Marginals

__all__ = ["Gaussian", "Kernels", "Marginals", "Mixture", "PerCategory", "log_normal_mass", "row_part"]
