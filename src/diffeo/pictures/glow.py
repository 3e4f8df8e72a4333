"""Glow: steps of ActNorm, 1x1 convolution and affine coupling, on levels of ever more channels (arXiv 1807.03039)."""

from functools import partial

from diffeo import scalars
from diffeo.convnets import ConvNet
from diffeo.pictures.plan import PicturePlan
from diffeo.transforms import ActNorm, Chain, Conv1x1, Multiscale, PictureCoupling, Squeeze, Transform

__all__ = ["glow"]


def glow(plan: PicturePlan) -> Transform:
    """``plan.levels`` levels: a squeeze, ``plan.steps`` steps with nets ``plan.width`` wide, and what is known of the
    half that leaves from the half that goes on. The last level ends with an ActNorm, its learned prior."""
    event, levels = plan.event, list[Transform]()
    net = partial(ConvNet, width=plan.width, context=plan.classes)
    prior = partial(ConvNet, width=0, context=plan.classes)
    for i in range(plan.levels):
        steps: list[Transform] = [Squeeze()]
        event = (4 * event[0], event[1] // 2, event[2] // 2)
        for _ in range(plan.steps):
            steps += [Conv1x1(event), PictureCoupling("channels", scalars.affine(), net, event)]
        last = i + 1 == plan.levels
        steps.append(ActNorm(event) if last else PictureCoupling("channels", scalars.affine(), prior, event))
        levels.append(Chain(*steps, memory=plan.memory))
        event = event if last else (event[0] // 2, *event[1:])
    return Multiscale(*levels, event=plan.event)
