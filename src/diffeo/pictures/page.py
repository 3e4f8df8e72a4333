"""Findings on a density of pictures -> one self-contained HTML page: no script, nothing fetched, every name escaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffeo.pictures import figures
from diffeo.pictures.findings import Bits, PictureFindings
from diffeo.pictures.judging import with_error
from diffeo.report.figures import DATA, SAMPLES, data_uri
from diffeo.report.page import put, template
from diffeo.report.prose import TRUST, rest_of
from diffeo.report.words import counted, duration, plain

__all__ = ["render", "write_report"]

_MARKS = {"yes": "✓", "with care": "!", "no": "✕"}
_ANCHORS = {
    "zlib": "each picture compressed by zlib",
    "histogram": "a histogram of each pixel alone",
    "Gaussian": "one Gaussian of all pixels (a bound)",
    "Gaussian of logits": "one Gaussian of all pixels' logits (a bound)",
}


def render(findings: PictureFindings) -> str:
    """The page as one HTML text."""
    f = findings
    return template("pictures.html.j2").render(
        f=f,
        marks=_MARKS,
        trust=TRUST,
        rest=None if f.verdict is None else rest_of(f.verdict),
        summary=_summary(f),
        colours={"data": DATA, "samples": SAMPLES},
        bits=_bits,
        tiny=_tiny,
        anchor_words=_ANCHORS,
        comparison=data_uri(figures.comparison(f.model, f.anchors)),
        curve=data_uri(figures.curve(f)) if f.history else None,
        spread=data_uri(figures.spread(f.spread)) if f.spread else None,
        details=_details(f),
    )


def write_report(findings: PictureFindings, folder: str | Path) -> Path:
    """Write report.html and report.json into a folder, each whole or not at all; the path of the page.

    Raises DiffeoError where the folder cannot be written; what was there before is then intact.
    """
    return put(folder, render(findings), findings.to_json())


def _bits(bits: Bits) -> str:
    """
    >>> _bits(Bits(n=2, mean=3.1, error=0.25)), _bits(Bits(n=2, impossible=1))
    ('3.10 ± 0.25', '∞ (1 impossible)')
    """
    if bits.mean is None:
        return f"∞ ({bits.impossible} impossible)" if bits.impossible else "—"
    return with_error(bits.mean, bits.error).replace("-", "−")


def _tiny(value: float | None) -> str:
    """
    >>> _tiny(0.00390625), _tiny(2e-6), _tiny(None)
    ('0.0039', '2.0e−06', 'no number')
    """
    return "no number" if value is None else f"{value:.2g}" if value >= 1e-4 else f"{value:.1e}".replace("-", "−")


def _summary(f: PictureFindings) -> str:
    given = f", given one of {len(f.classes)} classes" if f.conditional else ""
    scored = "were held out" if f.held_out else f"of {f.scored_source} are looked at here"
    fitted = f"The recipe {f.recipe} was fitted to {counted(f.rows_train, 'picture')} of {f.source}{given}"
    said = f"{fitted}; {f.rows_valid:,} {scored}"
    return f"{said}, of which {f.model.n:,} were scored." if f.model.n < f.rows_valid else f"{said}."


def _details(f: PictureFindings) -> list[tuple[str, str]]:
    """(term, value): what a person who repeats the fit asks for."""
    channels, height, width = f.event
    known = [
        ("data", f.source),
        ("pictures", f"{width} × {height}, {counted(channels, 'channel')}, {f.grays} grey levels"),
        ("recipe", f.recipe),
        ("plan", _listed(f.plan, {"recipe", "event", "grays"})),
        ("training", _listed(f.training, set())),
        ("parameters", None if f.parameters is None else f"{f.parameters:,}"),
        ("epochs", None if f.epochs is None else f"{f.epochs:.4g}"),
        ("steps", _steps(f)),
        ("time", None if f.seconds is None else duration(f.seconds)),
        ("seed", str(f.seed)),
        ("versions", ", ".join(f"{name} {version}" for name, version in f.versions.items())),
    ]
    return [(term, plain(value, 400)) for term, value in known if value]


def _listed(choices: Mapping[str, Any], known: set[str]) -> str:
    """
    >>> _listed({"steps": 8, "width": 64, "classes": None}, {"width"})
    'steps 8'
    """
    return ", ".join(f"{name} {value}" for name, value in choices.items() if name not in known and value is not None)


def _steps(f: PictureFindings) -> str | None:
    if f.steps is None:
        return None
    went_back = f", went back to earlier weights {counted(f.returns, 'time')}" if f.returns else ""
    return f"{f.steps:,}, {f.skipped:,} skipped{went_back}"
