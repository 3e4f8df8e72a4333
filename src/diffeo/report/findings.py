"""Findings: all that a report says, as numbers in one frozen record, to JSON and back; never a row of the data.

The data is kept as summaries: histograms whose edges are round numbers, counts of levels, rounded quantiles.

A fit makes them in three steps, and a report adds samples:

    marginals, pairs = summarise(x_train, schema)
    baseline = baseline_of("Gaussian", log_prob_model, log_prob_gaussian)
    findings = Findings.of(schema, marginals=marginals, pairs=pairs, model=score_of(log_prob_model), ...)
    findings = compare(findings, x_samples, schema)
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import Field, ValidationError, field_validator

from diffeo.baselines import row_part
from diffeo.config import first_fault
from diffeo.data.column import Column, Level
from diffeo.data.dates import Dates
from diffeo.data.schema import Schema
from diffeo.errors import ModelError
from diffeo.report.evidence import Evidence, Extreme, Record, Verdict
from diffeo.report.summaries import bin_edges, binned, binned_pair, quantiles, strongest_pairs

__all__ = [
    "SCHEMA_VERSION",
    "Bars",
    "Baseline",
    "ColumnFacts",
    "Findings",
    "Histogram",
    "Marginal",
    "Pair",
    "Score",
    "Step",
    "baseline_of",
    "compare",
    "read_record",
    "score_of",
    "summarise",
]

Kept = TypeVar("Kept", bound=Record)
SCHEMA_VERSION = 1
_BINS = 60
_PAIR_BINS = 40
_PAIRS = 15
_PAIR_ROWS = 20_000
_TOP = 30
_IN_ORDER = 60  # levels of an ordered column that are all shown
_TEXT = 200


def read_record(kind: type[Kept], text: str | bytes, newest: int) -> Kept:
    """The record of findings of some kind that was written as JSON; ModelError where the text is damaged, or of a
    version above the newest that is known."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise ModelError("the findings are damaged: they are no JSON; fit again") from fault
    version = found.get("schema_version") if isinstance(found, dict) else None
    if isinstance(version, int) and version > newest:
        raise ModelError(f"the findings are of version {version}, newer than this diffeo reads; upgrade diffeo")
    try:
        return kind.model_validate(found)
    except ValidationError as fault:
        raise ModelError(f"the findings are damaged: {first_fault(fault)}; fit again") from fault


class Score(Record):
    """How log-densities lie, in nats a row. Mean, median and standard error are those of the finite ones.

    `n` rows were scored (rows with holes are not); of these `minus_infinite` are impossible under the density, so
    that the mean of all is minus infinity; `others` counts what has no finite value for another reason.
    """

    n: int = Field(ge=0)
    mean: float | None = None
    standard_error: float | None = None
    median: float | None = None
    minus_infinite: int = 0
    others: int = 0


class Baseline(Record):
    """A density to beat: its score, and by how much the model is ahead on the same rows (paired, row by row)."""

    name: str
    score: Score
    ahead: Score


class Step(Record):
    """A point of the learning curve: mean log-densities in nats a row, the higher the better."""

    epoch: float
    step: int
    train: float | None = None
    valid: float | None = None
    seconds: float | None = None

    @field_validator("train", "valid", mode="before")
    @classmethod
    def _finite(cls, value: Any) -> Any:
        return None if isinstance(value, float) and not np.isfinite(value) else value


class ColumnFacts(Record):
    """What the page says of a column: `words` is its kind, `counts_as` what it adds to a log-density."""

    name: str
    kind: str
    words: str
    role: Literal["row", "given"]
    missing: int
    range: str
    counts_as: Literal["density", "mass", "cell", "given"]


class Histogram(Record):
    """A numeric column in bins: counts of the data, and of samples once there are any."""

    form: Literal["histogram"] = "histogram"
    name: str
    kind: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    under: int
    over: int
    quantiles: dict[str, float]
    dates: Dates | None = None
    sample_counts: tuple[int, ...] | None = None
    sample_under: int = 0
    sample_over: int = 0
    sample_quantiles: dict[str, float] | None = None


