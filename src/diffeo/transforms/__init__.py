"""Transforms: the stairs between data and noise, each with its inverse."""

from diffeo.transforms.autoregressive import Autoregressive
from diffeo.transforms.base import Chain, Inverse, Transform
from diffeo.transforms.continuous import Continuous
from diffeo.transforms.coupling import Coupling, Partition
from diffeo.transforms.fields import Field
from diffeo.transforms.fixed import Asinh, Flip, Log, Logit, Permute, Standardize
from diffeo.transforms.linear import LU, ActNorm
from diffeo.transforms.residual import Residual

__all__ = [
    "LU",
    "ActNorm",
    "Asinh",
    "Autoregressive",
    "Chain",
    "Continuous",
    "Coupling",
    "Field",
    "Flip",
    "Inverse",
    "Log",
    "Logit",
    "Partition",
    "Permute",
    "Residual",
    "Standardize",
    "Transform",
]
