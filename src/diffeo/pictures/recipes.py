"""The recipes of pictures: one line each in one dictionary, and what builds them all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from diffeo.bases import StandardNormal
from diffeo.errors import ModelError, shown
from diffeo.flow import Flow
from diffeo.pictures.glow import glow
from diffeo.pictures.plan import PicturePlan
from diffeo.quantized import Quantized
from diffeo.transforms import Chain, Logit, Standardize, Transform

__all__ = ["AUTO", "RECIPES", "Recipe", "build", "planned"]

AUTO = "glow-small"


@dataclass(frozen=True)
class Recipe:
    """How a flow of pictures is made, the choices of its name, and how it is trained."""

    transform: Callable[[PicturePlan], Transform]
    title: str
    choices: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)


_GLOW = {
    "learning_rate": 2e-3,
    "weight_decay": 0.0,
    "batch_size": 64,
    "warmup": 200,
    "clip": 50.0,
    "averaging": 0.999,
}

RECIPES = {
    "glow-small": Recipe(glow, "Glow, small", {"levels": 2, "steps": 8, "width": 64, "alpha": 1e-4}, _GLOW),
    "glow-28": Recipe(glow, "Glow", {"levels": 2, "steps": 16, "width": 128, "alpha": 1e-4}, _GLOW),
    "glow-32": Recipe(glow, "Glow", {"levels": 3, "steps": 32, "width": 512, "alpha": 1e-4}, _GLOW),
}


def planned(recipe: str, event: tuple[int, int, int], **choices: Any) -> PicturePlan:
    """The plan of a recipe for pictures of a shape, with some choices of one's own. Raises ModelError for a recipe that
    there is not."""
    if recipe not in RECIPES:
        raise ModelError(f"recipe: expected one of {', '.join(RECIPES)}, got {shown(recipe)}")
    plan = PicturePlan.read(recipe=recipe, event=event, **{**RECIPES[recipe].choices, **choices})
    assert isinstance(plan, PicturePlan)
    return plan


def build(plan: PicturePlan) -> Quantized:
    """The density of a plan, untrained. Raises ShapeError where pictures of that shape cannot go through it.

    >>> build(planned("glow-small", (1, 8, 8), steps=1, width=8)).sample(2).shape
    torch.Size([2, 1, 8, 8])
    """
    unit: Transform = Standardize(0.5, 0.5)  # type: ignore[arg-type]
    if plan.alpha:
        beyond = 0.5 * plan.alpha / (1 - plan.alpha)
        unit = Logit(low=-beyond, high=1 + beyond)
    transform = Chain(unit, RECIPES[plan.recipe].transform(plan))
    base = StandardNormal(transform.event_after(plan.event))
    return Quantized(Flow(transform, base, event_shape=plan.event, on_nan="nan"), plan.grays)