class Bars(Record):
    """A discrete column: its most frequent levels by their place in the schema, the rest together as `other`."""

    form: Literal["bars"] = "bars"
    name: str
    kind: str
    places: tuple[int, ...]
    levels: tuple[str, ...]
    counts: tuple[int, ...]
    other: int
    other_levels: int
    sample_counts: tuple[int, ...] | None = None
    sample_other: int = 0


Marginal = Annotated[Histogram | Bars, Field(discriminator="form")]
Counts = tuple[tuple[int, ...], ...]


class Pair(Record):
    """Two numeric columns: counts [x bins][y bins] of the data and of samples; `dependence` in nats."""

    x: str
    y: str
    x_edges: tuple[float, ...]
    y_edges: tuple[float, ...]
    counts: Counts
    rank_correlation: float
    dependence: float
    sample_counts: Counts | None = None
    sample_rank_correlation: float | None = None


class Findings(Record):
    """One fitted model in numbers."""

    schema_version: Literal[1] = 1
    data: str
    recipe: str
    fingerprint: str = ""
    rows_train: int
    rows_valid: int
    rows_with_holes: int = 0
    held_out: bool = True  # the scored rows; False: those of other data that a report was asked about
    columns: tuple[ColumnFacts, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    bounds: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    model: Score
    baselines: tuple[Baseline, ...] = ()
    history: tuple[Step, ...] = ()
    marginals: tuple[Marginal, ...] = ()
    pairs: tuple[Pair, ...] = ()
    rows_sampled: int = 0
    evidence: Evidence | None = None
    most_likely: tuple[Extreme, ...] = ()
    least_likely: tuple[Extreme, ...] = ()
    verdict: Verdict | None = None
    parameters: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    seed: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)

    @field_validator("data")
    @classmethod
    def _file_name_only(cls, value: str) -> str:
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1].encode("utf-8", "replace").decode() or "the data"

    @staticmethod
    def of(schema: Schema, *, notes: Sequence[str] = (), **fields: Any) -> Findings:
        """Findings of a model of this schema, which says the columns, what was left out, notes and bounds."""
        said = {
            "columns": tuple(_facts(column) for column in schema.columns),
            "left_out": schema.left_out,
            "bounds": tuple(column.name for column in schema.row_columns if _counts_as(column) == "cell"),
            "notes": (*schema.notes, *notes),
        }
        return Findings(**(said | fields))

    @staticmethod
    def from_json(text: str | bytes) -> Findings:
        """The findings that `to_json` wrote; ModelError where the text is damaged or of a newer diffeo."""
        return read_record(Findings, text, SCHEMA_VERSION)

    def to_json(self) -> str:
        """All numbers as one JSON object."""
        return self.model_dump_json() + "\n"

    @property
    def best(self) -> Step | None:
        """The step of the learning curve with the highest validation score."""
        scored = [step for step in self.history if step.valid is not None]
        return max(scored, key=lambda step: step.valid or 0.0, default=None)

    @property
    def rows(self) -> int:
        """All rows of the data: used and with holes; those learned from are no part of other data."""
        return (self.rows_train if self.held_out else 0) + self.rows_valid + self.rows_with_holes


def score_of(log_prob: np.ndarray, weights: np.ndarray | None = None) -> Score:
    """The score of log-densities [n], their mean and standard error by weights [n] if there are any; NaN are rows that
    could not be scored and are not counted.

    >>> score_of(np.array([1.0, 3.0, np.nan, -np.inf]))
    Score(n=3, mean=2.0, standard_error=1.0, median=2.0, minus_infinite=1, others=0)
    >>> score_of(np.array([1.0, 3.0]), np.array([3.0, 1.0])).mean
    1.5
    """
    every = np.asarray(log_prob, float)
    w = np.ones(len(every)) if weights is None else np.asarray(weights, float)
    scored = every[~np.isnan(every)]
    finite, w = every[np.isfinite(every)], w[np.isfinite(every)]
    mean, error = _mean_and_error(finite, w)
    minus = int((scored == -np.inf).sum())
    return Score(
        n=len(scored),
        mean=mean,
        standard_error=error,
        median=float(np.median(finite)) if len(finite) else None,
        minus_infinite=minus,
        others=len(scored) - len(finite) - minus,
    )


