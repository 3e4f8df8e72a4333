"""Is a fitted model really a density, and do its sampler, its inverse and its log-density belong together?

Every line of a check is a property, tried on the user's own model and rows against something independent: autograd,
quadrature, distribution functions, draws. What is random starts from one seed; a statistical line fails of a model
that is right once in a million runs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from diffeo.check.behaviour import batches, frames, supports
from diffeo.check.draws import drawn_by_the_density
from diffeo.check.lines import Line, broken
from diffeo.check.mass import integrals
from diffeo.check.slopes import log_dets, sums
from diffeo.check.stairs import far_out, returns
from diffeo.check.subject import Subject
from diffeo.contract import Report
from diffeo.errors import DiffeoError
from diffeo.processors import threads

if TYPE_CHECKING:
    from diffeo.model import Model
    from diffeo.pictures.model import PictureModel

__all__ = ["Line", "Report", "check_lines", "check_model"]

Group = Callable[[Any], Iterator[Line]]  # of a Subject, or a PictureSubject
GROUPS: tuple[tuple[str, Group], ...] = (
    ("numbers and noise come back", returns),
    ("finite far out", far_out),
    ("log-determinants", log_dets),
    ("a row's log-density is the sum of its factors", sums),
    ("totals of 1", integrals),
    ("draws come from the density", drawn_by_the_density),
    ("rows do not depend on their batch", batches),
    ("supports", supports),
    ("frames and files come back", frames),
)


def check_model(model: "Model | PictureModel", data: Any = None, seed: int = 0) -> Report:
    """Check a model on rows of a frame, an array or a file (at most 1000), or on rows that it draws itself; one of
    pictures on at most 64 of them.

    Nothing is raised because a property fails: the report says which, by how much and where. Raises DataError where
    the data does not fit the model's schema, or has no row without a missing cell.

    >>> from diffeo.model import fit
    >>> model = fit({"x": [i % 7 / 3 + i / 100 for i in range(200)]}, epochs=1, hidden=8)
    >>> check_model(model).ok
    True
    """
    return Report(tuple(check_lines(model, data, seed)))


def check_lines(model: "Model | PictureModel", data: Any = None, seed: int = 0) -> Iterator[Line]:
    """The lines of `check_model`, a group at a time as they are found."""
    start, groups = _kind(model)
    try:
        with _apart(seed):
            subject = start(model, data, seed)
    except DiffeoError as fault:
        if data is not None:
            raise
        yield broken("draws can be read again", fault)
        return
    for name, group in groups:
        yield from _found(subject, name, group)


def _kind(model: "Model | PictureModel") -> tuple[Callable[..., Any], Sequence[tuple[str, Group]]]:
    """What a check of this model is made on, and its groups."""
    if getattr(model.card, "kind", None) == "pictures":
        from diffeo.check import pictures

        return pictures.PictureSubject.of, pictures.GROUPS
    return Subject.of, GROUPS


@contextmanager
def _apart(seed: int) -> Iterator[None]:
    """With one seed and few threads, and the randomness outside left alone."""
    with threads(None), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _found(subject: Any, name: str, group: Group) -> list[Line]:
    """The lines of a group; a model that refuses what it must take fails under the name of the group."""
    lines: list[Line] = []
    with _apart(subject.seed):
        try:
            for line in group(subject):
                lines.append(line)  # noqa: PERF402 (what was found before a fault is kept)
        except DiffeoError as fault:
            lines.append(broken(name, fault))
    return lines
