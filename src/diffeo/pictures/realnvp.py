"""RealNVP for pictures: couplings by checkerboards and by channels, told by residual nets (arXiv 1605.08803)."""

from functools import partial

from diffeo import scalars
from diffeo.picturenets import BottleneckResNet
from diffeo.pictures.masks import over_all_channels
from diffeo.pictures.plan import PicturePlan
from diffeo.transforms import Chain, Multiscale, PictureCoupling, Squeeze, Transform
from diffeo.transforms.pictures import Split

__all__ = ["realnvp"]


def realnvp(plan: PicturePlan) -> Transform:
    """``plan.levels`` levels, of which all but the last are ``plan.steps`` couplings by a checkerboard, a squeeze, and
    as many couplings by every second channel; the last is ``plan.steps`` + 1 couplings by a checkerboard. Those that
    stay and those that move take turns. Nets have ``plan.depth`` blocks of ``plan.width`` channels, half of them
    within.

    With ``packed=False`` this is the founding RealNVP in every number: nets see all channels, with zeros for what
    moves, log-scales are a tanh(.) + b with two learned numbers a coupling, and shifts are not 0 at first. Two levels
    of three steps, 128 channels and 8 blocks are 4,542,120 parameters for (3, 32, 32), norms of weights included.

    ``packed=True`` is the same with less work: fields of one colour are channels of a picture of half the size, and
    nets give only what is used. They are told where the border is, start as the identity, and log-scales are bounded
    by 2. Height and width have to be even at every level then, and at all but the last otherwise: ShapeError says
    where they are not.

    >>> import torch
    >>> plan = PicturePlan(recipe="realnvp-32", event=(3, 8, 8), levels=2, steps=1, width=8)
    >>> realnvp(plan)(torch.randn(5, 3, 8, 8))[0].shape
    torch.Size([5, 192])
    """
    board: Split = "checkerboard" if plan.packed else "masked"
    event, levels = plan.event, list[Transform]()
    for i in range(plan.levels):
        last = i + 1 == plan.levels
        steps: list[Transform] = _couplings(plan, board, event, plan.steps + last)
        if not last:
            squeeze = Squeeze("spatial")
            squeeze.check_event(event)
            event = (4 * event[0], event[1] // 2, event[2] // 2)
            steps += [squeeze, *_couplings(plan, "alternate", event, plan.steps)]
            event = (event[0] // 2, *event[1:])
        levels.append(Chain(*steps, memory=plan.memory))
    return Multiscale(*levels, event=plan.event)


def _couplings(plan: PicturePlan, split: Split, event: tuple[int, int, int], count: int) -> list[Transform]:
    """So many, in which white fields or odd channels stay first."""
    scalar = scalars.affine() if plan.packed else scalars.affine(scale="exp")
    net = partial(
        BottleneckResNet,
        width=plan.width,
        blocks=plan.depth,
        bottleneck=max(plan.width // 2, 1),
        context=plan.classes,
        border=plan.packed,
        zero_last=plan.packed,
        rescale=not plan.packed,
    )
    masked = not plan.packed and split == "alternate"
    couplings: list[Transform] = []
    for flip in [True, False] * (count // 2) + [True] * (count % 2):
        made = over_all_channels(net, split, event[0], flip) if masked else net
        couplings.append(PictureCoupling(split, scalar, made, event, flip))
    return couplings
