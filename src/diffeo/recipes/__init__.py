"""From choices and what the data is to a density: one function an architecture, one dictionary RECIPES.

A recipe makes the flow of the numbers of a row in unit spread; `build` puts it beside the masses of the discrete
columns and the flows of the angles. A `Plan` holds every choice in numbers, so that a saved model is rebuilt from it.
"""

from diffeo.bases import Uniform
from diffeo.errors import ModelError
from diffeo.flow import Flow
from diffeo.masses import Masses
from diffeo.mixed import Mixed
from diffeo.nets import MaskedMLP
from diffeo.recipes.flows import RECIPES
from diffeo.recipes.plan import Plan, Recipe
from diffeo.recipes.sizes import least_numbers, members, most_components, plan, settings, trial_epochs
from diffeo.rows import Layout
from diffeo.scalars import spline
from diffeo.transforms import Autoregressive
from diffeo.units import units

__all__ = [
    "RECIPES",
    "Plan",
    "Recipe",
    "build",
    "least_numbers",
    "members",
    "most_components",
    "plan",
    "settings",
    "trial_epochs",
]


def build(plan: Plan, layout: Layout) -> Mixed:
    """The density that a plan describes, of rows of this layout; its values still to be fitted or loaded."""
    if plan.recipe not in RECIPES:
        raise ModelError(f"recipe: expected one of {', '.join(RECIPES)}, got {plan.recipe!r}")
    first, angular, last = Mixed.context_widths(layout)
    masses = None
    if layout.sizes:
        masses = Masses(layout.sizes, layout.ordinal, layout.open_ended, first, plan.hidden, max(plan.dropout, 0.1))
    angles = [_angle(plan, width) for width in angular]
    d = len(layout.smooth)
    if d and last and not RECIPES[plan.recipe].conditional:
        known = ", ".join(name for name, recipe in RECIPES.items() if recipe.conditional)
        raise ModelError(
            f"recipe: {plan.recipe} takes no context, and here numbers are given other columns; take one of {known}"
        )
    rest = RECIPES[plan.recipe].build(plan, d, last) if d else None
    given = units(list(plan.given_units)) if plan.given_units else None
    return Mixed(layout, masses, angles, units(list(plan.units)) if d else None, rest, given)


def _angle(plan: Plan, context: int) -> Flow:
    """A circular spline of one angle, given everything before it (arXiv 2002.02428)."""
    scalar = spline(16, tails="circular")
    return Flow(Autoregressive([0], scalar, MaskedMLP([0], scalar.width, plan.hidden, context)), Uniform())
