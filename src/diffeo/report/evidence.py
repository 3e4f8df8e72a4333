"""Evidence: what held-out rows say of a density, as frozen records of numbers; never a row of the data unless asked."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Coverage", "Evidence", "Extreme", "Record", "TwoSample", "Uniformity", "Verdict"]

Share = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """A frozen record without room for misspelt or infinite entries."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Uniformity(Record):
    """Numbers of [0, 1] that are uniform where the density is right: counts in even bins, the Kolmogorov-Smirnov
    distance from uniform and its p-value. `mean` and `deviation` are those of the same numbers turned into a standard
    normal, 0 and 1 where it is right."""

    name: str
    counts: tuple[int, ...]
    mean: float
    deviation: float
    distance: Share
    p_value: Share


class Coverage(Record):
    """The share of held-out rows within the highest-density region that holds the share `nominal` of the density."""

    nominal: Share
    found: Share
    standard_error: float


class TwoSample(Record):
    """How often a classifier tells held-out rows from samples, on rows that it was not trained on: one half where it
    cannot; `n` rows were classified."""

    classifier: str
    accuracy: Share
    standard_error: float
    n: int


class Evidence(Record):
    """Calibration on `rows` held-out rows.

    `latents`: of every column, its probability-integral transform given the columns before it. `length`: that of the
    latent's squared length under chi-squared. `ranks`: of every column alone, the place of held-out values among
    samples. `regions`: coverage of highest-density regions; `levels`: the smallest region that each row is in.
    """

    rows: int
    latents: tuple[Uniformity, ...]
    length: Uniformity | None = None
    ranks: tuple[Uniformity, ...] = ()
    levels: Uniformity | None = None
    regions: tuple[Coverage, ...] = ()
    two_sample: TwoSample | None = None


class Extreme(Record):
    """A row by its number in the data, counted from 1; its values only where they were asked for."""

    row: int
    log_prob: float | None  # None: minus infinity
    values: dict[str, str] | None = None


class Verdict(Record):
    """Whether to believe the density, in one sentence, and every reason for and against it."""

    trust: Literal["yes", "with care", "no"]
    sentence: str
    reasons: tuple[str, ...] = ()
