"""A column: its name, what kind of values it holds, and all that is needed to write them back as they came."""

from typing import Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from diffeo.data.dates import Dates
from diffeo.data.grid import Grid

Kind = Literal[
    "continuous",
    "positive",
    "unit",
    "bounded",
    "circular",
    "integer",
    "rounded",
    "ordered",
    "category",
    "boolean",
    "datetime",
]
KINDS: tuple[str, ...] = get_args(Kind)
DISCRETE = frozenset({"integer", "ordered", "category", "boolean"})
CODED = frozenset({"ordered", "category", "boolean"})
Level = bool | float | str


def printable(text: str, most: int = 80) -> str:
    """Text fit for one line of a terminal: control characters spelt out, and not too long.

    >>> printable("a\\nb")
    'a\\\\nb'
    """
    plain = "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)
    return plain if len(plain) <= most else plain[: most - 3] + "..."


def show_level(level: Level) -> str:
    """A level for a reader.

    >>> show_level(0.5), show_level(True), show_level("Fair")
    ('0.5', 'True', 'Fair')
    """
    return f"{level:g}" if isinstance(level, float) else printable(str(level), 40)


class Column(BaseModel):
    """One column of the model. Its encoded values are float64 and NaN where missing:

    ordered, category, boolean: the place 0..L-1 among `levels`; integer: the value itself, one of `levels`;
    datetime: seconds since the first moment; every other kind: the value in the file's units.

    `low`, `high`: the range seen, encoded; `bounds`: the support of unit and bounded; `period`: (low, length) of
    circular; `positive`: every value but the atoms, with its whole rounding cell, is above zero, so that a logarithm
    is allowed; `atoms`: values that hold a spike of mass; `missing`: how many nulls were seen; `type`: Arrow's name.

    >>> column = Column(name="cut", kind="ordered", type="string", levels=("Fair", "Good"))
    >>> column.discrete, column.describe()
    (True, 'cut: ordered, 2 levels: Fair < Good')
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Kind
    role: Literal["row", "given"] = "row"
    type: str
    levels: tuple[Level, ...] = ()
    grid: Grid | None = None
    low: float | None = None
    high: float | None = None
    bounds: tuple[float, float] | None = None
    period: tuple[float, float] | None = None
    positive: bool = False
    atoms: tuple[float, ...] = ()
    missing: int = 0
    dates: Dates | None = None

    @property
    def discrete(self) -> bool:
        """Whether the column has exact masses, not a density."""
        return self.kind in DISCRETE

    @model_validator(mode="after")
    def _whole(self) -> "Column":
        """What a kind cannot be without is there, and what is there is in order."""
        lacks = {
            "levels": self.kind in DISCRETE and not self.levels,
            "grid": self.kind in ("integer", "rounded") and self.grid is None,
            "bounds": self.kind in ("unit", "bounded") and self.bounds is None,
            "period": self.kind == "circular" and self.period is None,
        }
        for part, missing in lacks.items():
            if missing:
                raise ValueError(f"{self.kind} needs {part}")
        numbers = [*self.atoms, *(self.bounds or ()), *(self.period or ())]
        if not np.isfinite(np.array(numbers, float)).all():
            raise ValueError("bounds, period and atoms are finite numbers")
        if (self.bounds and not self.bounds[0] < self.bounds[1]) or (self.period and not self.period[1] > 0):
            raise ValueError("bounds rise, and a period is longer than 0")
        return self

    @property
    def coded(self) -> bool:
        """Whether encoded values are places among the levels rather than values."""
        return self.kind in CODED

    @property
    def turn(self) -> tuple[float, float]:
        """(low, length) of the period of a circular column."""
        assert self.period is not None
        return self.period

    def codes(self, x: np.ndarray) -> np.ndarray:
        """Places among the levels, int64 [n], of encoded x [n] of a discrete column; -1 where outside or missing."""
        if self.coded:
            place = np.rint(np.where(np.isnan(x), -1.0, x))
        else:
            place = np.where(np.isnan(x), -1.0, self.steps(np.where(np.isnan(x), 0.0, x)))
        return np.where((place >= 0) & (place < len(self.levels)), place, -1).astype(np.int64)

    def values(self, codes: np.ndarray) -> np.ndarray:
        """Encoded values, float64 [n], of places among the levels; NaN for -1. The inverse of `codes`."""
        safe = np.clip(codes, 0, len(self.levels) - 1)
        table = np.arange(len(self.levels)) if self.coded else np.array(self.levels, float)
        return np.where(codes < 0, np.nan, table.astype(float)[safe])

    def steps(self, x: np.ndarray) -> np.ndarray:
        """How many steps of the grid each value x [n] of an integer lies above the lowest level: whole, float64 [n]."""
        assert self.grid is not None
        first, direction = self._line()
        return (self.grid.index(x) - first) * direction

    def stepped(self, steps: np.ndarray) -> np.ndarray:
        """The values, float64 [n], so many steps above the lowest level. The inverse of `steps`."""
        assert self.grid is not None
        first, direction = self._line()
        return self.grid.value(first + direction * steps)

    def _line(self) -> tuple[float, int]:
        """The grid's index of the lowest level, and 1 where it rises with the values, -1 under a warp that falls."""
        assert self.grid is not None
        first, last = self.grid.index(np.array([float(self.levels[0]), float(self.levels[-1])]))
        return float(first), 1 if first <= last else -1

    def describe(self) -> str:
        """One line for a reader: `price: rounded to 1, positive, 326 to 18823`."""
        parts = [self._first_words()]
        if self.positive and self.kind not in ("positive", "unit", "integer"):
            parts.append("positive")
        if self.low is not None and self.high is not None and self.dates is None:
            parts.append(f"{self.low:g} to {self.high:g}")
        if self.atoms:
            parts.append("spikes at " + ", ".join(f"{atom:g}" for atom in self.atoms))
        if self.missing:
            parts.append(f"{self.missing} missing")
        if self.role == "given":
            parts.append("given")
        return f"{printable(self.name)}: " + ", ".join(parts)

    def _first_words(self) -> str:
        if self.kind == "rounded":
            return f"rounded to {self.grid}"
        if self.kind == "bounded" and self.bounds:
            return f"bounded by {self.bounds[0]:g} and {self.bounds[1]:g}"
        if self.kind == "circular" and self.period:
            return f"circular with period {self.period[1]:g}"
        if self.kind == "datetime" and self.dates and self.high is not None:
            start, end = self.dates.show(self.low or 0.0), self.dates.show(self.high)
            every = f" every {self.grid.step:g} s" if self.grid else ""
            return f"datetime{every}, {start} to {end}"
        if not self.levels:
            return self.kind
        shown = [show_level(level) for level in self.levels]
        if self.kind == "integer":
            step = "" if self.grid is None or str(self.grid) == "1" else f" in steps of {self.grid}"
            return f"integer{step}, {len(shown)} levels"
        sign = " < " if self.kind == "ordered" else ", "
        short = [*shown[:3], "...", shown[-1]] if len(shown) > 6 else shown
        return f"{self.kind}, {len(shown)} levels: {sign.join(short)}"
