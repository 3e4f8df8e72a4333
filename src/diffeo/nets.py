"""Conditioners: what the parameters of a layer may look at.

Every net is called ``net(h [n, in], context [n, c] or None) -> [out, n]``: feature first, so that each raw parameter
of a scalar is one contiguous run over the batch, and so is everything within, where products of matrices are cheaper
that way round. Last layers start at zero, which makes every flow start as the identity, and inputs beyond +-5 are
softly clipped, so that no layer extrapolates far outside the data it learned from.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffeo.errors import ShapeError, shown, whole
from diffeo.kernels import linear, perceptron

__all__ = [
    "ACTIVATIONS",
    "FURTHEST",
    "MLP",
    "NEAR",
    "Constants",
    "MaskedMLP",
    "MaskedNet",
    "ResMLP",
    "ScaleAndShift",
    "in_bfloat16",
    "soft_clip",
]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "elu": F.elu,
}

EVERY = slice(None)
SHORT = ("cuda",)  # where bfloat16 is faster than float32
NEAR = 5.0  # inputs of nets count as they are up to here
FURTHEST = 1e6  # the same of `ScaleAndShift`


def soft_clip(x: Tensor, bound: float = NEAR) -> Tensor:
    """x within +-bound, then bending smoothly (once differentiable) towards +-(bound + 1).

    >>> soft_clip(torch.tensor([2.0, -1e30]), 5.0)
    tensor([ 2., -6.])
    """
    if _all_within(x, bound):
        return x
    beyond = torch.sigmoid(2 * F.softshrink(x, bound))  # 2 s(2 v) - 1 is tanh(v), at a quarter of its cost
    return x.clamp(-bound, bound) + (2 * beyond - 1)


def in_bfloat16(wanted: bool, h: Tensor) -> AbstractContextManager[object]:
    """Within, products and convolutions multiply in bfloat16 if that is wanted, of float32 and where it is faster.

    >>> with in_bfloat16(True, torch.ones(2, 2)):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32
    """
    if wanted and h.dtype == torch.float32 and h.device.type in SHORT:
        return torch.autocast(h.device.type, torch.bfloat16)
    return nullcontext()


def _all_within(x: Tensor, bound: float) -> bool:
    """Whether no number is beyond +-bound; False where numbers cannot be looked at, or are not at hand."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or not x.numel():
        return False
    try:
        low, high = x.detach().aminmax()
        return -bound <= float(low) and float(high) <= bound
    except RuntimeError:  # under vmap
        return False


def _activation(name: str, into: bool = False) -> Callable[[Tensor], Tensor]:
    """The function of that name; `into`: its input is not needed again and may be overwritten."""
    if name not in ACTIVATIONS:
        raise ShapeError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {shown(name)}")
    return partial(F.relu, inplace=True) if into and name == "relu" else ACTIVATIONS[name]


