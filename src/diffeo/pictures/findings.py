"""Findings on a density of pictures: all that its report says, as numbers in one frozen record, to JSON and back.

Bits are those per dimension, on the pictures' own dimensions C H W; log-probabilities of the history are nats a
picture. Unlike findings on tables these hold pictures: samples, and some of the data.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from diffeo.report.evidence import Record, Verdict
from diffeo.report.findings import read_record

__all__ = [
    "Anchor",
    "Bits",
    "ClassBits",
    "Copies",
    "LatentLevel",
    "Moment",
    "PictureFindings",
    "RoundTrip",
    "Sheet",
    "Spread",
]

SCHEMA_VERSION = 1


class Bits(Record):
    """The mean of bits per dimension over n pictures, and its standard error (None of one picture). None where one of
    them is impossible under the density, so that the mean is infinite."""

    n: int = Field(ge=0)
    mean: float | None = None
    error: float | None = None
    impossible: int = 0


class ClassBits(Record):
    """Bits of the pictures of one class."""

    name: str
    bits: Bits


class Anchor(Record):
    """What is known of the same pictures without a model; `ahead`: by how many bits the model is below it, paired
    picture by picture."""

    name: str
    bits: Bits
    ahead: Bits


class Moment(Record):
    """A point of the learning curve: mean log-probabilities in nats a picture, the higher the better."""

    step: int
    epoch: float
    seconds: float | None = None
    train: float | None = None
    valid: float | None = None
    best: float | None = None
    skipped: int = 0

    @field_validator("train", "valid", "best", mode="before")
    @classmethod
    def _finite(cls, value: Any) -> Any:
        return None if isinstance(value, float) and not abs(value) < float("inf") else value


class RoundTrip(Record):
    """Pictures carried to noise and back: `levels` grey levels of `numbers` did not come back exactly; the largest
    error of v, in which a picture is 0 to 1, and of the noise when it goes there and back once more."""

    pictures: int
    numbers: int
    levels: int
    v_error: float | None
    z_error: float | None


class LatentLevel(Record):
    """The noise that held-out pictures come from, one level of the flow: standard normal where the density is right.

    `length` is the mean of |z|^2 / D over pictures, which should be 1, `length_spread` its standard deviation over
    that of chance, sqrt(2 / D), 1 too. `neighbours`: the correlation of numbers side by side. `errors`: of mean,
    spread, kurtosis, length and neighbours by chance alone. `words`: what is off, empty if nothing is.
    """

    name: str
    shape: tuple[int, ...]
    pictures: int
    mean: float
    spread: float
    kurtosis: float
    length: float
    length_spread: float
    neighbours: float
    errors: tuple[float, float, float, float, float]
    words: tuple[str, ...] = ()


class Copies(Record):
    """Distances, in grey levels (the root of the sum of squares), to the nearest of `among` training pictures: their
    median for samples and for held-out pictures, and the share of samples nearer than `quantile` of the latter."""

    samples: int
    held_out: int
    among: int
    median: float
    held_out_median: float
    quantile: float
    limit: float
    closer: float


class Sheet(Record):
    """Pictures side by side as one PNG, in base64. `scale`: pixels of the page that each is shown with; `rows` and
    `columns`: what stands beside and above them."""

    name: str
    title: str
    said: str
    png: str
    width: int
    height: int
    scale: int
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


class Spread(Record):
    """Bits by one draw each, of held-out pictures and of samples, counted between the same edges."""

    edges: tuple[float, ...]
    pictures: tuple[int, ...]
    samples: tuple[int, ...]
    pictures_bits: Bits
    samples_bits: Bits


class PictureFindings(Record):
    """One fitted density of pictures in numbers, and in some pictures."""

    schema_version: Literal[1] = 1
    kind: Literal["pictures"] = "pictures"
    source: str
    recipe: str
    event: tuple[int, int, int]
    grays: int
    plan: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    classes: tuple[str, ...] = ()
    class_shares: tuple[float, ...] = ()
    conditional: bool = False
    rows_train: int
    rows_valid: int
    held_out: bool = True  # the scored pictures; False: others, that a report was asked about
    scored_source: str
    points: int = Field(ge=1, description="draws of the bound")
    model: Bits
    one_draw: Bits
    train: Bits
    by_class: tuple[ClassBits, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    anchors_from: str = ""
    history: tuple[Moment, ...] = ()
    round_trip: RoundTrip
    latents: tuple[LatentLevel, ...] = ()
    samples_drawn: int = 0
    samples_broken: int = 0
    copies: Copies | None = None
    spread: Spread | None = None
    sheets: tuple[Sheet, ...] = ()
    verdict: Verdict | None = None
    parameters: int | None = None
    epochs: float | None = None
    steps: int | None = None
    skipped: int = 0
    returns: int = 0
    seconds: float | None = None
    seed: int = 0
    versions: dict[str, str] = Field(default_factory=dict)

    @field_validator("source", "scored_source")
    @classmethod
    def _name_only(cls, value: str) -> str:
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1].encode("utf-8", "replace").decode() or "the pictures"

    @property
    def dimensions(self) -> int:
        """C H W."""
        channels, height, width = self.event
        return channels * height * width

    @property
    def bits(self) -> float | None:
        """Bits per dimension of the scored pictures, a bound from above; None where it is infinite."""
        return self.model.mean

    @property
    def standard_error(self) -> float | None:
        """Of `bits`, over pictures."""
        return self.model.error

    def anchor(self, name: str) -> Anchor | None:
        """The anchor of this name, if it was measured."""
        return next((anchor for anchor in self.anchors if anchor.name == name), None)

    def sheet(self, name: str) -> Sheet | None:
        """The sheet of this name, if there is one."""
        return next((sheet for sheet in self.sheets if sheet.name == name), None)

    def to_json(self) -> str:
        """All of it as one JSON object."""
        return self.model_dump_json() + "\n"

    @staticmethod
    def from_json(text: str | bytes) -> PictureFindings:
        """The findings that `to_json` wrote; ModelError where the text is damaged or of a newer diffeo."""
        return read_record(PictureFindings, text, SCHEMA_VERSION)
