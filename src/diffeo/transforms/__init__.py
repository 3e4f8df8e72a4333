"""Transforms: the stairs between data and noise, each with its inverse."""

from diffeo.transforms.autoregressive import Autoregressive
from diffeo.transforms.base import Chain, Inverse, Transform
from diffeo.transforms.causal import TokenAutoregressive
from diffeo.transforms.channels import OverChannels
from diffeo.transforms.continuous import Continuous
from diffeo.transforms.conv import Conv1x1
from diffeo.transforms.coupling import Coupling, Partition
from diffeo.transforms.elementwise import Elementwise
from diffeo.transforms.fields import Field
from diffeo.transforms.fixed import Asinh, Flip, Log, Logit, Permute, Standardize
from diffeo.transforms.linear import LU, ActNorm, Linear
from diffeo.transforms.multiscale import Multiscale
from diffeo.transforms.orthogonal import Orthogonal
from diffeo.transforms.patches import Patches
from diffeo.transforms.pictures import PictureCoupling
from diffeo.transforms.planar import Planar, Radial
from diffeo.transforms.residual import Residual
from diffeo.transforms.squeeze import Squeeze
from diffeo.transforms.stacked import Stacked, chained
from diffeo.transforms.sylvester import Sylvester
from diffeo.transforms.tokens import TokenCoupling

__all__ = [
    "LU",
    "ActNorm",
    "Asinh",
    "Autoregressive",
    "Chain",
    "Continuous",
    "Conv1x1",
    "Coupling",
    "Elementwise",
    "Field",
    "Flip",
    "Inverse",
    "Linear",
    "Log",
    "Logit",
    "Multiscale",
    "Orthogonal",
    "OverChannels",
    "Partition",
    "Patches",
    "Permute",
    "PictureCoupling",
    "Planar",
    "Radial",
    "Residual",
    "Squeeze",
    "Stacked",
    "Standardize",
    "Sylvester",
    "TokenAutoregressive",
    "TokenCoupling",
    "Transform",
    "chained",
]
