"""The flow of the deep-learning course of the University of Amsterdam (UvA), tutorial 11: levels of gated nets."""

from functools import partial

from diffeo import scalars
from diffeo.picturenets import GatedResNet
from diffeo.pictures.masks import over_all_channels
from diffeo.pictures.plan import PicturePlan
from diffeo.transforms import Chain, Multiscale, PictureCoupling, Squeeze, Transform
from diffeo.transforms.pictures import Split

__all__ = ["uva"]


def uva(plan: PicturePlan) -> Transform:
    """``plan.steps`` couplings by a checkerboard, then ``plan.levels`` levels, each a squeeze and as many couplings by
    halves of the channels, in the last one twice as many. Nets have ``plan.depth`` gated blocks, ``plan.width``
    channels wide at first and half of that more at every level.

    The course's flow of (1, 28, 28) has two levels of two steps and 3 blocks of 32, 48 and 64 channels, behind
    variational noise. With ``packed=False`` nets see all channels, with zeros for what moves, as there: 1,639,700
    parameters, where the course has 42 more, a bound of log-scales for every channel; ours are bounded by 2. With
    ``packed=True`` fields of one colour are channels of a picture of half the size, and nets give only what is used and
    are told where the border is. Height and width have to be even at every level: ShapeError says where they are not.

    >>> import torch
    >>> plan = PicturePlan(recipe="uva-multiscale", event=(1, 8, 8), levels=2, steps=1, width=8)
    >>> uva(plan)(torch.randn(5, 1, 8, 8))[0].shape
    torch.Size([5, 64])
    """
    board: Split = "checkerboard" if plan.packed else "masked"
    event, levels = plan.event, list[Transform]()
    for i in range(plan.levels):
        last = i + 1 == plan.levels
        steps = [] if i else _couplings(plan, board, event, plan.width, plan.steps)
        squeeze = Squeeze("channel")
        squeeze.check_event(event)
        event = (4 * event[0], event[1] // 2, event[2] // 2)
        width = plan.width + (i + 1) * plan.width // 2
        steps += [squeeze, *_couplings(plan, "channels", event, width, plan.steps * (1 + last))]
        levels.append(Chain(*steps, memory=plan.memory))
        event = (event[0] // 2, *event[1:])
    return Multiscale(*levels, event=plan.event)


def _couplings(plan: PicturePlan, split: Split, event: tuple[int, int, int], width: int, count: int) -> list[Transform]:
    """So many, in which white fields or the first half of the channels stay first."""
    net = partial(GatedResNet, width=width, blocks=plan.depth, context=plan.classes, border=plan.packed)
    masked = not plan.packed and split == "channels"
    couplings: list[Transform] = []
    for k in range(count):
        flip = (k % 2 == 0) == (split != "channels")
        made = over_all_channels(net, split, event[0], flip) if masked else net
        couplings.append(PictureCoupling(split, scalars.affine(), made, event, flip))
    return couplings