def _widths(hidden: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(hidden, Sequence):
        raise ShapeError(f"hidden: expected a sequence of widths such as (64, 64), got {shown(hidden)}")
    return tuple(whole("hidden", width) for width in hidden)


class _Linear(nn.Linear):
    """A linear layer, feature first: h [in, n] -> [out, n]."""

    def forward(self, h: Tensor) -> Tensor:
        return linear(h, *self.acting())

    def acting(self) -> tuple[Tensor, Tensor]:
        """Weight and bias as they act."""
        return self.weight, self.bias


class _Zero(nn.Module):
    """A last layer: hidden [in, n] -> [out, n], zero until trained."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, hidden: Tensor, mask: Tensor | None = None, some: slice = EVERY) -> Tensor:
        return linear(hidden, *self.acting(mask, some))

    def acting(self, mask: Tensor | None = None, some: slice = EVERY) -> tuple[Tensor, Tensor]:
        """Weight and bias as they act."""
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if some != EVERY:
            weight, bias, mask = weight[some], bias[some], None if mask is None else mask[some]
        return weight if mask is None else weight * mask, bias


class Constants(nn.Module):
    """Numbers that are learned, ``start`` [k] at first, plus what is linear in a context: zero at first.

    >>> Constants(torch.ones(3), context=2)(torch.randn(7, 2), torch.float32).shape
    torch.Size([3, 7])
    """

    def __init__(self, start: Tensor, context: int = 0) -> None:
        super().__init__()
        self.start = nn.Parameter(start)
        self.weight = nn.Parameter(torch.zeros(len(start), context)) if whole("context", context, 0) else None

    def forward(self, context: Tensor | None, dtype: torch.dtype) -> Tensor:
        """[k, n] for context [n, c], else [k, 1]; in the dtype asked for."""
        start = self.start.to(dtype)[:, None]
        if self.weight is None:
            return start
        if context is None:
            raise ShapeError(f"context: these constants take {self.weight.shape[1]} context features, got none")
        return torch.addmm(start, self.weight.to(dtype), soft_clip(context.to(dtype)).T)


class _Net(nn.Module):
    """What every conditioner has: its sizes, and the way its inputs are brought to its own dtype and joined."""

    _activation: Callable[[Tensor], Tensor]

    def __init__(
        self, in_features: int, out_features: int, context_features: int, dropout: float, activation: str
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = whole("in_features", in_features, 0), whole("out_features", out_features)
        self.context_features = whole("context", context_features, 0)
        if not 0 <= dropout < 1:
            raise ShapeError(f"dropout: expected a share from 0 to below 1, got {dropout!r}")
        self.dropout, self.activation = dropout, activation

    def _join(self, h: Tensor, context: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Clipped inputs [in + c, n]."""
        h = soft_clip(h.T.to(dtype))
        if not self.context_features:
            return h
        if context is None:
            raise ShapeError(f"context: this net takes {self.context_features} context features, got none")
        return torch.cat([h, soft_clip(context.T.to(dtype))])

    def _drop(self, hidden: Tensor) -> Tensor:
        return F.dropout(hidden, self.dropout, self.training) if self.dropout else hidden

    def _through(self, h: Tensor, hidden: nn.ModuleList, last: nn.Module, *how: Any) -> Tensor:
        """Inputs [in, n] through hidden layers and the last, which is also told ``how``."""
        layers: list[Any] = [*hidden, last]
        if self.activation == "relu" and not (self.dropout and self.training) and all(map(_is_bare, layers)):
            acting = [v for layer in layers[:-1] for v in layer.acting()]
            return perceptron(h, *acting, *layers[-1].acting(*how))
        for layer in layers[:-1]:
            h = self._drop(self._activation(layer(h)))
        return layers[-1](h, *how)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, context={self.context_features}"


def _is_bare(layer: nn.Module) -> bool:
    """Whether a layer is one of those here, and nobody waits for it to be called."""
    hooks = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return not hooks and type(layer) in (_Linear, _Masked, _Zero)


class MLP(_Net):
    """A multilayer perceptron; without inputs and context it is a vector of free constants.

    >>> MLP(2, 5, context=1)(torch.randn(7, 2), torch.randn(7, 1)).shape
    torch.Size([5, 7])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, out_features, context, dropout, activation)
        sizes = [in_features + context, *(_widths(hidden) if in_features + context else ())]
        self.hidden = nn.ModuleList(_Linear(a, b) for a, b in pairwise(sizes))
        self.last = _Zero(sizes[-1], out_features)
        self._activation = _activation(activation, into=True)

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        return self._through(self._join(h, context, self.last.weight.dtype), self.hidden, self.last)


class _Block(nn.Module):
    """h + W2 act(W1 act(h)); W2 starts as nearly nothing, so that depth costs no signal."""

    def __init__(self, width: int, activation: Callable[[Tensor], Tensor], dropout: float) -> None:
        super().__init__()
        self.inner, self.outer = _Linear(width, width), _Linear(width, width)
        nn.init.uniform_(self.outer.weight, -1e-3, 1e-3)
        nn.init.zeros_(self.outer.bias)
        self._activation, self.dropout = activation, dropout

    def forward(self, h: Tensor) -> Tensor:
        inner = self._activation(self.inner(self._activation(h)))
        return h + self.outer(F.dropout(inner, self.dropout, self.training) if self.dropout else inner)


class ResMLP(_Net):
    """Residual blocks h + W2 act(W1 act(h)) of one width (arXiv 1603.05027, pre-activation).

    >>> ResMLP(2, 5, width=16, blocks=1)(torch.randn(7, 2)).shape
    torch.Size([5, 7])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        width: int = 64,
        blocks: int = 2,
        context: int = 0,
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, out_features, context, dropout, activation)
        whole("width", width), whole("blocks", blocks, 0)
        seen = in_features + context
        self.first = _Linear(seen, width) if seen else None
        self.blocks = nn.ModuleList(
            _Block(width, _activation(activation), dropout) for _ in range(blocks if seen else 0)
        )
        self.last = _Zero(width if seen else 0, out_features)
        self._activation = _activation(activation)

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        h = self._join(h, context, self.last.weight.dtype)
        if self.first is None:
            return self.last(h)
        h = self.first(h)
        for block in self.blocks:
            h = block(h)
        return self.last(self._activation(h))


