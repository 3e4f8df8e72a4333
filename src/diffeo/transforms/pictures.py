"""Couplings of pictures: some channels, or the fields of one colour of a checkerboard, move as told by the others."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from diffeo.errors import ShapeError, shown
from diffeo.scalars import Move, Scalar
from diffeo.transforms.base import Transform, fits
from diffeo.transforms.coupling import check_net, check_scalar, made
from diffeo.transforms.planes import as_pictures, as_planes, check_picture

__all__ = ["PictureCoupling", "Split"]

Split = Literal["channels", "alternate", "checkerboard", "masked"]
Pair = tuple[Tensor, Tensor]


class PictureCoupling(Transform):
    """z_stay = x_stay, z_move = scalar(x_move; net(x_stay, context)) of pictures (C, H, W) (arXiv 1605.08803).

    ``split`` says who stays: the first half of the ``"channels"`` (the smaller one, if C is odd), the even ones
    (``"alternate"``), or black fields of a ``"checkerboard"``, the upper left among them. Fields of one colour are
    packed: those of a square of 2x2 become channels of one place, [2C, n, H/2, W/2], so that the net works at a quarter
    of the places. ``"masked"`` is the checkerboard as the paper has it, H and W of any size: the net sees the whole
    picture with zeros for white fields, and what it says of black ones is not used. ``flip`` lets the others stay.

    ``net`` is a module ``net(h [in, n, H, W], context) -> [width * moving, n, H, W]``, channel first, or a function
    (in_features, out_features) -> such a module.

    >>> from diffeo import scalars
    >>> from diffeo.convnets import ConvNet
    >>> layer = PictureCoupling("checkerboard", scalars.affine(), ConvNet, event=(1, 8, 8))
    >>> z, log_det = layer(torch.randn(5, 1, 8, 8))
    >>> z.shape, log_det.shape
    (torch.Size([5, 1, 8, 8]), torch.Size([5]))
    """

    def __init__(
        self,
        split: Split,
        scalar: Scalar,
        net: nn.Module | Callable[[int, int], nn.Module],
        event: tuple[int, ...],
        flip: bool = False,
    ) -> None:
        super().__init__()
        check_scalar(scalar)
        if split not in get_args(Split):
            raise ShapeError(f"split: expected one of {', '.join(get_args(Split))}, got {shown(split)}")
        self.split, self.scalar, self.event, self.flip = split, scalar, tuple(event), flip
        check_picture(self, self.event)
        c = self.event[0]
        if split in ("channels", "alternate"):
            fits(self, c > 1, "two channels or more, to part them (squeeze first)", self.event)
        if split == "checkerboard":
            even = self.event[1] % 2 == 0 and self.event[2] % 2 == 0
            fits(self, even, "even height and width ('masked' takes any)", self.event)
        sizes = {"channels": (c // 2, c - c // 2), "alternate": (c - c // 2, c // 2), "masked": (c, c)}
        stay, move = sizes.get(split, (2 * c, 2 * c))[:: -1 if flip else 1]
        self.net = made(net, stay, scalar.width * move)
        check_net(self.net, stay, scalar.width * move)
        self.context_features = int(getattr(self.net, "context_features", 0))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.scalar.forward, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.scalar.inverse, z, context)

    def _move(self, step: Move, x: Tensor, context: Tensor | None) -> Pair:
        planes = as_planes(x)
        stay, move = self._parted(planes)
        return self._moved(step, planes, stay, move, self._asked(stay, move, context))

    def retraced(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """As for every transform, with one call of the net: what stays is known, and what moves is filled in before
        anything has looked at it."""
        x = as_pictures(as_planes(z.detach()).clone()).requires_grad_()
        with torch.enable_grad():
            planes = as_planes(x)
            stay, move = self._parted(planes)
            raw = self._asked(stay, move, context)
            with torch.no_grad():
                before = self._moved(self.scalar.inverse, planes, stay, move, raw)[0]
                planes.data.copy_(as_planes(before))  # past autograd, which would take `stay` for changed
                move.data.copy_(self._parted(planes)[1])
            return x, *self._moved(self.scalar.forward, planes, stay, move, raw)

    def _parted(self, planes: Tensor) -> Pair:
        """What the net sees of those that stay, and what moves."""
        if self.split == "masked":
            return torch.where(self._stays(planes), planes, 0.0), planes
        pair = _PARTED[self.split](planes)
        return pair[::-1] if self.flip else pair

    def _asked(self, stay: Tensor, move: Tensor, context: Tensor | None) -> Tensor:
        """What the net says of what moves, [width, *move.shape]."""
        raw: Tensor = self.net(stay, context)
        return raw.view(self.scalar.width, *move.shape)

    def _moved(self, step: Move, planes: Tensor, stay: Tensor, move: Tensor, raw: Tensor) -> Pair:
        moved, log_slope = step(move, raw)
        if self.split == "masked":
            stays = self._stays(planes)
            moved, log_slope = torch.where(stays, planes, moved), torch.where(stays, 0.0, log_slope)
        else:
            moved = _JOINED[self.split]((moved, stay) if self.flip else (stay, moved))
        return as_pictures(moved), log_slope.sum((0, 2, 3))

    def _stays(self, planes: Tensor) -> Tensor:
        """Which fields of a checkerboard [H, W] stay."""
        height, width = planes.shape[2:]
        field = torch.arange(height, device=planes.device)[:, None] + torch.arange(width, device=planes.device)
        return (field % 2 == 0) ^ self.flip

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, tuple(event) == self.event, f"shape {list(self.event)}", event)

    def extra_repr(self) -> str:
        return f"{self.split}{', flip' * self.flip}, by {self.scalar.name}"


def _halves(planes: Tensor) -> Pair:
    half = len(planes) // 2
    return planes[:half], planes[half:]


def _in_turn(planes: Tensor) -> Pair:
    return planes[0::2], planes[1::2]


def _turned_back(pair: Pair) -> Tensor:
    even, odd = pair
    joined = even.new_empty(len(even) + len(odd), *even.shape[1:])
    joined[0::2], joined[1::2] = even, odd
    return joined


def _colours(planes: Tensor) -> Pair:
    """Black and white fields [2C, n, H/2, W/2], the upper row of each square first."""
    c, n, height, width = planes.shape
    squares = planes.view(c, n, height // 2, 2, width // 2, 2)
    upper, lower = squares.unbind(3)
    return torch.cat([upper[..., 0], lower[..., 1]]), torch.cat([upper[..., 1], lower[..., 0]])


def _board(pair: Pair) -> Tensor:
    (a, d), (b, c) = (part.chunk(2) for part in pair)
    rows = torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], 3)
    return rows.view(*a.shape[:2], 2 * a.shape[2], 2 * a.shape[3])


_PARTED: dict[str, Callable[[Tensor], Pair]] = {"channels": _halves, "alternate": _in_turn, "checkerboard": _colours}
_JOINED: dict[str, Callable[[Pair], Tensor]] = {
    "channels": torch.cat,
    "alternate": _turned_back,
    "checkerboard": _board,
}
