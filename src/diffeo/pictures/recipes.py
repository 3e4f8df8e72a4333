"""The recipes of pictures: one line each in one dictionary, and what builds them all."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from diffeo.bases import StandardNormal
from diffeo.dequantization import VariationalNoise
from diffeo.errors import ModelError, shown
from diffeo.flow import Flow
from diffeo.pictures.glow import glow
from diffeo.pictures.jet import jet
from diffeo.pictures.plan import PicturePlan
from diffeo.pictures.realnvp import realnvp
from diffeo.pictures.tarflow import tarflow
from diffeo.pictures.uva import uva
from diffeo.quantized import Quantized
from diffeo.transforms import Chain, Logit, Standardize, Transform

__all__ = ["AUTO", "RECIPES", "Recipe", "build", "planned"]

AUTO = "glow-small"
NOISE_WIDTH = 16  # channels of the nets of learned noise


@dataclass(frozen=True)
class Recipe:
    """How a flow of pictures is made, the choices of its name, and how it is trained."""

    transform: Callable[[PicturePlan], Transform]
    title: str
    choices: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)


_GLOW = {
    "learning_rate": 8e-3,
    "weight_decay": 0.0,
    "batch_size": 64,
    "warmup": 200,
    "clip": 50.0,
    "averaging": 0.999,
}
_RESIDUAL = {**_GLOW, "learning_rate": 1e-3}
_TRANSFORMER = {**_GLOW, "beta2": 0.95, "learning_rate": 1e-3, "weight_decay": 1e-4, "clip": 10.0}

RECIPES = {
    "glow-small": Recipe(glow, "Glow, small", {"levels": 2, "steps": 8, "width": 64, "alpha": 1e-4}, _GLOW),
    "glow-28": Recipe(glow, "Glow", {"levels": 2, "steps": 16, "width": 128, "alpha": 1e-4}, _GLOW),
    "glow-32": Recipe(
        glow,
        "Glow, large",
        {"levels": 3, "steps": 32, "width": 512, "alpha": 1e-4, "memory": "checkpoint"},
        {**_GLOW, "learning_rate": 1e-3},
    ),
    "realnvp-32": Recipe(
        realnvp,
        "RealNVP, the founding one",
        {"levels": 2, "steps": 3, "width": 128, "depth": 8, "alpha": 0.1, "packed": False},
        {**_RESIDUAL, "learning_rate": 3e-4},
    ),
    "realnvp-32-packed": Recipe(
        realnvp,
        "RealNVP, its checkerboards packed",
        {"levels": 2, "steps": 3, "width": 128, "depth": 8, "alpha": 0.1},
        _RESIDUAL,
    ),
    "uva-multiscale": Recipe(
        uva,
        "RealNVP of gated residual nets on levels, with learned noise",
        {"levels": 2, "steps": 2, "width": 32, "depth": 3, "alpha": 1e-4, "noise": "variational"},
        {**_RESIDUAL, "batch_size": 128},
    ),
    "tarflow-28": Recipe(
        tarflow,
        "TarFlow",
        {"patch": 4, "alpha": 1e-4, "steps": 4, "depth": 4, "width": 128, "heads": 2},
        _TRANSFORMER,
    ),
    "tarflow-32": Recipe(
        tarflow,
        "TarFlow, large",
        {"patch": 2, "alpha": 1e-4, "steps": 8, "depth": 4, "width": 384, "heads": 6, "memory": "checkpoint"},
        {**_TRANSFORMER, "learning_rate": 3e-4},
    ),
    "jet-32": Recipe(
        jet,
        "Jet",
        {"patch": 4, "alpha": 1e-4, "steps": 32, "depth": 2, "width": 256, "heads": 4, "memory": "checkpoint"},
        {**_TRANSFORMER, "learning_rate": 3e-4},
    ),
}


def planned(recipe: str, event: tuple[int, int, int], **choices: Any) -> PicturePlan:
    """The plan of a recipe for pictures of a shape, with some choices of one's own. Raises ModelError for a recipe that
    there is not."""
    _known(recipe)
    plan = PicturePlan.read(recipe=recipe, event=event, **{**RECIPES[recipe].choices, **choices})
    assert isinstance(plan, PicturePlan)
    return plan


def build(plan: PicturePlan) -> Quantized:
    """The density of a plan, untrained. Raises ModelError where pictures of that shape cannot go through it.

    >>> build(planned("glow-small", (1, 8, 8), steps=1, width=8)).sample(2).shape
    torch.Size([2, 1, 8, 8])
    """
    _check(plan)
    unit: Transform = Standardize(0.5, 0.5)  # type: ignore[arg-type]
    if plan.alpha:
        beyond = 0.5 * plan.alpha / (1 - plan.alpha)
        unit = Logit(low=-beyond, high=1 + beyond)
    transform = Chain(unit, RECIPES[plan.recipe].transform(plan))
    base = StandardNormal(transform.event_after(plan.event))
    noise = VariationalNoise(plan.event, NOISE_WIDTH, grays=plan.grays) if plan.noise == "variational" else None
    return Quantized(Flow(transform, base, event_shape=plan.event, on_nan="nan"), plan.grays, noise)


def _known(recipe: str) -> None:
    if recipe not in RECIPES:
        raise ModelError(f"recipe: expected one of {', '.join(RECIPES)}, got {shown(recipe)}")


def _check(plan: PicturePlan) -> None:
    """Raise ModelError, in words of what a person can choose, where pictures or nets do not fit the recipe."""
    _known(plan.recipe)
    make, (_, height, width) = RECIPES[plan.recipe].transform, plan.event
    tokens = make in (tarflow, jet)
    halvings = plan.levels - (make is realnvp and not plan.packed)
    side = math.lcm(plan.patch if tokens else 2**halvings, 2 if plan.noise == "variational" else 1)
    if height % side or width % side:
        found = f"height and width divisible by {side}, got {height} x {width}"
        raise ModelError(f"pictures: {plan.recipe} takes {found}; choose another --size")
    if tokens and plan.width % plan.heads:
        raise ModelError(f"hidden: {plan.recipe} takes a multiple of {plan.heads}, got {plan.width}")
