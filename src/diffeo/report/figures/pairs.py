"""Two columns: the data beside samples."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.ticker import FuncFormatter

from diffeo.data.dates import Dates
from diffeo.report.figures.axes import log_bins, ticks
from diffeo.report.figures.sheet import INK, Sheet, short, tidy
from diffeo.report.findings import Pair

__all__ = ["pair"]

_HEAT = LinearSegmentedColormap.from_list("diffeo", ["#dbe8f4", "#5d93c4", "#1f4e84", "#0a1f3d"])


def pair(found: Pair, x_dates: Dates | None = None, y_dates: Dates | None = None) -> bytes:
    """Two columns: the data's histogram beside the samples', in one logarithmic scale of colour."""
    sheet = Sheet(4.6, 2.25)
    counts = [np.asarray(found.counts, float)]
    if found.sample_counts is not None:
        counts.append(np.asarray(found.sample_counts, float))
    shares = [part / max(part.sum(), 1.0) for part in counts]
    top = max(float(part.max()) for part in shares)
    least = min(1 / max(part.sum(), 1.0) for part in counts)
    with sheet as figure:
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        norm = LogNorm(least, max(top, 1.001 * least))
        for axes, title, share in zip(panels, ("data", "samples"), shares, strict=False):
            seen = np.ma.masked_less_equal(share.T, 0)
            axes.pcolormesh(np.asarray(found.x_edges), np.asarray(found.y_edges), seen, norm=norm, cmap=_HEAT)
            axes.set_title(title, fontsize=8, color=INK)
            axes.set_xlabel(tidy(found.x, 24))
            if log_bins(np.asarray(found.x_edges)):
                axes.set_xscale("log")
            else:
                ticks(axes.xaxis, x_dates, most=4 if x_dates is None else 2)
        panels[0].set_ylabel(tidy(found.y, 24))
        if log_bins(np.asarray(found.y_edges)):
            panels[0].set_yscale("log")
        else:
            ticks(panels[0].yaxis, y_dates)
        for axis in (panels[0].xaxis, panels[1].xaxis, panels[0].yaxis):
            if axis.get_scale() == "log":
                axis.set_major_formatter(FuncFormatter(lambda v, _: short(v)))
        if len(shares) == 1:
            panels[1].set_visible(False)
    return sheet.png
