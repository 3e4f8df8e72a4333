"""Findings -> one self-contained HTML page: no script, nothing fetched, every name escaped."""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import os
import secrets
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from diffeo.errors import DiffeoError
from diffeo.report import figures
from diffeo.report.findings import Bars, Baseline, Findings, Histogram, Score

__all__ = ["render", "write_report"]

_MOST_MARGINALS = 60
_BEYOND = 0.005  # the share of rows beyond a picture that is worth a word
_TURNING = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_ADDS = {
    "density": "a log-density",
    "mass": "a log-probability",
    "cell": "a log-probability",
    "given": "nothing: it is given",
}


def plain(text: object, most: int = 80) -> str:
    """Text for a page: shortened, with control characters and those that turn the reading direction made visible.

    >>> plain("a\\x00b\\u202ec"), plain("x" * 100, 4)
    ('a�b�c', 'xxx…')
    """
    shown = str(text)
    shown = shown if len(shown) <= most else shown[: most - 1] + "…"
    return "".join("�" if _unsafe(letter) else letter for letter in shown)


def _unsafe(letter: str) -> bool:
    kind = unicodedata.category(letter)
    return kind in ("Cc", "Cs", "Cn", "Zl", "Zp") or letter in _TURNING


def count(n: int) -> str:
    """
    >>> count(48546)
    '48,546'
    """
    return f"{n:,}"


