"""Elementwise layers: every coordinate moves by itself, as told by parameters of its own and by the context."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffeo.errors import DataError, ShapeError, whole
from diffeo.scalars import Move, Scalar
from diffeo.transforms.base import Transform, fits
from diffeo.transforms.coupling import as_columns, as_rows, check_net, check_scalar, made

__all__ = ["Elementwise"]


class Elementwise(Transform):
    """z_i = scalar(x_i; raw_i + net(context)_i): a diagonal Jacobian, both directions in one pass.

    ``raw`` [width, d] is learned and starts at zero, d being the numbers of an event. ``net``, where parameters are to
    depend on a context, is a module ``net(h [n, 0], context [n, c]) -> [width d, n]``, or a function (0, width d) ->
    such a module. After a rotation, with `mixture_cdf`, it is a step of Gaussianization (arXiv 2003.01941).

    >>> from diffeo import nets, scalars
    >>> layer = Elementwise(3, scalars.spline(), lambda i, o: nets.MLP(i, o, context=2))
    >>> z, log_det = layer(torch.ones(4, 3), torch.zeros(4, 2))
    >>> z.shape, log_det
    (torch.Size([4, 3]), tensor([0., 0., 0., 0.], grad_fn=<SumBackward1>))
    """

    def __init__(
        self,
        event_shape: int | tuple[int, ...],
        scalar: Scalar,
        net: nn.Module | Callable[[int, int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        event = event_shape if isinstance(event_shape, tuple) else (event_shape,)
        check_scalar(scalar)
        self.scalar, d = scalar, math.prod(whole("event_shape", size) for size in event)
        self.raw = nn.Parameter(torch.zeros(scalar.width, d))
        self.net = None if net is None else made(net, 0, scalar.width * d)
        if self.net is not None:
            check_net(self.net, 0, scalar.width * d)
        self.context_features = int(getattr(self.net, "context_features", 0))

    @torch.no_grad()
    def initialize(self, batch: Tensor) -> None:
        """Set the own parameters to suit a batch [n, *event]: of `mixture_cdf`, components at quantiles. Raises
        DataError where the batch is empty or not finite, ShapeError where it or the scalar does not lend itself."""
        if self.scalar.start is None:
            raise ShapeError(f"scalar: {self.scalar.name} takes no start from data; leave initialize out")
        self.check_event(tuple(batch.shape[1:]))
        if not len(batch):
            raise DataError("batch: expected one row or more, got none")
        if not bool(batch.isfinite().all()):
            raise DataError("batch: expected finite numbers, got NaN or inf; drop such rows first")
        self.raw.copy_(self.scalar.start(batch.flatten(1)))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.scalar.forward, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.scalar.inverse, z, context)

    def _move(self, step: Move, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        columns = as_columns(x)
        raw = self.raw[:, :, None]
        if self.net is not None:
            raw = raw + self.net(columns.T[:, :0], context).view(self.scalar.width, *columns.shape)
        moved, log_slope = step(columns, raw)
        return as_rows(moved, x.shape), log_slope.sum(0)

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, math.prod(event) == self.raw.shape[1], f"{self.raw.shape[1]} numbers", event)

    def extra_repr(self) -> str:
        return f"{self.raw.shape[1]} coordinates move by {self.scalar.name}"
