"""Figures of a density of pictures: bits beside what is known without it, how they came about, and how they spread."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from diffeo.pictures.findings import Anchor, Bits, Moment, PictureFindings, Spread
from diffeo.report.figures.axes import ticks
from diffeo.report.figures.sheet import DATA, INK, PALE, SAMPLES, Sheet, tidy

__all__ = ["comparison", "curve", "spread"]

_MINUTES = 180.0  # seconds, from which on time is in minutes
_HOURS = 3 * 3600.0


def comparison(model: Bits, anchors: Sequence[Anchor]) -> bytes:
    """Bits as dots, with bars of two standard errors; further left is better."""
    scores = [("this density", model), *((anchor.name, anchor.bits) for anchor in anchors)]
    sheet = Sheet(6.4, 0.62 + 0.3 * len(scores))
    with sheet as figure:
        axes = figure.subplots()
        for place, (_, bits) in enumerate(scores):
            if bits.mean is None:
                continue
            colour = SAMPLES if place == 0 else INK
            error = [2 * (bits.error or 0.0)]
            axes.errorbar([bits.mean], [place], xerr=[error], fmt="o", color=colour, ms=5, capsize=2.5, lw=1.4)
        axes.set_yticks(range(len(scores)), [tidy(name, 40) for name, _ in scores])
        axes.set_ylim(len(scores) - 0.5, -0.5)
        axes.set_xlabel("bits per dimension (bars: two standard errors); further left is better")
        axes.margins(x=0.08)
        axes.grid(axis="x", color=PALE, lw=0.6)
        ticks(axes.xaxis, most=8)
    return sheet.png


def curve(f: PictureFindings) -> bytes:
    """Bits of training and held-out pictures over the time, or the steps where no time is known, with anchors."""
    clocked = all(moment.seconds is not None for moment in f.history)
    unit, name = _clock(f.history) if clocked else (1.0, "steps")
    sheet = Sheet(6.4, 2.9)
    with sheet as figure:
        axes = figure.subplots()
        shown: list[float] = []
        for key, label, colour in (("train", "training pictures", DATA), ("valid", "held-out pictures", SAMPLES)):
            points = [
                ((moment.seconds or 0.0) / unit if clocked else moment.step, _bits(getattr(moment, key), f.dimensions))
                for moment in f.history
                if getattr(moment, key) is not None
            ]
            if points:
                dot = "o" if len(points) < 12 else None
                axes.plot(*zip(*points, strict=True), color=colour, lw=1.6, marker=dot, ms=3, label=label)
                shown += [bits for _, bits in points]
        known = sorted((a.bits.mean, a.name) for a in f.anchors if a.bits.mean is not None)[:3] if f.held_out else []
        for place, (level, anchor) in enumerate(known):
            axes.axhline(level, color=INK, lw=0.8, ls=(0, (4, 3)))
            right = (1 - 0.22 * place, level)  # one beside the other, as they may lie close
            axes.annotate(tidy(anchor, 24), right, xycoords=("axes fraction", "data"), ha="right", va="bottom")
        _frame(axes, shown, [level for level, _ in known])
        axes.set_xlabel(name)
        axes.set_ylabel("bits per dimension")
        ticks(axes.xaxis, most=8)
        ticks(axes.yaxis)
        axes.grid(axis="y", color=PALE, lw=0.6)
        if shown:
            axes.legend(loc="upper center", ncols=2)
    return sheet.png


def _bits(log_prob: float, dimensions: int) -> float:
    return -log_prob / (dimensions * math.log(2))


def _clock(history: Sequence[Moment]) -> tuple[float, str]:
    last = max((moment.seconds or 0.0 for moment in history), default=0.0)
    return (1.0, "seconds") if last < _MINUTES else (60.0, "minutes") if last < _HOURS else (3600.0, "hours")


def _frame(axes: object, values: Sequence[float], levels: Sequence[float]) -> None:
    """The axis of bits: all that is usual, the anchors, but not the first moments of training far above."""
    if not values:
        return
    high = max(float(np.quantile(values, 0.8)), *levels, min(values))
    low = min([*values, *levels])
    pad = 0.1 * (high - low) or 0.1
    axes.set_ylim(low - pad, high + 3 * pad)  # type: ignore[attr-defined]


def spread(found: Spread) -> bytes:
    """Bits of single pictures, held out and drawn, as shares of each."""
    edges = np.asarray(found.edges)
    sheet = Sheet(6.4, 2.2)
    with sheet as figure:
        axes = figure.subplots()
        pictures, samples = (np.asarray(c, float) for c in (found.pictures, found.samples))
        axes.stairs(100 * pictures / max(pictures.sum(), 1), edges, fill=True, color=DATA, label="pictures")
        shares = 100 * samples / max(samples.sum(), 1)
        axes.stairs(shares, edges, color=SAMPLES, lw=1.4, baseline=None, label="samples")
        axes.set(xlim=(edges[0], edges[-1]), xlabel="bits per dimension, by one draw", ylabel="% of pictures")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=PALE, lw=0.6)
        ticks(axes.xaxis, most=8)
        ticks(axes.yaxis, most=4)
        axes.legend(loc="upper right")
    return sheet.png
