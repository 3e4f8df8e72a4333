"""What a page says of findings, in sentences fitted to the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from diffeo.report.evidence import Verdict
from diffeo.report.findings import Bars, Baseline, Findings, Histogram, Pair, Score
from diffeo.report.words import counted, duration, error, listed, named, nats, percent, plain, sentence, signed

__all__ = [
    "TRUST",
    "aside",
    "carried",
    "correlations",
    "details",
    "explanation",
    "learned",
    "rest_of",
    "summary",
    "warnings",
]

_BEYOND = 0.005  # the share of rows beyond a picture that is worth a word
_NAMED = 2  # baselines that the summary names


TRUST = {"yes": "Trust it", "with care": "Trust it with care", "no": "Do not trust it"}


def rest_of(verdict: Verdict) -> str:
    """The sentence of a verdict without the words that stand above it.

    >>> rest_of(Verdict(trust="yes", sentence="Trust it: all is well."))
    'All is well.'
    """
    return sentence(plain(verdict.sentence.removeprefix(f"{TRUST[verdict.trust]}: "), 600))


def _the(name: str) -> str:
    name = named(name, 40)
    return name if name.startswith(("a ", "an ", "the ")) else f"the {name}"


def _scored(f: Findings) -> str:
    return "held-out row" if f.held_out else "row"


def _sure(score: Score) -> bool:
    """Whether a mean is away from zero by more than two standard errors."""
    return score.mean is not None and abs(score.mean) > 2 * (score.standard_error or 0.0)


def _ahead(baseline: Baseline) -> str:
    """`3.21 above the Gaussian`, or no different within two standard errors."""
    mean, name = baseline.ahead.mean, _the(baseline.name)
    if mean is None:
        return f"not comparable with {name}"
    if not _sure(baseline.ahead):
        return f"no different, within its error, from {name}"
    return f"{signed(abs(mean))} {'above' if mean > 0 else 'below'} {name}"


def _against(baselines: Sequence[Baseline]) -> str:
    """All of few baselines; of many the best, and how the others stand."""
    known = sorted((b for b in baselines if b.ahead.mean is not None), key=lambda b: b.ahead.mean or 0.0)
    if len(baselines) <= _NAMED or not known:
        return ", ".join(map(_ahead, baselines))
    best = f"{_ahead(known[0])}, the best of {len(baselines)} simpler densities"
    leads = [b.ahead.mean or 0.0 for b in known[1:]]
    if not leads or leads[0] <= 0:
        return best
    return f"{best}; {signed(leads[0])} to {signed(leads[-1])} above the others"


def summary(f: Findings) -> str:
    """What was fitted to what, and how good it is."""
    given = [c for c in f.columns if c.role == "given"]
    of = f"of {counted(len(f.columns) - len(given), 'column')}"
    if given:
        of += f" given {listed([c.name for c in given])}"
    start = f"The recipe {plain(f.recipe, 40)} was fitted to {counted(f.rows_train, 'row')} {of}."
    if f.model.mean is None:
        return f"{start} No {_scored(f)} has a finite log-density, so there is no score to show."
    spread = "" if f.model.standard_error is None else f" ± {error(f.model.standard_error)}"
    where = "held out of training" if f.held_out else f"of {plain(f.data, 40)}"
    score = f"On {counted(f.model.n, 'row')} {where}, the mean log-density is {nats(f.model.mean)}{spread}"
    return f"{start} {score} nats a row" + (f": {_against(f.baselines)}." if f.baselines else ".")


def warnings(f: Findings) -> list[str]:
    """What must not be overlooked."""
    said = []
    if f.rows_with_holes:
        share = f.rows_with_holes / max(f.rows, 1)
        worst = sorted((c for c in f.columns if c.missing), key=lambda c: -c.missing)[:4]
        where = f" Most are in {listed([f'{named(c.name, 40)} ({c.missing:,})' for c in worst])}." if worst else ""
        said.append(
            f"{f.rows_with_holes:,} of {counted(f.rows, 'row')} ({share:.1%}) have a missing cell. They were "
            f"{'neither trained on nor' if f.held_out else 'not'} scored: this is the density of complete rows.{where}"
        )
    if f.model.minus_infinite:
        said.append(
            f"{counted(f.model.minus_infinite, _scored(f))} of {f.model.n:,} cannot happen under this model "
            "(log-density minus infinity). Means and differences here are those of the other rows; the mean of all is "
            "minus infinity."
        )
    if any(b.ahead.mean is not None and b.ahead.mean < 0 and _sure(b.ahead) for b in f.baselines):
        said.append("A simpler density describes these rows better than this model. Give it more time, or more rows.")
    return [plain(warning, 600) for warning in said]


def carried(f: Findings) -> str:
    """Of a lead whose mean and median disagree: few rows carry it."""
    odd = [b for b in f.baselines if _sure(b.ahead) and _carried_by_few(b.ahead.mean, b.ahead.median)]
    if not odd:
        return ""
    shown = [
        f"{_the(b.name)} ({signed(b.ahead.mean or 0)} in the mean, {signed(b.ahead.median or 0)} in the median)"
        for b in odd
    ]
    return f"Few rows carry much of the difference from {listed(shown, length=120)}."


def _carried_by_few(mean: float | None, median: float | None) -> bool:
    return mean is not None and median is not None and (mean * median < 0 or abs(mean) > 2 * abs(median))


def explanation(f: Findings) -> list[str]:
    """Plain words on log-densities, fitted to the kinds of columns that there are."""
    row = [c for c in f.columns if c.role == "row"]
    dense = [c.name for c in row if c.counts_as == "density"]
    masses = [c.name for c in row if c.counts_as != "density"]
    said = [
        "The model gives every row a log-density, in nats (natural logarithms): the higher, the more usual the row. "
        "The mean over rows that it did not learn from says how well it knows the data; one nat more means that a "
        "typical row is 2.7 times as likely."
    ]
    if dense:
        positive = f.model.mean is not None and f.model.mean > 0
        here = " It is above zero here, and nothing is wrong with that." if positive else ""
        said.append(
            "A log-density can be positive: a density is probability per unit, and where rows crowd within less than "
            f"one unit it is above 1.{here} It is in the units of your file, so in cents rather than euros it would be "
            "4.6 lower for every such column. Compare densities of the same rows in the same units; the number alone "
            "says little."
        )
    else:
        said.append(
            "Every column here takes separate values, so the figure is the logarithm of a probability and is never "
            "above zero: e to that power is the probability of exactly that row."
        )
    if masses and dense:
        said.append(
            f"Log-probabilities rather than log-densities come from {listed(masses)}: their values are separate."
        )
    if f.bounds:
        said.append(
            f"Lower bounds: {listed(f.bounds)} {'is' if len(f.bounds) == 1 else 'are'} rounded in the file. What "
            "counts is the probability of the whole rounding cell, taken at a few fixed points of it, which on average "
            "gives a little less than the truth."
        )
    return said


def learned(f: Findings) -> str:
    """How to read the learning curve."""
    best = f.best
    if best is None or best.valid is None:
        return "Mean log-density of the training rows; the higher the better."
    return (
        f"The higher the better. Rows left out were best at epoch {round(best.epoch, 1):g}; "
        "each factor of the density keeps its own best weights."
    )


def aside(m: Histogram | Bars) -> str:
    """What the picture of a marginal does not show."""
    if isinstance(m, Bars):
        return ""
    data = (m.under + m.over) / max(sum(m.counts) + m.under + m.over, 1)
    samples = (m.sample_under + m.sample_over) / max(sum(m.sample_counts or ()) + m.sample_under + m.sample_over, 1)
    if max(data, samples) < _BEYOND:
        return ""
    drawn = "" if m.sample_counts is None else f", {percent(samples)} of samples"
    return f"beyond the picture: {percent(data)} of data{drawn}"


def correlations(p: Pair) -> str:
    """The rank correlation of the data beside that of the samples."""
    found = f"rank correlation {signed(p.rank_correlation)}"
    return found if p.sample_rank_correlation is None else f"{found}; samples {signed(p.sample_rank_correlation)}"


def details(f: Findings) -> list[tuple[str, str]]:
    """(term, value): what a person who repeats the fit asks for."""
    known = [
        ("data", f.data),
        ("fingerprint", f.fingerprint or None),
        ("rows", _all_rows(f)),
        ("recipe", f.recipe),
        ("parameters", None if f.parameters is None else f"{f.parameters:,}"),
        ("epochs", None if f.epochs is None else f"{f.epochs:g}"),
        ("time", None if f.seconds is None else duration(f.seconds)),
        ("seed", None if f.seed is None else str(f.seed)),
        ("versions", ", ".join(f"{name} {version}" for name, version in f.versions.items()) or None),
    ]
    return [(term, value) for term, value in known if value is not None]


def _all_rows(f: Findings) -> str:
    if not f.held_out:
        return f"{f.rows_train:,} trained on; {f.rows:,} of this data, {f.rows_with_holes:,} with a missing cell"
    return f"{f.rows_train:,} trained on, {f.rows_valid:,} held out, {f.rows_with_holes:,} with a missing cell"
