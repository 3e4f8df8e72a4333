"""A small zoo: one flow of each kind in one and in two dimensions, and what each of its layers does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffeo.bases import StandardNormal
from diffeo.data.toys import Toy, toy
from diffeo.flow import Flow
from diffeo.nets import MLP, MaskedMLP
from diffeo.scalars import Scalar, affine, spline
from diffeo.studies import figures, truth, views
from diffeo.studies.course import Course
from diffeo.studies.learning import Learned, Loop, seeded, taught, with_weights
from diffeo.studies.outcome import Options, Outcome, Picture, Section, Table
from diffeo.studies.truth import FRESH, Gap, LogProb, Window
from diffeo.transforms import LU, ActNorm, Autoregressive, Chain, Coupling, Partition, Planar, Radial, Transform

__all__ = ["zoo"]

SEED, EPOCHS, RATE, LAYERS, WIDTH = 0, 500, 5e-3, 2, 8
ROWS = {1: 512, 2: 510}
WINDOW = Window(-3.2, 3.2, -3.2, 3.2)
Layer = list[Transform]


def _net(a: int, b: int) -> MLP:
    return MLP(a, b, (WIDTH, WIDTH), activation="tanh")


def _coupled(scalar: Scalar) -> Layer:
    """Both coordinates move, one after the other."""
    half = Partition.halves(2)
    return [Coupling(half, scalar, _net), Coupling(half.flip(), scalar, _net)]


def _autoregressive(d: int, scalar: Scalar, place: int) -> Layer:
    """The order is turned round from layer to layer."""
    order = list(range(d))[:: -1 if place % 2 else 1]
    hidden = (WIDTH, WIDTH) if d > 1 else ()  # the first coordinate looks at nothing
    masked = MaskedMLP(order, scalar.width, hidden, activation="tanh")
    return [Autoregressive(order, scalar, masked)]


class Kind(NamedTuple):
    """One flow of the zoo: how to make a layer of it, what it does in a line, and what the code that this repeats
    reached (KL in nats)."""

    name: str
    layer: Callable[[int], Layer]
    words: str
    founding: float


KINDS = (
    Kind("planar", lambda i: [Planar(2)], "Pushes space along one direction, where it crosses one line.", 0.314),
    Kind("radial", lambda i: [Radial(2)], "Pulls space towards one point, or pushes it away.", 0.342),
    Kind("RealNVP", lambda i: _coupled(affine()), "One coordinate is moved and stretched as the other says.", 0.148),
    Kind(
        "MAF",
        lambda i: _autoregressive(2, affine(), i),
        "Each coordinate is moved and stretched as those before it say; the density takes one pass, a draw d.",
        0.087,
    ),
    Kind(
        "spline coupling",
        lambda i: _coupled(spline(bins=5, bound=3.0)),
        "A coupling that bends its coordinate by a monotone curve of five pieces, and so can split a lump.",
        0.131,
    ),
    Kind(
        "spline autoregressive",
        lambda i: _autoregressive(2, spline(bins=5, bound=3.0), i),
        "The same curve, told by all coordinates before.",
        0.080,
    ),
    Kind(
        "1x1 + spline coupling",
        lambda i: [LU(2, "orthogonal"), *_coupled(spline(bins=5, bound=3.0))],
        "A learned linear map turns and shears space before each coupling, so that it need not follow the axes.",
        0.122,
    ),
    Kind(
        "ActNorm + 1x1 + spline coupling",
        lambda i: [ActNorm(2), LU(2, "orthogonal"), *_coupled(spline(bins=5, bound=3.0))],
        "The same, with a learned scale and shift first.",
        0.132,
    ),
)
LINE = Kind("spline", lambda i: _autoregressive(1, spline(bins=5, bound=3.0), i), "Two monotone curves.", 0.017)


class Set(NamedTuple):
    """Standardised points to learn from and to validate on, fresh ones, and their log-density."""

    train: Tensor
    valid: Tensor
    fresh: Tensor
    log_prob: LogProb


class Run(NamedTuple):
    """A flow as training left it and with its best weights, after how many steps from the noise each layer ends, and
    how far both are from the truth."""

    best: Flow
    last: list[int]
    learned: Learned
    kl: Gap
    kl_final: Gap


def zoo(options: Options, course: Course) -> Outcome:
    """Every flow with two layers and 500 passes over all points, as in the founding code, and its best weights."""
    seed = options.seed_or(SEED)
    kinds = {1: (LINE,), 2: KINDS}
    course.plan({kind.name: 1.0 for d in kinds for kind in kinds[d]})
    sets = {1: _set(toy("bimodal"), 1, options, seed), 2: _set(toy("three"), 2, options, seed)}
    runs = {}
    for d, several in kinds.items():
        for kind in several:
            runs[kind.name] = _run(kind, sets[d], d, options, course, seed)
            course.say(f"{kind.name}: {runs[kind.name].kl} nats from the truth")
    return _outcome(sets, runs, seed)


def _set(known: Toy, d: int, options: Options, seed: int) -> Set:
    """A tenth validates. What is learned is standardised; a divergence is the same in any units."""
    rows = truth.tensor(known.sample(ROWS[d], seed=seed), torch.float64)
    fresh = truth.tensor(known.sample(options.points(20_000), seed=FRESH + seed), torch.float64)
    mean, scale = rows.mean(0), rows.std(0)

    def log_prob(x: Tensor) -> Tensor:
        return truth.tensor(known.log_prob(x * scale + mean)) + scale.log().sum()

    cut = ROWS[d] // 10
    x = ((rows - mean) / scale).float()
    return Set(x[cut:], x[:cut], (fresh - mean) / scale, log_prob)


def _run(kind: Kind, data: Set, d: int, options: Options, course: Course, seed: int) -> Run:
    with seeded(seed):
        layers = [kind.layer(i) for i in range(LAYERS)]
        flow = Flow(Chain(*(step for layer in layers for step in layer)), StandardNormal(d))
    last = list(accumulate(len(layer) for layer in reversed(layers)))
    loop = Loop(options.epochs(EPOCHS), None, RATE)
    learned = taught(flow, data.train, data.valid, loop, course.begin(kind.name), seed)
    best = with_weights(flow, learned.best)
    kl, final = (truth.gap(data.log_prob, truth.of_density(f), data.fresh) for f in (best, flow))
    return Run(best, last, learned, kl, final)


Runs = Mapping[str, Run]


def _outcome(sets: Mapping[int, Set], runs: Runs, seed: int) -> Outcome:
    found = {
        kind.name: {
            "kl": runs[kind.name].kl.plain(),
            "kl_final": runs[kind.name].kl_final.plain(),
            "kl_founding_code": kind.founding,
            "best_epoch": runs[kind.name].learned.best_epoch,
            "parameters": _size(runs[kind.name]),
            "seconds": round(runs[kind.name].learned.seconds, 3),
        }
        for kind in (LINE, *KINDS)
    }
    lead = (
        f"Each flow here has {LAYERS} layers and conditioners of {WIDTH} hidden units, and learns a few hundred points "
        f"in {EPOCHS:,} passes. It is far too small on purpose: what a layer can and cannot do is then plain to see."
    )
    order = sorted(KINDS, key=lambda kind: _order(runs[kind.name].kl))
    answer = (
        f"Nearest to the truth in the plane is {order[0].name} ({runs[order[0].name].kl} nats), furthest "
        f"{order[-1].name} ({runs[order[-1].name].kl})."
    )
    sections = (
        Section("In one dimension", _line(sets[1], runs[LINE.name])),
        Section("In the plane", (_densities(sets[2], runs), _table(runs))),
        Section("Layer by layer", tuple(_steps(kind, sets[2], runs[kind.name], seed) for kind in KINDS)),
    )
    results = {"rows": {str(d): n for d, n in ROWS.items()}, "layers": LAYERS, "flows": found}
    return Outcome("The zoo", lead, sections, results, seed, answer)


def _order(gap: Gap) -> float:
    return float("inf") if gap.nats is None else gap.nats


def _size(run: Run) -> int:
    return sum(p.numel() for p in run.best.parameters())


def _line(data: Set, run: Run) -> tuple[Any, ...]:
    x = np.linspace(-3, 3, 601)
    at = torch.as_tensor(x)[:, None]
    shapes = {
        "the truth": truth.scores(data.log_prob, at).exp().numpy(),
        "the flow": truth.scores(truth.of_density(run.best), at).exp().numpy(),
    }
    maps, moved = {}, at.float()
    with torch.no_grad():
        for place, step in enumerate(views.steps_of(run.best), 1):
            moved = step(moved)[0]
            maps[f"after {place} layer{'s' if place > 1 else ''}"] = (x, moved[:, 0].numpy())
    everything = torch.cat([data.train, data.valid])[:, 0].numpy()
    return (
        f"{ROWS[1]} points of two Gaussians. A flow of one number is an increasing curve from data to noise: where it "
        f"is steep the density is high, where it is flat it is low. KL to the truth: {run.kl} nats.",
        Picture("line", "The density", "Over a histogram of the points.", figures.profiles(x, shapes, everything)),
        Picture(
            "line-map",
            "The map",
            "From data (below) to noise (left) after each layer: steep at the two lumps, flat in the gap.",
            figures.curves(maps, "x", "z"),
        ),
    )


def _densities(data: Set, runs: Runs) -> Picture:
    panels = [figures.Panel("the truth", truth.image(data.log_prob, WINDOW, 120))]
    for kind in KINDS:
        picture = truth.image(truth.of_density(runs[kind.name].best), WINDOW, 120)
        panels.append(figures.Panel(kind.name, picture))
    words = "Three Gaussians, standardised. Two planar layers make two cuts, two radial ones a "
    words += "ring; affine layers bend the one lump of the noise, splines divide it."
    return Picture("densities", "The densities", words, figures.planes(panels, WINDOW, 3))


def _table(runs: Runs) -> Table:
    heading = ("", "KL, best weights", "KL, last weights", "founding code", "best epoch", "parameters")
    rows = []
    for kind in (*KINDS, LINE):
        run = runs[kind.name]
        name = f"{kind.name} (one dimension)" if kind is LINE else kind.name
        numbers = (str(run.kl), str(run.kl_final), f"{kind.founding:.3f}", str(run.learned.best_epoch))
        rows.append((name, *numbers, f"{_size(run):,}"))
    words = "KL(p ‖ q) in nats on fresh points. The founding code was run once, with its last weights, on another draw."
    return Table(heading, tuple(rows), words)


@torch.no_grad()
def _steps(kind: Kind, data: Set, run: Run, seed: int) -> Picture:
    """Data, data as noise, and noise carried to the data layer by layer."""
    titles = ["noise", *(f"after {n} layer{'s' if n > 1 else ''}" for n in range(1, LAYERS + 1))]
    titles[-1] += ": draws"
    x = torch.cat([data.train, data.valid])
    there = run.best.to_latent(x).numpy()
    panels = [
        figures.Panel("data", clouds=(figures.Cloud(x.numpy()),)),
        figures.Panel("data carried to noise", clouds=(figures.Cloud(there),)),
        *views.layers(run.best, views.noise(ROWS[2], 2, seed), run.last, titles),
    ]
    name = kind.name.lower().replace(" + ", "-").replace(" ", "-")
    words = f"{kind.words} KL to the truth: {run.kl} nats."
    return Picture(f"layers-{name}", kind.name[:1].upper() + kind.name[1:], words, figures.planes(panels, WINDOW, 5))
