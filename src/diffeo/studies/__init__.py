"""The founding experiments: each one function from options to findings, figures and words."""

import difflib
from importlib import import_module
from typing import TYPE_CHECKING

from diffeo.errors import DiffeoError, shown

if TYPE_CHECKING:
    from diffeo.studies.outcome import Study

__all__ = ["STUDIES", "find"]

STUDIES = {
    "kde": "Kernel density estimates of three known densities: what the bandwidth does.",
    "homework": "A small coupling flow on four toys, as it was set, with better weights, and beside diffeo's default.",
    "moons": "RealNVP against a flow of fixed permutations, on two moons.",
    "zoo": "Planar, radial, coupling and autoregressive flows in one and two dimensions, layer by layer.",
    "depth": "How layers bend space: planar and coupling flows of growing depth.",
    "atoms": "Why discrete data breaks a density, and what mends it.",
}


def find(name: str) -> "Study":
    """The function of a study. Raises DiffeoError for a name that is none.

    >>> find("moons").__name__
    'moons'
    """
    if name not in STUDIES:
        close = difflib.get_close_matches(name, STUDIES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(STUDIES)}"
        raise DiffeoError(f"there is no study {shown(name)}; {hint}")
    study: Study = getattr(import_module(f"diffeo.studies.{name}"), name)
    return study
