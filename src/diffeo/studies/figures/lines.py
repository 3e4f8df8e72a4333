"""Pictures of numbers against numbers: losses over epochs, divergences against size, densities of one number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from diffeo.report.figures.axes import ticks
from diffeo.report.figures.sheet import short, tidy
from diffeo.studies.figures.plate import COLOURS, DATA, INK, PALE, SAMPLES, Drawing, Plate

__all__ = ["Curve", "against", "curves", "profiles"]

Numbers = Sequence[float] | np.ndarray
Curve = tuple[Numbers, Numbers]  # x and y


def _frame(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis="y", color=PALE, lw=0.6)


def curves(
    found: Mapping[str, Curve],
    x: str,
    y: str,
    levels: Mapping[str, float] | None = None,
    dashed: Sequence[str] = (),
) -> Drawing:
    """Lines on one axis; `levels` are dotted lines across, with their names; those named in `dashed` are dashed and
    take the colour of the line before them."""
    plate = Plate(6.4, 3.0)
    with plate as figure:
        axes, place = figure.subplots(), -1
        for name, (at, values) in found.items():
            place += name not in dashed
            style = "--" if name in dashed else "-"
            axes.plot(at, values, style, color=COLOURS[place % len(COLOURS)], lw=1.3, label=tidy(name))
        for name, level in (levels or {}).items():
            axes.axhline(level, color=INK, lw=1.0, ls=":", label=tidy(name))
        _within(axes, [v for _, values in found.values() for v in values], list((levels or {}).values()))
        _frame(axes, x, y)
        ticks(axes.xaxis, most=8)
        ticks(axes.yaxis)
        axes.legend(loc="best")
    return plate.drawing


def _within(axes: Axes, values: list[float], levels: list[float]) -> None:
    """Leave what a few early or wild epochs say above the edge."""
    if not values:
        return
    usual = [float(np.quantile(values, 0.97)), float(values[0]), *levels]
    low, high = min(float(min(values)), *usual), max(usual)
    pad = 0.08 * (high - low) or 0.5
    axes.set_ylim(low - pad, high + 2 * pad)


def against(
    found: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float] | None]],
    x: str,
    y: str,
    log_y: bool = True,
    dashed: Sequence[str] = (),
) -> Drawing:
    """Points (x, y, standard errors) joined by lines, x logarithmic; the bars are two standard errors. Without errors
    the line alone is drawn."""
    plate = Plate(6.4, 3.0)
    with plate as figure:
        axes = figure.subplots()
        for (name, (at, values, errors)), colour in zip(found.items(), COLOURS, strict=False):
            bars = None if errors is None else 2 * np.asarray(errors)
            style = ("--" if name in dashed else "-") + ("" if errors is None else "o")
            axes.errorbar(at, values, bars, fmt=style, ms=4, color=colour, lw=1.3, capsize=2, label=tidy(name))
        axes.set_xscale("log")
        places = sorted({v for at, *_ in found.values() for v in at})
        axes.set_xticks(places if len(places) < 12 else _round(places))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: short(v)))
        if log_y:
            _log_y(axes)
        _frame(axes, x, y)
        axes.legend(loc="best")
    return plate.drawing


def _log_y(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: short(v)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _round(places: Sequence[float]) -> list[float]:
    """Round numbers within the places."""
    powers = range(math.floor(math.log10(places[0])), math.ceil(math.log10(places[-1])) + 1)
    return [v for p in powers for v in (10.0**p, 2 * 10.0**p, 5 * 10.0**p) if places[0] <= v <= places[-1]]


def profiles(
    x: np.ndarray, densities: Mapping[str, np.ndarray], data: np.ndarray | None = None, log: bool = False
) -> Drawing:
    """Densities [m] of one number at x [m], over a histogram of the data [n]."""
    plate = Plate(6.4, 2.8)
    with plate as figure:
        axes = figure.subplots()
        if data is not None:
            edges = np.linspace(x[0], x[-1], 49)
            heights = np.histogram(data, edges)[0] / (len(data) * (edges[1] - edges[0]))
            axes.stairs(heights, edges, fill=True, color=DATA, alpha=0.55, lw=0, label="data")
        for (name, values), colour in zip(densities.items(), (INK, SAMPLES, *COLOURS[2:]), strict=False):
            axes.plot(x, values, color=colour, lw=1.3, label=tidy(name))
        if log:
            _log_y(axes)
            axes.set_ylim(bottom=1e-4)
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlim(x[0], x[-1])
        _frame(axes, "x", "density")
        ticks(axes.xaxis, most=8)
        axes.legend(loc="upper right")
    return plate.drawing
