"""The record of a model of pictures: everything in `model.json` but the weights."""

from typing import Literal

from pydantic import Field, model_validator

from diffeo.config import Config, PictureConfig
from diffeo.errors import ModelError
from diffeo.pictures.plan import PicturePlan
from diffeo.training import Settings

__all__ = ["PictureCard"]


class PictureCard(Config):
    """Log-probabilities are nats a picture, bits those per dimension; `percentiles` are those of training pictures."""

    format: Literal["diffeo-model"] = "diffeo-model"
    format_version: int = 1
    kind: Literal["pictures"] = "pictures"
    version: str
    torch: str
    created: str
    source: str = Field(description="name of the folder, file or data set")
    fingerprint: str = Field(description="sha256 of the pictures and labels")
    rows: int
    rows_train: int
    rows_valid: int
    skipped_files: int
    classes: tuple[str, ...] = Field(description="names of the labels, where the density is conditioned on them")
    class_shares: tuple[float, ...] = Field(description="share of each class in the training pictures")
    config: PictureConfig
    plan: PicturePlan
    training: Settings
    points: int = Field(description="draws of the bound that is quoted")
    valid_log_prob: float | None
    valid_standard_error: float | None
    valid_bits: float | None = Field(description="bits per dimension of pictures held out, a bound")
    valid_bits_error: float | None = Field(description="standard error of valid_bits")
    percentiles: tuple[float, ...] = Field(description="log-probabilities of training pictures at 0, 0.1, ... 100 %")
    parameters: int
    epochs: float
    steps: int
    skipped: int
    returns: int
    seconds: float
    schedule: tuple[float, ...] = Field(description="progress at the start of each round, to repeat a run by the clock")

    @model_validator(mode="after")
    def _together(self) -> "PictureCard":
        """Refuse a record whose parts do not belong together."""
        fine = len(self.classes) == len(self.class_shares) == self.plan.classes
        if not (fine and all(share >= 0 for share in self.class_shares) and len(self.percentiles) == 1001):
            raise ModelError("classes, class_shares, percentiles: they do not belong together")
        return self

    @property
    def recipe(self) -> str:
        return self.plan.recipe
