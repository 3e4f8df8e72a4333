"""Autoregressive layers: every coordinate moves as told by those before it (arXiv 1606.04934, 1705.07057)."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from diffeo.errors import ShapeError
from diffeo.scalars import Scalar
from diffeo.transforms.base import Transform, fits
from diffeo.transforms.coupling import as_columns, as_rows, check_net, check_scalar, made

__all__ = ["Autoregressive"]


class Autoregressive(Transform):
    """z_i = scalar(x_i; net(x_j of lower order than i, context)): forward in one pass, the inverse in d.

    So a density is found at once and a sample coordinate by coordinate (MAF, arXiv 1705.07057). ``Inverse`` of this
    layer is the other fast direction: it samples at once (IAF, arXiv 1606.04934).

    ``order[i]`` is the place of coordinate i of the flattened event. ``net`` is a MaskedMLP of that order and the
    scalar's width as its multiplier, or a function (order, width) -> such a module.

    >>> from diffeo import nets, scalars
    >>> layer = Autoregressive([0, 1, 2], scalars.affine(), nets.MaskedMLP)
    >>> layer(torch.ones(4, 3))[1].shape
    torch.Size([4])
    """

    def __init__(
        self, order: Sequence[int], scalar: Scalar, net: nn.Module | Callable[[Sequence[int], int], nn.Module]
    ) -> None:
        super().__init__()
        self.order, self.scalar = tuple(int(i) for i in order), scalar
        check_scalar(scalar)
        d = len(self.order)
        if not d or sorted(self.order) != list(range(d)):
            raise ShapeError(f"order: expected a permutation of 0..{max(d - 1, 0)}, got {list(self.order)}")
        self.net = made(net, self.order, scalar.width)
        check_net(self.net, d, d * scalar.width)
        seen = getattr(self.net, "order", None)  # a net without an order may look at everything
        if seen != self.order:
            raise ShapeError(f"net: expected order={self.order}, got {seen}; build both with one order")
        self.context_features = int(getattr(self.net, "context_features", 0))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        columns = as_columns(x)
        z, log_slope = self.scalar.forward(columns, self._raw(columns, context))
        return as_rows(z, x.shape), log_slope.sum(0)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        columns = z.reshape(z.shape[0], math.prod(z.shape[1:])).T
        found = list(torch.zeros_like(columns).unbind(0))
        slopes = []
        for i in sorted(range(len(found)), key=self.order.__getitem__):
            raw = self._raw(torch.stack(found), context)
            found[i], log_slope = self.scalar.inverse(columns[i], raw[:, i])
            slopes.append(log_slope)
        return torch.stack(found).T.reshape(z.shape), torch.stack(slopes).sum(0)

    def _raw(self, columns: Tensor, context: Tensor | None) -> Tensor:
        """Coordinates [d, n] -> raw parameters [width, d, n]."""
        return self.net(columns.T, context).view(self.scalar.width, *columns.shape)

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, math.prod(event) == len(self.order), f"{len(self.order)} numbers", event)

    def extra_repr(self) -> str:
        return f"{len(self.order)} coordinates move by {self.scalar.name}"
