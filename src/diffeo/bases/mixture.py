"""A mixture of Gaussians with full covariances, its weights perhaps told by a context."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from diffeo.bases.base import FARTHEST, LOG_2PI, Base
from diffeo.errors import ShapeError, shown, whole
from diffeo.scalars import working_dtype

__all__ = ["GaussianMixture", "mixture_quantiles"]


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
