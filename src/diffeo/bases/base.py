"""What every density must say, and what a base says besides."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["FARTHEST", "LOG_2PI", "Base", "Density"]

LOG_2PI = math.log(2 * math.pi)
FARTHEST = 1e17  # coordinates are clamped here, so that squares stay finite in float32


class Density(nn.Module, ABC):
    """A probability density of events of one shape, perhaps given a context; calling it is ``log_prob``."""

    event_shape: tuple[int, ...]
    context_features: int = 0

    @abstractmethod
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats of x [n, *event], given context [n, c]: [n]."""

    @abstractmethod
    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """n draws [n, *event]; given context [m, c], n draws for each of its rows, [n, m, *event]."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.log_prob(x, context)

    def objective(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """What training raises, of x [n, *event]: [n]; the log-density, unless a density says otherwise."""
        return self(x, context)


class Base(Density):
    """A density to start from: nothing is checked here, the flow's door has done it."""

    reparametrised: bool = True  # whether sample is differentiable in the base's parameters

    @abstractmethod
    def to_normal(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """z [n, *event] -> independent standard normals [n, *event], if z is drawn from this base; not
        differentiable."""

    def _batch(self, n: int, context: Tensor | None) -> tuple[int, ...]:
        """The leading shape of n draws."""
        return (n,) if context is None else (n, context.shape[0])
