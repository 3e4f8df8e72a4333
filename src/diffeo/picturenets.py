"""Conditioners of pictures: residual nets of convolutions.

Every net is called ``net(h [in, n, H, W], context [n, c] or None) -> [out, n, H, W]``: channels first, as pictures lie
in memory between the layers of a flow, so that each raw parameter of a scalar is one run of memory. Within, channels
are last, where convolutions are faster. Last layers start at zero, so that a flow starts as the identity; inputs
beyond +-10 are softly clipped, which leaves the logits of pixels as they are; a class, given by its context, adds a
learned number to every channel after the first convolution and before every block, zero at first.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffeo.errors import ShapeError, shown, whole
from diffeo.nets import in_bfloat16, soft_clip

__all__ = ["FAR", "BottleneckResNet", "GatedResNet", "Masked"]

FAR = 10.0  # inputs count as they are up to here: logits of 8-bit pixels end at about 6.2 in their middles


class _Conv(nn.Conv2d):
    """A square convolution that keeps height and width, zeros around; optionally of normed weights.

    Then the weights of one output are g v / |v| (arXiv 1602.07868), with |v| = g at first.
    """

    def __init__(self, inputs: int, outputs: int, size: int = 1, normed: bool = False) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2)
        self.gain = nn.Parameter(_norm(self.weight.detach())) if normed else None

    def silence(self, outputs: slice = slice(None)) -> None:
        """Let these outputs start at zero; their weights must not be normed."""
        with torch.no_grad():
            for parameter in (self.weight, self.bias):
                parameter[outputs] = 0.0  # type: ignore[index]

    def forward(self, h: Tensor) -> Tensor:
        if self.gain is None:
            return super().forward(h)
        weight = self.weight * (self.gain / _norm(self.weight)).to(self.weight.dtype)
        return F.conv2d(h, weight, self.bias, padding=self.padding)


def _norm(v: Tensor) -> Tensor:
    """Lengths [out, 1, 1, 1] of the rows of v [out, ...], never zero, never below float32."""
    wide = v.to(torch.promote_types(v.dtype, torch.float32))
    return (wide.square().sum((1, 2, 3), keepdim=True) + 1e-24).sqrt()


class _PictureNet(nn.Module):
    """What these nets share: a 3x3 convolution, blocks of one width, a 3x3 convolution.

    ``autocast = True`` lets convolutions multiply in bfloat16 on a GPU; what comes out is float32 again.
    """

    def __init__(
        self, in_features: int, out_features: int, width: int, blocks: int, context: int, border: bool, normed: bool
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = whole("in_features", in_features), whole("out_features", out_features)
        self.context_features = whole("context", context, 0)
        self.border, self.autocast = border, False
        self.first = _Conv(in_features + border, whole("width", width), 3, normed)
        told = torch.zeros(whole("blocks", blocks, 0) + 1, width, context)
        self.told = nn.Parameter(told) if context else None

    def _through(self, h: Tensor, told: list[Tensor] | None) -> Tensor:
        raise NotImplementedError

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        dtype = self.first.weight.dtype
        seen = soft_clip(h.to(dtype).permute(1, 2, 3, 0), FAR)  # [n, H, W, in]
        if self.border:
            seen = torch.cat([seen, torch.ones_like(seen[..., :1])], -1)
        # Strides are settled, or one channel would be convolved one way or another, as the batch was clipped or not.
        seen = seen.flatten().view(seen.shape).permute(0, 3, 1, 2)
        with in_bfloat16(self.autocast, seen):
            raw = self._through(seen, self._tell(context, dtype))
        return raw.to(dtype).transpose(0, 1).contiguous()

    def _tell(self, context: Tensor | None, dtype: torch.dtype) -> list[Tensor] | None:
        """What a context [n, c] adds to the channels: [n, width, 1, 1], for the first convolution and each block."""
        if self.told is None:
            return None
        if context is None:
            raise ShapeError(f"context: this net takes {self.context_features} context features, got none")
        return [(soft_clip(context.to(dtype)) @ told.T)[:, :, None, None] for told in self.told.unbind(0)]

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, context={self.context_features}, border={self.border}"


class _Bottleneck(nn.Module):
    """h + W3 relu(W2 relu(W1 h)): narrower within, where alone a place looks at its neighbours."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.narrow, self.look = _Conv(width, inner, 1, True), _Conv(inner, inner, 3, True)
        self.widen = _Conv(inner, width, 1, True)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.widen(F.relu(self.look(F.relu(self.narrow(h)))))


