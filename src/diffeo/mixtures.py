"""A mixture whose conditionals learn: the exact chain rule of a Gaussian mixture, refined coordinate by coordinate.

A Gaussian mixture factorises in closed form. With u_k = P_k (z - mu_k), P_k lower triangular,

    p(z_i | z_<i) = sum_k w_ki(z_<i) P_k[i,i] phi(u_k[i]),   w_ki ~ w_k prod_{j<i} P_k[j,j] phi(u_k[j]).

Here a masked net (MADE, arXiv 1502.03509) reads z_<i and the context and adds to log w_ki, to the log-scale and to the
place of every component. With the net at zero this is the mixture itself (but that no w_ki is let fall below e^-30
of the greatest); trained, each conditional is a mixture density network (Bishop 1994), which can approximate any
density. Its Rosenblatt map is closed too.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffeo.bases import LOG_2PI, Base, GaussianMixture, mixture_quantiles
from diffeo.errors import ShapeError
from diffeo.flow import CHUNK
from diffeo.nets import MaskedMLP
from diffeo.quantized import log_sum_exp
from diffeo.scalars import working_dtype
from diffeo.transforms.base import common_context
from diffeo.transforms.incremental import plan_of, solved
from diffeo.transforms.pieces import numbers_a_row

__all__ = ["AutoregressiveMixture", "Ensemble"]

FARTHEST_U = 1e15  # standard deviations; squares of this stay finite in float32
FAINTEST = -30.0  # components fainter than e^-30 of the brightest are kept at that, so that gradients reach them
LOG_SCALE_LIMIT = 3.0


class AutoregressiveMixture(Base):
    """`mixture` (Gaussian, [k] components in d coordinates) refined by `net`, a MaskedMLP in natural order with 3 k
    outputs a coordinate; without a net, as it is.

    >>> start = GaussianMixture(2, 3)
    >>> refined = AutoregressiveMixture(start, MaskedMLP([0, 1], 9, hidden=(8,)))
    >>> z = torch.randn(5, 2)
    >>> bool(torch.allclose(refined.log_prob(z), start.log_prob(z), atol=1e-5))
    True
    """

    reparametrised = False

    def __init__(self, mixture: GaussianMixture, net: MaskedMLP | None) -> None:
        super().__init__()
        self.mixture, self.net = mixture, net
        self.event_shape = mixture.event_shape
        self._plan = plan_of(net, range(mixture.event_shape[0]))
        if net is None:
            return
        self.context_features = net.context_features
        d = mixture.event_shape[0]
        if getattr(net, "order", ()) != tuple(range(d)) or net.out_features != 3 * mixture.components * d:
            raise ShapeError(
                f"net: expected the order 0..{d - 1} and {3 * mixture.components * d} outputs, "
                f"got {list(getattr(net, 'order', ()))} and {net.out_features}"
            )

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        dtype = working_dtype(z, self.mixture.means)
        log_weights, log_slopes, v = self._conditionals(z, context, dtype)
        heights = log_weights + log_slopes - 0.5 * v.clamp(-FARTHEST_U, FARTHEST_U).square()
        each = torch.logsumexp(heights, 0) - torch.logsumexp(log_weights, 0)
        return each.sum(0) - 0.5 * LOG_2PI * z.shape[1]

    def _chain(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """In float64: log-weights that add up to one and v [k, d, n]; the log-density of every conditional [d, n]."""
        log_weights, log_slopes, v = self._conditionals(z, context, torch.float64)
        log_weights = torch.log_softmax(log_weights, 0)
        heights = log_weights + log_slopes - 0.5 * v.clamp(-FARTHEST_U, FARTHEST_U).square()
        return log_weights, v, torch.logsumexp(heights, 0)

    def _conditionals(self, z: Tensor, context: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """For each component and coordinate [k, d, n]: log-weight (not normalised), log dv/dz, and v."""
        mixture = self.mixture
        u = mixture.whiten(z, dtype).clamp(-FARTHEST_U, FARTHEST_U)
        log_diagonal = mixture.log_diagonal.to(dtype)[:, :, None]
        own = (log_diagonal - 0.5 * u.square())[:, : u.shape[1] - 1].cumsum(1)
        before = mixture.log_weights(None).to(dtype)[:, :, None] + torch.cat([torch.zeros_like(u[:, :1]), own], 1)
        return _refined(before, log_diagonal, u, self._raw(z, context, slice(None)).to(dtype).view(3, *u.shape))

    def _raw(self, z: Tensor, context: Tensor | None, outputs: slice) -> Tensor:
        """What the net adds, for the outputs of some coordinates."""
        if self.net is None:
            count = len(range(3 * self.mixture.components * self.event_shape[0])[outputs])
            return z.new_zeros(count, len(z))
        return self.net(z, context, outputs)

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        shape, d, like = self._batch(n, context), self.event_shape[0], self.mixture.means
        rows = context.expand(n, *context.shape).reshape(-1, context.shape[-1]) if context is not None else None
        noise = torch.randn((*shape, d), generator=generator, dtype=like.dtype, device=like.device).reshape(-1, d)
        level = torch.rand((*shape, d), generator=generator, dtype=like.dtype, device=like.device).reshape(-1, d)
        size = max(1, CHUNK // numbers_a_row(self, self.event_shape))
        given = (None,) * max(1, len(noise)) if rows is None else rows.split(size)
        z = [self._draw(*piece) for piece in zip(noise.split(size), level.split(size), given, strict=False)]
        return torch.cat(z).reshape(*shape, d)

    def _draw(self, noise: Tensor, level: Tensor, context: Tensor | None) -> Tensor:
        """Rows z [n, d] from normal numbers and from levels that choose components, coordinate by coordinate."""
        z = torch.zeros_like(noise)
        factors, log_diagonal = self.mixture.factors(), self.mixture.log_diagonal[:, :, None]
        offset = factors @ self.mixture.means[:, :, None]
        before = self.mixture.log_weights(None).expand(-1, len(z))

        def answer(places: slice, raws: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal before
            for i, raw in zip(range(places.start, places.stop), raws.unbind(1), strict=True):
                u = factors[:, i] @ z.T - offset[:, i]  # where z_i is still zero; v is linear in it: v(0) + z_i dv/dz
                raw = raw.to(z.dtype).unflatten(0, (3, -1))
                log_weights, log_slopes, v = _refined(before, log_diagonal[:, i], u, raw)
                steps = torch.softmax(log_weights, 0).cumsum(0)[:-1]
                which = (level[:, i] >= steps).sum(0, keepdim=True)
                z[:, i] = ((noise[:, i] - v.gather(0, which)) * (-log_slopes.gather(0, which)).exp())[0]
                before = before + log_diagonal[:, i] - 0.5 * (u + factors[:, i, i, None] * z[:, i]).square()
            return z.T[places], z.T[places]

        if self.net is not None and self._plan is not None:
            solved(self.net, self._plan, context if self.context_features else None, len(z), answer)
            return z
        for i in range(z.shape[1]):
            answer(slice(i, i + 1), self._raw(z, context, slice(i, None, z.shape[1]))[:, None])
        return z

    def to_normal(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            log_weights, v, _ = self._chain(z, context)
            return mixture_quantiles(log_weights, v).to(z)


class Ensemble(Base):
    """The weighted average of densities, p(z) = sum_j w_j p_j(z), `members` that were learned each by itself.

    Their errors differ, and the log of an average is at least the average of the logs, so that of equal weights is no
    worse than its members on average (deep ensembles, arXiv 1612.01474). As all factorise in one order, so does the
    average: p(z_i | z_<i) = sum_j w_j(z_<i) p_j(z_i | z_<i) with w_j(z_<i) ~ w_j prod_{l<i} p_j(z_l | z_<l).
    The weights are a buffer, equal at first and not learned with the members.

    >>> member = AutoregressiveMixture(GaussianMixture(2, 3), MaskedMLP([0, 1], 9, hidden=(8,)))
    >>> z = torch.randn(5, 2)
    >>> bool(torch.allclose(Ensemble([member, member]).log_prob(z), member.log_prob(z), atol=1e-6))
    True
    """

    reparametrised = False
    log_weights: Tensor

    def __init__(self, members: Sequence[AutoregressiveMixture]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        shapes = {member.event_shape for member in members}
        if len(shapes) != 1:
            raise ShapeError(f"members: expected one or more of one event shape, got {sorted(shapes)}")
        self.event_shape = shapes.pop()
        self.context_features = common_context(*members)
        self.register_buffer("log_weights", torch.full((len(members),), -math.log(len(members))))

    def average(self, each: Tensor) -> Tensor:
        """The log-density [n] that log-densities [m, n] of the members make."""
        return log_sum_exp(each + self.log_weights.to(each.dtype)[:, None])

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.average(torch.stack([member(z, context) for member in self.members]))

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        shape = self._batch(n, context)
        rows = context.expand(n, *context.shape).reshape(-1, context.shape[-1]) if context is not None else None
        weights, count = self.log_weights.double().exp(), math.prod(shape)
        which = torch.multinomial(weights, max(count, 1), replacement=True, generator=generator)[:count]
        like = next(self.parameters())
        z = torch.zeros(len(which), *self.event_shape, dtype=like.dtype, device=like.device)
        for j, member in enumerate(self.members):
            own = which == j
            if rows is None:
                z[own] = member.sample(int(own.sum()), None, generator)  # type: ignore[operator]
            else:
                z[own] = member.sample(1, rows[own], generator)[0]  # type: ignore[operator]
        return z.reshape(*shape, *self.event_shape)

    def to_normal(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            chains = [member._chain(z, context) for member in self.members]  # type: ignore[operator]
            shares = self.log_weights.double()[:, None, None]
            log_weights = torch.cat(
                [w + own + each.cumsum(0) - each for w, (own, _, each) in zip(shares, chains, strict=True)]
            )
            v = torch.cat([own for _, own, _ in chains])
            return mixture_quantiles(torch.log_softmax(log_weights, 0), v).to(z)


def _refined(before: Tensor, log_diagonal: Tensor, u: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-weights, log dv/dz and v [k, ...] from the mixture's own and what the net adds, raw [3, k, ...]."""
    shift, stretch, move = raw
    before = (before - before.detach().amax(0)).clamp(min=FAINTEST)
    log_scale = LOG_SCALE_LIMIT * torch.tanh(stretch / LOG_SCALE_LIMIT)
    return before + shift, log_diagonal + log_scale, u * log_scale.exp() + move
