"""One column: the data, and samples beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from diffeo.report.figures.axes import log_bins, share_axis, ticks
from diffeo.report.figures.sheet import DATA, PALE, SAMPLES, Sheet, short, tidy
from diffeo.report.findings import Bars, Histogram

__all__ = ["marginal"]


def marginal(found: Histogram | Bars) -> bytes:
    """One column: the data filled, the samples (if any) as a line or as bars beside, both as shares of their rows."""
    sheet = Sheet(3.6, 2.0 if isinstance(found, Histogram) else _height_of(found))
    with sheet as figure:
        axes = figure.subplots()
        if isinstance(found, Histogram):
            _draw_histogram(axes, found)
        elif _upright(found):
            _draw_upright(axes, found)
        else:
            _draw_bars(axes, found)
    return sheet.png


def _shares(counts: Sequence[int], beyond: int) -> np.ndarray:
    return np.asarray(counts, float) / max(sum(counts) + beyond, 1)


def _draw_histogram(axes: Axes, found: Histogram) -> None:
    edges = np.asarray(found.edges)
    data = _shares(found.counts, found.under + found.over)
    axes.stairs(100 * data, edges, fill=True, color=DATA, lw=0)
    if found.sample_counts is not None:
        samples = _shares(found.sample_counts, found.sample_under + found.sample_over)
        axes.stairs(100 * samples, edges, color=SAMPLES, lw=1.3, baseline=None)
    if log_bins(edges):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: short(v)))
    else:
        ticks(axes.xaxis, found.dates)
    axes.set_xlim(edges[0], edges[-1])
    share_axis(axes, data)


def _upright(found: Bars) -> bool:
    """Whether the levels are short words in order, read from left to right."""
    return found.kind in ("integer", "ordered") and all(len(level) <= 6 for level in found.levels)


def _rows_of(found: Bars, levels: int = 12) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """(labels, shares of the data, of the samples) of the first levels, with the rest as one."""
    names, counts = list(found.levels[:levels]), list(found.counts[:levels])
    samples = None if found.sample_counts is None else list(found.sample_counts[:levels])
    rest = found.other_levels + max(len(found.levels) - levels, 0)
    if rest:
        names.append(f"{rest} other level{'s' if rest > 1 else ''}")
        counts.append(found.other + sum(found.counts[levels:]))
        if samples is not None and found.sample_counts is not None:
            samples.append(found.sample_other + sum(found.sample_counts[levels:]))
    return names, _shares(counts, 0), None if samples is None else _shares(samples, 0)


def _height_of(found: Bars) -> float:
    return 2.0 if _upright(found) else max(2.0, 0.55 + 0.17 * len(_rows_of(found)[0]))


def _draw_bars(axes: Axes, found: Bars) -> None:
    names, data, samples = _rows_of(found)
    places = np.arange(len(names))
    thick = 0.7 if samples is None else 0.38
    axes.barh(places - (0 if samples is None else 0.2), 100 * data, thick, color=DATA)
    if samples is not None:
        axes.barh(places + 0.2, 100 * samples, thick, color=SAMPLES)
    axes.set_yticks(places, [tidy(name, 24) for name in names])
    axes.set_ylim(max(len(names), 4) - 0.4, -0.6)
    axes.set_xlabel("% of rows")
    axes.grid(axis="x", color=PALE, lw=0.6)
    ticks(axes.xaxis, most=5)


def _draw_upright(axes: Axes, found: Bars) -> None:
    names, data, samples = _rows_of(found, levels=60)
    places = np.arange(len(names))
    axes.bar(places - (0 if samples is None else 0.2), 100 * data, 0.8 if samples is None else 0.4, color=DATA)
    if samples is not None:
        axes.bar(places + 0.2, 100 * samples, 0.4, color=SAMPLES)
    every = -(-len(names) // 13)
    labels = [tidy("rest" if place == len(found.levels) else name, 8) for place, name in enumerate(names)]
    shown = [place for place in places if place % every == 0 or place == len(found.levels)]
    axes.set_xticks(shown, [labels[place] for place in shown], fontsize=7)
    share_axis(axes, data)
