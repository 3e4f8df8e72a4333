"""From choices and what the data is to a density: one function an architecture, one dictionary RECIPES.

A recipe makes the flow of the numbers of a row in unit spread; `build` puts it beside the masses of the discrete
columns and the flows of the angles. A `Plan` holds every choice in numbers, so that a saved model is rebuilt from it.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from diffeo.bases import GaussianMixture, StandardNormal, Uniform
from diffeo.config import Config, FitConfig
from diffeo.errors import ModelError
from diffeo.flow import Flow
from diffeo.masses import Masses
from diffeo.mixed import Mixed
from diffeo.mixtures import AutoregressiveMixture, Ensemble
from diffeo.nets import MLP, MaskedMLP
from diffeo.rows import Layout
from diffeo.scalars import Scalar, affine, spline
from diffeo.training import Settings
from diffeo.transforms import LU, Autoregressive, Chain, Coupling, Partition, Transform
from diffeo.units import Unit, units

__all__ = ["RECIPES", "Plan", "build", "least_numbers", "members", "most_components", "plan", "settings"]

SIZES = (32, 64)  # of the mixtures that auto starts from, at most
LEARNING = 0.75  # of the budget, for learning
EPOCHS_AT_LEAST = 40  # with fewer, a smaller mixture does better
EPOCHS_OF_A_MEMBER = 80  # with more, another member does better
MOST_MEMBERS = 8
ROWS_OF_MEMBERS = 100_000  # rows an epoch of all members together, where there is no budget


class Plan(Config):
    """An architecture in numbers."""

    recipe: str
    components: int = Field(ge=1, le=4096, description="components of the mixture at the base, 1 for a normal")
    layers: int = Field(ge=0, le=64, description="layers of the flow")
    hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        max_length=16, description="widths of the conditioner networks"
    )
    bins: int = Field(ge=2, le=64, description="bins of a spline")
    dropout: float = Field(ge=0, lt=1, description="share of hidden units left out in training")
    members: int = Field(1, ge=1, le=64, description="densities that are learned each by itself and averaged")
    apart: bool = Field(False, description="whether each of them is judged by rows that it alone does not learn from")
    simple: int = Field(0, ge=0, le=4096, description="components of a mixture of few numbers beside them")
    family: str = Field("", max_length=40, description="of that mixture")
    simple_most: int = Field(0, ge=0, description="components of the largest such mixture that was tried")
    start_rows: int = Field(ge=1, description="rows that EM looked at")
    start_most: int = Field(32, ge=1, description="components of the largest mixture that EM tried")
    start_fits: int = Field(0, ge=0, description="runs of EM before the best was taken")
    units: tuple[Unit, ...]
    given_units: tuple[Unit, ...]


def auto(plan: Plan, d: int, context: int) -> Flow:
    """Gaussian mixtures fitted by EM whose conditionals then learn, averaged; at the start they are the mixtures. With
    layers: affine autoregressive ones (arXiv 1705.07057) before one such mixture, which nothing is fitted to before."""
    layers: list[Transform] = []
    for i in range(plan.layers):
        order = list(range(d))[:: -1 if i % 2 else 1]
        net = MaskedMLP(order, 2, plan.hidden, context, activation="relu", dropout=plan.dropout)
        layers.append(Autoregressive(order, affine(), net))

    def member() -> AutoregressiveMixture:
        mixture = GaussianMixture(d, plan.components)
        net = MaskedMLP(range(d), 3 * plan.components, plan.hidden, context, dropout=plan.dropout)
        return AutoregressiveMixture(mixture, net)

    members = [member() for _ in range(plan.members)]
    if plan.simple:
        members.append(AutoregressiveMixture(GaussianMixture(d, plan.simple), None))
    base = Ensemble(members) if len(members) > 1 else members[0]
    return Flow(Chain(*layers), base)


def spline_coupling(plan: Plan, d: int, context: int) -> Flow:
    """Neural spline flow, coupling (arXiv 1906.04032), with linear maps between the layers."""
    return _coupling_flow(plan, d, context, spline(plan.bins))


def realnvp(plan: Plan, d: int, context: int) -> Flow:
    """Affine coupling with alternating partitions (arXiv 1605.08803)."""
    return _coupling_flow(plan, d, context, affine())


def spline_autoregressive(plan: Plan, d: int, context: int) -> Flow:
    """Neural spline flow, autoregressive (arXiv 1906.04032), the order turned round from layer to layer."""
    return _autoregressive_flow(plan, d, context, spline(plan.bins))


def maf(plan: Plan, d: int, context: int) -> Flow:
    """Masked autoregressive flow (arXiv 1705.07057), the order turned round from layer to layer."""
    return _autoregressive_flow(plan, d, context, affine())


RECIPES: dict[str, Callable[[Plan, int, int], Flow]] = {
    "auto": auto,
    "spline-coupling": spline_coupling,
    "spline-autoregressive": spline_autoregressive,
    "realnvp": realnvp,
    "maf": maf,
}


def _coupling_flow(plan: Plan, d: int, context: int, scalar: Scalar) -> Flow:
    layers: list[Transform] = []
    for i in range(plan.layers):
        layers += [LU(d)] if i else []
        partition = Partition.alternating(d).flip() if i % 2 else Partition.alternating(d)
        layers.append(Coupling(partition, scalar, lambda a, b: MLP(a, b, plan.hidden, context, dropout=plan.dropout)))
    return Flow(Chain(*layers), _base(plan, d))


def _autoregressive_flow(plan: Plan, d: int, context: int, scalar: Scalar) -> Flow:
    layers: list[Transform] = []
    for i in range(plan.layers):
        order = list(range(d))[:: -1 if i % 2 else 1]
        net = MaskedMLP(order, scalar.width, plan.hidden, context, dropout=plan.dropout)
        layers.append(Autoregressive(order, scalar, net))
    return Flow(Chain(*layers), _base(plan, d))


def _base(plan: Plan, d: int) -> StandardNormal | GaussianMixture:
    return StandardNormal(d) if plan.components == 1 else GaussianMixture(d, plan.components)


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
    rest = RECIPES[plan.recipe](plan, d, last) if d else None
    given = units(list(plan.given_units)) if plan.given_units else None
    return Mixed(layout, masses, angles, units(list(plan.units)) if d else None, rest, given)


def least_numbers(plan: Plan, layout: Layout) -> int:
    """A lower bound on how many numbers the weights of a plan hold, of the order of what building it allocates."""
    d, width = len(layout.smooth), min(plan.hidden, default=0)
    square = sum(a * b for a, b in pairwise(plan.hidden))
    if plan.recipe == "auto":
        least = plan.members * (plan.components * d * (d + 3 * width) + square) + plan.layers * square
        return least if d else 0
    return (plan.layers * square + (plan.components * d * d if plan.components > 1 else 0)) if d else 0


def _angle(plan: Plan, context: int) -> Flow:
    """A circular spline of one angle, given everything before it (arXiv 2002.02428)."""
    scalar = spline(16, tails="circular")
    return Flow(Autoregressive([0], scalar, MaskedMLP([0], scalar.width, plan.hidden, context)), Uniform())


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
    width = _width(config, n)
    layers = config.layers or (0 if config.recipe == "auto" else 6)
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
        learning_rate=config.learning_rate or (1e-2 if n >= 20_000 else 5e-3),
        weight_decay=1e-4 if n >= 10_000 else 1e-2,
        epochs=config.epochs or 150,
        seed=config.seed,
    )