class BottleneckResNet(_PictureNet):
    """The residual net of RealNVP (arXiv 1605.08803): normed convolutions, blocks with a bottleneck, ReLU.

    A 3x3 convolution to ``width`` channels and a ReLU, blocks h + W3 relu(W2 relu(W1 h)) of 1x1, 3x3 and 1x1
    convolutions with ``bottleneck`` channels within, a ReLU, and a 3x3 convolution to the outputs. Every convolution
    has a bias and, for each of its outputs, a learned norm of its weights (arXiv 1602.07868); but the last one has none
    if ``zero_last``: from weights of norm zero, one number an output would be all that learns at first, and slowly.

    ``rescale``: the first half of the outputs, the log-scales of an affine scalar, are a tanh(out) + b with one
    learned a and one learned b for all of them, 0 at first. With ``scalars.affine(scale="exp")``, which takes them as
    they are up to 30, this is the coupling of the founding RealNVP for pictures. ``zero_last=False`` is its start,
    where scales are 1 and shifts are not 0; with ``zero_last`` both are the identity.

    ``context`` numbers a picture, such as a class as one-hot, are seen by every channel; ``border`` adds an input that
    is 1 within the picture, so that convolutions know where it ends. Raises ShapeError for sizes below 1.

    >>> net = BottleneckResNet(3, 6, zero_last=False, rescale=True)
    >>> net(torch.randn(3, 2, 8, 8)).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([6, 2, 8, 8]), 440718)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        width: int = 128,
        blocks: int = 8,
        bottleneck: int = 64,
        context: int = 0,
        border: bool = False,
        zero_last: bool = True,
        rescale: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, width, blocks, context, border, True)
        self.blocks = nn.ModuleList(_Bottleneck(width, whole("bottleneck", bottleneck)) for _ in range(blocks))
        self.last = _Conv(width, out_features, 3, not zero_last)
        self.scales = out_features // 2 if rescale else 0
        self.rescale = nn.Parameter(torch.zeros(2)) if rescale else None
        if rescale and out_features % 2:
            raise ShapeError(f"out_features: log-scales and shifts are an even number with rescale, got {out_features}")
        if zero_last:
            self.last.silence(slice(self.scales, None))  # were scales 0 as well as a, neither would learn

    def _through(self, h: Tensor, told: list[Tensor] | None) -> Tensor:
        h = self.first(h)
        h = F.relu(h if told is None else h + told[0])
        for i, block in enumerate(self.blocks):
            h = block(h if told is None else h + told[i + 1])
        raw = self.last(F.relu(h))
        if self.rescale is None:
            return raw
        a, b = self.rescale
        log_scales, shifts = raw.to(self.rescale.dtype).tensor_split([self.scales], 1)
        return torch.cat([a * torch.tanh(log_scales) + b, shifts], 1)


class _Gated(nn.Module):
    """LayerNorm(h + a sigmoid(b)) with (a, b) = W2 elus(W1 elus(h)), the norm over the channels of each place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look, self.mix = _Conv(2 * width, width, 3), _Conv(2 * width, 2 * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, h: Tensor) -> Tensor:
        change, gate = self.mix(_elus(self.look(_elus(h)))).chunk(2, 1)
        h = h + change * torch.sigmoid(gate)
        return self.norm(h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _elus(h: Tensor) -> Tensor:
    """elu(h) and elu(-h), one after the other along the channels."""
    return torch.cat([F.elu(h), F.elu(-h)], 1)


class GatedResNet(_PictureNet):
    """A residual net with gates, as in the deep-learning course of the University of Amsterdam (UvA), tutorial 11.

    A 3x3 convolution to ``width`` channels, then blocks h + a sigmoid(b), each with a norm over the channels of a
    place (arXiv 1607.06450) behind it: elu of h and of -h (arXiv 1603.05201), a 3x3 convolution, the same elus, a 1x1
    convolution to a and b (arXiv 1612.08083). Last the elus and a 3x3 convolution, zero at first.

    The course bounds log-scales to f tanh(s / f), with f learned for every channel and 1 at first;
    ``scalars.affine()`` is that with f = 2.

    ``context`` numbers a picture, such as a class as one-hot, are seen by every channel; ``border`` adds an input that
    is 1 within the picture, so that convolutions know where it ends. ``zero_last=False`` lets the last convolution
    start as torch starts it. Raises ShapeError for sizes below 1.

    >>> net = GatedResNet(1, 2)
    >>> net(torch.randn(1, 5, 28, 28)).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([2, 5, 28, 28]), 69538)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        width: int = 32,
        blocks: int = 3,
        context: int = 0,
        border: bool = False,
        zero_last: bool = True,
    ) -> None:
        super().__init__(in_features, out_features, width, blocks, context, border, False)
        self.blocks = nn.ModuleList(_Gated(width) for _ in range(blocks))
        self.last = _Conv(2 * width, out_features, 3)
        if zero_last:
            self.last.silence()

    def _through(self, h: Tensor, told: list[Tensor] | None) -> Tensor:
        h = self.first(h)
        h = h if told is None else h + told[0]
        for i, block in enumerate(self.blocks):
            h = block(h if told is None else h + told[i + 1])
        raw: Tensor = self.last(_elus(h))
        return raw


class Masked(nn.Module):
    """A net of all channels in a layer that shows it some: the others are zeros to it, as under a mask, and what it
    says of those that stay is not used.

    ``stay`` and ``move`` are the channels 0..C-1, once each; the net gives some numbers for every channel, first the
    first of all channels, then the second. So it does the work of a packed net twice, and has the weights of nets
    that are masked. Raises ShapeError where these sizes do not fit.

    >>> net = Masked(GatedResNet(4, 8), stay=[0, 2], move=[1, 3])
    >>> net(torch.randn(2, 5, 8, 8)).shape
    torch.Size([4, 5, 8, 8])
    """

    move: Tensor
    restore: Tensor

    def __init__(self, net: nn.Module, stay: Sequence[int], move: Sequence[int]) -> None:
        super().__init__()
        joined = [*stay, *move]
        if sorted(joined) != list(range(len(joined))) or not len(move):
            expected = f"0..{max(len(joined) - 1, 0)} once each and something to move"
            raise ShapeError(f"stay, move: expected {expected}, got {shown(joined)}")
        takes, gives = int(net.in_features), int(net.out_features)  # type: ignore[arg-type]
        if takes != len(joined) or gives % takes:
            expected = f"in_features={len(joined)} and some numbers for each of them"
            raise ShapeError(f"net: expected {expected}, got {takes} -> {gives}")
        self.net, self.each = net, gives // takes
        self.in_features, self.out_features = len(stay), self.each * len(move)
        self.context_features = int(getattr(net, "context_features", 0))
        self.register_buffer("move", torch.tensor(move, dtype=torch.long), persistent=False)
        self.register_buffer("restore", torch.tensor(joined).argsort(), persistent=False)

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        hidden = h.new_zeros(len(self.move), *h.shape[1:])
        raw: Tensor = self.net(torch.cat([h, hidden]).index_select(0, self.restore), context)
        return raw.unflatten(0, (self.each, -1)).index_select(1, self.move).flatten(0, 1)