def counted(n: int, noun: str) -> str:
    """
    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def nats(value: float | None) -> str:
    """
    >>> nats(-3.14159), nats(None)
    ('−3.142', '—')
    """
    return "—" if value is None else f"{value:,.3f}".replace("-", "−")


def error(value: float | None) -> str:
    """
    >>> error(0.01234), error(0.000012), error(None)
    ('0.012', '1.2e-05', '—')
    """
    return "—" if value is None else f"{value:.3f}" if value >= 0.001 or value == 0 else f"{value:.1e}"


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = [plain(name, 40) for name in names[:most]]
    if len(names) > most:
        return ", ".join(shown) + f" and {len(names) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def _ahead(baseline: Baseline) -> str:
    """`3.21 above a Gaussian`, or `not clearly above` within two standard errors."""
    mean, spread = baseline.ahead.mean, baseline.ahead.standard_error or 0.0
    name = plain(baseline.name, 40)
    article = "" if name.startswith(("a ", "an ", "the ")) else "the "
    if mean is None:
        return f"not comparable with {article}{name}"
    if abs(mean) <= 2 * spread:
        return f"no different, within its error, from {article}{name}"
    return f"{abs(mean):,.2f} {'above' if mean > 0 else 'below'} {article}{name}"


def _summary(f: Findings) -> str:
    given = [c for c in f.columns if c.role == "given"]
    of = f"of {counted(len(f.columns) - len(given), 'column')}"
    if given:
        of += f" given {_listed([c.name for c in given])}"
    start = f"The recipe {plain(f.recipe, 40)} was fitted to {counted(f.rows_train, 'row')} {of}."
    if f.model.mean is None:
        return f"{start} No held-out row has a finite log-density, so there is no score to show."
    spread = "" if f.model.standard_error is None else f" ± {error(f.model.standard_error)}"
    score = f"On {counted(f.model.n, 'row')} held out of training, the mean log-density is {nats(f.model.mean)}{spread}"
    return f"{start} {score} nats a row" + (f": {', '.join(_ahead(b) for b in f.baselines)}." if f.baselines else ".")


def _warnings(f: Findings) -> list[str]:
    said = []
    if f.rows_with_holes:
        share = f.rows_with_holes / max(f.rows, 1)
        worst = sorted((c for c in f.columns if c.missing), key=lambda c: -c.missing)[:4]
        where = f" Most are in {_listed([f'{plain(c.name, 40)} ({c.missing:,})' for c in worst])}." if worst else ""
        said.append(
            f"{f.rows_with_holes:,} of {counted(f.rows, 'row')} ({share:.1%}) have a missing cell. They were neither "
            f"trained on nor scored: this is the density of complete rows.{where}"
        )
    if f.model.minus_infinite:
        said.append(
            f"{counted(f.model.minus_infinite, 'held-out row')} of {f.model.n:,} cannot happen under this model "
            "(log-density minus infinity). Means and differences here are those of the other rows; the mean of all is "
            "minus infinity."
        )
    if any(b.ahead.mean is not None and b.ahead.mean < -2 * (b.ahead.standard_error or 0) for b in f.baselines):
        said.append(
            "A simpler density describes the held-out rows better than this model. Give it more time, or more rows."
        )
    return said


def _explanation(f: Findings) -> list[str]:
    """Plain words on log-densities, fitted to the kinds of columns that there are."""
    row = [c for c in f.columns if c.role == "row"]
    dense = [c.name for c in row if c.counts_as == "density"]
    masses = [c.name for c in row if c.counts_as != "density"]
    said = [
        "The model gives every row a log-density, in nats (natural logarithms): the higher, the more usual the row. "
        "The mean over held-out rows says how well it knows the data; one nat more means that a typical row is "
        "2.7 times as likely."
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
            f"Log-probabilities rather than log-densities come from {_listed(masses)}: their values are separate."
        )
    if f.bounds:
        said.append(
            f"Lower bounds: {_listed(f.bounds)} {'is' if len(f.bounds) == 1 else 'are'} rounded in the file. What "
            "counts is the probability of the whole rounding cell, taken at a few fixed points of it, which on average "
            "gives a little less than the truth."
        )
    return said


def _learned(f: Findings) -> str:
    best = f.best
    if best is None or best.valid is None:
        return "Mean log-density of the training rows; the higher the better."
    return (
        f"The higher the better. Held-out rows were best at epoch {round(best.epoch, 1):g}; "
        "each factor of the density keeps its own best weights."
    )


def _marginals(f: Findings) -> list[dict[str, str]]:
    return [
        {"name": m.name, "aside": _aside(m), "picture": figures.data_uri(figures.marginal(m))}
        for m in f.marginals[:_MOST_MARGINALS]
    ]


def _aside(m: Histogram | Bars) -> str:
    """What the picture does not show."""
    if isinstance(m, Bars):
        return ""
    data = (m.under + m.over) / max(sum(m.counts) + m.under + m.over, 1)
    samples = (m.sample_under + m.sample_over) / max(sum(m.sample_counts or ()) + m.sample_under + m.sample_over, 1)
    if max(data, samples) < _BEYOND:
        return ""
    drawn = "" if m.sample_counts is None else f", {samples:.1%} of samples"
    return f"beyond the picture: {data:.1%} of data{drawn}"


def _pairs(f: Findings) -> list[dict[str, str]]:
    dates = {m.name: m.dates for m in f.marginals if isinstance(m, Histogram)}
    shown = []
    for p in f.pairs:
        aside = f"rank correlation {p.rank_correlation:.2f}".replace("-", "−")
        if p.sample_rank_correlation is not None:
            aside += f"; samples {p.sample_rank_correlation:.2f}".replace("-", "−")
        picture = figures.data_uri(figures.pair(p, dates.get(p.x), dates.get(p.y)))
        shown.append({"x": p.x, "y": p.y, "aside": aside, "picture": picture})
    return shown


def _duration(seconds: float) -> str:
    """
    >>> _duration(118.2), _duration(7300)
    ('1 min 58 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _details(f: Findings) -> list[tuple[str, str]]:
    known = [
        ("data", f.data),
        ("fingerprint", f.fingerprint or None),
        ("rows", f"{f.rows_train:,} trained on, {f.rows_valid:,} held out, {f.rows_with_holes:,} with a missing cell"),
        ("recipe", f.recipe),
        ("parameters", None if f.parameters is None else f"{f.parameters:,}"),
        ("epochs", None if f.epochs is None else f"{f.epochs:g}"),
        ("time", None if f.seconds is None else _duration(f.seconds)),
        ("seed", None if f.seed is None else str(f.seed)),
        ("versions", ", ".join(f"{name} {version}" for name, version in f.versions.items()) or None),
    ]
    return [(term, value) for term, value in known if value is not None]


@functools.cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"plain": plain, "count": count, "counted": counted, "nats": nats, "error": error}
    source = importlib.resources.files("diffeo.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source)


def _impossible(scores: Sequence[Score]) -> bool:
    return any(score.minus_infinite for score in scores)


def render(findings: Findings) -> str:
    """The page as one HTML text."""
    f = findings
    pictures: dict[str, Any] = {
        "comparison": figures.data_uri(figures.comparison(f.model, f.baselines)),
        "learning_curve": figures.data_uri(figures.learning_curve(f.history, f.best)) if f.history else None,
    }
    return _template().render(
        f=f,
        colours={"data": figures.DATA, "samples": figures.SAMPLES},
        row_columns=[c for c in f.columns if c.role == "row"],
        summary=_summary(f),
        warnings=[plain(warning, 600) for warning in _warnings(f)],
        explanation=_explanation(f),
        impossible=_impossible([f.model, *(b.score for b in f.baselines)]),
        learned=_learned(f),
        adds=_ADDS,
        pictures=pictures,
        marginals=_marginals(f),
        more_marginals=max(len(f.marginals) - _MOST_MARGINALS, 0),
        pairs=_pairs(f),
        details=_details(f),
    )


def write_report(findings: Findings, folder: str | Path) -> Path:
    """Write report.html and report.json into a folder, each whole or not at all; the path of the page.

    Raises DiffeoError where the folder cannot be written; what was there before is then intact.
    """
    folder = Path(folder)
    page = render(findings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "report.json", findings.to_json())
        _write(folder / "report.html", page)
    except OSError as fault:
        reason = fault.strerror or type(fault).__name__
        raise DiffeoError(f"{folder}: the report cannot be written ({reason}); choose another place") from fault
    return folder / "report.html"


def _write(path: Path, text: str) -> None:
    """Write under a temporary name beside the file, then rename over it."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(6)}")
    try:
        with temporary.open("xb") as file:
            file.write(text.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
