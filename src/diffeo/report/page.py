"""Findings -> one self-contained HTML page: no script, nothing fetched, every name escaped."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from diffeo.errors import DiffeoError
from diffeo.report import figures, prose, words
from diffeo.report.checks import Passage, passages
from diffeo.report.evidence import Extreme
from diffeo.report.findings import Findings, Histogram, Score
from diffeo.report.reading import LARGE

__all__ = ["put", "render", "template", "write_report"]

_MOST_MARGINALS = 60
_MOST_VALUES = 24  # columns of single rows that are shown
_OPEN = 12  # lines of a table that stand open
_MARKS = {"yes": "✓", "with care": "!", "no": "✕"}
_ADDS = {
    "density": "a log-density",
    "mass": "a log-probability",
    "cell": "a log-probability",
    "given": "nothing: it is given",
}


def _marginals(f: Findings) -> list[dict[str, str]]:
    return [
        {"name": m.name, "aside": prose.aside(m), "picture": figures.data_uri(figures.marginal(m))}
        for m in f.marginals[:_MOST_MARGINALS]
    ]


def _pairs(f: Findings) -> list[dict[str, str]]:
    dates = {m.name: m.dates for m in f.marginals if isinstance(m, Histogram)}
    shown = []
    for p in f.pairs:
        picture = figures.data_uri(figures.pair(p, dates.get(p.x), dates.get(p.y)))
        shown.append({"x": p.x, "y": p.y, "aside": prose.correlations(p), "picture": picture})
    return shown


def _checks(f: Findings) -> list[tuple[Passage, list[dict[str, Any]]]]:
    """Every check with its pictures."""
    return [] if f.evidence is None else [(check, _drawn(check)) for check in passages(f.evidence)]


def _drawn(check: Passage) -> list[dict[str, Any]]:
    return [
        {
            "name": u.name if check.lines else "",
            "word": word,
            "fault": fault,
            "picture": figures.data_uri(figures.evenness(u, check.ends)),
        }
        for u, word, fault in check.drawn
    ]


def _extremes(found: Sequence[Extreme]) -> dict[str, Any]:
    """Single rows as a table: the names of its columns, how many more there are, and the rows with their cells."""
    names = list(dict.fromkeys(name for extreme in found for name in extreme.values or ()))
    shown = names[:_MOST_VALUES]
    rows = [(e, [(e.values or {}).get(name, "") for name in shown]) for e in found]
    return {"names": shown, "more": len(names) - len(shown), "rows": rows}


def _impossible(scores: Sequence[Score]) -> bool:
    return any(score.minus_infinite for score in scores)


@functools.cache
def template(name: str) -> Template:
    """A page's template by its file name, in the manner of this house: everything escaped, nothing left undefined."""
    environment = Environment(
        loader=PackageLoader("diffeo.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("plain", "named", "count", "counted", "nats", "error", "sentence", "signed")
    environment.filters |= {name: getattr(words, name) for name in names}
    return environment.get_template(name)


def render(findings: Findings) -> str:
    """The page as one HTML text."""
    f = findings
    curve = figures.data_uri(figures.learning_curve(f.history, f.best)) if f.history else None
    return template("page.html.j2").render(
        f=f,
        colours={"data": figures.DATA, "samples": figures.SAMPLES},
        row_columns=[c for c in f.columns if c.role == "row"],
        prose=prose,
        marks=_MARKS,
        impossible=_impossible([f.model, *(b.score for b in f.baselines)]),
        adds=_ADDS,
        comparison=figures.data_uri(figures.comparison(f.model, f.baselines)),
        learning_curve=curve,
        checks=_checks(f),
        large=LARGE,
        extremes=[("The least likely", _extremes(f.least_likely)), ("The most likely", _extremes(f.most_likely))],
        with_values=any(e.values for e in (*f.least_likely, *f.most_likely)),
        open_lines=_OPEN,
        marginals=_marginals(f),
        more_marginals=max(len(f.marginals) - _MOST_MARGINALS, 0),
        pairs=_pairs(f),
    )


def write_report(findings: Findings, folder: str | Path) -> Path:
    """Write report.html and report.json into a folder, each whole or not at all; the path of the page.

    Raises DiffeoError where the folder cannot be written; what was there before is then intact.
    """
    return put(folder, render(findings), findings.to_json())


def put(folder: str | Path, page: str, numbers: str) -> Path:
    """Write a page as report.html and its numbers as report.json into a folder, each whole or not at all; the path of
    the page. Raises DiffeoError where the folder cannot be written; what was there before is then intact."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "report.json", numbers)
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
