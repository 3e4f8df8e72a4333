"""The record of a model: what was fitted, on what, how, and how well; everything in `model.json` but the weights."""

from typing import Literal

from pydantic import Field

from diffeo.config import Config, FitConfig
from diffeo.data.schema import Schema
from diffeo.recipes import Plan
from diffeo.training import Settings

__all__ = ["Card"]


class Card(Config):
    """Log-densities are nats a row, of the held-out rows; `percentiles` are those of training rows."""

    format: Literal["diffeo-model"] = "diffeo-model"
    format_version: int = 1
    version: str
    torch: str
    created: str
    source: str = Field(description="name of the file, or the kind of frame")
    frame: str
    fingerprint: str = Field(description="sha256 of the encoded rows")
    rows: int
    rows_train: int
    rows_valid: int
    rows_with_holes: int
    holes: dict[str, int]
    config: FitConfig
    plan: Plan
    training: Settings
    data_schema: Schema
    start: str
    start_log_prob: float
    valid_log_prob: float | None
    valid_standard_error: float | None
    parts: dict[str, float] = Field(description="share of each factor in valid_log_prob")
    bounds: tuple[str, ...] = Field(description="columns whose part is a lower bound")
    percentiles: tuple[float, ...] = Field(description="log-densities of training rows at 0, 0.1, ... 100 %")
    parameters: int
    epochs: float
    steps: int
    skipped: int
    returns: int
    seconds: float
    schedule: tuple[float, ...] = Field(description="progress at the start of each round, to repeat a run by the clock")

    @property
    def recipe(self) -> str:
        return self.plan.recipe
