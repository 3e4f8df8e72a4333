"""Numbers -> pictures: PNG bytes drawn with matplotlib's object interface.

Nothing global stays changed, names are never parsed as mathematics, and no name can make a picture fail.
"""

from __future__ import annotations

import base64
import functools
import io
import unicodedata
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from diffeo.data.dates import Dates
from diffeo.report.findings import Bars, Baseline, Histogram, Pair, Score, Step

__all__ = ["DATA", "SAMPLES", "comparison", "data_uri", "learning_curve", "marginal", "pair", "tidy"]

DATA, SAMPLES = "#7fa8cc", "#c2500a"  # blue and vermilion: told apart by every kind of colour vision, and in grey
_INK, _PALE = "#3d4550", "#dde2e8"
_HEAT = LinearSegmentedColormap.from_list("diffeo", ["#dbe8f4", "#5d93c4", "#1f4e84", "#0a1f3d"])
_DPI = 150
_STYLE: dict[Any, Any] = {
    "text.usetex": False,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.family": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.facecolor": "white",
    "axes.edgecolor": _PALE,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "legend.frameon": False,
    "path.sketch": None,
    "figure.facecolor": "white",
    "savefig.facecolor": "auto",
    "savefig.dpi": "figure",
    "savefig.bbox": None,
    "savefig.transparent": False,
    "figure.constrained_layout.use": False,
}


@functools.cache
def _drawable() -> frozenset[int]:
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())


def tidy(text: str, most: int = 80) -> str:
    """A name as a picture can show it: one line, no control characters, a box for what the font lacks, cut at `most`.

    >>> tidy("price_$_and\\ncost"), tidy("a" * 100, 5), tidy("日 ok")
    ('price_$_and□cost', 'aaaa…', '□ ok')
    """
    shown = text if len(text) <= most else text[: most - 1] + "…"
    return "".join("□" if _hidden(letter) or ord(letter) not in _drawable() else letter for letter in shown)


