"""What a recipe is, and the plan that it follows: an architecture in numbers, from which a saved model is rebuilt."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from diffeo.config import Config
from diffeo.flow import Flow
from diffeo.units import Unit

__all__ = ["Plan", "Recipe"]


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


@dataclass(frozen=True)
class Recipe:
    """An architecture: ``build(plan, d, context)`` makes the flow of d numbers given `context` others.

    `layers` are how many it has unless asked otherwise; `hidden` the width of its nets and `learning_rate` the highest
    rate, each unless asked otherwise, or None for what suits the number of rows; `epochs` the passes over the rows at
    most; `conditional`: whether it takes a context.
    """

    build: Callable[[Plan, int, int], Flow]
    layers: int = 6
    hidden: int | None = None
    learning_rate: float | None = None
    epochs: int = 150
    conditional: bool = True
