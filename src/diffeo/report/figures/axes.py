"""Axes in the house's manner: round ticks, dates, percentages, logarithms."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from diffeo.data.dates import Dates
from diffeo.report.figures.sheet import PALE, short

__all__ = ["log_bins", "share_axis", "ticks"]


def ticks(axis: matplotlib.axis.Axis, dates: Dates | None = None, most: int = 5) -> None:
    if dates is None:
        axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda v, _: short(v)))
        return
    low, high = axis.get_view_interval()
    length = 10 if high - low > 3 * 86_400 else 16
    axis.set_major_locator(MaxNLocator(min(most, 3)))
    axis.set_major_formatter(FuncFormatter(lambda v, _: _moment(dates, v, length)))


def _moment(dates: Dates, seconds: float, length: int) -> str:
    try:
        return dates.show(float(seconds))[:length].replace("T", " ")
    except (ValueError, OverflowError):
        return ""


def share_axis(axes: Axes, shares: np.ndarray) -> None:
    """The axis of shares, logarithmic where one spike would flatten the rest."""
    shown = shares[shares > 0]
    if len(shown) > 5 and shown.max() > 15 * np.quantile(shown, 0.75):
        axes.set_yscale("log")
        axes.set_ylim(bottom=50 * shown.min())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.set_ylabel("% of rows, log scale")
    else:
        axes.set_ylim(bottom=0)
        ticks(axes.yaxis, most=4)
        axes.set_ylabel("% of rows")
    axes.grid(axis="y", color=PALE, lw=0.6)


def log_bins(edges: np.ndarray) -> bool:
    """Whether the bins are even in the logarithm rather than in the value."""
    widths = np.diff(edges)
    return bool(edges[0] > 0 and len(edges) > 3 and widths[-1] > 10 * widths[0])
