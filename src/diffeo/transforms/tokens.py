"""Coupling of tokens: some of them, or some features of each, stay and tell the others how to move."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from diffeo.errors import ShapeError, shown, whole
from diffeo.scalars import Move, Scalar
from diffeo.transforms.base import Transform, fits
from diffeo.transforms.coupling import check_net, check_scalar, made
from diffeo.transforms.patches import as_features, as_tokens

__all__ = ["Split", "TokenCoupling"]

Split = Literal[
    "channels", "checkerboard", "checkerboard-flipped", "rows", "rows-flipped", "columns", "columns-flipped"
]


class TokenCoupling(Transform):
    """z_stay = x_stay, z_move = scalar(x_move; net(x_stay, context)), for tokens x [n, T, F] (arXiv 2412.15129).

    ``split`` says what stays: half of the features of every token, chosen at random when the layer is made; or whole
    tokens of the grid ``(down, across)`` that they come from, those on the black fields of a checkerboard, or in every
    second row or column. Every token that moves is told by one that stays, which has read all of those.

    ``net`` is a net of tokens, or a function (tokens, in_features, out_features) -> such a net.

    >>> from functools import partial
    >>> from diffeo import scalars
    >>> from diffeo.attention import Transformer
    >>> net = partial(Transformer, width=16, depth=2, heads=2)
    >>> layer = TokenCoupling((2, 3), 4, "checkerboard", scalars.affine(), net)
    >>> z, log_det = layer(torch.randn(5, 6, 4))
    >>> z.shape, log_det.shape
    (torch.Size([5, 6, 4]), torch.Size([5]))
    """

    order: Tensor

    def __init__(
        self,
        grid: tuple[int, int],
        features: int,
        split: Split,
        scalar: Scalar,
        net: nn.Module | Callable[[int, int, int], nn.Module],
    ) -> None:
        super().__init__()
        if not isinstance(grid, Sequence) or len(grid) != 2:
            raise ShapeError(f"grid: expected (down, across), how the tokens lie in a picture, got {shown(grid)}")
        down, across = (whole("grid", length) for length in grid)
        self.tokens, self.features, self.split, self.scalar = down * across, whole("features", features), split, scalar
        check_scalar(scalar)
        if split not in get_args(Split):
            raise ShapeError(f"split: expected one of {', '.join(get_args(Split))}, got {shown(split)}")
        order, self._staying = _lots(features) if split == "channels" else _fields(down, across, split)
        self.register_buffer("order", order)  # of features or tokens, those that stay first
        sizes = self._sizes()
        self.net = made(net, *sizes)
        check_net(self.net, *sizes[1:])
        tokens = getattr(self.net, "tokens", sizes[0])
        if tokens != sizes[0]:
            raise ShapeError(f"net: expected tokens={sizes[0]}, got {tokens}; build it with tokens={sizes[0]}")
        self.context_features = int(getattr(self.net, "context_features", 0))

    def _sizes(self) -> tuple[int, int, int]:
        """Tokens, features in and features out of the net."""
        moving = len(self.order) - self._staying
        if self.split == "channels":
            return self.tokens, self._staying, self.scalar.width * moving
        return max(self._staying, moving), self.features, self.scalar.width * self.features

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.scalar.forward, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.scalar.inverse, z, context)

    def _move(self, step: Move, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        features, along = as_features(x), 0 if self.split == "channels" else 2
        kept = features.index_select(along, self.order[: self._staying])
        moving = features.index_select(along, self.order[self._staying :])
        raw = self.net(self._paired(kept, moving.shape[2]), context)[..., : moving.shape[2]]
        moved, log_slope = step(moving, raw.unflatten(0, (self.scalar.width, len(moving))))
        z = torch.cat([kept, moved], along).index_select(along, self.order.argsort())
        return as_tokens(z), log_slope.sum((0, 2))

    @staticmethod
    def _paired(kept: Tensor, count: int) -> Tensor:
        """Tokens [F, n, t], and zeros where fewer stay than move."""
        lacking = count - kept.shape[2]
        return torch.cat([kept, kept.new_zeros(*kept.shape[:2], lacking)], 2) if lacking > 0 else kept

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, tuple(event) == (self.tokens, self.features), f"shape {[self.tokens, self.features]}", event)

    def extra_repr(self) -> str:
        return f"{self.tokens} tokens of {self.features} move by {self.scalar.name}, {self.split}"


def _lots(features: int) -> tuple[Tensor, int]:
    """A random order of features, and how many of them stay: half, the smaller."""
    return torch.randperm(features), features // 2


def _fields(down: int, across: int, split: str) -> tuple[Tensor, int]:
    """The order of tokens, and how many of them stay; where none does, flipped is the same: something has to move."""
    row, column = torch.arange(down)[:, None], torch.arange(across)
    kind, _, flipped = split.partition("-")
    stays = {"checkerboard": row + column, "rows": row + 0 * column, "columns": column + 0 * row}[
        kind
    ].flatten() % 2 == 1
    stays = ~stays if flipped and bool(stays.any()) else stays
    return torch.cat([stays.nonzero()[:, 0], (~stays).nonzero()[:, 0]]), int(stays.sum())
