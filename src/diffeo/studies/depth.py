"""How layers bend space: planar flows and coupling flows of growing depth on one density."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffeo.bases import StandardNormal
from diffeo.data.toys import Toy, toy
from diffeo.flow import Flow
from diffeo.nets import MLP
from diffeo.scalars import affine
from diffeo.studies import figures, truth, views
from diffeo.studies.course import Course
from diffeo.studies.learning import Loop, seeded, taught, with_weights
from diffeo.studies.outcome import Options, Outcome, Picture, Section, Table
from diffeo.studies.truth import FRESH, Gap, Window
from diffeo.transforms import Chain, Coupling, Partition, Planar

__all__ = ["depth"]

DEPTHS = (1, 2, 4, 8, 16)
ROWS, VALID, SEED, NOISE = 2000, 500, 0, 0.1
WINDOW = Window(-1.75, 2.75, -1.75, 2.25)
STEPS = {"planar": 600, "affine coupling": 250}  # epochs: a planar layer is cheap and learns slowly
WIDTH = 32


def planar(layers: int) -> Flow:
    """Each layer pushes space along one direction, by a step across one line."""
    return Flow(Chain(*(Planar(2) for _ in range(layers))), StandardNormal(2))


def coupling(layers: int) -> Flow:
    """Each layer moves and stretches one coordinate as the other says."""
    parts = [Partition.alternating(2), Partition.alternating(2).flip()]
    steps = [Coupling(parts[i % 2], affine(), lambda a, b: MLP(a, b, (WIDTH, WIDTH))) for i in range(layers)]
    return Flow(Chain(*steps), StandardNormal(2))


KINDS: Mapping[str, Callable[[int], Flow]] = {"planar": planar, "affine coupling": coupling}


class Run(NamedTuple):
    """A flow with its best weights, and how far it is from the truth."""

    flow: Flow
    kl: Gap
    best_epoch: int
    seconds: float


def depth(options: Options, course: Course) -> Outcome:
    """Flows of 1 to 16 layers, each with the weights that were best on held-out points, against the exact density."""
    seed, known = options.seed_or(SEED), toy("moons", noise=NOISE)
    fresh = truth.tensor(known.sample(options.points(20_000), seed=FRESH + seed), torch.float64)
    rows = truth.tensor(known.sample(ROWS + VALID, seed=seed), torch.float32)
    course.plan({_stage(kind, layers): 1.0 + layers for kind in KINDS for layers in DEPTHS})
    runs = {}
    for kind in KINDS:
        for layers in DEPTHS:
            runs[kind, layers] = _run(kind, layers, rows, known, fresh, options, course, seed)
        course.say(f"{kind}: {', '.join(f'{layers}: {runs[kind, layers].kl}' for layers in DEPTHS)} nats")
    return _outcome(known, runs, seed)


def _stage(kind: str, layers: int) -> str:
    return f"{kind}, {layers} layer{'s' if layers > 1 else ''}"


def _run(
    kind: str, layers: int, rows: Tensor, known: Toy, fresh: Tensor, options: Options, course: Course, seed: int
) -> Run:
    with seeded(seed):
        flow = KINDS[kind](layers)
    loop = Loop(options.epochs(STEPS[kind]), 500, 5e-3)
    told = taught(flow, rows[:ROWS], rows[ROWS:], loop, course.begin(_stage(kind, layers)), seed)
    best = with_weights(flow, told.best)
    return Run(best, truth.gap(known.log_prob, truth.of_density(best), fresh), told.best_epoch, told.seconds)


Runs = Mapping[tuple[str, int], Run]


def _outcome(known: Toy, runs: Runs, seed: int) -> Outcome:
    results = {
        "entropy": known.entropy,
        "kl": {kind: {str(layers): runs[kind, layers].kl.plain() for layers in DEPTHS} for kind in KINDS},
        "parameters": {kind: {str(n): _size(runs[kind, n].flow) for n in DEPTHS} for kind in KINDS},
        "seconds": {kind: {str(n): round(runs[kind, n].seconds, 3) for n in DEPTHS} for kind in KINDS},
    }
    deepest = DEPTHS[-1]
    lead = (
        "A flow is a pile of simple maps, each with an inverse. One alone bends little: a planar layer pushes space "
        "along one direction where it crosses one line; a coupling layer slides one coordinate by a curve of the "
        f"other. Piled up they bend as much as one likes. Here the same {ROWS:,} points on two moons are learned by "
        f"flows of {DEPTHS[0]} to {deepest} layers."
    )
    answer = (
        f"From 1 layer to {deepest}, planar flows come from {runs['planar', 1].kl} to {runs['planar', deepest].kl} "
        f"nats from the truth, affine couplings from {runs['affine coupling', 1].kl} to "
        f"{runs['affine coupling', deepest].kl}."
    )
    sections = (
        Section("Distance from the truth", _distances(runs)),
        Section("What depth looks like", (_densities(known, runs),)),
        Section("What every layer does to space", _grids(runs)),
    )
    return Outcome("Depth bends space", lead, sections, results, seed, answer)


def _size(flow: Flow) -> int:
    return sum(p.numel() for p in flow.parameters())


def _distances(runs: Runs) -> tuple[Any, ...]:
    lines = {
        kind: (DEPTHS, [_nats(runs[kind, n]) for n in DEPTHS], [runs[kind, n].kl.error or 0.0 for n in DEPTHS])
        for kind in KINDS
    }
    rows = tuple(
        (str(n), *(text for kind in KINDS for text in (str(runs[kind, n].kl), f"{_size(runs[kind, n].flow):,}")))
        for n in DEPTHS
    )
    heading = ("layers", *(text for kind in KINDS for text in (f"{kind}: KL", "parameters")))
    return (
        Picture(
            "depth",
            "KL to the truth by the number of layers",
            "On fresh points; bars are two standard errors. Every flow has the weights that were best on held-out "
            "points.",
            figures.against(lines, "layers", "nats"),
        ),
        Table(heading, rows, "KL(p ‖ q) in nats."),
    )


def _nats(run: Run) -> float:
    return float("nan") if run.kl.nats is None else run.kl.nats


def _densities(known: Toy, runs: Runs) -> Picture:
    real = truth.image(known.log_prob, WINDOW, 160)
    shown = (1, 4, 16)
    panels = []
    for kind in KINDS:
        panels.append(figures.Panel("the truth", real))
        for n in shown:
            picture = truth.image(truth.of_density(runs[kind, n].flow), WINDOW, 160)
            panels.append(figures.Panel(_stage(kind, n), picture))
    words = (
        "One layer can only shear and squeeze a Gaussian; more fold it. On one scale, darker where points are likelier."
    )
    return Picture("densities", "The densities", words, figures.planes(panels, WINDOW, len(shown) + 1))


def _grids(runs: Runs) -> tuple[Any, ...]:
    few = _web(runs["affine coupling", 4].flow, (1, 2, 3, 4))
    many = _web(runs["planar", 16].flow, tuple(np.arange(2, 17, 2)))
    return (
        "A square grid of the noise, with the rings of one and two standard deviations, is carried towards the data. "
        "Cells that shrink are where the density grows, by the factor by which they shrink: that is the Jacobian "
        "determinant. No line ever crosses itself or tears, since every layer has an inverse.",
        Picture("grid-coupling", "Four affine couplings", "After each layer, on shared axes.", few),
        Picture("grid-planar", "Sixteen planar layers", "After every second layer, on shared axes.", many),
    )


def _web(flow: Flow, last: tuple[int, ...]) -> figures.Drawing:
    titles = ["noise", *(f"after {n} layer{'s' if n > 1 else ''}" for n in last)]
    panels = views.webs(flow, [int(n) for n in last], titles)
    return figures.planes(panels, views.around(panels, 0.98), len(panels) if len(panels) < 6 else 3)
