"""Coupling: some coordinates stay and tell the others how to move (arXiv 1410.8516, 1605.08803)."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffeo.errors import ShapeError, shown, whole
from diffeo.scalars import Move, Scalar
from diffeo.transforms.base import Transform, fits

__all__ = ["Coupling", "Partition", "as_columns", "as_rows", "check_net", "check_scalar", "lie", "made"]


class Partition(NamedTuple):
    """Which coordinates of a flattened event stay and which move.

    >>> Partition.halves(5)
    Partition(stay=(0, 1), move=(2, 3, 4))
    >>> Partition.halves(5).flip()
    Partition(stay=(2, 3, 4), move=(0, 1))
    >>> Partition.alternating(1).flip()
    Partition(stay=(), move=(0,))
    """

    stay: tuple[int, ...]
    move: tuple[int, ...]

    @classmethod
    def halves(cls, d: int) -> "Partition":
        """The first half stays, the second (the larger one if d is odd) moves."""
        d = whole("d", d)
        return cls(tuple(range(d // 2)), tuple(range(d // 2, d)))

    @classmethod
    def alternating(cls, d: int) -> "Partition":
        """Odd coordinates stay, even ones move."""
        d = whole("d", d)
        return cls(tuple(range(1, d, 2)), tuple(range(0, d, 2)))

    @classmethod
    def one(cls, i: int, d: int) -> "Partition":
        """Coordinate i of d moves, as told by all others.

        >>> Partition.one(1, 3)
        Partition(stay=(0, 2), move=(1,))
        """
        if whole("i", i, 0) >= whole("d", d):
            raise ShapeError(f"i: expected a coordinate, 0..{d - 1}, got {i}")
        return cls(tuple(k for k in range(d) if k != i), (i,))

    @classmethod
    def checkerboard(cls, shape: tuple[int, ...]) -> "Partition":
        """Black fields of a picture (H, W) or (C, H, W) stay, white ones, the upper left among them, move."""
        if len(shape) < 2:
            raise ShapeError(f"shape: expected that of a picture, (H, W) or (C, H, W), got {shape}")
        grid = torch.arange(shape[-2])[:, None] + torch.arange(shape[-1])
        return cls._of((grid % 2 == 1).expand(shape))

    @classmethod
    def channels(cls, shape: tuple[int, ...]) -> "Partition":
        """The first half of the channels of an event (C, ...) stays, the others move."""
        first = torch.arange(shape[0]) < shape[0] // 2
        return cls._of(first.view(-1, *(1,) * (len(shape) - 1)).expand(shape))

    @classmethod
    def _of(cls, stays: Tensor) -> "Partition":
        flat = stays.flatten()
        return cls(tuple(flat.nonzero()[:, 0].tolist()), tuple((~flat).nonzero()[:, 0].tolist()))

    def flip(self) -> "Partition":
        """Who stayed moves; but a partition in which nothing stays is its own flip, as something has to move."""
        return Partition(self.move, self.stay) if self.stay else self


def lie(partition: Partition) -> tuple[str, bool]:
    """How those that stay and those that move lie among each other, and whether the first of all moves."""
    stay, move = partition
    d = len(stay) + len(move)
    first = move[:1] == (0,) and bool(stay)
    pair = (move, stay) if first else (stay, move)
    if pair[0] + pair[1] == tuple(range(d)):
        return "halves", first
    if pair == (tuple(range(0, d, 2)), tuple(range(1, d, 2))) and d % 2 == 0:
        return "in turn", first
    return "anyhow", False


def check_scalar(scalar: Any) -> None:
    if not isinstance(scalar, Scalar):
        raise ShapeError(f"scalar: expected a Scalar such as affine() or spline(), got {shown(scalar)}")


def made(net: Any, *sizes: Any) -> nn.Module:
    """The net itself, or what a function makes of the sizes."""
    found = net if isinstance(net, nn.Module) or not callable(net) else net(*sizes)
    if not isinstance(found, nn.Module):
        raise ShapeError(f"net: expected a module, or a function of the sizes that makes one, got {shown(found)}")
    return found


def check_net(net: nn.Module, in_features: int, out_features: int) -> None:
    """Raise ShapeError unless the net takes and gives as many numbers as its layer needs."""
    for name, expected in (("in_features", in_features), ("out_features", out_features)):
        got = getattr(net, name, expected)
        if got != expected:
            raise ShapeError(f"net: expected {name}={expected}, got {got}; build it with {name}={expected}")


def as_columns(x: Tensor) -> Tensor:
    """x [n, *event] -> [d, n], where one coordinate of all rows is one run of memory."""
    rows = x if x.ndim == 2 else x.reshape(x.shape[0], math.prod(x.shape[1:]))
    return rows.T.contiguous()


def as_rows(columns: Tensor, shape: torch.Size) -> Tensor:
    """The way back, to events of that shape; a view, where they are vectors."""
    return columns.T if len(shape) == 2 else columns.T.reshape(shape)


class Coupling(Transform):
    """z_stay = x_stay, z_move = scalar(x_move; net(x_stay, context)).

    ``net`` is a module ``net(h [n, in], context) -> [width * moving, n]``, or a function (in_features, out_features) ->
    such a module. Events of any shape are flattened, moved and restored.

    >>> from diffeo import nets, scalars
    >>> layer = Coupling(Partition.halves(3), scalars.affine(), nets.MLP)
    >>> z, log_det = layer(torch.ones(4, 3))
    >>> z.shape, log_det.shape
    (torch.Size([4, 3]), torch.Size([4]))
    """

    stay: Tensor
    move: Tensor
    restore: Tensor

    def __init__(self, partition: Partition, scalar: Scalar, net: nn.Module | Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.partition, self.scalar = partition, scalar
        check_scalar(scalar)
        joined = partition.stay + partition.move
        if sorted(joined) != list(range(len(joined))) or not partition.move:
            wanted = f"0..{max(len(joined) - 1, 0)} once each and something to move"
            raise ShapeError(f"partition: expected {wanted}, got {partition}")
        sizes = len(partition.stay), scalar.width * len(partition.move)
        self.net = made(net, *sizes)
        check_net(self.net, *sizes)
        self.context_features = int(getattr(self.net, "context_features", 0))
        self.register_buffer("stay", torch.tensor(partition.stay, dtype=torch.long), persistent=False)
        self.register_buffer("move", torch.tensor(partition.move, dtype=torch.long), persistent=False)
        self.register_buffer("restore", torch.tensor(joined).argsort(), persistent=False)
        self._lie, self._move_first = lie(partition)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.scalar.forward, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.scalar.inverse, z, context)

    def _move(self, step: Move, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        kept, moving = self._split(as_columns(x))
        raw = self.net(kept.T, context).view(self.scalar.width, *moving.shape)
        moved, log_slope = step(moving, raw)
        return as_rows(self._join(kept, moved), x.shape), log_slope.sum(0)

    def _split(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates [d, n] -> those that stay and those that move; of halves, and where they take turns, a view."""
        if self._lie == "anyhow":
            return columns.index_select(0, self.stay), columns.index_select(0, self.move)
        if self._lie == "in turn":
            first, second = columns.unflatten(0, (-1, 2)).unbind(1)
        else:
            sizes = len(self.partition.stay), len(self.partition.move)
            first, second = columns.split(sizes[::-1] if self._move_first else sizes)
        return (second, first) if self._move_first else (first, second)

    def _join(self, kept: Tensor, moved: Tensor) -> Tensor:
        """The way back from `_split`."""
        pair = (moved, kept) if self._move_first else (kept, moved)
        if self._lie == "in turn":
            return torch.stack(pair, 1).flatten(0, 1)
        joined = torch.cat(pair)
        return joined.index_select(0, self.restore) if self._lie == "anyhow" else joined

    def check_event(self, event: tuple[int, ...]) -> None:
        d = len(self.partition.stay) + len(self.partition.move)
        fits(self, math.prod(event) == d, f"{d} numbers", event)

    def extra_repr(self) -> str:
        return f"{len(self.partition.stay)} stay, {len(self.partition.move)} move by {self.scalar.name}"