class ScaleAndShift(nn.Module):
    """Two perceptrons of a coupling, one for log-scales and one for shifts, each from all coordinates to all.

    Coordinates that move are 0 to them, as under a mask, and what they say of coordinates that stay is not used. A
    log-scale is the first's outcome times a learned ``scale_factor``, 0 at first; layers start as torch starts them.
    Inputs count as they are up to +-1e6, whence what is read stays finite; there is no softer clip.

    >>> net = ScaleAndShift(stay=[0], move=[1])
    >>> net(torch.randn(7, 1)).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([2, 7]), 2438)
    """

    restore: Tensor

    def __init__(self, stay: Sequence[int], move: Sequence[int], hidden: Sequence[int] = (32, 32)) -> None:
        super().__init__()
        self.in_features, self.out_features, self.context_features = len(stay), 2 * len(move), 0
        joined = [*stay, *move]
        d = len(joined)
        if sorted(joined) != list(range(d)) or not len(move):
            raise ShapeError(f"stay, move: expected 0..{max(d - 1, 0)} once each and something to move, got {joined}")
        sizes = [d, *_widths(hidden), d]
        self.s_func, self.t_func = _perceptron(sizes), _perceptron(sizes)
        self.scale_factor = nn.Parameter(torch.zeros(d))
        self.register_buffer("restore", torch.tensor(joined).argsort(), persistent=False)

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        h = h.to(self.scale_factor.dtype)
        furthest = min(FURTHEST, torch.finfo(h.dtype).max)
        h = h.clamp(-furthest, furthest)
        moving = self.out_features // 2
        seen = torch.cat([h, h.new_zeros(h.shape[0], moving)], 1).index_select(1, self.restore)
        own = self.restore.argsort()[self.in_features :]
        log_scale, shift = self.s_func(seen) * self.scale_factor, self.t_func(seen)
        return torch.cat([log_scale.T.index_select(0, own), shift.T.index_select(0, own)])


def _perceptron(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with leaky ReLU between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.LeakyReLU(), nn.Linear(a, b)]
    return nn.Sequential(*layers[1:])


class _Masked(_Linear):
    """A linear layer some of whose weights are held at zero: mask [out, in]; h [in, n] -> [out, n]."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.float(), persistent=False)

    def acting(self) -> tuple[Tensor, Tensor]:
        return self.weight * self.mask, self.bias


class MaskedNet(_Net):
    """MADE (arXiv 1502.03509) over places: output r sees the inputs of places below its own, and all context.

    ``in_places`` and ``out_places`` give the place, 0..p-1, of every input and every output; several may share one.

    >>> net = MaskedNet([0, 0, 1], [0, 1, 1, 1], hidden=(16,))
    >>> net(torch.randn(7, 3)).shape
    torch.Size([4, 7])
    """

    mask: Tensor

    def __init__(
        self,
        in_places: Sequence[int],
        out_places: Sequence[int],
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(len(in_places), len(out_places), context, dropout, activation)
        # A unit of degree g may use the inputs in places < g; context has degree 0 and is open to every unit.
        count = max([*in_places, *out_places], default=-1) + 1
        before, after = (torch.tensor([int(i) for i in places], dtype=torch.long) for places in (in_places, out_places))
        degrees = [torch.cat([before + 1, torch.zeros(context, dtype=torch.long)])]
        lowest = 0 if context or count == 1 else 1
        degrees += [lowest + torch.arange(size) * (count - lowest) // max(size, 1) for size in _widths(hidden)]
        self.hidden = nn.ModuleList(_Masked(high[:, None] >= low) for low, high in pairwise(degrees))
        self.register_buffer("mask", (after[:, None] >= degrees[-1]).float(), persistent=False)
        self.last = _Zero(len(degrees[-1]), len(out_places))
        self._activation = _activation(activation, into=True)

    def forward(self, h: Tensor, context: Tensor | None = None, some: slice = EVERY) -> Tensor:
        """Outputs [out, n], or only `some` of them."""
        return self._through(self._join(h, context, self.last.weight.dtype), self.hidden, self.last, self.mask, some)


class MaskedMLP(MaskedNet):
    """MADE over coordinates: the parameters of coordinate i see only coordinates of lower ``order``, and all context.

    ``order[i]`` is the place of coordinate i, a permutation of 0..d-1. The output is [multiplier * d, n], row
    ``k * d + i`` the k-th parameter of coordinate i, so that ``view(multiplier, d, n)`` is a scalar's raw.

    >>> MaskedMLP([0, 1, 2], 2, hidden=(16,))(torch.randn(7, 3)).shape
    torch.Size([6, 7])
    """

    def __init__(
        self,
        order: Sequence[int],
        multiplier: int,
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        places = tuple(int(i) for i in order)
        if not places or sorted(places) != list(range(len(places))):
            raise ShapeError(f"order: expected a permutation of 0..{max(len(places) - 1, 0)}, got {list(places)}")
        super().__init__(places, places * whole("multiplier", multiplier), hidden, context, activation, dropout)
        self.order = places
