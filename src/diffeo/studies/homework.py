"""The homework, part II: one small coupling flow on four sets of points, and what depth, data and shape do to it."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch

from diffeo.model import Model
from diffeo.studies import figures, truth, views
from diffeo.studies.course import Course
from diffeo.studies.default import drawn_by, log_prob_of
from diffeo.studies.outcome import Options, Outcome, Picture, Section, Table
from diffeo.studies.runs import RUNS, SEED, Result, Run, known, numbers, points, result_of
from diffeo.studies.truth import Window

__all__ = ["homework"]

WINDOWS = {
    "Moons": Window(-1.75, 2.75, -1.75, 2.25),
    "Circles": Window(-1.6, 1.6, -1.6, 1.6),
    "GaussiansGrid": Window(-1.75, 3.75, -1.75, 3.75),
    "GaussiansRot": Window(-4, 4, -4, 4),
}
SHOWN, DRAWN = 1000, 1000  # points of task 1, draws after every layer
THREE = {"final": "last weights", "best": "best weights", "default": "diffeo's default"}
CLASSICS = {"kernels": "kernels, best h", "mixture": "mixture, BIC"}
Results = Mapping[Run, Result]


def homework(options: Options, course: Course) -> Outcome:
    """Tasks 1 and 9 to 12, with the settings and seeds that were set."""
    seed = options.seed_or(SEED)
    course.plan(_weights())
    defaults: dict[tuple[str, int], Model] = {}
    results: dict[Run, Result] = {}
    for run in RUNS:
        results[run] = result_of(run, options, course, seed, defaults)
        kl = results[run].kl
        course.say(f"{run.name}: KL {kl['final']} last, {kl['best']} best, {kl['default']} default")
    return _outcome(results, seed)


def _weights() -> dict[str, float]:
    """Of the stages, roughly as their seconds are."""
    found = {run.name: run.epochs * run.rows * run.layers / 1e5 for run in RUNS}
    return found | {run.default: 30 * run.rows / 1500 for run in RUNS}


def _outcome(results: Results, seed: int) -> Outcome:
    nine = {run: result for run, result in results.items() if run.task == 9}
    lead = (
        "Four sets of points in the plane are learned by a flow of four affine couplings with small networks: 9,752 "
        "numbers, Adam at 0.001, batches of 64 in a fixed order, nine tenths of 1,500 points to learn from. The exact "
        "density of each set is known, so that what was learned can be held against the truth, and not only against "
        "other points."
    )
    sections = (
        Section("Task 1: the points", (_points(),)),
        Section("Task 9: the densities", (*_densities(nine), _losses(nine), _layers(nine, seed))),
        Section("Task 10: depth", _compared(results, 10, "K", "layers")),
        Section("Task 11: data", _compared(results, 11, "N", "rows")),
        Section("Task 12: shape", _compared(results, 12, "Gaussians", "gaussians")),
    )
    found = {"runs": [dict(numbers(run, result)) for run, result in results.items()]}
    title = "A small coupling flow, three ways"
    return Outcome(title, lead, sections, found, seed, _answer(nine))


def _answer(nine: Results) -> str:
    told = [
        f"{run.set}: {result.kl['final']}, {result.kl['best']}, {result.kl['default']}" for run, result in nine.items()
    ]
    return (
        "KL to the truth in nats, with the last weights, with the best on held-out points, and by diffeo's default on "
        f"the same points. {'; '.join(told)}. Where the last weights are behind the best, the flow has learned the "
        "points by heart: the batches never change, and nothing stops the training."
    )


def _points() -> Picture:
    panels = []
    for run in RUNS:
        if run.task == 9:
            x = points(run._replace(rows=SHOWN)).double().numpy()
            panels.append(figures.Panel(run.set, clouds=(figures.Cloud(x),), window=WINDOWS[run.dist]))
    words = f"{SHOWN:,} of each: two noisy half circles, two noisy circles, four Gaussians on a grid, five on a ring."
    return Picture(
        "points", "Four sets", words, figures.planes(panels, panels[0].window or WINDOWS["Moons"], 4, shared=False)
    )


def _densities(nine: Results) -> tuple[Any, ...]:
    panels, drawn = [], []
    for run, result in nine.items():
        window, exact = WINDOWS[run.dist], known(run)
        kinds = {
            "the truth": exact.log_prob,
            THREE["final"]: truth.of_density(result.final),
            THREE["best"]: truth.of_density(result.best),
            THREE["default"]: log_prob_of(result.default),
        }
        images = {name: truth.image(log_prob, window, 120) for name, log_prob in kinds.items()}
        most = float(images["the truth"].max())
        panels += [figures.Panel(f"{run.set}: {name}", im, window=window, most=most) for name, im in images.items()]
        drawn += _drawn(run, result, window)
    rows = tuple(
        (run.set, *(str(result.kl[kind]) for kind in (*THREE, *CLASSICS)), f"{result.learned.best_epoch:,}")
        for run, result in nine.items()
    )
    heading = ("", *THREE.values(), *CLASSICS.values(), "best epoch")
    return (
        Picture(
            "densities",
            "The truth, and three answers",
            "exp(log p) on a grid of 120 x 120, each row on the scale of its truth; darker is likelier.",
            figures.planes(panels, WINDOWS["Moons"], 4, shared=False),
        ),
        Table(
            heading,
            rows,
            "KL(p ‖ q) in nats, on fresh points; ± one standard error. Two classical estimators stand beside: kernels "
            "at the points, with the bandwidth that is best for the very points that score them, and a Gaussian "
            "mixture chosen by the Bayesian information criterion.",
        ),
        Picture(
            "draws",
            "Points and draws",
            "1,000 points to learn from, and as many drawn from each model.",
            figures.planes(drawn, WINDOWS["Moons"], 4, shared=False),
        ),
    )


def _drawn(run: Run, result: Result, window: Window) -> list[figures.Panel]:
    """Points, and draws of the three models."""
    found = {"points": (points(run)[:SHOWN].double().numpy(), figures.DATA)}
    for kind, flow in (("final", result.final), ("best", result.best)):
        z = flow.sample(DRAWN, generator=torch.Generator().manual_seed(0))
        found[THREE[kind]] = (z.double().numpy(), figures.SAMPLES)
    found[THREE["default"]] = (drawn_by(result.default, DRAWN, 0), figures.SAMPLES)
    return [
        figures.Panel(f"{run.set}: {name}", clouds=(figures.Cloud(x, colour),), window=window)
        for name, (x, colour) in found.items()
    ]


def _losses(nine: Results) -> Picture:
    lines: dict[str, figures.Curve] = {}
    for run, result in nine.items():
        epochs = range(1, len(result.learned.train) + 1)
        lines |= {
            f"{run.set}, training": (epochs, result.learned.train),
            f"{run.set}, held out": (epochs, result.learned.valid),
        }
    dashed = [name for name in lines if name.endswith("held out")]
    words = (
        "Solid: the points that are learned; dashed: the held-out tenth. Where the two part, the flow begins to learn "
    )
    words += "the points themselves."
    return Picture("losses", "The losses", words, figures.curves(lines, "epoch", "nats a point", dashed=dashed))


def _layers(nine: Results, seed: int) -> Picture:
    panels = []
    for run, result in nine.items():
        titles = [f"{run.set}: noise", *(f"after layer {k}" for k in range(1, run.layers + 1))]
        last = range(1, run.layers + 1)
        found = views.layers(result.final, views.noise(DRAWN, 2, seed), last, titles)
        panels += [figures.Panel(p.title, clouds=p.clouds, window=views.around(found, 0.99)) for p in found]
    words = f"The same {DRAWN:,} draws of noise after every layer, with the last weights; each row on axes of its own."
    return Picture("layers", "From noise to data", words, figures.planes(panels, Window(-3, 3, -3, 3), 5, shared=False))


def _compared(results: Results, task: int, letter: str, field: str) -> tuple[Any, ...]:
    """Two runs that differ in one thing: a table, in words, and their densities."""
    value = operator.attrgetter(field)
    pair = sorted((run for run in results if run.task == task), key=value)
    small, large = pair
    rows = tuple(
        (f"{letter} = {value(run)}", f"{r.learned.train[-1]:.3f}", *(str(r.kl[kind]) for kind in THREE), str(r.reverse))
        for run, r in ((run, results[run]) for run in pair)
    )
    heading = ("", "training loss", *(f"KL, {name}" for name in THREE.values()), "reverse KL, last weights")
    panels = []
    for run in pair:
        window, result = WINDOWS[run.dist], results[run]
        real = truth.image(known(run).log_prob, window, 120)
        mark, most = f"{letter} = {value(run)}", float(real.max())
        for name, image in (
            ("the truth", real),
            (THREE["final"], truth.image(truth.of_density(result.final), window, 120)),
            (THREE["best"], truth.image(truth.of_density(result.best), window, 120)),
        ):
            panels.append(figures.Panel(f"{mark}: {name}", image, most=most))
    picture = figures.planes(panels, WINDOWS[small.dist], 3)
    said = " ".join(_nearer(letter, value(small), value(large), results[small], results[large], kind) for kind in THREE)
    about = f"{small.set if field != 'gaussians' else 'Gaussians on a ring'}, {small.epochs} epochs. {said}"
    return (
        about,
        Table(
            heading,
            rows,
            "In nats; ± one standard error. KL(p ‖ q) asks whether the model covers the points, the reverse KL(q ‖ p) "
            "whether its draws are where points can be.",
        ),
        Picture(f"task-{task}", "The densities", "Each on the scale of its truth.", picture),
    )


def _nearer(letter: str, small: int, large: int, a: Result, b: Result, kind: str) -> str:
    """Which of two is nearer to the truth, in words, where the difference is not chance."""
    one, other = a.kl[kind], b.kl[kind]
    name = THREE[kind]
    if one.nats is None or other.nats is None:
        return f"With {name} one of the two is not finite."
    if abs(one.nats - other.nats) < 3 * ((one.error or 0) ** 2 + (other.error or 0) ** 2) ** 0.5:
        return f"With {name} the two are as near to the truth."
    near, far = (small, large) if one.nats < other.nats else (large, small)
    return f"With {name} {letter} = {near} is nearer to the truth than {letter} = {far}."
