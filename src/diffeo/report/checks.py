"""The checks of a density on held-out rows, in plain words: what each is, and what this model shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from diffeo.report.evidence import Coverage, Evidence, TwoSample, Uniformity
from diffeo.report.reading import CLEAR, KINDS, LARGE, LARGE_WHOLE, WEAK, Reading, bars, detectable, read, read_whole
from diffeo.report.words import counted, listed, p_value, percent, plural, signed

__all__ = ["Line", "Passage", "passages"]

_LARGE_COVERAGE = 0.02
_LARGE_ACCURACY = 0.6
_SMALL = 0.05  # p-value; this share of them is smaller by chance alone
_NAMED = 4
_MANY = 10  # columns, of which chance gives some a small p-value
_KINDS_FAR = KINDS | {"apart": "uneven", "close": "too even", "up": "too narrow", "down": "too wide"}


class Line(NamedTuple):
    """A line of a table: its cells, and the word for it."""

    name: str
    cells: tuple[str, ...]
    word: str
    fault: bool


class Passage(NamedTuple):
    """One check: a title with its word, what it is, what this model shows, and what is drawn and tabulated."""

    title: str
    word: str
    fault: bool
    what: str
    said: str
    drawn: tuple[
        tuple[Uniformity, str, bool], ...
    ] = ()  # the worst first, each with its word if any, and whether a fault
    ends: tuple[str, str] = ("low", "high")
    lines: tuple[Line, ...] = ()
    note: str = ""  # on the lines
    regions: tuple[Line, ...] = ()


def passages(e: Evidence) -> list[Passage]:
    """Every check that there is evidence for, in the order of the page."""
    found = [
        _latents(e) if e.latents else None,
        _length(e.length) if e.length else None,
        _ranks(e) if e.ranks else None,
        _regions(e) if e.regions or e.levels else None,
        _two_sample(e.two_sample) if e.two_sample else None,
    ]
    return [passage for passage in found if passage is not None]


def _rows(u: Uniformity) -> int:
    return sum(u.counts)


def _line(u: Uniformity, reading: Reading, weak: bool) -> Line:
    cells = (signed(u.mean), signed(u.deviation), f"{u.distance:.3f}", p_value(u.p_value))
    return Line(u.name, cells, reading.word(weak), reading.fault)


def _of_columns(title: str, what: str, found: Sequence[Uniformity], drawn: int) -> Passage:
    readings, n, rows = read(found), len(found), max(map(_rows, found))
    weak = detectable(rows, n) > WEAK
    faults = [u for u, reading in zip(found, readings, strict=True) if reading.fault]
    off = f"{len(faults)} of {n} off" if n > 1 else readings[0].word(weak)
    worst = sorted(zip(found, readings, strict=True), key=lambda pair: -pair[0].distance)
    return Passage(
        title,
        off if faults else "nothing seen" if weak else "fine",
        bool(faults),
        what,
        " ".join(_said_of_columns(worst, rows, weak)),
        drawn=tuple((u, reading.word(weak) if reading.certain else "", reading.fault) for u, reading in worst[:drawn]),
        note=_by_chance(n),
        lines=tuple(_line(u, reading, weak) for u, reading in zip(found, readings, strict=True)),
    )


def _said_of_columns(worst: list[tuple[Uniformity, Reading]], rows: int, weak: bool) -> list[str]:
    """Sentences on columns, of which the worst comes first."""
    n = len(worst)
    faults = [(u, r) for u, r in worst if r.fault]
    small = [u.name for u, r in worst if r.certain and not r.large]
    if faults:
        said = [f"{_groups(faults, weak)}.", _in_numbers(*faults[0])]
    else:
        name = f", in {listed([worst[0][0].name])}" if n > 1 else ""
        said = [
            f"{'No fault to be seen' if weak else 'Fine'}: the largest distance is {worst[0][0].distance:.3f}{name}."
        ]
    if small:
        said.append(f"Certain but too small to matter: {listed(small, _NAMED)}.")
    return [*said, *_power(rows, n)]


def _by_chance(n: int) -> str:
    if n < _MANY:
        return ""
    few = round(n * _SMALL) or 1
    return (
        f"Among {n} columns about {few} {plural(few, 'p-value')} below {_SMALL} would come by chance alone. The "
        "findings allow for the number of columns; the p-values do not."
    )


def _groups(faults: list[tuple[Uniformity, Reading]], weak: bool) -> str:
    """`Too narrow: a, b and 3 more; shifted up: c`."""
    groups: dict[str, list[str]] = {}
    for u, reading in faults:
        groups.setdefault(reading.word(weak), []).append(u.name)
    said = "; ".join(f"{word}: {listed(names, _NAMED)}" for word, names in groups.items())
    return said[:1].upper() + said[1:]


def _in_numbers(u: Uniformity, reading: Reading) -> str:
    found = bars(u)
    total, name = max(sum(found), 1), listed([u.name])
    if reading.kinds[0] in ("apart", "close") and len(found) > 2:
        share = (found[0] + found[-1]) / total
        due = percent(2 / len(found), 0)
        return f"In {name} the two outermost bars hold {percent(share)} of the rows instead of {due}."
    if reading.kinds[0] in ("up", "down") and len(found) % 2 == 0:
        upper = sum(found[len(found) // 2 :]) / total
        return f"In {name} the upper half holds {percent(upper)} of the rows instead of 50%."
    return f"In {name} the distance is {u.distance:.3f}."


def _power(rows: int, tests: int, large: float = LARGE) -> list[str]:
    least = detectable(rows, tests)
    if least <= 2 * large:
        return []
    return [f"With {counted(rows, 'row')} only a distance above {least:.2f} can be told from chance."]


def _latents(e: Evidence) -> Passage:
    return _of_columns(
        "Every column, given those before it",
        "The model builds a row column by column. Each value is given its place in what the model expects of "
        "it after the columns before: 0 is the lowest, 1 the highest. Where the model is right the places are spread "
        "evenly, and turned into a normal their mean is 0 and their deviation 1.",
        e.latents,
        drawn=12,
    )


def _ranks(e: Evidence) -> Passage:
    return _of_columns(
        "Every column alone",
        "The place of each value among samples of the model, one column at a time, whatever the other columns "
        "are. Where the model has the column right the places are spread evenly.",
        e.ranks,
        drawn=4,
    )


_FAR = {
    "up": "Too narrow: more rows than should lie far from the centre.",
    "down": "Too wide: fewer rows than should lie far from the centre.",
    "apart": "Uneven: too many rows lie near the centre and too many far from it.",
    "close": "Too even: too few rows lie near the centre and too few far from it.",
    "shape": "Wrong in shape: some distances are more frequent than they should be.",
}


def _length(u: Uniformity) -> Passage:
    rows = _rows(u)
    reading, weak = read_whole(u), detectable(rows) > WEAK
    word = reading.word(weak, _KINDS_FAR)
    return Passage(
        "The row as a whole",
        word,
        reading.fault,
        "The model carries every row back to noise, a point about a centre, and knows how far from it points should "
        "lie. Rows are sorted here from nearest to farthest; a good model shows an even spread. Rows that are "
        "odd only as a whole are seen here, and not in single columns.",
        " ".join([_single(u, reading, weak, _FAR), *_power(rows, 1, LARGE_WHOLE)]),
        drawn=((u, word, reading.fault),),
        ends=("near", "far"),
    )


def _single(u: Uniformity, reading: Reading, weak: bool, sentences: dict[str, str]) -> str:
    if not reading.certain:
        return f"{'No fault to be seen' if weak else 'Fine'}: the distance is {u.distance:.3f}."
    said = sentences[reading.kinds[-1]]
    if reading.large:
        return f"{said} The distance is {u.distance:.3f}."
    return f"{said} This is certain but too small to matter: the distance is {u.distance:.3f}."


_RARE = {
    "up": "Too narrow: more rows than should lie where the model puts little density.",
    "down": "Too wide: fewer rows than should lie where the model puts little density.",
    "apart": "Uneven: too many rows lie in the densest places and too many in the rarest.",
    "close": "Too even: too few rows lie in the densest places and too few in the rarest.",
    "shape": "Wrong in shape: some levels of density are more frequent than they should be.",
}


def _regions(e: Evidence) -> Passage:
    rows = _rows(e.levels) if e.levels else e.rows
    lines, weak = tuple(_region(region, rows) for region in e.regions), detectable(rows) > WEAK
    off = [region for region, line in zip(e.regions, lines, strict=True) if line.fault]
    word, fault, said = "fine", bool(off), "Fine: every region holds about what it should."
    if e.levels:
        reading = read_whole(e.levels)
        word, fault = reading.word(weak, _KINDS_FAR), fault or reading.fault
        said = _single(e.levels, reading, weak, _RARE) if reading.certain or weak else said
    if off:
        ways = {region.found < region.nominal for region in off}
        word = "uneven" if len(ways) > 1 else "too narrow" if True in ways else "too wide"
        held = (f"its {_share(region.nominal)} region holds {percent(region.found)}" for region in off)
        said = f"{word.capitalize()}: {', '.join(held)} of the rows."
    return Passage(
        "The regions of highest density",
        word,
        fault,
        "The 90% region is the smallest set of possible rows that holds 90% of the model's density, so nine of ten "
        "rows should lie in it. Where fewer do, the model is too sure of itself; where more do, it spreads its density "
        "too far.",
        " ".join([said, *_power(rows, 1, LARGE_WHOLE)]),
        drawn=((e.levels, word, fault),) if e.levels else (),
        ends=("densest", "rarest"),
        regions=lines,
    )


def _share(nominal: float) -> str:
    return f"{100 * nominal:.4g}%"


def _region(region: Coverage, rows: int) -> Line:
    error = max(region.standard_error, math.sqrt(region.nominal * (1 - region.nominal) / max(rows, 1)))
    away = region.found - region.nominal
    fault = abs(away) > CLEAR * error and abs(away) >= _LARGE_COVERAGE
    word = "fine" if not fault else "too few rows" if away < 0 else "too many rows"
    return Line(_share(region.nominal), (percent(region.found), percent(region.standard_error)), word, fault)


def _two_sample(t: TwoSample) -> Passage:
    away, right = t.accuracy - 0.5, f"{percent(t.accuracy)} ± {percent(t.standard_error)}"
    certain, fault = away > CLEAR * t.standard_error, False
    if not certain and CLEAR * t.standard_error > _LARGE_ACCURACY - 0.5:
        word, said = "nothing seen", "With so few rows it could not tell even what matters"
    elif not certain:
        word, said = "no", "Fine: it cannot tell"
    elif t.accuracy < _LARGE_ACCURACY:
        word, said = "hardly", "It can tell, but hardly"
    else:
        word, said, fault = "yes", "Samples differ from the data in something that it has found", True
    return Passage(
        "Can samples be told from data?",
        word,
        fault,
        f"A classifier ({listed([t.classifier])}) learned to tell rows of the data from samples of the model, and was "
        "tried on rows that it had not learned from. If it cannot tell, it is right half of the time: 50%.",
        f"{said}. It was right about {right} of {counted(t.n, 'row')}.",
    )
