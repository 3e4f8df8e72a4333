"""What a study gave -> one self-contained HTML page: no script, nothing fetched."""

from __future__ import annotations

import functools

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template

from diffeo.report.figures import DATA, SAMPLES, data_uri
from diffeo.report.words import duration, plain
from diffeo.studies.outcome import Findings, Outcome, Picture, Table

__all__ = ["render"]


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("diffeo.studies"), PackageLoader("diffeo.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": plain, "uri": data_uri, "duration": duration}
    environment.tests |= {
        "picture": lambda part: isinstance(part, Picture),
        "table": lambda part: isinstance(part, Table),
    }
    return environment.get_template("study.html.j2")


def render(outcome: Outcome, findings: Findings) -> str:
    """The page as one HTML text."""
    return _template().render(o=outcome, f=findings, colours={"data": DATA, "samples": SAMPLES})
