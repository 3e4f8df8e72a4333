"""Fits every recipe to two moons for its page: how far from the truth, what a row costs, and the picture."""

import io
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

import diffeo
from diffeo import mixtures, transforms
from diffeo.data.toys import toy
from diffeo.flow import Flow
from diffeo.studies import figures, truth, views
from diffeo.studies.figures import Cloud, Panel
from diffeo.transforms import Continuous, Inverse
from diffeo.transforms.fields import runge_kutta, stream

ROWS, FRESH, SEED = 1500, 20_000, 0
TIMED_ROWS, ROUNDS, LEAST = 2000, 7, 0.05  # rows scored or drawn, rounds, CPU seconds of one measurement at least
WIDE, SHORT = 8, 5  # columns of the wider rows that are timed, and epochs of the fit to them
WINDOW, NOISE = truth.Window(-1.5, 2.5, -1.75, 2.25), truth.Window(-3.7, 3.7, -3.7, 3.7)
COLOURS, LARGEST = (160, 112, 80, 56), 140_000  # of a picture, and bytes
MOONS = toy("moons")
HOW = {
    "rows": ROWS, "fresh": FRESH, "seed": SEED, "timed_rows": TIMED_ROWS, "rounds": ROUNDS, "wide": WIDE,
    "short": SHORT, "torch": torch.__version__,
}  # fmt: skip


def references(name: str, epochs: int) -> dict[int, Flow]:
    """The flows, of 2 and of more columns, whose time is the unit."""
    torch.set_num_threads(1)
    return {2: flow_of(in_the_plane(name, epochs)), WIDE: flow_of(wide(name))}


def looked_at(name: str, epochs: int, units: dict[int, Flow]) -> tuple[dict[str, Any], bytes]:
    """What is measured of a recipe, and its picture."""
    model = in_the_plane(name, epochs)
    return measured(name, model, units), picture(model)


def in_the_plane(name: str, epochs: int) -> diffeo.Model:
    """The recipe fitted to two moons."""
    return diffeo.fit(MOONS.sample(ROWS, SEED), recipe=name, epochs=epochs, seed=SEED, threads=1)


