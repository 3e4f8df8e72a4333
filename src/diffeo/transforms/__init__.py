"""Transforms: the stairs between data and noise, each with its inverse."""

from diffeo.transforms.autoregressive import Autoregressive
from diffeo.transforms.base import Chain, Inverse, Transform
from diffeo.transforms.channels import OverChannels
from diffeo.transforms.coupling import Coupling, Partition
from diffeo.transforms.elementwise import Elementwise
from diffeo.transforms.fixed import Asinh, Flip, Log, Logit, Permute, Standardize
from diffeo.transforms.linear import LU, ActNorm, Linear
from diffeo.transforms.orthogonal import Orthogonal
from diffeo.transforms.planar import Planar, Radial
from diffeo.transforms.sylvester import Sylvester

__all__ = [
    "LU",
    "ActNorm",
    "Asinh",
    "Autoregressive",
    "Chain",
    "Coupling",
    "Elementwise",
    "Flip",
    "Inverse",
    "Linear",
    "Log",
    "Logit",
    "Orthogonal",
    "OverChannels",
    "Partition",
    "Permute",
    "Planar",
    "Radial",
    "Standardize",
    "Sylvester",
    "Transform",
]
