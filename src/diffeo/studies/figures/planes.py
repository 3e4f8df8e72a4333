"""Pictures of the plane on shared axes: densities, points, and what a map does to a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap

from diffeo.report.figures.axes import ticks
from diffeo.studies.figures.plate import DARK, DATA, INK, SAMPLES, Drawing, Plate
from diffeo.studies.truth import Window

__all__ = ["Cloud", "Panel", "Web", "planes", "web"]

# from paper to ink, so that it can be printed, and turned round on a dark page
DENSITY = LinearSegmentedColormap.from_list("density", ["#ffffff", "#cfe0ef", DATA, "#2f6aa8", DARK, "#0d2038"])
WIDEST, LABELS = 9.2, 0.34


@dataclass(frozen=True)
class Cloud:
    """Points [n, 2] in one colour."""

    points: np.ndarray
    colour: str = DATA


@dataclass(frozen=True)
class Web:
    """Lines of a grid, each [m, 2], and rings about its middle."""

    across: Sequence[np.ndarray]
    along: Sequence[np.ndarray]
    rings: Sequence[np.ndarray]


@dataclass(frozen=True)
class Panel:
    """One picture among those of a figure; a density [rows from the bottom, columns from the left] fills it."""

    title: str
    density: np.ndarray | None = None
    clouds: tuple[Cloud, ...] = ()
    web: Web | None = None
    window: Window | None = None
    most: float | None = None


def planes(
    panels: Sequence[Panel], window: Window, columns: int, most: float | None = None, shared: bool = True
) -> Drawing:
    """Panels in rows of `columns`, of one window and one scale of density, from 0 to `most`: by default the highest
    value of the first panel that has a density. Where axes are not `shared`, a panel may have its own window."""
    rows = -(-len(panels) // columns)
    width = {1: 4.0, 2: 6.4, 3: 7.6}.get(columns, WIDEST)
    high = (width - LABELS) / columns * (window.top - window.bottom) / (window.right - window.left)
    densities = [panel.density for panel in panels if panel.density is not None]
    most = most or (float(densities[0].max()) if densities else 1.0)
    plate = Plate(width, rows * (high + 0.26) + LABELS)
    with plate as figure:
        grid = figure.subplots(rows, columns, sharex=shared, sharey=shared, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw(axes, panel, panel.window or window, panel.most or most)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        for place, axes in enumerate(list(grid.flat)[: len(panels)] if shared else []):
            last = place + columns >= len(panels)  # of its column: the ticks stand under it
            axes.tick_params(labelbottom=last, bottom=last)
    return plate.drawing


def _draw(axes: Axes, panel: Panel, window: Window, most: float) -> None:
    if panel.density is not None:
        axes.imshow(panel.density, DENSITY, origin="lower", extent=window, vmin=0, vmax=most, interpolation="bilinear")
    for cloud in panel.clouds:
        size = 2.2 if len(cloud.points) < 3000 else 1.0
        x, y = cloud.points.T
        axes.scatter(x, y, s=size, color=cloud.colour, lw=0, alpha=0.75, rasterized=True)
    if panel.web is not None:
        for lines, colour, thick in (
            (panel.web.across, DATA, 0.5),
            (panel.web.along, DARK, 0.5),
            (panel.web.rings, SAMPLES, 1.1),
        ):
            axes.add_collection(LineCollection(list(lines), colors=colour, linewidths=thick))
    axes.set(xlim=window[:2], ylim=window[2:], aspect="equal")
    axes.set_title(panel.title, fontsize=8, color=INK)
    ticks(axes.xaxis, most=4)
    ticks(axes.yaxis, most=4)


def web(reach: float = 3.0, lines: int = 13, steps: int = 241) -> Web:
    """A square grid of the noise within +-reach, and the rings of one and two standard deviations."""
    fine, at = np.linspace(-reach, reach, steps), np.linspace(-reach, reach, lines)
    turn = np.linspace(0, 2 * np.pi, steps)
    ring = np.stack([np.cos(turn), np.sin(turn)], 1)
    across = [np.stack([fine, np.full(steps, y)], 1) for y in at]
    along = [np.stack([np.full(steps, x), fine], 1) for x in at]
    return Web(across, along, [ring, 2 * ring])
