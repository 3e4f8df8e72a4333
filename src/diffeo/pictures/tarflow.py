"""TarFlow: transformers that read patches, from the first to the last and back again (arXiv 2412.06329)."""

from functools import partial

from diffeo.attention import CausalTransformer
from diffeo.pictures.centred import centred
from diffeo.pictures.plan import PicturePlan
from diffeo.transforms import Chain, Patches, TokenAutoregressive, Transform

__all__ = ["tarflow"]


def tarflow(plan: PicturePlan) -> Transform:
    """``plan.steps`` autoregressive layers of patches ``plan.patch`` wide, each by a transformer of ``plan.depth``
    blocks, ``plan.width`` wide, with ``plan.heads`` heads. Every second one reads from the last patch on: one
    direction alone leaves the first patch untold by the others.

    Raises ShapeError where the patches do not cover the picture, or the heads do not share the width.

    >>> plan = PicturePlan(recipe="tarflow-28", event=(1, 8, 8), patch=4, steps=2, depth=1, width=16, heads=2)
    >>> tarflow(plan).event_after((1, 8, 8))
    (4, 16)
    """
    cut = Patches(plan.patch, plan.event)
    tokens, features = cut.event_after(plan.event)
    net = partial(CausalTransformer, width=plan.width, depth=plan.depth, heads=plan.heads, context=plan.classes)
    layers = [TokenAutoregressive(tokens, features, centred(), net, last_first=i % 2 == 1) for i in range(plan.steps)]
    return Chain(cut, *layers, memory=plan.memory)
