"""The sheet that every picture is drawn on: its style, its letters, and PNG bytes of few colours.

Nothing global stays changed, names are never parsed as mathematics, and no name can make a picture fail.
"""

from __future__ import annotations

import base64
import functools
import io
import unicodedata
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from diffeo.report.words import shorten

__all__ = ["DARK", "DATA", "INK", "NOISE", "PALE", "SAMPLES", "Sheet", "data_uri", "short", "tidy"]

DATA, SAMPLES = "#7fa8cc", "#c2500a"  # blue and vermilion: told apart by every kind of colour vision, and in grey
DARK = "#1f4e84"  # the data's blue, where it asks for a look
INK, PALE, NOISE = "#3d4550", "#dde2e8", "#e6e9ed"
_DPI = 150
_STYLE: dict[Any, Any] = {
    "text.usetex": False,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.family": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.facecolor": "white",
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "legend.frameon": False,
    "path.sketch": None,
    "figure.facecolor": "white",
    "savefig.facecolor": "auto",
    "savefig.dpi": "figure",
    "savefig.bbox": None,
    "savefig.transparent": False,
    "figure.constrained_layout.use": False,
}


@functools.cache
def _drawable() -> frozenset[int]:
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())


def tidy(text: str, most: int = 80) -> str:
    """A name as a picture can show it: one line, no control characters, a box for what the font lacks, not too long.

    >>> tidy("price_$_and\\ncost"), tidy("a" * 100, 5), tidy("日 ok")
    ('price_$_and□cost', 'aa…aa', '□ ok')
    """
    shown = shorten(text, most)
    return "".join("□" if _hidden(letter) or ord(letter) not in _drawable() else letter for letter in shown)


def _hidden(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def short(v: float) -> str:
    """A number for an axis: 1200000 is 1.2M.

    >>> [short(v) for v in (1_200_000, 18_000, 2500, 0.25, -1e-7, 3e20)]
    ['1.2M', '18k', '2500', '0.25', '−1e-07', '3e+20']
    """
    size = abs(v)
    if 1e4 <= size < 1e15:
        for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if size >= unit:
                return f"{v / unit:.4g}{letter}".replace("-", "−", 1)
    text = f"{v:.5g}"
    return "−" + text[1:] if text.startswith("-") else text


def data_uri(png: bytes) -> str:
    """The picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


class Sheet:
    """A figure of this house: opened with its style, closed into PNG bytes of few colours."""

    def __init__(self, width: float, height: float) -> None:
        self.size = width, height

    def __enter__(self) -> Figure:
        self._style = matplotlib.rc_context(_STYLE)
        self._style.__enter__()
        self.figure = Figure(figsize=self.size, dpi=_DPI, layout="constrained")
        return self.figure

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                file = io.BytesIO()
                self.figure.savefig(file, format="png")
                self.png = _few_colours(file)
        finally:
            self._style.__exit__(None, None, None)


def _few_colours(file: io.BytesIO) -> bytes:
    small = io.BytesIO()
    with Image.open(file) as picture:
        picture.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()