def _mean_and_error(v: np.ndarray, w: np.ndarray) -> tuple[float | None, float | None]:
    """The weighted mean of v [n] and its standard error (Cochran 1977, the ratio estimator's)."""
    n = len(v)
    if not w.sum() > 0:
        return None, None
    mean = float(np.average(v, weights=w))
    error = float(np.sqrt(n / (n - 1) * (w**2 * (v - mean) ** 2).sum()) / w.sum()) if n > 1 else None
    return mean, error


def baseline_of(name: str, model: np.ndarray, baseline: np.ndarray, weights: np.ndarray | None = None) -> Baseline:
    """A baseline's score, and the paired difference model - baseline, from the log-densities [n] of the same rows.

    >>> baseline_of("Gaussian", np.array([2.0, 4.0]), np.array([1.0, 1.0])).ahead.mean
    2.0
    """
    with np.errstate(invalid="ignore"):
        ahead = np.subtract(model, baseline)
    return Baseline(name=name, score=score_of(baseline, weights), ahead=score_of(ahead, weights))


def _counts_as(column: Column) -> Literal["density", "mass", "cell", "given"]:
    if column.role == "given":
        return "given"
    if column.discrete:
        return "mass"
    return "density" if column.grid is None else "cell"


def _facts(column: Column) -> ColumnFacts:
    plain = column.model_copy(update={"low": None, "high": None, "missing": 0, "role": "row"})
    low, high, shown = column.low, column.high, "—"
    if low is not None and high is not None:
        shown = f"{low:g} to {high:g}"
        if column.dates is not None:
            shown = f"{column.dates.show(low)} to {column.dates.show(high)}"
    words = plain.describe()[len(column.name) + 2 :]
    if column.dates is not None and column.grid is not None:
        words += f" every {column.grid.step:g} s"
    return ColumnFacts(
        name=column.name,
        kind=column.kind,
        words=_short(words),
        role=column.role,
        missing=column.missing,
        range=shown,
        counts_as=_counts_as(column),
    )


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


def _label(level: Level) -> str:
    if isinstance(level, bool):
        return str(level).lower()
    return _short(level) if isinstance(level, str) else f"{level:.10g}"


def _as_bars(column: Column) -> bool:
    return column.discrete and (column.kind != "integer" or len(column.levels) <= _IN_ORDER)


def _on_grid(column: Column, v: np.ndarray) -> np.ndarray:
    """Values without the missing ones, on the column's grid if it has one."""
    v = v[~np.isnan(v)]
    return v if column.grid is None or not len(v) else column.grid.snap(v)


def summarise(x: np.ndarray, schema: Schema, seed: int = 0) -> tuple[tuple[Histogram | Bars, ...], tuple[Pair, ...]]:
    """Marginals of every row column and the most dependent pairs of numeric ones, of encoded rows x [n, D]."""
    rows = row_part(x, schema)
    columns = schema.row_columns
    marginals = tuple(
        _bars(column, v) if _as_bars(column) else _histogram(column, v)
        for column, v in zip(columns, rows.T, strict=True)
    )
    places = [place for place, column in enumerate(columns) if not column.coded]
    few = _some(rows[~np.isnan(rows).any(1)], seed)
    pairs = []
    for i, j, correlation, dependence in strongest_pairs(few[:, places], _PAIRS):
        a, b = columns[places[i]], columns[places[j]]
        u, v = rows[:, places[i]], rows[:, places[j]]
        edges = bin_edges(a, _on_grid(a, u), _PAIR_BINS), bin_edges(b, _on_grid(b, v), _PAIR_BINS)
        pairs.append(
            Pair(
                x=a.name,
                y=b.name,
                x_edges=edges[0].tolist(),
                y_edges=edges[1].tolist(),
                counts=_pair_counts(a, b, u, v, *edges),
                rank_correlation=correlation,
                dependence=dependence,
            )
        )
    return marginals, tuple(pairs)


