"""How large: layers, widths, members, rates, by what is asked for and by how much data there is."""

from itertools import pairwise

from diffeo.config import FitConfig
from diffeo.errors import ModelError
from diffeo.recipes.flows import RECIPES
from diffeo.recipes.plan import Plan
from diffeo.rows import Layout
from diffeo.training import Settings
from diffeo.units import Unit

__all__ = ["least_numbers", "members", "most_components", "plan", "settings", "trial_epochs"]

SIZES = (32, 64)  # of the mixtures that auto starts from, at most
LEARNING = 0.75  # of the budget, for learning
EPOCHS_AT_LEAST = 40  # with fewer, a smaller mixture does better
EPOCHS_OF_A_MEMBER = 80  # with more, another member does better
TELLING_EPOCHS = 6  # after which it shows whether layers learn faster
TRIAL_SHARES = (0.08, 0.2)  # of the budget, for each trial, at least and at most
MOST_MEMBERS = 8
ROWS_OF_MEMBERS = 100_000  # rows an epoch of all members together, where there is no budget
WITHOUT_NETS = ("planar", "radial", "sylvester", "gaussianization")


def least_numbers(plan: Plan, layout: Layout) -> int:
    """A lower bound on how many numbers the weights of a plan hold, of the order of what building it allocates."""
    d, width = len(layout.smooth), min(plan.hidden, default=0)
    square = sum(a * b for a, b in pairwise(plan.hidden))
    if plan.recipe == "auto":
        least = plan.members * (plan.components * d * (d + 3 * width) + square) + plan.layers * square
        return least if d else 0
    if plan.recipe in WITHOUT_NETS:
        square = 0
    return (plan.layers * square + (plan.components * d * d if plan.components > 1 else 0)) if d else 0


def most_components(config: FitConfig, n: int, d: int, seconds: float | None) -> int:
    """The largest mixture of d numbers with which one density of n rows can be learned in so many seconds."""
    bound = max(1, min(SIZES[-1], 2048 // max(d, 1), 1_000_000 // max(d * d, 1)))
    for size in (size for size in SIZES[:0:-1] if size <= bound):
        if seconds is None or EPOCHS_AT_LEAST * _epoch(config, n, d, size) <= LEARNING * seconds:
            return size
    return min(bound, SIZES[0])


def members(config: FitConfig, n: int, d: int, seconds: float | None, components: int) -> int:
    """How many densities of n rows of d numbers to average: as many as can be learned in so many seconds, by a rough
    model of what a step of one costs; a function of the numbers alone and not of a clock, as a run can be repeated.

    >>> [members(FitConfig(), n, 3, 120.0, 32) for n in (300, 15_000, 500_000)]
    [8, 5, 1]
    """
    if config.recipe != "auto" or config.layers is not None:
        return 1
    if config.members is not None:
        return config.members
    if seconds is None:
        return max(1, min(MOST_MEMBERS, ROWS_OF_MEMBERS // n))
    return max(1, min(MOST_MEMBERS, int(LEARNING * seconds / (EPOCHS_OF_A_MEMBER * _epoch(config, n, d, components)))))


def trial_epochs(config: FitConfig, n: int, d: int, seconds: float, components: int) -> tuple[float, float]:
    """How many epochs of one density of n rows of d numbers there are in so many seconds, and the share of the seconds
    that a trial takes which can tell a slow start from a bad one.

    >>> [round(share, 2) for _, share in (trial_epochs(FitConfig(), 80_000, 7, t, 32) for t in (30.0, 80.0, 300.0))]
    [0.2, 0.15, 0.08]
    """
    epochs = seconds / _epoch(config, n, d, components)
    return epochs, min(TRIAL_SHARES[1], max(TRIAL_SHARES[0], TELLING_EPOCHS / epochs))


def _epoch(config: FitConfig, n: int, d: int, components: int) -> float:
    """Seconds that n rows take one density of `auto`, roughly, on one thread of a common processor."""
    width = _width(config, n)
    return n * (2e-10 * (width * width + 3 * components * d * width) + 2e-8 * components * d + 1e-7)


def _width(config: FitConfig, n: int) -> int:
    return config.hidden or (128 if n >= 10_000 else 64)


def plan(
    config: FitConfig, n: int, chosen: list[Unit], given: list[Unit], components: int, start_rows: int, members: int = 1
) -> Plan:
    """Sizes for n training rows; what the config asks for beats what the data suggests."""
    if config.recipe not in RECIPES:
        raise ModelError(f"recipe: expected one of {', '.join(RECIPES)}, got {config.recipe!r}")
    if config.members is not None and (config.recipe != "auto" or config.layers is not None):
        raise ModelError("members: only the recipe auto without layers averages densities; leave --members out")
    if config.recipe == "flow-matching" and config.layers not in (None, 1):
        raise ModelError(f"layers: flow-matching learns one field, got {config.layers}; leave --layers out")
    width = config.hidden or RECIPES[config.recipe].hidden or _width(config, n)
    layers = config.layers or RECIPES[config.recipe].layers
    return Plan(
        recipe=config.recipe,
        components=components,
        layers=layers,
        hidden=(width, width),
        bins=config.bins or 8,
        dropout=0.0 if n >= 10_000 else 0.1,
        members=members,
        start_rows=start_rows,
        units=tuple(chosen),
        given_units=tuple(given),
    )


def settings(config: FitConfig, n: int) -> Settings:
    """How to train on n rows."""
    return Settings(
        batch_size=config.batch_size or min(512, max(16, n // 10)),
        learning_rate=config.learning_rate or RECIPES[config.recipe].learning_rate or (1e-2 if n >= 20_000 else 5e-3),
        weight_decay=1e-4 if n >= 10_000 else 1e-2,
        epochs=config.epochs or RECIPES[config.recipe].epochs,
        seed=config.seed,
    )
