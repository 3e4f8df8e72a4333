"""Autoregressive layers of tokens: each moves as a transformer says that has read those before it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffeo.attention import CausalTransformer
from diffeo.errors import ShapeError, shown, whole
from diffeo.scalars import Scalar
from diffeo.transforms.base import Transform, fits
from diffeo.transforms.coupling import check_net, check_scalar, made
from diffeo.transforms.patches import as_features, as_tokens

__all__ = ["TokenAutoregressive"]


class TokenAutoregressive(Transform):
    """z_t = scalar(x_t; net(x_s of the tokens s before t, context)), for tokens x [n, T, F] (arXiv 2412.06329).

    Forward is one pass of the net; the inverse goes token by token, and what blocks have made of a token (its keys and
    values) is kept for those after it, so that T steps cost about as much arithmetic as one pass. Both can be
    differentiated. Tokens are read from the first on, or with ``last_first`` from the last.

    ``net`` is a ``CausalTransformer``, or a function (tokens, in_features, out_features) -> such a net.

    >>> from functools import partial
    >>> from diffeo import scalars
    >>> net = partial(CausalTransformer, width=16, depth=2, heads=2)
    >>> layer = TokenAutoregressive(6, 4, scalars.affine(), net)
    >>> z, log_det = layer(torch.randn(3, 6, 4))
    >>> z.shape, log_det.shape
    (torch.Size([3, 6, 4]), torch.Size([3]))
    """

    def __init__(
        self,
        tokens: int,
        features: int,
        scalar: Scalar,
        net: nn.Module | Callable[[int, int, int], nn.Module],
        last_first: bool = False,
    ) -> None:
        super().__init__()
        self.tokens, self.features = whole("tokens", tokens), whole("features", features)
        self.scalar, self.last_first = scalar, last_first
        check_scalar(scalar)
        sizes = self.features, scalar.width * self.features
        net = made(net, self.tokens, *sizes)
        if not isinstance(net, CausalTransformer):
            raise ShapeError(f"net: expected a CausalTransformer, which tells by tokens before, got {shown(net)}")
        check_net(net, *sizes)
        if net.tokens != self.tokens:
            raise ShapeError(f"net: expected tokens={tokens}, got {net.tokens}; build it with tokens={tokens}")
        self.net = net
        self.context_features = net.context_features

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        features = self._turned(as_features(x))
        raw = self.net(features, context).unflatten(0, (self.scalar.width, self.features))
        z, log_slope = self.scalar.forward(features, raw)
        return as_tokens(self._turned(z)), log_slope.sum((0, 2))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        past, before, sizes = self.net.begun(), None, (self.scalar.width, self.features)
        found, slopes = [], []
        for token in self._turned(z.permute(2, 0, 1)).unbind(-1):
            raw = self.net.step(past, len(z), before, context).unflatten(0, sizes)
            before, log_slope = self.scalar.inverse(token, raw)
            found.append(before)
            slopes.append(log_slope.sum(0))
        return as_tokens(self._turned(torch.stack(found, -1))), torch.stack(slopes).sum(0)

    def _turned(self, features: Tensor) -> Tensor:
        """Features [F, n, T] in the order in which they are read, and back."""
        return features.flip(-1) if self.last_first else features

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, tuple(event) == (self.tokens, self.features), f"shape {[self.tokens, self.features]}", event)

    def extra_repr(self) -> str:
        order = "last first" if self.last_first else "first first"
        return f"{self.tokens} tokens of {self.features} move by {self.scalar.name}, {order}"
