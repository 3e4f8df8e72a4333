"""Conditioners of pictures, called ``net(h [in, n, H, W], context [n, c] or None) -> [out, n, H, W]``: channel first,
so that each raw parameter of a scalar is one run of memory over pictures and places; the last layer starts at zero.
"""

import torch
from torch import Tensor, nn

from diffeo.errors import ShapeError, whole
from diffeo.kernels import linear, perceptron
from diffeo.kernels.neighbours import gathered, neighbours
from diffeo.nets import in_bfloat16, soft_clip

__all__ = ["ConvNet"]

FASTER = 3.0  # the rate at which the last layer's scale learns (arXiv 1807.03039, code): exp(3 r)


class ConvNet(nn.Module):
    """Glow's net (arXiv 1807.03039, section 3.3): a 3x3, a 1x1 and a 3x3 convolution with ReLU between them.

    All is done by products of matrices: the first convolution looks at every place beside its neighbours, the last
    tells all neighbours something. ``width=0`` leaves only the last convolution. One channel of ones is added, so that
    the net can tell the zeros beyond the border from those of the picture; a context of one-hot classes acts as a bias
    at every place. ``autocast = True`` lets products go in bfloat16 on a GPU; what comes out is float32 again.

    >>> net = ConvNet(2, 4, width=16, context=3)
    >>> net(torch.randn(2, 5, 8, 8), torch.eye(5, 3)).shape
    torch.Size([4, 5, 8, 8])
    """

    def __init__(self, in_features: int, out_features: int, width: int = 64, context: int = 0) -> None:
        super().__init__()
        self.in_features, self.out_features = whole("in_features", in_features), whole("out_features", out_features)
        self.context_features, self.width = whole("context", context, 0), whole("width", width, 0)
        self.autocast = False
        seen = in_features + 1
        if width:
            self.first = nn.Parameter(torch.randn(width, seen, 3, 3) * (2 / (9 * seen)) ** 0.5)
            self.first_bias = nn.Parameter(torch.zeros(width))
            self.second = nn.Parameter(torch.randn(width, width, 1, 1) * (2 / width) ** 0.5)
            self.second_bias = nn.Parameter(torch.zeros(width))
        self.given = nn.Parameter(torch.zeros(width or out_features, context)) if context else None
        self.last = nn.Parameter(torch.zeros(out_features, width or seen, 3, 3))
        self.last_bias = nn.Parameter(torch.zeros(out_features))
        self.log_scale = nn.Parameter(torch.zeros(out_features))

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        h = soft_clip(h.to(self.last.dtype))
        seen = torch.cat([h, h.new_ones(1, *h.shape[1:])])
        told = self._told(context, h.shape[2:].numel())
        grown = (FASTER * self.log_scale).exp()
        last = (self.last * grown[:, None, None, None]).permute(2, 3, 0, 1).flatten(0, 2)  # [9 out, width]
        nothing = last.new_zeros(len(last))
        with in_bfloat16(self.autocast, h):
            y = self._products(seen, last, nothing, told).to(h.dtype)
        raw = gathered(y.view(9, self.out_features, *h.shape[1:]))
        raw = raw + (self.last_bias * grown)[:, None, None, None]
        if self.width or told is None or self.given is None:
            return raw
        return raw + (self.given @ told).view_as(raw)

    def _products(self, seen: Tensor, last: Tensor, nothing: Tensor, told: Tensor | None) -> Tensor:
        """What every place [c, n, H, W] tells each of its neighbours: [9 out, n * places]."""
        columns = seen.shape[1:].numel()
        if not self.width:
            return linear(seen.view(len(seen), columns), last, nothing)
        spread = neighbours(seen).view(9 * len(seen), columns)
        first = self.first.permute(0, 2, 3, 1).flatten(1)  # [width, 9 in]
        if told is not None and self.given is not None:
            spread, first = torch.cat([spread, told]), torch.cat([first, self.given], 1)
        return perceptron(spread, first, self.first_bias, self.second.flatten(1), self.second_bias, last, nothing)

    def _told(self, context: Tensor | None, places: int) -> Tensor | None:
        """The context at every place, [c, n * places]."""
        if not self.context_features:
            return None
        if context is None:
            raise ShapeError(f"context: this net takes {self.context_features} context features, got none")
        each = soft_clip(context.T.to(self.last.dtype))[:, :, None]
        return each.expand(-1, -1, places).flatten(1)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, width={self.width}, context={self.context_features}"
