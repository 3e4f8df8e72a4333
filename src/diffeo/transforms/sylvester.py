"""Sylvester layers: a bent map of a few orthogonal directions is added to x (arXiv 1803.05649)."""

import math

import torch
from torch import Tensor

from diffeo.errors import ShapeError, whole
from diffeo.nets import Constants
from diffeo.scalars import within, working_dtype
from diffeo.transforms.base import Transform, fits
from diffeo.transforms.orthogonal import reflect
from diffeo.transforms.planar import LOG_STEEPEST, bend_named, gain, unbend

__all__ = ["Sylvester"]


class Sylvester(Transform):
    """z = x + Q R h(S Q^T x + b): Q [d, rank] orthonormal, R and S upper triangular (arXiv 1803.05649, equation 13).

    Q is the first columns of a product of ``rank`` Householder reflections (section 4.2 there). diag S lies within
    exp(-3) .. exp(3) and 1 + R_ii S_ii within the same, so that every 1 + h' R_ii S_ii is above 0.04 whatever is
    learned. By Sylvester's determinant identity log_det = sum_i log(1 + h'_i R_ii S_ii). The inverse finds y = Q^T x
    from y + R h(S y + b) = Q^T z by back substitution, one root of an increasing function for each of its
    coordinates; what is orthogonal to Q stays.

    ``activation`` h: tanh, leaky_relu or elu. With ``context`` features all of Q, R, S and b are learned constants
    plus what is linear in the context. Starts as the identity.

    >>> layer, x = Sylvester(5, rank=2), torch.randn(7, 5)
    >>> z, log_det = layer(x)
    >>> torch.equal(z, x), log_det.shape
    (True, torch.Size([7]))
    """

    def __init__(self, d: int, rank: int | None = None, activation: str = "tanh", context: int = 0) -> None:
        super().__init__()
        self.d, self.rank = whole("d", d), whole("rank", d if rank is None else rank)
        self.activation, self.context_features = activation, whole("context", context, 0)
        if self.rank > d:
            raise ShapeError(f"rank: expected at most d={d}, got {rank}")
        self.bend = bend_named(activation)
        mirrors = torch.randn(self.rank * d) / math.sqrt(d)
        self.constants = Constants(torch.cat([mirrors, torch.zeros(self.rank * (2 * self.rank + 1))]), context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        columns, mirrors, right, left, bias, c = self._parts(x, context)
        y = reflect(mirrors, columns)[: self.rank]
        s = (left * y).sum(1) + bias
        z = columns + self._spread((right * self.bend.value(s)).sum(1), mirrors)
        return z.T.to(x.dtype), torch.log1p(c * self.bend.slope(s)).sum(0)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        columns, mirrors, right, left, bias, c = self._parts(z, context)
        s = self._solve(reflect(mirrors, columns)[: self.rank], right, left, bias, c)
        x = columns - self._spread((right * self.bend.value(s)).sum(1), mirrors)
        return x.T.to(z.dtype), -torch.log1p(c * self.bend.slope(s)).sum(0)

    def _solve(self, t: Tensor, right: Tensor, left: Tensor, bias: Tensor, c: Tensor) -> Tensor:
        """s = S y + b [rank, n] for y + R h(s) = t [rank, n], from the last coordinate to the first."""
        found: list[Tensor] = []  # s, and below y, of the coordinates after i
        ys: list[Tensor] = []
        for i in reversed(range(self.rank)):
            bent, other = t[i], bias[i]
            for j, (s, y) in enumerate(zip(found, ys, strict=True), i + 1):
                bent, other = bent - right[i, j] * self.bend.value(s), other + left[i, j] * y
            s = unbend(left[i, i] * bent + other, c[i], self.bend)
            found.insert(0, s)
            ys.insert(0, bent - right[i, i] * self.bend.value(s))
        return torch.stack(found)

    def _spread(self, inner: Tensor, mirrors: Tensor) -> Tensor:
        """Q inner, [rank, n] -> [d, n]."""
        rest = inner.new_zeros(self.d - self.rank, inner.shape[1])
        return reflect(mirrors, torch.cat([inner, rest]), back=True)

    def _parts(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """x [d, n]; reflections [rank, d, n or 1]; R and S [rank, rank, n or 1]; b and R_ii S_ii [rank, n or 1]."""
        dtype, k = working_dtype(x, self.constants.start), self.rank
        mirrors, right, left, bias = self.constants(context, dtype).split([k * self.d, k * k, k * k, k])
        right, left = right.unflatten(0, (k, k)), left.unflatten(0, (k, k))
        above = torch.ones(k, k, dtype=torch.bool, device=x.device).triu(1)[..., None]
        eye = torch.eye(k, dtype=dtype, device=x.device)[..., None]
        c = gain(_diagonal(right))
        own = torch.exp(LOG_STEEPEST * torch.tanh(_diagonal(left) / LOG_STEEPEST))
        right = torch.where(above, right, 0.0) + eye * (c / own)
        left = torch.where(above, left, 0.0) + eye * own
        return within(x.to(dtype)).T, mirrors.unflatten(0, (k, self.d)), right, left, bias, c

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, event == (self.d,), f"{self.d} columns", event)

    def extra_repr(self) -> str:
        return f"d={self.d}, rank={self.rank}, {self.activation}"


def _diagonal(matrices: Tensor) -> Tensor:
    """[k, k, n] -> [k, n]."""
    return matrices.diagonal().T
