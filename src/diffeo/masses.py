"""Exact masses of discrete columns: log p(k) = sum_j log p(k_j | k_<j, context), one softmax a column, in one pass."""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from diffeo.bases import Density
from diffeo.nets import MaskedNet

__all__ = ["Masses", "OneHot"]


class OneHot(torch.nn.Module):
    """Codes [n, q] as features for a net, float32 [n, width]: one indicator a level, and for ordered codes their
    place from -1.7 to 1.7 (unit spread if uniform). Codes beyond the levels count as the nearest one.

    >>> OneHot([2, 3], [False, True])(torch.tensor([[1, 2]]))
    tensor([[0.0000, 1.0000, 0.0000, 0.0000, 1.0000, 1.7000]])
    """

    offsets: Tensor
    tops: Tensor
    scales: Tensor

    def __init__(self, sizes: Sequence[int], ordinal: Sequence[bool]) -> None:
        super().__init__()
        self.width = sum(sizes) + sum(ordinal)
        widths = torch.tensor([size + order for size, order in zip(sizes, ordinal, strict=True)], dtype=torch.long)
        tops = torch.tensor(sizes, dtype=torch.long) - 1
        self.register_buffer("offsets", widths.cumsum(0) - widths, persistent=False)
        self.register_buffer("tops", tops, persistent=False)
        self._ordered = [j for j, order in enumerate(ordinal) if order]
        self.register_buffer("scales", 3.4 / tops.clamp(min=1).double()[self._ordered], persistent=False)

    @property
    def places(self) -> list[int]:
        """Which code each feature tells of."""
        ends = [*self.offsets[1:].tolist(), self.width] if len(self.offsets) else []
        return [j for j, (a, b) in enumerate(zip(self.offsets.tolist(), ends, strict=True)) for _ in range(a, b)]

    def forward(self, codes: Tensor) -> Tensor:
        within = torch.minimum(codes.clamp(min=0), self.tops)
        features = torch.zeros(len(codes), self.width, dtype=torch.float32, device=codes.device)
        features.scatter_(1, within + self.offsets, 1.0)
        if self._ordered:
            ends = (self.offsets + self.tops + 1)[self._ordered]
            features[:, ends] = (within[:, self._ordered] * self.scales - 1.7).float()
        return features


