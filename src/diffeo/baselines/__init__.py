"""Densities that a flow must beat: product of the marginals, one Gaussian, Gaussian mixtures, kernels.

`Marginals`, `Gaussian`, `Mixture`, `PerCategory` and `Kernels` are of tables. They score encoded rows x [n, D] of a
schema in nats and in the units of the file, as a model does: a density where a column is continuous, the probability
of the rounding cell where it is rounded, a probability where it is discrete or an atom. Columns that are given are no
part of them.

`NormalDistribution`, `NormalMixture` and `KernelDensity` are of plain arrays of numbers [n, d]. They are Densities as a
flow is, with bandwidths by rules (`scott`, `silverman`), by left-out rows (`cross_validated`) or by other rows
(`validated`).
"""

from diffeo.baselines.bandwidths import (
    cross_validated,
    mean_integrated_squared_error,
    scott,
    silverman,
    validated,
)
from diffeo.baselines.common import log_normal_mass, row_part
from diffeo.baselines.kernel import Kernels
from diffeo.baselines.kernel_density import KernelDensity
from diffeo.baselines.mixture import Mixture, PerCategory
from diffeo.baselines.normal import NormalDistribution, NormalMixture
from diffeo.baselines.simple import Gaussian, Marginals

__all__ = [
    "Gaussian",
    "KernelDensity",
    "Kernels",
    "Marginals",
    "Mixture",
    "NormalDistribution",
    "NormalMixture",
    "PerCategory",
    "cross_validated",
    "log_normal_mass",
    "mean_integrated_squared_error",
    "row_part",
    "scott",
    "silverman",
    "validated",
]
