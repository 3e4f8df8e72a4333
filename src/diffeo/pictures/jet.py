"""Jet: couplings of patches by transformers, and nothing else (arXiv 2412.15129)."""

from functools import partial

from diffeo.attention import Transformer
from diffeo.pictures.centred import centred
from diffeo.pictures.plan import PicturePlan
from diffeo.transforms import Chain, Patches, TokenCoupling, Transform
from diffeo.transforms.tokens import Split

__all__ = ["jet"]

CYCLE: tuple[Split, ...] = (
    "channels", "channels", "channels", "channels", "checkerboard",
    "channels", "channels", "channels", "channels", "checkerboard-flipped",
    "channels", "channels", "channels", "channels", "columns",
    "channels", "channels", "channels", "channels", "columns-flipped",
    "channels", "channels", "channels", "channels", "rows",
    "channels", "channels", "channels", "channels", "rows-flipped",
)  # fmt: skip


def jet(plan: PicturePlan) -> Transform:
    """``plan.steps`` couplings of patches ``plan.patch`` wide, each by a transformer of ``plan.depth`` blocks,
    ``plan.width`` wide, with ``plan.heads`` heads: four by features, one by places, over again.

    Raises ShapeError where the patches do not cover the picture, or the heads do not share the width.

    >>> plan = PicturePlan(recipe="jet-32", event=(3, 8, 8), patch=4, steps=5, depth=1, width=16, heads=2)
    >>> [layer.split for layer in jet(plan)[1:]]
    ['channels', 'channels', 'channels', 'channels', 'checkerboard']
    """
    cut = Patches(plan.patch, plan.event)
    _, features = cut.event_after(plan.event)
    net = partial(Transformer, width=plan.width, depth=plan.depth, heads=plan.heads, context=plan.classes)
    splits = [CYCLE[i % len(CYCLE)] for i in range(plan.steps)]
    layers = [TokenCoupling(cut.grid, features, split, centred(), net) for split in splits]
    return Chain(cut, *layers, memory=plan.memory)
