"""The plate that a study's picture is drawn on: the sheet of the reports, closed into PNG and SVG."""

from __future__ import annotations

import io
from typing import NamedTuple

import matplotlib
from PIL import Image

from diffeo.report.figures.sheet import DARK, DATA, INK, PALE, SAMPLES, Sheet

__all__ = ["COLOURS", "DARK", "DATA", "INK", "PALE", "SAMPLES", "Drawing", "Plate"]

# told apart by every kind of colour vision, and in grey
COLOURS = (DARK, SAMPLES, "#2e8b6f", "#8a5fb0", "#c29a1e", "#5a6573")
SHADES = 224  # in a PNG: a density of fewer shows steps where there are none


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
    """A figure of this house, closed into PNG bytes of not too many colours and SVG bytes that repeat."""

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                matplotlib.rcParams["svg.hashsalt"] = "diffeo"
                vector, raster, small = io.BytesIO(), io.BytesIO(), io.BytesIO()
                self.figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
                self.figure.set_layout_engine("none")  # all has its place now
                self.figure.savefig(raster, format="png")
                with Image.open(raster) as picture:
                    picture.convert("RGB").quantize(SHADES, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
                self.drawing = Drawing(small.getvalue(), vector.getvalue(), self.size[0])
        finally:
            self._style.__exit__(None, None, None)
