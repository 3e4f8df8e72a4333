"""Autoregressive layers: every coordinate moves as told by those before it (arXiv 1606.04934, 1705.07057)."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from diffeo.errors import ShapeError, shown
from diffeo.nets import MaskedNet
from diffeo.scalars import Scalar
from diffeo.tracing import is_plain
from diffeo.transforms.base import Transform, fits
from diffeo.transforms.coupling import as_columns, as_rows, check_net, check_scalar, made
from diffeo.transforms.incremental import plan_of, solved

__all__ = ["Autoregressive", "InverseBy"]

InverseBy = Literal["auto", "incremental", "fixed-point", "sequential"]

FEW_STEPS = 12  # below which stepping is quicker than a handful of sweeps
MANY_NUMBERS = 4096  # a step, from which the arithmetic of sweeps costs more than the steps they save


class Autoregressive(Transform):
    """z_i = scalar(x_i; net(x_j of lower order than i, context)): forward in one pass, the inverse number by number.

    So a density is found at once and a sample coordinate by coordinate (MAF, arXiv 1705.07057). ``Inverse`` of this
    layer is the other fast direction: it samples at once (IAF, arXiv 1606.04934).

    ``order[i]`` is the place of coordinate i of the flattened event. ``net`` is a MaskedMLP of that order and the
    scalar's width as its multiplier, or a function (order, width) -> such a module.

    ``inverse_by``, which can be changed at any time and is not saved, says how the inverse of a MaskedMLP is found:

    - ``"incremental"``: each hidden unit is computed once, as soon as it can be. Differentiable.
    - ``"fixed-point"``: 24 steps of it at a time are guessed and corrected until no coordinate moves by more than 4
      units in the last place; rows that still do after 16 corrections are done incrementally. What is found is the
      incremental inverse where every coordinate that is read is off by that much at most, so as exact as it up to a
      few roundings. Where gradients are wanted, a program is traced or dropout is on, it is incremental.
    - ``"auto"``: the quicker of the two by the layer's and the batch's size; for numbers finer than the net's weights
      the sequential one, as what the net says is then to be what it says in forward, to the last bit.
    - ``"sequential"``: a pass of the net for each coordinate; what nets of other kinds and nets with hooks always take.

    >>> from diffeo import nets, scalars
    >>> layer = Autoregressive([0, 1, 2], scalars.affine(), nets.MaskedMLP)
    >>> layer(torch.ones(4, 3))[1].shape
    torch.Size([4])
    """

    def __init__(
        self,
        order: Sequence[int],
        scalar: Scalar,
        net: nn.Module | Callable[[Sequence[int], int], nn.Module],
        inverse_by: InverseBy = "auto",
    ) -> None:
        super().__init__()
        self.order, self.scalar, self.inverse_by = tuple(int(i) for i in order), scalar, inverse_by
        check_scalar(scalar)
        if inverse_by not in get_args(InverseBy):
            wanted = ", ".join(get_args(InverseBy))
            raise ShapeError(f"inverse_by: expected one of {wanted}, got {shown(inverse_by)}")
        d = len(self.order)
        if not d or sorted(self.order) != list(range(d)):
            raise ShapeError(f"order: expected a permutation of 0..{max(d - 1, 0)}, got {list(self.order)}")
        self.net = made(net, self.order, scalar.width)
        check_net(self.net, d, d * scalar.width)
        seen = getattr(self.net, "order", None)  # a net without an order may look at everything
        if seen != self.order:
            raise ShapeError(f"net: expected order={self.order}, got {seen}; build both with one order")
        self.context_features = int(getattr(self.net, "context_features", 0))
        self._plan = plan_of(self.net, self.order)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        columns = as_columns(x)
        z, log_slope = self.scalar.forward(columns, self._raw(columns, context))
        return as_rows(z, x.shape), log_slope.sum(0)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        columns = z.reshape(z.shape[0], math.prod(z.shape[1:])).T
        path = self._path(columns, context)
        x, log_slope = (
            self._sequential(columns, context)
            if path == "sequential"
            else self._by_plan(columns, context, path == "fixed-point")
        )
        return x.T.reshape(z.shape), log_slope.sum(0)

    def _path(self, columns: Tensor, context: Tensor | None) -> InverseBy:
        """How the inverse of columns [d, n] is to be found."""
        plan, net = self._plan, self.net
        if (
            self.inverse_by == "sequential"
            or plan is None
            or _hooked(net)
            or (self.context_features and context is None)
        ):
            return "sequential"
        weights = next(net.parameters())
        if self.inverse_by == "auto" and torch.promote_types(columns.dtype, weights.dtype) != weights.dtype:
            return "sequential"  # numbers finer than the weights: what these say has to be what they say in forward
        given = (columns, *net.parameters()) if context is None else (columns, context, *net.parameters())
        learning = torch.is_grad_enabled() and any(v.requires_grad for v in given)
        random = net.training and bool(getattr(net, "dropout", 0))  # no two sweeps would be of one layer
        if self.inverse_by == "incremental" or learning or random or not is_plain():
            return "incremental"
        slower = plan.steps < FEW_STEPS or columns.shape[1] * plan.numbers > MANY_NUMBERS * plan.steps
        return "incremental" if slower and self.inverse_by == "auto" else "fixed-point"

    def _by_plan(self, columns: Tensor, context: Tensor | None, sweep: bool) -> tuple[Tensor, Tensor]:
        plan, net, n = self._plan, self.net, columns.shape[1]
        assert plan is not None  # _path has seen to it
        assert isinstance(net, MaskedNet)
        by_place = columns[list(plan.sequence)]

        def answer(places: slice, raw: Tensor) -> tuple[Tensor, Tensor]:
            return self.scalar.inverse(by_place[places], raw)

        x, log_slope = solved(net, plan, context if self.context_features else None, n, answer, sweep)
        return x[list(self.order)], log_slope

    def _sequential(self, columns: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """One pass of the net for each coordinate: right for any net."""
        found = list(torch.zeros_like(columns).unbind(0))
        slopes = []
        for i in sorted(range(len(found)), key=self.order.__getitem__):
            raw = self._raw(torch.stack(found), context)
            found[i], log_slope = self.scalar.inverse(columns[i], raw[:, i])
            slopes.append(log_slope)
        return torch.stack(found), torch.stack(slopes)

    def _raw(self, columns: Tensor, context: Tensor | None) -> Tensor:
        """Coordinates [d, n] -> raw parameters [width, d, n]."""
        return self.net(columns.T, context).view(self.scalar.width, *columns.shape)

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, math.prod(event) == len(self.order), f"{len(self.order)} numbers", event)

    def extra_repr(self) -> str:
        return f"{len(self.order)} coordinates move by {self.scalar.name}"


def _hooked(net: nn.Module) -> bool:
    """Whether something else acts when parts of the net are called."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
