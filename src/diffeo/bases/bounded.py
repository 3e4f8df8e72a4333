"""Noise on an interval: uniform, and von Mises's on the circle."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from diffeo.bases.base import Base
from diffeo.errors import ShapeError, whole
from diffeo.scalars import working_dtype

__all__ = ["Uniform", "VonMises"]

LOG_SHARPEST = 5.0  # concentrations lie within exp(-5) .. exp(5)
NODES = 128  # of Gauss and Legendre's rule, for a tail


class Uniform(Base):
    """Independent uniform coordinates on [low, high], for angles by default; log_prob is -inf outside.

    >>> Uniform(0.0, 2.0, 1).log_prob(torch.tensor([[1.0], [3.0]]))
    tensor([-0.6931,    -inf])
    """

    like: Tensor

    def __init__(self, low: float = -math.pi, high: float = math.pi, features: int = 1) -> None:
        super().__init__()
        self.low, self.high = float(low), float(high)
        if not (self.low < self.high and math.isfinite(self.high - self.low)):
            raise ShapeError(f"low, high: expected finite numbers, the first the smaller, got {low!r}, {high!r}")
        self.event_shape = (whole("features", features),)
        self.register_buffer("like", torch.empty(0), persistent=False)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        z = z.to(working_dtype(z))
        low, high = (torch.as_tensor(bound, dtype=z.dtype, device=z.device) for bound in (self.low, self.high))
        inside = ((z >= low) & (z <= high)).all(1)
        return torch.where(inside, -z.shape[1] * math.log(self.high - self.low), -math.inf).to(z.dtype)

    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        shape = (*self._batch(n, context), *self.event_shape)
        level = torch.rand(shape, generator=generator, dtype=self.like.dtype, device=self.like.device)
        return (self.low + (self.high - self.low) * level).clamp(self.low, self.high)

    def to_normal(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        level = (z.detach().double() - self.low) / (self.high - self.low)
        return torch.special.ndtri(level.clamp(0, 1)).to(z)


class VonMises(Base):
    """Independent angles in [-pi, pi], each about a learned location; log_prob is -inf outside.

    log p = sum_i kappa_i cos(z_i - loc_i) - log(2 pi I0(kappa_i)), I0 the modified Bessel function; the concentrations
    kappa lie within exp(-5) .. exp(5), 1 at first (von Mises 1918; Mardia and Jupp 2000, section 3.5.4).

    >>> VonMises().log_prob(torch.tensor([[0.0], [3.2]])).detach()
    tensor([-1.0738,    -inf])
    """

    reparametrised = False

    def __init__(self, features: int = 1) -> None:
        super().__init__()
        self.event_shape = (whole("features", features),)
        self.loc = nn.Parameter(torch.zeros(features))
        self.raw_concentration = nn.Parameter(torch.zeros(features))

    def concentration(self, dtype: torch.dtype) -> Tensor:
        """kappa [d]."""
        return torch.exp(LOG_SHARPEST * torch.tanh(self.raw_concentration.to(dtype) / LOG_SHARPEST))

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        dtype = working_dtype(z, self.loc)
        z, half_turn = z.to(dtype), torch.as_tensor(math.pi, dtype=dtype, device=z.device)
        inside = z.abs() <= half_turn
        away = torch.where(inside, z, 0.0) - self.loc.to(dtype)
        log_prob = _log_height(away, self.concentration(dtype)).sum(1)
        return torch.where(inside.all(1), log_prob, -math.inf)

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """By rejection from a wrapped Cauchy density (Best and Fisher 1979): two draws in three are kept or more."""
        like, shape = self.loc, (*self._batch(n, context), *self.event_shape)
        kappa = self.concentration(torch.float64).expand(shape).flatten()
        tau = 1 + (1 + 4 * kappa.square()).sqrt()
        rho = (tau - (2 * tau).sqrt()) / (2 * kappa)
        r = (1 + rho.square()) / (2 * rho)
        away, left = torch.zeros_like(kappa), torch.arange(len(kappa), device=like.device)
        while len(left):
            u = torch.rand(3, len(left), generator=generator, dtype=torch.float64, device=like.device)
            cosine = torch.cos(math.pi * u[0])
            proposed = (1 + r[left] * cosine) / (r[left] + cosine)
            c = kappa[left] * (r[left] - proposed)
            kept = (c.log() - u[1].log() + 1 - c) >= 0
            away[left[kept]] = torch.where(u[2] < 0.5, -1.0, 1.0)[kept] * proposed.clamp(-1, 1).acos()[kept]
            left = left[~kept]
        return _wrap(away.view(shape) + like.double()).to(like.dtype).clamp(-math.pi, math.pi)

    def to_normal(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """By the distribution function of the angle from the location, the circle being cut opposite to it."""
        with torch.no_grad():
            away = _wrap(z.double() - self.loc.double())
            return (-away.sign() * torch.special.ndtri(self._beyond(away.abs()))).to(z)

    def _beyond(self, size: Tensor) -> Tensor:
        """The mass from an angle ``size`` [n, d] from the location on to half a turn, accurate in the tail too."""
        kappa, total = self.concentration(torch.float64), torch.zeros_like(size)
        for node, weight in zip(*np.polynomial.legendre.leggauss(NODES), strict=True):
            half = 0.5 * (math.pi - size)
            total = total + half * weight * _log_height(size + half * (1 + node), kappa).exp()
        return total.clamp(max=0.5)


def _log_height(away: Tensor, kappa: Tensor) -> Tensor:
    """The log-density of each angle ``away`` from its location."""
    return kappa * (away.cos() - 1) - (2 * math.pi * torch.special.i0e(kappa)).log()


def _wrap(angle: Tensor) -> Tensor:
    return (torch.remainder(angle + math.pi, 2 * math.pi) - math.pi).clamp(-math.pi, math.pi)