class Masses(Density):
    """Probabilities of codes [n, q], int64, `sizes[j]` levels each; calling it gives log-probabilities in nats.

    Each code's logits are its log-frequencies plus what a masked net (MADE, arXiv 1502.03509) makes of the codes
    before it and the context; the net starts at zero, so that the whole starts as the product of the frequencies.
    `open_ended[j]`: codes below 0 and above sizes[j] - 1 share a small mass, falling geometrically.

    >>> masses = Masses([2, 3], [False, False])
    >>> masses(torch.tensor([[1, 2]])).exp().detach()
    tensor([0.1667])
    """

    frequencies: Tensor
    beyond: Tensor

    def __init__(
        self,
        sizes: Sequence[int],
        ordinal: Sequence[bool],
        open_ended: Sequence[bool] = (),
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.event_shape, self.context_features = (len(sizes),), context
        self.sizes = tuple(int(size) for size in sizes)
        self.open_ended = tuple(open_ended) or (False,) * len(self.sizes)
        self.one_hot = OneHot(sizes, ordinal)
        levels = [j for j, size in enumerate(self.sizes) for _ in range(size)]
        self.net = MaskedNet(self.one_hot.places, levels, hidden, context, dropout=dropout)
        self.register_buffer("frequencies", torch.zeros(sum(self.sizes)))  # log-frequencies, up to a constant
        self.register_buffer("beyond", torch.full((len(self.sizes),), 1e-6))  # mass outside the levels

    def start(self, codes: Tensor, weights: Tensor) -> None:
        """Set the frequencies to those of codes [n, q] with weights [n]; as many counts as there are levels seen are
        spread over all levels, so that a level in a gap is rare but possible."""
        total = weights.double().sum()
        parts = []
        for j, size in enumerate(self.sizes):
            counts = torch.bincount(codes[:, j].clamp(0, size - 1), weights.double(), size)
            seen = int((counts > 0).sum())
            parts.append(((counts + seen / size) / (total + seen)).log())
        self.frequencies.copy_(torch.cat(parts))
        self.beyond.fill_(1.0 / (float(total) + 2.0))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        logits = self._logits(x, context)
        return torch.stack([self._column(j, logits[j], x[:, j]) for j in range(len(self.sizes))]).sum(0)

    def _logits(self, codes: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """Of each code, [levels, n]."""
        raw = self.net(self.one_hot(codes), context) + self.frequencies[:, None]
        return raw.split(self.sizes)

    def _column(self, j: int, logits: Tensor, codes: Tensor) -> Tensor:
        size = self.sizes[j]
        log_prob = torch.log_softmax(logits, 0).gather(0, codes.clamp(0, size - 1)[None])[0]
        if not self.open_ended[j]:
            return log_prob
        past = torch.maximum(-codes, codes - (size - 1)).clamp(min=1)  # how many levels beyond the last
        stay = 1.0 - 1.0 / (size + 1.0)
        outside = (self.beyond[j] / 2).log() + math.log(1 - stay) + (past - 1) * math.log(stay)
        inside = (codes >= 0) & (codes < size)
        return torch.where(inside, log_prob + torch.log1p(-self.beyond[j]), outside.to(log_prob.dtype))

    @torch.no_grad()
    def steps(self, codes: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Of each code given those before it: the probability of all levels below it, and its own; float64 [n, q].

        A uniform draw from [below, below + own] is uniform on [0, 1] and independent from code to code, if codes are
        drawn from these masses (randomised probability-integral transform, Brockwell 2007).

        >>> Masses([2], [False]).steps(torch.tensor([[1]]))
        (tensor([[0.5000]], dtype=torch.float64), tensor([[0.5000]], dtype=torch.float64))
        """
        found = [self._steps(j, each, codes[:, j]) for j, each in enumerate(self._logits(codes, context))]
        return torch.stack([below for below, _ in found], 1), torch.stack([own for _, own in found], 1)

    def _steps(self, j: int, logits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        size = self.sizes[j]
        shares, place = torch.softmax(logits.double(), 0), codes.clamp(0, size - 1)[None]
        own, upto = shares.gather(0, place)[0], shares.cumsum(0).gather(0, place)[0]
        below = (upto - own).clamp(min=0)
        if not self.open_ended[j]:
            return below, own
        end, stay = self.beyond[j].double() / 2, 1.0 - 1.0 / (size + 1.0)
        past = torch.maximum(-codes, codes - (size - 1)).clamp(min=1)  # how many levels beyond the last
        further = end * stay ** past.double()
        low, high = codes < 0, codes >= size
        outside = torch.where(low, further, 1.0 - further / stay)
        below = torch.where(low | high, outside, end + (1.0 - 2 * end) * below)
        return below, torch.where(low | high, further * (1 / stay - 1.0), (1.0 - 2 * end) * own)

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """n draws [n, q], or [n, m, q] for contexts [m, c]; open ends are not drawn from."""
        shape = (n,) if context is None else (n, context.shape[0])
        rows = None if context is None else context.expand(n, *context.shape).reshape(-1, context.shape[-1])
        codes = torch.zeros(math.prod(shape), len(self.sizes), dtype=torch.long, device=self.frequencies.device)
        level = torch.rand(codes.shape, generator=generator, device=codes.device)
        ends = list(accumulate(self.sizes, initial=0))
        for j, own in enumerate(slice(*pair) for pair in pairwise(ends)):
            logits = self.net(self.one_hot(codes), rows, own) + self.frequencies[own, None]
            steps = torch.softmax(logits, 0).cumsum(0)[:-1]
            codes[:, j] = (level[:, j] >= steps).sum(0)
        return codes.reshape(*shape, len(self.sizes))