def wide(name: str) -> diffeo.Model:
    """The recipe fitted for a moment to rows of several pairs of moons beside each other, to be timed."""
    rows = np.concatenate([MOONS.sample(ROWS, SEED + k) for k in range(WIDE // 2)], 1)
    return diffeo.fit(rows, recipe=name, epochs=SHORT, seed=SEED, threads=1)


def flow_of(model: diffeo.Model) -> Flow:
    """The flow of the numbers of a model, in unit spread."""
    assert isinstance(model.density.rest, Flow)
    return model.density.rest.eval()


def measured(name: str, model: diffeo.Model, references: dict[int, Flow]) -> dict[str, Any]:
    """What a page says in numbers."""
    fresh = truth.tensor(MOONS.sample(FRESH, truth.FRESH), torch.float64)
    kl = truth.gap(MOONS.log_prob, lambda x: model.log_prob(x.numpy()), fresh)
    flows = {2: flow_of(model), WIDE: flow_of(wide(name))}
    return {
        "kl": kl.plain(),
        "parameters": model.card.parameters,
        "epochs": model.card.epochs,
        "cost": {str(d): cost(flow, references[d]) for d, flow in flows.items()},
    }


def cost(flow: Flow, reference: Flow) -> dict[str, list[float]]:
    """CPU time of this flow over that of the reference, to score and to draw: least, median and most of the rounds, in
    each of which both take turns."""
    x = views.noise(TIMED_ROWS, flow.event_shape[0], SEED)
    acts: dict[str, Callable[[Flow], Any]] = {"score": lambda f: f.log_prob(x), "draw": lambda f: f.sample(len(x))}
    found = {}
    for act, run in acts.items():
        ratios = [seconds(run, flow) / seconds(run, reference) for _ in range(ROUNDS)]
        found[act] = [float(f"{v:.3g}") for v in (min(ratios), statistics.median(ratios), max(ratios))]
    return found


@torch.no_grad()
def seconds(run: Callable[[Flow], Any], flow: Flow) -> float:
    """CPU seconds of one run, from as many as it takes to tell."""
    began, runs, passed = time.process_time(), 0, 0.0
    while passed < LEAST:
        run(flow)
        runs, passed = runs + 1, time.process_time() - began
    return passed / runs


def picture(model: diffeo.Model) -> bytes:
    """The density beside the truth, points beside draws, and what the layers do to a grid of the noise."""
    steps = inside(model)
    points, drawn = MOONS.sample(ROWS, SEED), model.sample(ROWS, seed=SEED)
    log_prob: truth.LogProb = lambda x: model.log_prob(x.numpy())  # noqa: E731
    panels = [
        Panel("the truth", truth.image(MOONS.log_prob, WINDOW, 120)),
        Panel("its density", truth.image(log_prob, WINDOW, 120)),
        Panel(f"{ROWS:,} points", clouds=(Cloud(points),)),
        Panel(f"{ROWS:,} draws", clouds=(Cloud(drawn, figures.SAMPLES),)),
    ]
    columns = 3 if len(steps) % 4 and not len(steps) % 3 else 4
    if columns == 3:
        panels[2:] = [Panel("points and draws", clouds=(*panels[2].clouds, *panels[3].clouds))]
    return few_colours(figures.planes([*panels, *steps], WINDOW, columns, shared=False).png)


def few_colours(png: bytes) -> bytes:
    """The picture with as many colours as leave it small, as a repository keeps it for ever."""
    small = png
    with Image.open(io.BytesIO(png)) as full:
        for colours in COLOURS:
            if len(small) > LARGEST:
                file = io.BytesIO()
                full.convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
                small = file.getvalue()
    return small


@torch.no_grad()
def inside(model: diffeo.Model) -> list[Panel]:
    """The grid of the noise after some layers, in unit spread, and the points as noise."""
    flow, units = flow_of(model), model.density.units
    assert units is not None
    x = units(torch.as_tensor(MOONS.sample(ROWS, SEED)))[0].float()
    z = flow.base.to_normal(flow.transform(x)[0])
    whole = flow.transform
    chain = views.steps_of(flow) if isinstance(whole, transforms.Chain) else [whole]
    if not chain:
        grids = members(flow.base, units)
    else:
        grids = along(chain[0]) if isinstance(chain[0], Continuous) else after(flow)
        window = around(grids)
        grids = [Panel(grid.title, web=grid.web, window=window) for grid in grids]
    return [*grids, Panel("the points as noise", clouds=(Cloud(z.double().numpy()),), window=NOISE)]


def around(grids: list[Panel]) -> truth.Window:
    """A square about the whole grid of the noise, and about its rings wherever they are carried."""
    first = grids[0].web
    assert first is not None
    lines = [*first.across, *(ring for grid in grids if grid.web for ring in grid.web.rings)]
    points = np.concatenate(lines)
    middle, half = (points.min(0) + points.max(0)) / 2, 0.55 * float(np.ptp(points, axis=0).max())
    return truth.Window(middle[0] - half, middle[0] + half, middle[1] - half, middle[1] + half)


def after(flow: Flow) -> list[Panel]:
    """The grid after six layers at most, evenly chosen; linear maps between them are counted to the next."""
    kinds = [type(step.transform if isinstance(step, Inverse) else step) for step in reversed(views.steps_of(flow))]
    kind = Counter(kinds).most_common(1)[0][0]
    ends = [i + 1 for i, found in enumerate(kinds) if found is kind]
    shown = sorted({max(1, round(len(ends) * k / 6)) for k in range(1, 7)})
    titles = ["noise", *(f"after {k} layer{'s' if k > 1 else ''}" for k in shown)]
    last = [ends[k - 1] for k in shown]
    return views.webs(flow, [*last[:-1], len(kinds)], titles)


def along(layer: Continuous, stages: int = 6, steps: int = 12) -> list[Panel]:
    """The grid on its way through a field, at even times from 0 to 1."""
    field = stream(layer.field, torch.float32, None)
    panels = []
    start = figures.web()
    parts = [*start.across, *start.along, *start.rings]
    x, h = torch.as_tensor(np.concatenate(parts), dtype=torch.float32), 1 / (stages * steps)
    ends = np.cumsum([len(part) for part in parts])[:-1]
    for k in range(stages * steps + 1):
        if k % steps == 0:
            lines = np.split(x.double().numpy(), ends)
            a, b = len(start.across), len(start.across) + len(start.along)
            title = f"t = {k // steps}/{stages}" if 0 < k < stages * steps else f"t = {k // steps // stages}"
            panels.append(Panel(title, web=figures.Web(lines[:a], lines[a:b], lines[b:])))
        x = x + runge_kutta(field, k * h, h, x)[0]
    return panels


def members(base: torch.nn.Module, units: transforms.Transform) -> list[Panel]:
    """The densities that an average is made of: two that learned, and the mixture of few numbers if there is one."""

    def log_prob(member: torch.nn.Module) -> truth.LogProb:
        def of(x: torch.Tensor) -> torch.Tensor:
            z, log_det = units(x)
            return member(z.float()) + log_det

        return of

    parts = list(base.members) if isinstance(base, mixtures.Ensemble) else [base]
    learned = [part for part in parts if part.net is not None]
    shown = {f"member {k + 1} of {len(learned)}": part for k, part in enumerate(learned[:2])}
    for part in parts:
        if part.net is None:
            shown["the mixture beside them"] = part
    return [Panel(title, truth.image(log_prob(part), WINDOW, 120)) for title, part in shown.items()]
