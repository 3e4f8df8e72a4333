"""What a study is asked, and what it gives: numbers, pictures, tables and words in the order in which they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from diffeo.config import Config
from diffeo.studies.course import Course
from diffeo.studies.figures import Drawing

__all__ = ["QUICK", "Findings", "Options", "Outcome", "Picture", "Section", "Study", "Table"]

QUICK = 0.02  # the effort of --quick: each study ends within a minute
POINTS_AT_LEAST = 500


class Options(Config):
    """What a person may choose about a study."""

    seed: int | None = Field(
        None, ge=0, lt=2**31, description="of starts, batches and draws; by default the one that the study was set with"
    )
    effort: float = Field(1.0, gt=0, le=1, description="share of the full epochs and test points; tests take less")

    @property
    def quick(self) -> bool:
        """Whether this is less than the study asks for."""
        return self.effort < 1

    def epochs(self, full: int) -> int:
        """
        >>> Options().epochs(1000), Options(effort=0.04).epochs(1000), Options(effort=0.0001).epochs(1000)
        (1000, 40, 2)
        """
        return max(2, round(full * self.effort))

    def points(self, full: int) -> int:
        """How many test points, or draws, where the full study takes so many: fewer by the root of the effort.

        >>> Options().points(20_000), Options(effort=0.04).points(20_000)
        (20000, 4000)
        """
        return min(full, max(POINTS_AT_LEAST, round(full * self.effort**0.5)))

    def pixels(self, full: int) -> int:
        """How many cells a side of a density's image has; fewer only in tests.

        >>> Options(effort=QUICK).pixels(200), Options(effort=0.0002).pixels(200)
        (200, 25)
        """
        return min(full, max(25, round(full * (self.effort / QUICK) ** 0.5)))

    def seed_or(self, founding: int) -> int:
        """The seed asked for, or the one that the study was set with."""
        return founding if self.seed is None else self.seed


class Findings(Config):
    """What `findings.json` holds: how the study was run, and its numbers; null where there is no number."""

    schema_version: int = Field(1, alias="schema")
    study: str
    quick: bool = Field(description="a run of fewer epochs and points: its numbers are not those of the study")
    effort: float
    seed: int
    version: str
    torch: str
    seconds: float
    figures: tuple[str, ...]
    results: dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """A drawing, the name of its files, and what is to be seen in it."""

    name: str
    title: str
    words: str
    drawing: Drawing


@dataclass(frozen=True)
class Table:
    """Rows under a heading; the first column names, the others are numbers as text."""

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, and what stands under it: words, pictures and tables."""

    title: str
    parts: tuple[str | Picture | Table, ...]


@dataclass(frozen=True)
class Outcome:
    """All that a study gives."""

    title: str
    lead: str
    sections: Sequence[Section]
    results: Mapping[str, Any]
    seed: int
    answer: str = ""
    pictures: tuple[Picture, ...] = field(init=False)

    def __post_init__(self) -> None:
        found = [part for section in self.sections for part in section.parts if isinstance(part, Picture)]
        object.__setattr__(self, "pictures", tuple(found))


Study = Callable[[Options, Course], Outcome]