def _some(rows: np.ndarray, seed: int) -> np.ndarray:
    if len(rows) <= _PAIR_ROWS:
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(len(rows), _PAIR_ROWS, replace=False))]


def _pair_counts(a: Column, b: Column, u: np.ndarray, v: np.ndarray, u_edges: Any, v_edges: Any) -> Counts:
    whole = ~(np.isnan(u) | np.isnan(v))
    counts = binned_pair(_on_grid(a, u[whole]), _on_grid(b, v[whole]), np.asarray(u_edges), np.asarray(v_edges))
    return tuple(tuple(line) for line in counts.tolist())


def _histogram(column: Column, v: np.ndarray) -> Histogram:
    v = _on_grid(column, v)
    edges = bin_edges(column, v, _BINS)
    counts, under, over = binned(v, edges)
    return Histogram(
        name=column.name,
        kind=column.kind,
        edges=edges.tolist(),
        counts=counts.tolist(),
        under=under,
        over=over,
        quantiles=quantiles(column, v, edges),
        dates=column.dates,
    )


def _level_counts(column: Column, v: np.ndarray) -> np.ndarray:
    codes = column.codes(v)
    return np.bincount(codes[codes >= 0], minlength=len(column.levels))


def _bars(column: Column, v: np.ndarray) -> Bars:
    counts = _level_counts(column, v)
    ordered = column.kind in ("integer", "ordered", "boolean")
    falling = np.argsort(-counts, kind="stable")
    shown = falling if ordered and len(counts) <= _IN_ORDER else falling[:_TOP]
    if ordered:
        shown = np.sort(shown)
    return Bars(
        name=column.name,
        kind=column.kind,
        places=shown.tolist(),
        levels=tuple(_label(column.levels[place]) for place in shown),
        counts=counts[shown].tolist(),
        other=int(counts.sum() - counts[shown].sum()),
        other_levels=len(counts) - len(shown),
    )


def compare(findings: Findings, x_samples: np.ndarray, schema: Schema) -> Findings:
    """The findings with samples of the model, encoded [m, D] or [m, D_row], counted in the same bins as the data."""
    rows = row_part(x_samples, schema)
    columns = {column.name: (column, v) for column, v in zip(schema.row_columns, rows.T, strict=True)}
    marginals = tuple(_with_samples(marginal, *columns[marginal.name]) for marginal in findings.marginals)
    few = _some(rows, 0)
    pairs = []
    for pair in findings.pairs:
        (a, u), (b, v) = columns[pair.x], columns[pair.y]
        places = [schema.row_columns.index(a), schema.row_columns.index(b)]
        ranked = strongest_pairs(few[:, places][~np.isnan(few[:, places]).any(1)], 1)
        update = {
            "sample_counts": _pair_counts(a, b, u, v, pair.x_edges, pair.y_edges),
            "sample_rank_correlation": ranked[0][2] if ranked else None,
        }
        pairs.append(pair.model_copy(update=update))
    return findings.model_copy(update={"marginals": marginals, "pairs": tuple(pairs), "rows_sampled": len(rows)})


def _with_samples(marginal: Histogram | Bars, column: Column, v: np.ndarray) -> Histogram | Bars:
    if isinstance(marginal, Bars):
        every = _level_counts(column, v)
        shown = every[list(marginal.places)]
        return marginal.model_copy(
            update={"sample_counts": tuple(shown.tolist()), "sample_other": int(every.sum() - shown.sum())}
        )
    v, edges = _on_grid(column, v), np.asarray(marginal.edges)
    counts, under, over = binned(v, edges)
    return marginal.model_copy(
        update={
            "sample_counts": tuple(counts.tolist()),
            "sample_under": under,
            "sample_over": over,
            "sample_quantiles": quantiles(column, v, edges),
        }
    )