def _hidden(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def short(v: float) -> str:
    """A number for an axis: 1200000 is 1.2M.

    >>> [short(v) for v in (1_200_000, 18_000, 2500, 0.25, -1e-7, 3e20)]
    ['1.2M', '18k', '2500', '0.25', '−1e-07', '3e+20']
    """
    size = abs(v)
    if 1e4 <= size < 1e15:
        for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if size >= unit:
                return f"{v / unit:.4g}{letter}".replace("-", "−", 1)
    text = f"{v:.5g}"
    return "−" + text[1:] if text.startswith("-") else text


def data_uri(png: bytes) -> str:
    """The picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


class _Sheet:
    """A figure of this house: opened with its style, closed into PNG bytes of few colours."""

    def __init__(self, width: float, height: float) -> None:
        self.size = width, height

    def __enter__(self) -> Figure:
        self._style = matplotlib.rc_context(_STYLE)
        self._style.__enter__()
        self.figure = Figure(figsize=self.size, dpi=_DPI, layout="constrained")
        return self.figure

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                file = io.BytesIO()
                self.figure.savefig(file, format="png")
                self.png = _few_colours(file)
        finally:
            self._style.__exit__(None, None, None)


def _few_colours(file: io.BytesIO) -> bytes:
    small = io.BytesIO()
    with Image.open(file) as picture:
        picture.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def _format(axis: matplotlib.axis.Axis, dates: Dates | None = None, most: int = 5) -> None:
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


def learning_curve(history: Sequence[Step], best: Step | None = None) -> bytes:
    """Mean log-density of training and validation rows over the epochs; the best validation is marked."""
    sheet = _Sheet(6.4, 2.5)
    with sheet as figure:
        axes = figure.subplots()
        for key, label, colour in (("train", "training rows", DATA), ("valid", "held-out rows", SAMPLES)):
            points = [(step.epoch, getattr(step, key)) for step in history if getattr(step, key) is not None]
            if points:
                dot = "o" if len(points) < 8 else None
                axes.plot(*zip(*points, strict=True), color=colour, lw=1.6, marker=dot, ms=3, label=label)
        if best is not None and best.valid is not None:
            axes.plot([best.epoch], [best.valid], "o", ms=6, mfc="none", mec=_INK, label="best, kept")
        values = [v for step in history for v in (step.train, step.valid) if v is not None]
        if len(values) > 3:
            low, high = float(np.quantile(values, 0.05)), max(values)
            pad = 0.08 * (high - low) or 0.5
            axes.set_ylim(max(min(values), low - 2 * (high - low)) - pad, high + pad)
        axes.set_xlabel("epoch")
        axes.set_ylabel("nats a row")
        _format(axes.xaxis, most=8)
        _format(axes.yaxis)
        axes.grid(axis="y", color=_PALE, lw=0.6)
        if values:
            axes.legend(loc="lower right")
    return sheet.png


def comparison(model: Score, baselines: Sequence[Baseline], name: str = "this model") -> bytes:
    """Held-out scores as dots, with bars of two standard errors."""
    scores = [(name, model), *((baseline.name, baseline.score) for baseline in baselines)]
    sheet = _Sheet(6.4, 0.62 + 0.3 * len(scores))
    with sheet as figure:
        axes = figure.subplots()
        for place, (_, score) in enumerate(scores):
            if score.mean is not None:
                error = 2 * (score.standard_error or 0.0)
                colour = SAMPLES if place == 0 else _INK
                axes.errorbar([score.mean], [place], xerr=[error], fmt="o", color=colour, ms=5, capsize=2.5, lw=1.4)
        axes.set_yticks(range(len(scores)), [tidy(label, 40) for label, _ in scores])
        axes.set_ylim(len(scores) - 0.5, -0.5)
        axes.set_xlabel("nats a row on held-out rows (bars: two standard errors); further right is better")
        axes.margins(x=0.08)
        axes.grid(axis="x", color=_PALE, lw=0.6)
        _format(axes.xaxis, most=8)
    return sheet.png


def marginal(found: Histogram | Bars) -> bytes:
    """One column: the data filled, the samples (if any) as a line or as bars beside, both as shares of their rows."""
    sheet = _Sheet(3.6, 2.0 if isinstance(found, Histogram) else _height_of(found))
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
    if _log_bins(edges):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: short(v)))
    else:
        _format(axes.xaxis, found.dates)
    axes.set_xlim(edges[0], edges[-1])
    _percent(axes, data)


def _percent(axes: Axes, shares: np.ndarray) -> None:
    """The axis of shares, logarithmic where one spike would flatten the rest."""
    shown = shares[shares > 0]
    if len(shown) > 5 and shown.max() > 15 * np.quantile(shown, 0.75):
        axes.set_yscale("log")
        axes.set_ylim(bottom=50 * shown.min())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.set_ylabel("% of rows, log scale")
    else:
        axes.set_ylim(bottom=0)
        _format(axes.yaxis, most=4)
        axes.set_ylabel("% of rows")
    axes.grid(axis="y", color=_PALE, lw=0.6)


def _log_bins(edges: np.ndarray) -> bool:
    """Whether the bins are even in the logarithm rather than in the value."""
    widths = np.diff(edges)
    return bool(edges[0] > 0 and len(edges) > 3 and widths[-1] > 10 * widths[0])


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
    axes.grid(axis="x", color=_PALE, lw=0.6)
    _format(axes.xaxis, most=5)


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
    _percent(axes, data)


def pair(found: Pair, x_dates: Dates | None = None, y_dates: Dates | None = None) -> bytes:
    """Two columns: the data's histogram beside the samples', in one logarithmic scale of colour."""
    sheet = _Sheet(4.6, 2.25)
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
            axes.set_title(title, fontsize=8, color=_INK)
            axes.set_xlabel(tidy(found.x, 24))
            if _log_bins(np.asarray(found.x_edges)):
                axes.set_xscale("log")
            else:
                _format(axes.xaxis, x_dates, most=4 if x_dates is None else 2)
        panels[0].set_ylabel(tidy(found.y, 24))
        if _log_bins(np.asarray(found.y_edges)):
            panels[0].set_yscale("log")
        else:
            _format(panels[0].yaxis, y_dates)
        for axis in (panels[0].xaxis, panels[1].xaxis, panels[0].yaxis):
            if axis.get_scale() == "log":
                axis.set_major_formatter(FuncFormatter(lambda v, _: short(v)))
        if len(shares) == 1:
            panels[1].set_visible(False)
    return sheet.png
