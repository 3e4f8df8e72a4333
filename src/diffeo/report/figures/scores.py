"""Held-out scores side by side, and how they came about over the epochs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffeo.report.figures.axes import ticks
from diffeo.report.figures.sheet import DATA, INK, PALE, SAMPLES, Sheet, short, tidy
from diffeo.report.findings import Baseline, Score, Step

__all__ = ["comparison", "learning_curve"]


def learning_curve(history: Sequence[Step], best: Step | None = None) -> bytes:
    """Mean log-density of training and validation rows over the epochs; the best validation is marked."""
    sheet = Sheet(6.4, 2.5)
    with sheet as figure:
        axes = figure.subplots()
        for key, label, colour in (("train", "training rows", DATA), ("valid", "held-out rows", SAMPLES)):
            points = [(step.epoch, getattr(step, key)) for step in history if getattr(step, key) is not None]
            if points:
                dot = "o" if len(points) < 8 else None
                axes.plot(*zip(*points, strict=True), color=colour, lw=1.6, marker=dot, ms=3, label=label)
        if best is not None and best.valid is not None:
            axes.plot([best.epoch], [best.valid], "o", ms=6, mfc="none", mec=INK, label="best, kept")
        values = [v for step in history for v in (step.train, step.valid) if v is not None]
        if len(values) > 3:
            low, high = float(np.quantile(values, 0.05)), max(values)
            pad = 0.08 * (high - low) or 0.5
            axes.set_ylim(max(min(values), low - 2 * (high - low)) - pad, high + pad)
        axes.set_xlabel("epoch")
        axes.set_ylabel("nats a row")
        ticks(axes.xaxis, most=8)
        ticks(axes.yaxis)
        axes.grid(axis="y", color=PALE, lw=0.6)
        if values:
            axes.legend(loc="lower right")
    return sheet.png


def comparison(model: Score, baselines: Sequence[Baseline], name: str = "this model") -> bytes:
    """Scores as dots, with bars of two standard errors; those far behind are numbers at the edge."""
    scores = [(name, model), *((baseline.name, baseline.score) for baseline in baselines)]
    floor = _floor([score for _, score in scores])
    sheet = Sheet(6.4, 0.62 + 0.3 * len(scores))
    with sheet as figure:
        axes = figure.subplots()
        for place, (_, score) in enumerate(scores):
            colour = SAMPLES if place == 0 else INK
            if score.mean is not None and score.mean >= floor:
                error = 2 * (score.standard_error or 0.0)
                axes.errorbar([score.mean], [place], xerr=[error], fmt="o", color=colour, ms=5, capsize=2.5, lw=1.4)
            elif score.mean is not None:
                edge = axes.get_yaxis_transform()
                axes.text(0.01, place, f"◂ {short(score.mean)}", transform=edge, color=colour, va="center")
        axes.set_yticks(range(len(scores)), [tidy(label, 40) for label, _ in scores])
        axes.set_ylim(len(scores) - 0.5, -0.5)
        axes.set_xlabel("nats a row (bars: two standard errors); further right is better")
        axes.margins(x=0.08)
        axes.grid(axis="x", color=PALE, lw=0.6)
        ticks(axes.xaxis, most=8)
    return sheet.png


def _floor(scores: Sequence[Score]) -> float:
    """What lies lower would press the others together: four times as far behind the best as the median is."""
    known = [(score.mean, score.standard_error or 0.0) for score in scores if score.mean is not None]
    if not known:
        return 0.0
    means = [mean for mean, _ in known]
    behind = max(max(means) - float(np.median(means)), 3 * max(error for _, error in known))
    return max(means) - 4 * behind
