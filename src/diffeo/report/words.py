"""Numbers and names -> the words of a page: shortened, made harmless, with a true minus."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = [
    "count",
    "counted",
    "duration",
    "error",
    "listed",
    "nats",
    "p_value",
    "percent",
    "plain",
    "plural",
    "sentence",
    "signed",
]

_TURNING = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def plain(text: object, most: int = 80) -> str:
    """Text for a page: shortened, with control characters and those that turn the reading direction made visible.

    >>> plain("a\\x00b\\u202ec"), plain("x" * 100, 4)
    ('a�b�c', 'xxx…')
    """
    shown = str(text)
    shown = shown if len(shown) <= most else shown[: most - 1] + "…"
    return "".join("�" if _unsafe(letter) else letter for letter in shown)


def shorten(text: str, most: int) -> str:
    """A long name cut in its middle, since those of a table often begin alike.

    >>> shorten("temperature at station 18", 14), shorten("price", 14)
    ('tempera…ion 18', 'price')
    """
    if len(text) <= most:
        return text
    last = (most - 1) // 2
    return text[: most - 1 - last] + "…" + text[len(text) - last :]


def named(name: str, most: int = 48) -> str:
    """A name for a page, cut in its middle."""
    return plain(shorten(name, most), most)


def _unsafe(letter: str) -> bool:
    kind = unicodedata.category(letter)
    return kind in ("Cc", "Cs", "Cn", "Zl", "Zp") or letter in _TURNING


def count(n: int) -> str:
    """
    >>> count(48546)
    '48,546'
    """
    return f"{n:,}"


def plural(n: int, noun: str) -> str:
    """
    >>> plural(1, "row"), plural(3, "row")
    ('row', 'rows')
    """
    return noun if n == 1 else f"{noun}s"


def counted(n: int, noun: str) -> str:
    """
    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{n:,} {plural(n, noun)}"


def signed(value: float, digits: int = 2) -> str:
    """A number with a true minus, never a negative nought.

    >>> signed(-0.114), signed(-0.001), signed(12345.0)
    ('−0.11', '0.00', '12,345.00')
    """
    if abs(value) >= 1e9:
        return f"{value:.4g}".replace("-", "−")
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−")


def sentence(text: str) -> str:
    """
    >>> sentence("its regions hold what they should"), sentence("Fine.")
    ('Its regions hold what they should.', 'Fine.')
    """
    said = text[:1].upper() + text[1:]
    return said if said.endswith((".", "!", "?", "…")) else f"{said}."


def nats(value: float | None) -> str:
    """
    >>> nats(-3.14159), nats(None)
    ('−3.142', '—')
    """
    return "—" if value is None else signed(value, 3)


def error(value: float | None) -> str:
    """
    >>> error(0.01234), error(0.000012), error(None)
    ('0.012', '1.2e−05', '—')
    """
    if value is None:
        return "—"
    return signed(value, 3) if value >= 0.001 or value == 0 else f"{value:.1e}".replace("-", "−")


def percent(share: float, digits: int = 1) -> str:
    """
    >>> percent(0.0314), percent(0.5, 0)
    ('3.1%', '50%')
    """
    return f"{100 * share:.{digits}f}%"


def p_value(value: float) -> str:
    """
    >>> p_value(0.0371), p_value(0.4), p_value(1e-9)
    ('0.037', '0.40', '< 0.001')
    """
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def listed(names: Sequence[str], most: int = 8, length: int = 40) -> str:
    """Names in a row, the first few of many.

    >>> listed("abc"), listed("abc", most=2)
    ('a, b and c', 'a, b and 1 more')
    """
    shown = [named(name, length) for name in names[:most]]
    if len(names) > most:
        return ", ".join(shown) + f" and {len(names) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def duration(seconds: float) -> str:
    """
    >>> duration(118.2), duration(7300)
    ('1 min 58 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
