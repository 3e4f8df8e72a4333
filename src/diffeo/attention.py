"""Transformers: what is said of each token by the others, or by those before it (arXiv 1706.03762, 2010.11929).

Nets of tokens are called ``net(h [in, n, t], context [n, c] or None) -> [out, n, t]``, feature first, as all nets are.
Last layers start at zero, and inputs beyond +-5 are softly clipped. Within, a token is a row of ``width`` numbers, to
which each block (layer norm before attention, and before a perceptron four times as wide, with GELU) adds its own.
"""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffeo.errors import ShapeError, whole
from diffeo.kernels import linear, linear_rows, slopes_again
from diffeo.nets import soft_clip
from diffeo.tracing import is_watched

__all__ = ["CausalTransformer", "Past", "Transformer", "attend"]

AT_FIRST = 0.01  # standard deviation of what places, the context and the start say of a token
aten = torch.ops.aten
FORWARD = getattr(aten, "_scaled_dot_product_flash_attention_for_cpu", None)
BACKWARD = getattr(aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None)


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(e)) v: [n, heads, s, e], of q [n, heads, s, e] and k, v [n, heads, t, e].

    ``causal``, where s is t: number i of q sees numbers 0..i of k alone.

    >>> q, k, v = torch.randn(3, 2, 1, 4, 8).unbind()
    >>> bool((attend(q, k, v, causal=True)[..., 0, :] == v[..., 0, :]).all())
    True
    """
    if torch.compiler.is_compiling():
        return _at_once(q, k, v, causal)
    if is_watched(q, k, v) or not v.numel():
        return _stepwise(q, k, v, causal)
    if torch.is_grad_enabled() and any(part.requires_grad for part in (q, k, v)):
        found: Tensor = _Attention.apply(q, k, v, causal)
        return found
    return _at_once(q, k, v, causal)


def _at_once(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def _stepwise(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """The same by tensor operations, whose derivatives have derivatives."""
    likeness = (q @ k.mT) / math.sqrt(q.shape[-1])
    if causal:
        unseen = torch.ones(likeness.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        likeness = likeness.masked_fill(unseen, -math.inf)
    return likeness.softmax(-1) @ v


class _Attention(torch.autograd.Function):
    """torch's own attention, never the whole matrix at a time; higher derivatives are those of the single steps."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        ctx.causal = causal
        q, k, v = (part if part.stride(-1) == 1 else part.contiguous() for part in (q, k, v))  # torch's kernel asks it
        if q.is_cpu and FORWARD is not None and BACKWARD is not None:
            found, sums = FORWARD(q, k, v, 0.0, causal)
            ctx.save_for_backward(q, k, v, found, sums)
        else:
            found = _at_once(q, k, v, causal)
            ctx.save_for_backward(q, k, v)
        return cast(Tensor, found)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # looked at once: under a checkpoint each look recomputes
        q, k, v = saved[:3]
        if torch.is_grad_enabled():
            return *slopes_again(lambda q, k, v: [_stepwise(q, k, v, ctx.causal)], (q, k, v), [g]), None
        if len(saved) > 3 and BACKWARD is not None and not is_watched(g):
            return *BACKWARD(g, *saved, 0.0, ctx.causal), None
        with torch.enable_grad():
            q, k, v = (part.detach().requires_grad_() for part in (q, k, v))
            watched = is_watched(g)
            found = _stepwise(q, k, v, ctx.causal) if watched else _at_once(q, k, v, ctx.causal)
        return *torch.autograd.grad(found, (q, k, v), g), None


class _Rows(nn.Linear):
    """A linear layer of rows [..., in] -> [..., out]."""

    def forward(self, h: Tensor) -> Tensor:
        return linear_rows(h, self.weight, self.bias)


