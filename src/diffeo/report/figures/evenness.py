"""Numbers that should be spread evenly: their bins against the flat line, in the band of counting noise."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from diffeo.report.evidence import Uniformity
from diffeo.report.figures.sheet import DARK, DATA, INK, NOISE, PALE, Sheet
from diffeo.report.reading import bars

__all__ = ["evenness"]

_SURE = 0.99  # of the bins of a uniform lie within the band


def evenness(found: Uniformity, ends: tuple[str, str] = ("low", "high")) -> bytes:
    """Bars of 1 where a bin holds what it should; those outside the band of counting noise are darker."""
    counts = np.asarray(bars(found), float)
    bins, total = len(counts), max(counts.sum(), 1.0)
    low, high = binom.interval(_SURE, int(total), 1 / max(bins, 1))
    expected = total / max(bins, 1)
    edges = np.linspace(0, 1, bins + 1)
    sheet = Sheet(2.5, 1.25)
    with sheet as figure:
        axes = figure.subplots()
        axes.axhspan(low / expected, high / expected, color=NOISE, lw=0)
        outside = (counts < low) | (counts > high)
        colours = [DARK if out else DATA for out in outside]
        axes.bar(edges[:-1], counts / expected, 0.86 / max(bins, 1), align="edge", color=colours)
        axes.axhline(1, color=INK, lw=0.8)
        top = max(2.0, 1.08 * high / expected, 1.05 * float(counts.max(initial=0)) / expected)
        axes.set(xlim=(0, 1), ylim=(0, top))
        axes.set_xticks([0, 1], ends)
        first, last = axes.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
        axes.set_yticks([0, 1, 2] if top < 3.5 else [0, 1, int(top)])
        axes.tick_params(length=0)
        axes.grid(axis="y", color=PALE, lw=0.6)
    return sheet.png
