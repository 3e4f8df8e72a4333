"""The noise at the foot of the stairs, and what every density must say.

A base is a Density with one thing more: ``to_normal``, its Rosenblatt map to independent standard normals (Rosenblatt
1952), so that calibration, temperature and interpolation mean the same whatever the base.
"""

from diffeo.bases.base import FARTHEST, LOG_2PI, Base, Density
from diffeo.bases.bounded import Uniform, VonMises
from diffeo.bases.mixture import GaussianMixture, mixture_quantiles
from diffeo.bases.normal import DiagonalNormal, FullNormal, StandardNormal
from diffeo.bases.product import Product
from diffeo.bases.student import StudentT

__all__ = [
    "FARTHEST",
    "LOG_2PI",
    "Base",
    "Density",
    "DiagonalNormal",
    "FullNormal",
    "GaussianMixture",
    "Product",
    "StandardNormal",
    "StudentT",
    "Uniform",
    "VonMises",
    "mixture_quantiles",
]
