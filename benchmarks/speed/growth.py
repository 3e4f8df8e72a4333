"""The figure of how cost grows: a panel for every size that is let grow, a line for every library."""

from collections.abc import Sequence

from benchmarks.speed.subjects import FLOOR
from benchmarks.speed.workloads import AXES, Axis
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from diffeo.report.figures.sheet import DARK, DATA, INK, PALE, SAMPLES, Sheet, short

__all__ = ["figure", "slope"]

LINES = {  # colour, dashes, mark
    FLOOR: (INK, "--", ""),
    "diffeo": (SAMPLES, "-", "o"),
    "zuko": (DARK, "-", "s"),
    "nflows": (DATA, "-", "^"),
}
NAMES = {FLOOR: "the nets alone"}


def figure(rows: Sequence[dict]) -> bytes:
    """Six panels, PNG: CPU milliseconds against each size, both logarithmic; bands are quartiles."""
    sheet = Sheet(8.2, 4.9)
    with sheet as drawing:
        panels = drawing.subplots(2, 3).flat
        for panel, axis in zip(panels, AXES.values(), strict=True):
            _panel(panel, axis, [row for row in rows if row["axis"] == axis.name])
        handles, labels = panels[0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return sheet.png


def _panel(axes: Axes, axis: Axis, rows: Sequence[dict]) -> None:
    for library, (colour, dashes, mark) in LINES.items():
        mine = sorted((row for row in rows if row["library"] == library), key=lambda row: row["at"])
        zorder = 3 if library == "diffeo" else 2
        if mine:
            at, cpu = [row["at"] for row in mine], [1e3 * row["cpu_s"] for row in mine]
            low, high = zip(*(row["cpu_spread"] for row in mine), strict=True)
            axes.fill_between(at, [1e3 * v for v in low], [1e3 * v for v in high], color=colour, alpha=0.2, lw=0)
            axes.plot(
                at,
                cpu,
                dashes,
                color=colour,
                marker=mark,
                ms=3.5,
                lw=1.4,
                label=NAMES.get(library, library),
                zorder=zorder,
            )
    axes.set(xscale="log", yscale="log", xlabel=axis.label)
    task = axis.works[0][1].tasks[0]
    axes.set_title("a training step" if task.name == "train" else f"{task.n} draws, autoregressive", fontsize=8)
    axes.set_ylabel("CPU ms")
    axes.xaxis.set_major_locator(FixedLocator([at for at, _ in axis.works]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    for side in (axes.xaxis, axes.yaxis):
        side.set_major_formatter(FuncFormatter(lambda v, _: short(v)))
    axes.grid(axis="y", color=PALE, lw=0.6)


def slope(rows: Sequence[dict], axis: str, library: str) -> float | None:
    """How often the cost is multiplied where the size goes from its second largest value to its largest."""
    mine = sorted((row for row in rows if (row["axis"], row["library"]) == (axis, library)), key=lambda row: row["at"])
    return mine[-1]["cpu_s"] / mine[-2]["cpu_s"] if len(mine) > 1 else None
