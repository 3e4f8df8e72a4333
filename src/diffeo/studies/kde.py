"""Kernel density estimates of three densities that are known exactly: what the bandwidth does (homework, part I)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffeo.baselines import KernelDensity, mean_integrated_squared_error
from diffeo.bases import GaussianMixture
from diffeo.data.toys import Toy, toy
from diffeo.studies import figures, truth
from diffeo.studies.course import Course
from diffeo.studies.outcome import Options, Outcome, Picture, Section, Table
from diffeo.studies.truth import FRESH, Gap, Window

__all__ = ["kde", "mise"]

ROWS, SEED = 10_000, 0
BANDWIDTHS = (0.1, 0.5, 1.0)
MORE = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
MEANS = ((0.0, 0.0), (0.0, 2.0), (2.0, 0.0), (2.0, 2.0))


class Case(NamedTuple):
    """A density, the window that holds it and every estimate, what share of it is shown, and the standard deviation
    where it is the mixture of four."""

    name: str
    known: Toy
    window: Window
    shown: float
    std: float | None

    def inner(self, picture: np.ndarray) -> np.ndarray:
        """The middle of an image of the window."""
        cut = round(len(picture) * (1 - self.shown) / 2)
        return picture[cut : len(picture) - cut, cut : len(picture) - cut]

    @property
    def frame(self) -> Window:
        """The window of the middle."""
        a, b, c, d = self.window
        x, y = (b - a) * (1 - self.shown) / 2, (d - c) * (1 - self.shown) / 2
        return Window(a + x, b - x, c + y, d - y)


def cases() -> list[Case]:
    wide = Window(-5, 7, -5, 7)
    return [
        Case("mixture, std 1/2", toy("mixture", std=0.5), wide, 0.5, 0.5),
        Case("mixture, std 1", toy("mixture", std=1.0), wide, 0.7, 1.0),
        Case("spiral", toy("spiral", variance=0.25), Window(-10, 10, -10, 10), 0.8, None),
    ]


def mise(std: float, h: float, n: int) -> dict[str, float]:
    """The exact mean integrated squared error of a Gaussian kernel estimate of the mixture of four equal Gaussians,
    from n draws and H = h I, and its parts: the squared bias, which n does not change, and the variance, which goes
    with 1 / n.

    >>> round(mise(0.5, 0.1, 10_000)["mise"], 7), round(mise(1.0, 1.0, 10_000)["mise"], 6)
    (0.0008502, 0.002147)
    """
    spread = std**2 * torch.eye(2).repeat(len(MEANS), 1, 1)
    exact = GaussianMixture.from_moments(torch.full((len(MEANS),), 1 / len(MEANS)), torch.tensor(MEANS), spread)
    one, two = (mean_integrated_squared_error(h, count, exact) for count in (1, 2))
    variance, bias = 2 * (one - two) / n, 2 * two - one
    return {"mise": variance + bias, "variance": variance, "bias_squared": bias}


class Estimate(NamedTuple):
    """How one estimate compares: its image, and its distances from the truth."""

    image: np.ndarray
    kl: Gap
    l1: Gap
    ise: float | None


def kde(options: Options, course: Course) -> Outcome:
    """Samples of three densities, an estimate of each for three bandwidths, and how far each is from the truth."""
    seed, size, rows = options.seed_or(SEED), options.pixels(100 if options.quick else 200), options.points(ROWS)
    found = cases()
    course.plan({case.name: 1.0 for case in found})
    data, estimates = {}, {}
    sweeps: dict[str, list[Gap]] = {}
    for case in found:
        tick = course.begin(case.name)
        data[case.name] = truth.tensor(case.known.sample(rows, seed=seed), torch.float64)
        fresh = truth.tensor(case.known.sample(options.points(20_000), seed=FRESH + seed), torch.float64)
        steps = len(BANDWIDTHS) + len(MORE)
        for step, h in enumerate(BANDWIDTHS, 1):
            estimates[case.name, h] = _estimate(case, data[case.name], h, fresh, size, seed)
            tick({"progress": step / steps})
        sweeps[case.name] = []
        for step, h in enumerate(MORE, 1 + len(BANDWIDTHS)):
            sweeps[case.name].append(_kl(case, data[case.name], h, fresh))
            tick({"progress": step / steps})
        course.say(f"{case.name}: {_at(_best(sweeps[case.name]))}")
    return _outcome(found, data, estimates, sweeps, size, rows, seed)


def _of(data: Tensor, h: float) -> KernelDensity:
    return KernelDensity(data, h)


def _kl(case: Case, data: Tensor, h: float, fresh: Tensor) -> Gap:
    return truth.gap(case.known.log_prob, _of(data, h).log_prob, fresh)


def _estimate(case: Case, data: Tensor, h: float, fresh: Tensor, size: int, seed: int) -> Estimate:
    estimate = _of(data, h)
    drawn = estimate.sample(len(fresh), generator=torch.Generator().manual_seed(seed)).double()
    picture = truth.image(estimate.log_prob, case.window, size)
    ise = None
    if case.std is not None:
        real = truth.image(case.known.log_prob, case.window, size)
        ise = float(((picture - real) ** 2).sum() * case.window.cell(size))
    return Estimate(
        picture,
        truth.gap(case.known.log_prob, estimate.log_prob, fresh),
        truth.distance(case.known.log_prob, estimate.log_prob, fresh, drawn),
        ise,
    )


Estimates = Mapping[tuple[str, float], Estimate]
Sweeps = Mapping[str, list[Gap]]


def _outcome(
    found: list[Case], data: Mapping[str, Tensor], e: Estimates, sweeps: Sweeps, size: int, rows: int, seed: int
) -> Outcome:
    best = {name: _best(gaps) for name, gaps in sweeps.items()}
    order = sorted(best, key=lambda name: best[name][1].nats or math.inf)
    results = {
        "rows": rows,
        "densities": {case.name: _numbers(case, e, sweeps, best, rows) for case in found},
        "easiest": order[0],
        "hardest": order[-1],
    }
    lead = (
        f"A kernel density estimate puts a small Gaussian on each of {rows:,} points and averages them: f̂(x) is the "
        "mean of K(H⁻¹(xᵢ − x)) / |det H|, here with H = h times the identity, so that h is the width of the small "
        "Gaussians. Three densities are known exactly, so that it can be said how far each estimate is from the truth."
    )
    answer = (
        f"Easiest is the {order[0]} ({_at(best[order[0]])}), hardest the {order[-1]} ({_at(best[order[-1]])}). The "
        "spiral is thin near its middle, with a peak without bound there, and wide outside: no one h fits both."
    )
    sections = (
        Section("What is drawn", (_scatters(found, data),)),
        Section("The estimates", (_images(found, e, size), _table(found, e, rows))),
        Section("What h does", _trade_off(found, sweeps, rows)),
    )
    return Outcome("Kernel density estimates", lead, sections, results, seed, answer)


def _best(gaps: list[Gap]) -> tuple[float, Gap]:
    """The bandwidth with the smallest divergence, and that divergence."""
    return min(zip(MORE, gaps, strict=True), key=lambda pair: math.inf if pair[1].nats is None else pair[1].nats)


def _at(best: tuple[float, Gap]) -> str:
    return f"{best[1]} nats at its best h, {best[0]:g}"


def _numbers(case: Case, e: Estimates, sweeps: Sweeps, best: Mapping[str, Any], rows: int) -> dict[str, Any]:
    by_h = {}
    for h in BANDWIDTHS:
        one = e[case.name, h]
        by_h[f"{h:g}"] = {"kl": one.kl.plain(), "l1": one.l1.plain(), "ise": one.ise}
        by_h[f"{h:g}"] |= mise(case.std, h, rows) if case.std else {}
    sweep = {f"{h:g}": gap.plain() for h, gap in zip(MORE, sweeps[case.name], strict=True)}
    return {
        "entropy": case.known.entropy,
        "bandwidths": by_h,
        "kl_by_bandwidth": sweep,
        "best_bandwidth": best[case.name][0],
        "best_kl": best[case.name][1].plain(),
    }


def _scatters(found: list[Case], data: Mapping[str, Tensor]) -> Picture:
    panels = [
        figures.Panel(case.name, clouds=(figures.Cloud(data[case.name].numpy()),), window=case.frame) for case in found
    ]
    words = "Four Gaussians that stand apart, the same four when they run into one another, and a spiral: an angle θ "
    words += "from 0 to 4π, and a radius that is θ/2 with a standard deviation of 1/2."
    return Picture("data", "The points", words, figures.planes(panels, found[0].frame, 3, shared=False))


def _images(found: list[Case], e: Estimates, size: int) -> Picture:
    panels = []
    for case in found:
        real = case.inner(truth.image(case.known.log_prob, case.window, size))
        most = float(np.quantile(real, 0.9995))
        panels.append(figures.Panel(f"{case.name}: the truth", real, window=case.frame, most=most))
        for h in BANDWIDTHS:
            picture = case.inner(e[case.name, h].image)
            panels.append(figures.Panel(f"h = {h:g}", picture, window=case.frame, most=most))
    words = "Each row has one scale, darker where points are likelier. With h = 0.1 single points show through; with "
    words += "h = 1 everything that is finer than 1 is smoothed away."
    return Picture("estimates", "f and f̂", words, figures.planes(panels, found[0].frame, 4, shared=False))


def _table(found: list[Case], e: Estimates, rows: int) -> Table:
    heading = ("", "h", "KL(f ‖ f̂), nats", "∫|f − f̂|", "∫(f − f̂)²", "its exact mean")
    lines = []
    for case in found:
        for h in BANDWIDTHS:
            one = e[case.name, h]
            exact = f"{mise(case.std, h, rows)['mise']:.2e}" if case.std else "—"
            square = f"{one.ise:.2e}" if one.ise is not None else "not defined"
            lines.append((case.name, f"{h:g}", str(one.kl), str(one.l1), square, exact))
    words = "± is one standard error of the test points. The exact mean is over all samples of this size, in closed "
    words += "form. The spiral's f grows like 1/ρ towards the middle, so that ∫f² has no value."
    return Table(heading, tuple(lines), words)


def _trade_off(found: list[Case], sweeps: Sweeps, rows: int) -> tuple[Any, ...]:
    fine = np.geomspace(0.04, 1.2, 80).tolist()
    parts = {word: (fine, [mise(0.5, h, rows)[key] for h in fine], None) for word, key in _PARTS.items()}
    swept = {
        name: (MORE, [gap.nats or math.nan for gap in gaps], [gap.error or 0.0 for gap in gaps])
        for name, gaps in sweeps.items()
    }
    return (
        "A small h follows the sample, and would look different for another one: that is variance, and it falls as "
        "1/h² and as 1/N. A large h smooths the truth itself away: that is bias, it grows as h², and more points do "
        "not mend it. The best h stands where the two balance, smaller the more points there are and the finer the "
        "density is.",
        Picture(
            "bias-variance",
            "The two parts of the error: mixture, std 1/2",
            "Exact: the mean integrated squared error over all samples of this size, and its two parts.",
            figures.against(parts, "h", "∫ squared error"),
        ),
        Picture(
            "bandwidths",
            "KL to the truth by bandwidth",
            "Measured on fresh points; bars are two standard errors. The wider mixture is smooth, and forgives most "
            "bandwidths; the spiral is never well fitted by one.",
            figures.against(swept, "h", "nats"),
        ),
    )


_PARTS = {"mean integrated squared error": "mise", "variance": "variance", "squared bias": "bias_squared"}
