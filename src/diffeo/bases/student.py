"""Student-t noise, with learned tails."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from diffeo.bases.base import FARTHEST, Base
from diffeo.errors import whole
from diffeo.scalars import working_dtype

__all__ = ["StudentT"]


class StudentT(Base):
    """Independent Student-t coordinates with learned degrees of freedom (0.25 to 100, from 5), location and scale.

    >>> StudentT(1).log_prob(torch.tensor([[1e15]])).isfinite().item()
    True
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.event_shape = (whole("features", features),)
        self.raw_df = nn.Parameter(torch.zeros(features))
        self.loc = nn.Parameter(torch.zeros(features))
        self.raw_scale = nn.Parameter(torch.zeros(features))

    def _parameters_of(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """df, loc and log-scale, each [d]; log-scale within +-3."""
        df = 5 * torch.exp(3 * torch.tanh(self.raw_df.to(dtype) / 3))
        return df, self.loc.to(dtype), 3 * torch.tanh(self.raw_scale.to(dtype) / 3)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        dtype = working_dtype(z, self.loc)
        df, loc, log_scale = self._parameters_of(dtype)
        t = (z.to(dtype).clamp(-FARTHEST, FARTHEST) - loc) * (-log_scale).exp()
        height = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * (df * math.pi).log() - log_scale
        return (height - (df + 1) / 2 * torch.log1p(t.square() / df)).sum(1)

    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """By the polar method (Bailey 1994), exact and differentiable in every parameter."""
        df, loc, log_scale = self._parameters_of(self.loc.dtype)
        shape = (2, *self._batch(n, context), *self.event_shape)
        radius, angle = torch.rand(shape, generator=generator, dtype=torch.float64, device=self.loc.device)
        squared = df.double() * torch.expm1(-2 / df.double() * torch.log1p(-radius))
        t = squared.clamp(min=1e-300).sqrt() * torch.cos(2 * math.pi * angle)
        return (loc + log_scale.exp() * t).to(self.loc.dtype)

    def to_normal(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        from scipy.special import ndtri, stdtr

        with torch.no_grad():
            df, loc, log_scale = self._parameters_of(torch.float64)
            t = ((z.double() - loc) * (-log_scale).exp()).cpu().numpy()
        return torch.as_tensor(-np.sign(t) * ndtri(stdtr(df.cpu().numpy(), -np.abs(t)))).to(z)
