"""What a person may choose about a fit, once: flags, `model.json` and the report read these fields."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from diffeo.errors import DiffeoError, ModelError

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str | float) -> float:
    """Read a duration such as `90s`, `2m`, `1.5h` or a number of seconds.

    >>> seconds("2m"), seconds("90s"), seconds(5)
    (120.0, 90.0, 5.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([smh]?)\s*", str(text))
    if not found or float(found[1]) <= 0:
        raise DiffeoError(f"a duration is a positive number with s, m or h, such as 90s or 2m; got {text!r}")
    return float(found[1]) * _UNITS[found[2]]


class Config(BaseModel):
    """A frozen record of choices; unknown names are refused with the place."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def read(cls, **fields: Any) -> Config:
        """Build from keywords; a wrong field becomes one line that names it."""
        try:
            return cls(**fields)
        except ValidationError as error:
            raise ModelError(first_fault(error)) from None


def first_fault(error: ValidationError) -> str:
    """The first fault of a validation as one line: the field, what is wrong, what came."""
    fault = error.errors()[0]
    if isinstance(cause := fault.get("ctx", {}).get("error"), DiffeoError):
        return str(cause)
    place = ".".join(str(part) for part in fault["loc"]) or "options"
    return f"{place}: {fault['msg'][0].lower()}{fault['msg'][1:]}; got {str(fault['input'])[:80]!r}"


class _Fit(Config):
    """What is chosen about every fit; it has a budget of time, or a number of epochs in its place."""

    valid_fraction: float = Field(0.1, gt=0, lt=0.9, description="share of rows held out for validation")
    budget: float | None = Field(120.0, gt=0, description="wall-clock time for the whole fit, such as 90s, 2m, 1h")
    epochs: int | None = Field(
        None, ge=1, description="passes over the rows instead of a budget; repeatable bit for bit"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="the one seed of everything random")
    threads: int | None = Field(None, ge=1, le=1024, description="processor threads at most")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    batch_size: int | None = Field(None, ge=2, le=1_000_000, description="rows a step")
    learning_rate: float | None = Field(None, gt=0, le=1, description="highest learning rate")
    hidden: int | None = Field(None, ge=1, le=4096, description="width of the conditioner networks")

    @field_validator("budget", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        return seconds(value) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _one_clock(cls, fields: Any) -> Any:
        """`epochs` takes the place of the budget unless both are asked for, which is refused."""
        if isinstance(fields, dict) and fields.get("epochs") is not None:
            if fields.get("budget") is not None:
                raise DiffeoError("choose --budget or --epochs, not both")
            return {**fields, "budget": None}
        return fields


class FitConfig(_Fit):
    """Everything that decides a fit, besides the data."""

    columns: tuple[str, ...] | None = Field(None, description="use these columns only")
    drop: tuple[str, ...] = Field((), description="leave these columns out")
    given: tuple[str, ...] = Field((), description="columns to condition on: the density is p(rest | given)")
    kinds: dict[str, str] = Field({}, description="kinds of columns that overrule what the data suggests")
    weight: str | None = Field(None, description="column of row weights (not negative)")
    missing: Literal["drop", "error"] = Field("drop", description="rows with missing cells: leave out, or refuse")
    split: str | None = Field(None, description="column that says train or valid for each row")
    time: str | None = Field(None, description="column to order by: the latest rows validate")
    recipe: str = Field("auto", description="the architecture: auto, realnvp, maf, spline-coupling, ...")
    layers: int | None = Field(None, ge=1, le=64, description="layers of the flow")
    bins: int | None = Field(None, ge=2, le=64, description="bins of a spline")
    components: int | None = Field(None, ge=1, le=512, description="components of the mixture that auto starts from")

    members: int | None = Field(None, ge=1, le=64, description="densities learned each by itself that auto averages")


class PictureConfig(_Fit):
    """Everything that decides a fit to pictures, besides the pictures."""

    where: str | None = Field(None, description="folder in which data sets known by name are looked for")
    size: int | None = Field(None, ge=1, le=4096, description="pictures: resize the shorter side to this, cut a square")
    crop: int | None = Field(
        None, ge=1, le=65536, description="pictures: first cut a square of this side, in the middle"
    )
    gray: bool = Field(False, description="pictures: without colours")
    label: bool = Field(False, description="pictures: condition on their labels (names of folders, or of the data set)")
    skip_bad: bool = Field(False, description="pictures: leave out files that cannot be read, and say so")
    recipe: str = Field("auto", description="the architecture: auto, glow-small, glow-28, realnvp-32, tarflow-28, ...")
    layers: int | None = Field(None, ge=1, le=256, description="layers of the flow; of pictures: steps of a level")
    optimizer: Literal["adamw", "adamax"] | None = Field(
        None, description="pictures: how weights are moved; the recipe's own by default"
    )
    noise: Literal["uniform", "variational"] | None = Field(
        None, description="pictures: how grey levels are made continuous; the recipe's own by default"
    )
    memory: Literal["store", "checkpoint", "invert"] | None = Field(
        None, description="pictures: keep all for gradients, inputs of steps, or the ends alone"
    )
