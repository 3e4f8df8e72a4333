"""Normal noise: standard, with a learned place and scale for each coordinate, or with any covariance."""

import math

import torch
from torch import Tensor, nn

from diffeo.bases.base import FARTHEST, LOG_2PI, Base
from diffeo.errors import whole
from diffeo.scalars import working_dtype

__all__ = ["DiagonalNormal", "FullNormal", "StandardNormal"]

LOG_SCALE_LIMIT = 3.0


def _event(event_shape: int | tuple[int, ...]) -> tuple[int, ...]:
    event = event_shape if isinstance(event_shape, tuple) else (event_shape,)
    return tuple(whole("event_shape", size) for size in event)


def _bounded(raw: Tensor) -> Tensor:
    """A log-scale within +-3, equal to raw near zero."""
    return LOG_SCALE_LIMIT * torch.tanh(raw / LOG_SCALE_LIMIT)


class StandardNormal(Base):
    """Independent standard normals.

    >>> StandardNormal(2).log_prob(torch.zeros(1, 2))
    tensor([-1.8379])
    """

    like: Tensor

    def __init__(self, event_shape: int | tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape = _event(event_shape)
        self.register_buffer("like", torch.empty(0), persistent=False)  # dtype and device of the draws

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        z = z.to(working_dtype(z)).reshape(z.shape[0], math.prod(z.shape[1:])).clamp(-FARTHEST, FARTHEST)
        return torch.rsub(z.square().sum(1), -0.5 * LOG_2PI * z.shape[1], alpha=0.5)

    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        shape = (*self._batch(n, context), *self.event_shape)
        return torch.randn(shape, generator=generator, dtype=self.like.dtype, device=self.like.device)

    def to_normal(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return z


class DiagonalNormal(Base):
    """Independent normals, each coordinate of an event of any shape with its own learned location and scale.

    log p = sum_i (-u_i^2 / 2 - s_i) - d/2 log 2 pi, u_i = (z_i - loc_i) exp(-s_i), log-scales s within +-3, 0 at first.

    >>> DiagonalNormal(2).log_prob(torch.zeros(1, 2)).detach()
    tensor([-1.8379])
    """

    def __init__(self, event_shape: int | tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape = _event(event_shape)
        self.loc = nn.Parameter(torch.zeros(self.event_shape))
        self.raw_scale = nn.Parameter(torch.zeros(self.event_shape))

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        log_scale = _bounded(self.raw_scale.to(working_dtype(z, self.loc)))
        u = self._standard(z, log_scale).flatten(1)
        return -0.5 * u.square().sum(1) - log_scale.sum() - 0.5 * LOG_2PI * u.shape[1]

    def _standard(self, z: Tensor, log_scale: Tensor) -> Tensor:
        return (z.to(log_scale.dtype).clamp(-FARTHEST, FARTHEST) - self.loc.to(log_scale.dtype)) * (-log_scale).exp()

    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        shape = (*self._batch(n, context), *self.event_shape)
        noise = torch.randn(shape, generator=generator, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + _bounded(self.raw_scale).exp() * noise

    def to_normal(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            return self._standard(z, _bounded(self.raw_scale.double())).to(z)


class FullNormal(Base):
    """A normal of any covariance, by a lower-triangular factor P of its precision: Sigma^-1 = P^T P.

    With u = P (z - loc), log p = sum log diag P - |u|^2 / 2 - d/2 log 2 pi; log diag P within +-3, P = 1 at first.

    >>> FullNormal(2).log_prob(torch.zeros(1, 2)).detach()
    tensor([-1.8379])
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.event_shape = (whole("features", features),)
        self.loc = nn.Parameter(torch.zeros(features))
        self.raw_diagonal = nn.Parameter(torch.zeros(features))
        self.lower = nn.Parameter(torch.zeros(features, features))

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        dtype = working_dtype(z, self.loc)
        half = 0.5 * self._whiten(z, dtype).square().sum(1)
        height = _bounded(self.raw_diagonal.to(dtype)).sum() - 0.5 * LOG_2PI * z.shape[1]
        return height - half.clamp(max=torch.finfo(dtype).max / 10)

    def factor(self, dtype: torch.dtype) -> Tensor:
        """P [d, d]."""
        return self.lower.to(dtype).tril(-1) + torch.diag(_bounded(self.raw_diagonal.to(dtype)).exp())

    def _whiten(self, z: Tensor, dtype: torch.dtype) -> Tensor:
        """u = P (z - loc): [n, d]."""
        return (z.to(dtype).clamp(-FARTHEST, FARTHEST) - self.loc.to(dtype)) @ self.factor(dtype).T

    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        shape, like = (*self._batch(n, context), *self.event_shape), self.loc
        noise = torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device).double()
        flat = noise.reshape(math.prod(shape[:-1]), shape[-1]).T
        away = torch.linalg.solve_triangular(self.factor(torch.float64), flat, upper=False).T
        return like + away.reshape(shape).to(like.dtype)

    def to_normal(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """u itself: P being triangular, u_i depends on z_<=i alone."""
        with torch.no_grad():
            return self._whiten(z, torch.float64).to(z)
