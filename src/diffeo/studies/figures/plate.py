"""The plate that a study's picture is drawn on: the sheet of the reports, closed into PNG and SVG."""

from __future__ import annotations

import io
from typing import NamedTuple

import matplotlib

from diffeo.report.figures.sheet import DARK, DATA, INK, PALE, SAMPLES, Sheet

__all__ = ["COLOURS", "DARK", "DATA", "INK", "PALE", "SAMPLES", "Drawing", "Plate"]

# told apart by every kind of colour vision, and in grey
COLOURS = (DARK, SAMPLES, "#2e8b6f", "#8a5fb0", "#c29a1e", "#5a6573")


class Drawing(NamedTuple):
    """One picture in two forms, each whole in itself."""

    png: bytes
    svg: bytes
    width: float  # inches

    @property
    def width_rem(self) -> float:
        """How wide a page shows it, in units of its letters."""
        return round(6.56 * self.width, 1)


class Plate(Sheet):
    """A figure of this house, closed into PNG bytes of few colours and SVG bytes that repeat."""

    svg = b""

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                matplotlib.rcParams["svg.hashsalt"] = "diffeo"
                file = io.BytesIO()
                self.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
                self.svg = file.getvalue()
        finally:
            super().__exit__(kind, *rest)

    @property
    def drawing(self) -> Drawing:
        """What was drawn."""
        return Drawing(self.png, self.svg, self.size[0])
