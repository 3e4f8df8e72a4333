"""Readings: a deviation is called a fault only where it is certain and large.

Certain: beyond what chance does once in a thousand, all columns together (Holm 1979), or three standard errors of a
share. Large: limits on the Kolmogorov-Smirnov distance from uniform, and on the deviation of the same numbers turned
into a normal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

from diffeo.report.evidence import Uniformity

__all__ = [
    "CHANCE",
    "CLEAR",
    "KINDS",
    "LARGE",
    "LARGE_WHOLE",
    "WEAK",
    "Reading",
    "bars",
    "detectable",
    "holm",
    "kinds_of",
    "read",
    "read_whole",
]

CHANCE = 1e-3
CLEAR = 3.0  # standard errors of a share; by chance once in 370 times
LARGE = 0.04  # distance of a column: four rows in a hundred out of place, a shift by a tenth of the spread
LARGE_WHOLE = 0.06  # distance of rows as a whole
LARGE_SPREAD = 0.15  # of a deviation from 1: intervals too short by an eighth
_FULL = 10  # rows that a bar of a picture should hold
WEAK = 0.15  # rows too few to see a distance below this show nothing, rather than that all is fine

_PART = 0.3  # of the distance, that a shift or a stretch must explain to be named

KINDS = {
    "apart": "too narrow",
    "close": "too wide",
    "up": "shifted up",
    "down": "shifted down",
    "shape": "wrong in shape",
}


class Reading(NamedTuple):
    """What one set of numbers says: its kinds of deviation, and whether that is certain, and large."""

    kinds: tuple[str, ...]
    certain: bool
    large: bool

    @property
    def fault(self) -> bool:
        """Certain and large."""
        return self.certain and self.large

    def word(self, weak: bool, kinds: dict[str, str] = KINDS) -> str:
        """`fine`, `too narrow`, `slightly shifted up`; `nothing seen` where the rows are too few to say more."""
        if not self.certain:
            return "nothing seen" if weak else "fine"
        said = " and ".join(kinds[kind] for kind in self.kinds)
        return said if self.large else f"slightly {said}"


def bars(u: Uniformity) -> tuple[int, ...]:
    """The counts, joined two by two while a bin should hold fewer than ten: ten at least, where there are enough rows.

    >>> bars(Uniformity(name="", counts=(5,) * 20, mean=0, deviation=1, distance=0, p_value=1))
    (10, 10, 10, 10, 10, 10, 10, 10, 10, 10)
    """
    counts = u.counts
    while len(counts) >= 8 and len(counts) % 2 == 0 and sum(counts) < _FULL * len(counts):
        counts = tuple(a + b for a, b in zip(counts[::2], counts[1::2], strict=True))
    return counts


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979).

    >>> holm([0.01, 0.5, 0.02]), holm([0.3, 0.3])
    ([0.03, 0.5, 0.04], [0.6, 0.6])
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for place, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - place) * p[i]))
        adjusted[i] = largest
    return adjusted


def detectable(rows: int, tests: int = 1) -> float:
    """The distance that chance alone exceeds once in a thousand times, over all tests together (Massart 1990).

    >>> round(detectable(1000), 4), round(detectable(1000, 20), 4)
    (0.0616, 0.0728)
    """
    return math.sqrt(math.log(2 * max(tests, 1) / CHANCE) / (2 * max(rows, 1)))


def kinds_of(u: Uniformity) -> tuple[str, ...]:
    """How numbers deviate from uniform; a normal moved by m is .4 m away, one stretched by s is .24 (s - 1) away.

    >>> def of(mean, deviation):
    ...     return kinds_of(Uniformity(name="", counts=(1,), mean=mean, deviation=deviation, distance=0.1, p_value=0))
    >>> of(0, 1.4), of(-0.25, 1.0), of(0.2, 0.7), of(0.0, 1.0)
    (('apart',), ('down',), ('close', 'up'), ('shape',))
    """
    moved, stretched = 0.4 * u.mean, 0.24 * (u.deviation - 1)
    found = []
    if abs(stretched) > _PART * u.distance:
        found.append("apart" if stretched > 0 else "close")
    if abs(moved) > _PART * u.distance:
        found.append("up" if moved > 0 else "down")
    return tuple(found) or ("shape",)


def read(found: Sequence[Uniformity]) -> list[Reading]:
    """A reading of each column: off by its distance, or by its deviation, which sees the tails (Bonferroni)."""
    adjusted = holm([u.p_value for u in found])
    errors = NormalDist().inv_cdf(1 - CHANCE / (2 * max(len(found), 1)))
    return [_column(u, p, errors) for u, p in zip(found, adjusted, strict=True)]


def _column(u: Uniformity, p: float, errors: float) -> Reading:
    """`errors`: standard errors that are certain; that of a normal's deviation is 1 / sqrt(2n)."""
    certain, large = p < CHANCE, u.distance > LARGE
    stretched = u.deviation - 1
    clear = abs(stretched) > errors / math.sqrt(2 * max(sum(u.counts), 1))
    if clear and abs(stretched) >= LARGE_SPREAD and not (certain and large):
        return Reading(("apart" if stretched > 0 else "close",), True, True)
    return Reading(kinds_of(u), certain, large)


def read_whole(u: Uniformity) -> Reading:
    """A reading of rows as a whole."""
    return Reading(kinds_of(u), u.p_value < CHANCE, u.distance > LARGE_WHOLE)
