"""The noise at the foot of the stairs, and what every density must say.

A base is a Density with one thing more: ``to_normal``, its Rosenblatt map to independent standard normals (Rosenblatt
1952), so that calibration, temperature and interpolation mean the same whatever the base.
"""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from diffeo.errors import ShapeError, shown, whole
from diffeo.scalars import working_dtype
from diffeo.transforms.base import common_context

__all__ = ["Base", "Density", "GaussianMixture", "Product", "StandardNormal", "StudentT", "Uniform"]

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


class StandardNormal(Base):
    """Independent standard normals.

    >>> StandardNormal(2).log_prob(torch.zeros(1, 2))
    tensor([-1.8379])
    """

    like: Tensor

    def __init__(self, event_shape: int | tuple[int, ...]) -> None:
        super().__init__()
        event = event_shape if isinstance(event_shape, tuple) else (event_shape,)
        self.event_shape = tuple(whole("event_shape", size) for size in event)
        self.register_buffer("like", torch.empty(0), persistent=False)  # dtype and device of the draws

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        z = z.to(working_dtype(z)).reshape(z.shape[0], math.prod(z.shape[1:])).clamp(-FARTHEST, FARTHEST)
        return -0.5 * z.square().sum(1) - 0.5 * LOG_2PI * z.shape[1]

    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        shape = (*self._batch(n, context), *self.event_shape)
        return torch.randn(shape, generator=generator, dtype=self.like.dtype, device=self.like.device)

    def to_normal(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return z


def mixture_quantiles(log_weights: Tensor, u: Tensor) -> Tensor:
    """The standard normals [n, d] at the levels sum_k w_k Phi(u_k) of mixtures [k, d, n], accurate in both tails."""
    from scipy.special import ndtri_exp

    below = torch.logsumexp(log_weights + torch.special.log_ndtr(u), 0).clamp(max=0).T.cpu().numpy()
    above = torch.logsumexp(log_weights + torch.special.log_ndtr(-u), 0).clamp(max=0).T.cpu().numpy()
    return torch.as_tensor(np.where(below < above, ndtri_exp(below), -ndtri_exp(above)))


class GaussianMixture(Base):
    """p(z) = sum_k w_k N(z; mu_k, Sigma_k), full covariances, by lower-triangular precision factors P_k.

    Sigma_k^-1 = P_k^T P_k, so that with u_k = P_k (z - mu_k)

        log p = logsumexp_k(log w_k + sum log diag P_k - |u_k|^2 / 2) - d/2 log 2 pi,

    all u_k by one matrix product. ``gate`` is a net, context [n, c] -> [components, n], whose output is added to the
    logits: a mixture whose weights depend on the context.

    >>> mixture = GaussianMixture.from_moments(torch.ones(1), torch.zeros(1, 2), 4 * torch.eye(2)[None])
    >>> mixture.log_prob(torch.zeros(1, 2))
    tensor([-3.2242], grad_fn=<SubBackward0>)
    """

    reparametrised = False

    def __init__(
        self,
        features: int,
        components: int,
        gate: nn.Module | None = None,
        spread: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.event_shape, self.components = (whole("features", features),), whole("components", components)
        if not math.isfinite(spread):
            raise ShapeError(f"spread: expected a finite number, got {spread!r}")
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(spread * torch.randn(components, features, generator=generator))
        self.log_diagonal = nn.Parameter(torch.zeros(components, features))
        self.lower = nn.Parameter(torch.zeros(components, features, features))
        self.gate = gate
        if gate is not None:
            self.context_features = int(gate.in_features)  # type: ignore[arg-type]
            if gate.out_features != components:
                raise ShapeError(f"gate: expected out_features={components}, got {gate.out_features}")

    @classmethod
    def from_moments(
        cls, weights: Tensor, means: Tensor, covariances: Tensor, gate: nn.Module | None = None
    ) -> "GaussianMixture":
        """The mixture of weights [k], means [k, d] and covariances [k, d, d]."""
        weights, means, covariances = (torch.as_tensor(v).detach().double() for v in (weights, means, covariances))
        _check_moments(weights, means, covariances)
        mixture = cls(means.shape[1], means.shape[0], gate)
        root, failed = torch.linalg.cholesky_ex(covariances)
        if bool(failed.any()):
            raise ShapeError("covariances: expected positive definite matrices; add a small multiple of the identity")
        eye = torch.eye(means.shape[1], dtype=torch.float64, device=means.device).expand_as(root)
        factor = torch.linalg.solve_triangular(root, eye, upper=False)
        with torch.no_grad():
            mixture.logits.copy_(weights.log().clamp(min=-100))
            mixture.means.copy_(means)
            mixture.log_diagonal.copy_(factor.diagonal(dim1=-2, dim2=-1).log())
            mixture.lower.copy_(factor.tril(-1))
        return mixture

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        dtype = working_dtype(z, self.means)
        u = self.whiten(z, dtype)
        half = (0.5 * u.square().sum(1)).clamp(max=torch.finfo(dtype).max / 10)
        heights = self.log_diagonal.to(dtype).sum(1)[:, None]
        log_weights = self.log_weights(context).to(dtype)
        return torch.logsumexp(log_weights + heights - half, 0) - 0.5 * LOG_2PI * z.shape[1]

    def factors(self) -> Tensor:
        """P [k, d, d]."""
        return self.lower.tril(-1) + torch.diag_embed(self.log_diagonal.exp())

    def whiten(self, z: Tensor, dtype: torch.dtype) -> Tensor:
        """u_k = P_k (z - mu_k): [n, d] -> [k, d, n]."""
        factors = self.factors().to(dtype)
        k, d, _ = factors.shape
        offset = (factors @ self.means.to(dtype)[:, :, None]).reshape(k * d, 1)
        z = z.to(dtype).clamp(-FARTHEST, FARTHEST)
        return torch.addmm(offset, factors.reshape(k * d, d), z.T, beta=-1).view(k, d, -1)

    def log_weights(self, context: Tensor | None) -> Tensor:
        """[k, 1], or [k, n] where a gate looks at the context [n, c]."""
        logits = self.logits[:, None]
        if self.gate is not None and context is not None:
            logits = logits + self.gate(context)
        return torch.log_softmax(logits, 0)

    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        shape = self._batch(n, context)
        d, like = self.event_shape[0], self.means
        noise = torch.randn((*shape, d), generator=generator, dtype=like.dtype, device=like.device)
        level = torch.rand(shape, generator=generator, dtype=torch.float64, device=like.device)
        steps = self.log_weights(context).detach().double().exp().cumsum(0)[:-1]  # [k - 1, 1 or m]
        which = (level >= steps.unflatten(1, (1,) * (len(shape) - 1) + (-1,))).sum(0)
        spreads = torch.linalg.inv(self.factors().detach().double()).to(like.dtype)  # lower triangular
        return self.means[which] + (spreads[which] @ noise[..., None])[..., 0]

    def to_normal(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Coordinate by coordinate: P_k being triangular, under component k u_k[i] is normal given those before."""
        with torch.no_grad():
            u = self.whiten(z, torch.float64)
            density = self.log_diagonal.double()[:, :, None] - 0.5 * u.square()
            before = self.log_weights(context).double()[:, None] + density.cumsum(1) - density
            return mixture_quantiles(torch.log_softmax(before, 0), u).to(z)


def _check_moments(weights: Tensor, means: Tensor, covariances: Tensor) -> None:
    k, d = means.shape if means.ndim == 2 else (0, 0)
    for name, value, shape in (
        ("means", means, [k, d]),
        ("weights", weights, [k]),
        ("covariances", covariances, [k, d, d]),
    ):
        if list(value.shape) != shape or not value.numel():
            wanted = "[k, d]" if name == "means" else str(shape)
            raise ShapeError(f"{name}: expected shape {wanted}, got {list(value.shape)}")
        if not bool(value.isfinite().all()):
            raise ShapeError(f"{name}: expected finite numbers, got {shown(float(value[~value.isfinite()][0]))}")
    if bool((weights < 0).any()) or abs(float(weights.sum()) - 1) > 1e-4:
        raise ShapeError(f"weights: expected shares that add up to 1, got {shown(weights.tolist())}")
    skew = (covariances - covariances.mT).abs().amax()
    if float(skew) > 1e-4 * float(covariances.abs().amax()):
        raise ShapeError(f"covariances: expected symmetric matrices, got some that differ by {float(skew):.3g}")


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


class Product(Base):
    """Independent groups of neighbouring coordinates, each with its own base, in the order given.

    >>> Product(StandardNormal(2), Uniform(features=1)).event_shape
    (3,)
    """

    def __init__(self, *parts: Base) -> None:
        super().__init__()
        wrong = [part for part in parts if not isinstance(part, Base) or len(part.event_shape) != 1]
        if wrong or not parts:
            raise ShapeError(
                f"parts: expected bases of vectors, one or more, got {shown(wrong[0]) if wrong else 'none'}"
            )
        self.parts = nn.ModuleList(parts)
        self.sizes = [part.event_shape[0] for part in parts]
        self.event_shape = (sum(self.sizes),)
        self.context_features = common_context(*parts)
        self.reparametrised = all(part.reparametrised for part in parts)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        pieces = z.split(self.sizes, -1)
        return torch.stack([part(piece, context) for part, piece in zip(self.parts, pieces, strict=True)]).sum(0)

    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        return torch.cat([part.sample(n, context, generator) for part in self.parts], -1)  # type: ignore[operator]

    def to_normal(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        pairs = zip(self.parts, z.split(self.sizes, -1), strict=True)
        return torch.cat([part.to_normal(piece, context) for part, piece in pairs], -1)  # type: ignore[operator]
