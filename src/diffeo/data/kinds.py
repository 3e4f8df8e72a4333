"""What a user asks of a column's kind: `positive`, `bounded:0:10`, `ordered:Fair<Good<Ideal`, for names or patterns."""

import difflib
import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

from diffeo.data.column import KINDS, Kind
from diffeo.errors import DataError

_NUMBERS = {"bounded": (2,), "circular": (0, 1, 2), "rounded": (0, 1)}
_FORMS = {"bounded": "bounded:0:10", "circular": "circular:360 or circular:-180:180", "rounded": "rounded:0.01"}


class Wish(NamedTuple):
    """A kind that the user asked for; `named` says that the column was named itself, not by a pattern."""

    kind: Kind
    numbers: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()
    named: bool = True


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word, or nothing.

    >>> did_you_mean("prise", ["price", "cut"])
    "; did you mean 'price'?"
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def parse_kind(name: str, text: str, named: bool = True) -> Wish:
    """The wish that `--kind name=text` states.

    >>> parse_kind("angle", "circular:-180:180").numbers
    (-180.0, 180.0)
    >>> parse_kind("price", "positiv")
    Traceback (most recent call last):
    ...
    diffeo.errors.DataError: column 'price': 'positiv' is no kind; did you mean 'positive'? (known: continuous, ...
    """
    word, _, rest = text.partition(":")
    if word not in KINDS:
        raise DataError(f"column {name!r}: {word!r} is no kind{did_you_mean(word, KINDS)} (known: {', '.join(KINDS)})")
    kind = cast(Kind, word)
    if kind == "ordered":
        levels = tuple(level.strip() for level in rest.split("<")) if rest else ()
        if rest and (len(levels) < 2 or len(set(levels)) < len(levels)):
            raise DataError(
                f"column {name!r}: {text!r} needs two or more different levels, as in ordered:Fair<Good<Ideal"
            )
        return Wish(kind, levels=levels, named=named)
    return Wish(kind, _numbers(name, kind, rest, text), named=named)


def _numbers(name: str, kind: str, rest: str, text: str) -> tuple[float, ...]:
    parts = rest.split(":") if rest else []
    allowed = _NUMBERS.get(kind, (0,))
    if len(parts) not in allowed:
        form = _FORMS.get(kind, kind)
        raise DataError(f"column {name!r}: {text!r} is not how to ask for {kind}; write {form}")
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        raise DataError(f"column {name!r}: {text!r} has a part that is no number; write {_FORMS[kind]}") from None
    ordered = len(numbers) < 2 or numbers[0] < numbers[1]
    positive = len(numbers) != 1 or numbers[0] > 0
    if not (ordered and positive and all(math.isfinite(number) for number in numbers)):
        raise DataError(f"column {name!r}: the numbers in {text!r} must be finite and rising; write {_FORMS[kind]}")
    return numbers


def wishes(kinds: Mapping[str, str], names: Sequence[str]) -> dict[str, Wish]:
    """The wish for each column that has one; its own name goes before patterns, a later pattern before an earlier.

    >>> {name: wish.kind for name, wish in wishes({"*": "continuous", "b": "integer"}, ["a", "b"]).items()}
    {'a': 'continuous', 'b': 'integer'}
    """
    found: dict[str, Wish] = {}
    for pattern, text in kinds.items():
        matched = [name for name in names if fnmatch.fnmatchcase(name, pattern)] if pattern not in names else []
        if pattern not in names and not matched:
            raise DataError(f"--kind {pattern}={text}: there is no column {pattern!r}{did_you_mean(pattern, names)}")
        found.update({name: parse_kind(name, text, named=False) for name in matched})
    found.update({name: parse_kind(name, text) for name, text in kinds.items() if name in names})
    return found