class Past:
    """Keys and values of the tokens so far, for every block: what is not computed twice, token after token."""

    def __init__(self, depth: int, tokens: int) -> None:
        self.tokens, self.seen = tokens, 0
        self.kept: list[tuple[Tensor, Tensor] | None] = [None] * depth

    def grown(self, block: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a block [n, heads, seen + 1, e], with those of this token [n, heads, 1, e]."""
        kept = self.kept[block]
        if torch.is_grad_enabled() or is_watched(k, v):  # nothing may be written over
            grown = (k, v) if kept is None else (torch.cat([kept[0], k], 2), torch.cat([kept[1], v], 2))
            self.kept[block] = grown
            return grown
        room = (self._room(k), self._room(v)) if kept is None else kept
        for held, part in zip(room, (k, v), strict=True):
            held[:, :, self.seen : self.seen + 1] = part
        self.kept[block] = room
        return room[0][:, :, : self.seen + 1], room[1][:, :, : self.seen + 1]

    def _room(self, part: Tensor) -> Tensor:
        """For that of all tokens, of one's [n, heads, 1, e]."""
        return part.new_empty(*part.shape[:2], self.tokens, part.shape[3])


class _Block(nn.Module):
    """h + attention(norm(h)), then h + perceptron(norm(h)), of rows h [n, t, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_mix, self.norm_bend = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asks, self.mixed = _Rows(width, 3 * width), _Rows(width, width)
        self.up, self.down = _Rows(width, 4 * width), _Rows(4 * width, width)

    def forward(self, h: Tensor, causal: bool, past: Past | None = None, block: int = 0) -> Tensor:
        parts = self.asks(self.norm_mix(h)).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind()  # each [n, heads, t, e]
        if past is not None:
            k, v = past.grown(block, k, v)
        h = h + self.mixed(attend(q, k, v, causal and past is None).transpose(1, 2).flatten(2))
        return h + self.down(F.gelu(self.up(self.norm_bend(h))))


class _Transformer(nn.Module):
    """What both have: tokens are embedded, told by blocks, and what is said of each read off at the end."""

    def __init__(
        self,
        tokens: int,
        in_features: int,
        out_features: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.tokens, self.in_features = whole("tokens", tokens), whole("in_features", in_features, 0)
        self.out_features, self.context_features = whole("out_features", out_features), whole("context", context, 0)
        if whole("width", width) % whole("heads", heads):
            raise ShapeError(f"heads: expected a number that divides the width, {width}, got {heads}")
        self.embed = _Rows(in_features, width) if in_features else None
        self.about = nn.Parameter(AT_FIRST * torch.randn(width, context)) if context else None
        self.places = nn.Parameter(AT_FIRST * torch.randn(tokens, width))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(whole("depth", depth)))
        self.norm = nn.LayerNorm(width)
        self.weight, self.bias = nn.Parameter(torch.zeros(out_features, width)), nn.Parameter(torch.zeros(out_features))

    def _embedded(self, h: Tensor) -> Tensor:
        """Features h [in, n, t] -> rows [n, t, width], not yet told where they stand."""
        if self.embed is None:
            return self.weight.new_zeros(*h.shape[1:], self.places.shape[1])
        seen = soft_clip(h.to(self.weight.dtype).contiguous())  # of one layout, clipped or not
        embedded: Tensor = self.embed(seen.permute(1, 2, 0))
        return embedded

    def _stand(self, context: Tensor | None) -> Tensor:
        """What is added to the tokens: where they stand, and the context: [1 or n, tokens, width]."""
        places = self.places.unsqueeze(0)
        if self.about is None:
            return places
        if context is None:
            raise ShapeError(f"context: this net takes {self.context_features} context features, got none")
        return places + (soft_clip(context.to(self.weight.dtype)) @ self.about.T).unsqueeze(1)

    def _said(self, h: Tensor) -> Tensor:
        """Rows [n, t, width] -> what is said of each token [out, n, t]."""
        rows = self.norm(h)
        return linear(rows.flatten(0, 1).T, self.weight, self.bias).unflatten(1, rows.shape[:2])

    def extra_repr(self) -> str:
        sizes = f"{self.tokens} tokens, {self.in_features} -> {self.out_features}"
        return f"{sizes}, context={self.context_features}"


class Transformer(_Transformer):
    """What every token says of itself, told by all of them.

    >>> net = Transformer(6, 4, 8, width=16, depth=2, heads=2)
    >>> net(torch.randn(4, 3, 6)).shape
    torch.Size([8, 3, 6])
    """

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        rows = self._embedded(h) + self._stand(context)
        for block in self.blocks:
            rows = block(rows, False)
        return self._said(rows)


class CausalTransformer(_Transformer):
    """What is said of token i by tokens 0..i-1: of the first by nothing but the context.

    Where a token stands in the net, the one before it is embedded; a learned one stands in for what comes before all.

    >>> net = CausalTransformer(6, 4, 8, width=16, depth=2, heads=2)
    >>> net(torch.randn(4, 3, 6)).shape
    torch.Size([8, 3, 6])
    """

    def __init__(self, *sizes: Any, **more: Any) -> None:
        super().__init__(*sizes, **more)
        self.start = nn.Parameter(AT_FIRST * torch.randn(self.places.shape[1]))

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        start = self.start.expand(h.shape[1], 1, -1)
        rows = torch.cat([start, self._embedded(h[..., :-1])], 1) if h.shape[2] > 1 else start
        rows = rows + self._stand(context)
        for block in self.blocks:
            rows = block(rows, True)
        return self._said(rows)

    def begun(self) -> Past:
        """Nothing said or seen yet."""
        return Past(len(self.blocks), self.tokens)

    def step(self, past: Past, n: int, before: Tensor | None, context: Tensor | None = None) -> Tensor:
        """What is said of the next token [out, n], after the one ``before`` it [in, n]; ``past`` keeps what was seen.

        >>> net = CausalTransformer(2, 4, 8, width=16, depth=2, heads=2)
        >>> past, h = net.begun(), torch.randn(4, 3, 2)
        >>> first, second = net.step(past, 3, None), net.step(past, 3, h[..., 0])
        >>> torch.equal(torch.stack([first, second], -1), net(h))
        True
        """
        rows = self.start.expand(n, 1, -1) if before is None else self._embedded(before.unsqueeze(-1))
        rows = rows + self._stand(context)[:, past.seen : past.seen + 1]
        for i, block in enumerate(self.blocks):
            rows = block(rows, True, past, i)
        past.seen += 1
        return self._said(rows).squeeze(-1)
