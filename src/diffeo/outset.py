"""Where training begins: at the best Gaussian mixtures of the data, or at layers that a trial shows ahead of one."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffeo.bases import GaussianMixture
from diffeo.config import FitConfig
from diffeo.mixed import Mixed
from diffeo.parsimonious import Family, affordable_size, simplest
from diffeo.prepare import Prepared
from diffeo.problem import folds, judged_apart
from diffeo.recipes import Plan, build, members, most_components, plan, settings, trial_epochs
from diffeo.rows import Layout, Rows
from diffeo.starts import FAR, FEW, MixtureFit, affordable_rows, ahead, best_mixtures
from diffeo.training import Interrupted, Settings
from diffeo.transforms import ActNorm, Chain, Elementwise
from diffeo.units import Unit, fit_units

__all__ = ["Clock", "Report", "Start", "begin", "layered", "trial_seconds"]

SEARCH_SHARE = 0.1  # of the budget, for the mixture at the start
LONGER = 1.5  # times as long as the last, that the next run of EM may take
SIMPLE_SHARE = 1 / 3  # of that, for mixtures of few numbers, where rows are few
START_ROWS = 20_000  # that layers may take a start from
AMPLE = 110  # epochs of one mixture in the budget, from which on they are not
TRIED = 24.0  # seconds of budget, from which on layers are tried beside one mixture
MANY = 30_000  # rows, from which on they are; of fewer, mixtures learned more in every budget
LAYERS, LAST_COMPONENTS, LAYERS_RATE = 3, 8, 1e-2
HASTY = 25  # epochs, and for fewer twice that rate
Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Clock:
    """Seconds since the fit began, and how many there are (None: as many as it takes)."""

    began: float
    budget: float | None

    def left(self) -> float | None:
        return None if self.budget is None else self.budget - (time.monotonic() - self.began)


class Start(NamedTuple):
    """What training begins with, and a word on how it was found."""

    density: Mixed
    plan: Plan
    settings: Settings
    found: str


def begin(
    data: Prepared,
    config: FitConfig,
    clock: Clock,
    report: Report,
    stop: Callable[[], bool],
    repeat: tuple[Plan, Settings] | None,
) -> Start:
    """A density at its start: units, frequencies, and where the recipe takes them, the mixtures fitted by EM."""
    n, layout = data.train.n, data.layout
    chosen = _choose_units(layout, data.x_train, data.train)
    given = _given_units(layout, data.train)
    wants = config.recipe == "auto" or config.components is not None
    generator, start = torch.Generator().manual_seed(config.seed), "the identity over a normal"
    mixtures: list[MixtureFit] = []
    seconds = None if clock.budget is None else SEARCH_SHARE * clock.budget
    d = len(layout.smooth)
    if repeat is not None and config.recipe == "auto" and config.layers is None and repeat[0].layers:
        return layered(data, config, repeat[0])._replace(settings=repeat[1])
    most = most_components(config, n, d, clock.budget) if repeat is None else repeat[0].start_most
    looked_at = affordable_rows(d, seconds, most)
    looked_at = looked_at if repeat is None else repeat[0].start_rows
    limit = None if repeat is None else repeat[0].start_fits

    most_seconds = (seconds or 0.0) * (1 - SIMPLE_SHARE if n < FEW else 1.0)
    ticks, over = [time.monotonic()], False

    def ended(fits: int) -> bool:
        """By the count that an earlier run recorded, or else by the clock: whether another run of EM, if it is a little
        longer than the last, would end past the share of the budget; then for good."""
        nonlocal over
        ticks.append(time.monotonic())
        then = ticks[-1] - ticks[0] + LONGER * (ticks[-1] - ticks[-2])
        over = over or stop() or (fits >= limit if limit is not None else seconds is not None and then > most_seconds)
        return over

    def how_many(components: int) -> int:
        return members(config, n, d, clock.budget, components) if repeat is None else repeat[0].members

    def apart(members: int) -> np.ndarray | None:
        alone = judged_apart(data, members) if repeat is None else repeat[0].apart
        return folds(n, members) if alone else None

    simple: tuple[MixtureFit, Family] | None = None
    fits = 0
    simple_most = affordable_size(n, d, None if seconds is None else SIMPLE_SHARE * seconds)
    simple_most = simple_most if repeat is None else repeat[0].simple_most
    if layout.smooth and wants:
        report({"stage": "mixture", "message": "fitting Gaussian mixtures to start from"})
        probe = build(plan(config, n, chosen, given, 1, looked_at), layout)
        _set_units(probe, chosen, given, data.train)
        z, z_valid = (_noisy_numbers(probe, rows, generator) for rows in (data.train, data.valid))
        z, z_valid = (_resampled(z, data.weights, config.seed), _resampled(z_valid, data.valid_weights, config.seed))
        mixtures = best_mixtures(z, z_valid, config.seed, how_many, config.components, most, looked_at, ended, apart)
        fits = mixtures[0].fits
        if apart(len(mixtures)) is not None:
            z, z_valid = z.clip(-FAR, FAR), z_valid.clip(-FAR, FAR)
            simple = simplest(z, config.seed, simple_most)
            if config.components is None:
                mixtures = ahead(z, z_valid, folds(n, len(mixtures)), mixtures, *simple, config.seed)
        if stop():
            raise Interrupted("interrupted before training began; nothing was saved")
        start = f"{len(mixtures)} Gaussian mixtures" if len(mixtures) > 1 else "a Gaussian mixture"
        start += f" of {mixtures[0].found}"
        report({"stage": "mixture", "message": f"start: {start}"})
    components = len(mixtures[0].weights) if mixtures else 1
    made = plan(config, n, chosen, given, components, looked_at, max(1, len(mixtures)))
    how = settings(config, n) if repeat is None else repeat[1]
    made = made.model_copy(update={"start_fits": fits, "start_most": most})
    if simple is not None:
        count, family = len(simple[0].weights), simple[1].name
        found = {"apart": True, "simple": count, "family": family, "simple_most": simple_most}
        made = made.model_copy(update=found)
        report({"stage": "mixture", "message": f"beside them, a mixture of few numbers: {count} {family}"})
    density = build(made, layout)
    _set_units(density, chosen, given, data.train)
    if density.masses is not None:
        density.masses.start(data.train.codes, data.weights)
    if mixtures and density.rest is not None:
        _set_mixtures(density.rest, mixtures + ([] if simple is None else [simple[0]]))
    elif density.rest is not None:
        _initialize(density, data.train)
    return Start(density, made, how, start)


@torch.no_grad()
def _initialize(density: Mixed, rows: Rows) -> None:
    """Let layers that take a start from data have it, each from what comes out of those before it."""
    assert density.rest is not None
    chain = density.rest.transform
    stairs: list[Any] = list(chain.transforms) if isinstance(chain, Chain) else []
    steps = [step for step in stairs if _starts_from_data(step)]
    if not steps:
        return
    some = rows[torch.randperm(rows.n, generator=torch.Generator().manual_seed(0))[:START_ROWS].sort().values]
    noise = torch.rand(some.low.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z, features = density.numbers(some, noise)[0], density.features(some)
    for step in stairs:
        if step in steps:
            step.initialize(z)
        z = step(z, features if features.shape[1] else None)[0]


def _starts_from_data(step: torch.nn.Module) -> bool:
    return isinstance(step, ActNorm) or (isinstance(step, Elementwise) and step.scalar.start is not None)


def trial_seconds(made: Plan, config: FitConfig, clock: Clock, n: int) -> float:
    """Seconds for each of two trials where the budget is what limits one mixture of many rows, so that layers may learn
    more in it; else 0."""
    free = config.recipe == "auto" and config.layers is None and config.components is None
    if not (free and made.members == 1 and len(made.units) > 1 and n >= MANY and (clock.budget or 0.0) >= TRIED):
        return 0.0
    seconds = clock.budget or 0.0
    epochs, share = trial_epochs(config, n, len(made.units), seconds, made.components)
    return share * seconds if epochs < AMPLE else 0.0


def layered(data: Prepared, config: FitConfig, like: Plan) -> Start:
    """Affine autoregressive layers before a small mixture; nothing is fitted to it before it learns."""
    n = data.train.n
    found = {"layers": LAYERS, "components": LAST_COMPONENTS, "members": 1, "start_fits": 0}
    made = like.model_copy(update=found)
    seconds = config.budget or float("inf")
    hasty = trial_epochs(config, n, len(like.units), seconds, like.components)[0] < HASTY
    rate = config.learning_rate or LAYERS_RATE * (2 if hasty else 1)
    how = settings(config, n).model_copy(update={"learning_rate": rate})
    torch.manual_seed(config.seed)
    density = build(made, data.layout)
    _set_units(density, list(made.units), list(made.given_units), data.train)
    if density.masses is not None:
        density.masses.start(data.train.codes, data.weights)
    return Start(density, made, how, f"{LAYERS} affine layers, which learned faster than a mixture in a trial")


def _choose_units(layout: Layout, x: np.ndarray, rows: Rows) -> list[Unit]:
    """For every number: by its kind where that says so, else by the shape of the values."""
    chosen = []
    for j, (_, column) in enumerate(layout.smooth):
        present = ~rows.atom[:, j].numpy()
        low, width = rows.low[present, j].numpy(), rows.width[present, j].numpy()
        middle = low + 0.5 * width
        positive = column.positive and bool(len(low)) and bool((low > 0).all())
        reciprocal = column.grid is not None and column.grid.warp == "reciprocal"  # which has no cells below zero
        if not len(middle):
            chosen.append(Unit())
        elif column.kind == "positive" or reciprocal:
            chosen.append(Unit("log", bent=Unit.choose(np.log(middle)).bent))
        else:
            chosen.append(Unit.choose(middle, positive, column.bounds))
    return chosen


def _given_units(layout: Layout, rows: Rows) -> list[Unit]:
    numbers = rows.given_numbers.numpy()
    return [Unit.choose(numbers[:, j]) for j in range(numbers.shape[1])]


def _set_units(density: Mixed, chosen: list[Unit], given: list[Unit], rows: Rows) -> None:
    if density.units is not None:
        fitted = fit_units(chosen, rows.low + 0.5 * rows.width, ~rows.atom)
        density.units.load_state_dict(fitted.state_dict())
        density.set_slopes()
    if density.given_units is not None:
        numbers = rows.given_numbers
        fitted = fit_units(given, numbers, torch.ones_like(numbers, dtype=torch.bool))
        density.given_units.load_state_dict(fitted.state_dict())


def _noisy_numbers(density: Mixed, rows: Rows, generator: torch.Generator) -> np.ndarray:
    """One draw of the numbers in unit spread, free places filled: float64 [n, d]."""
    noise = torch.rand(rows.low.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        return density.numbers(rows, noise)[0].double().numpy()


def _resampled(z: np.ndarray, weights: Tensor, seed: int) -> np.ndarray:
    """Rows drawn by their weights, where these differ: EM itself knows no weights."""
    if bool((weights == weights[0]).all()):
        return z
    share = weights.double().numpy()
    return z[np.random.default_rng(seed).choice(len(z), len(z), p=share / share.sum())]


def _set_mixtures(flow: torch.nn.Module, fits: list[MixtureFit]) -> None:
    """Give the flow's mixtures the moments that EM found, in turn."""
    places = [module for module in flow.modules() if isinstance(module, GaussianMixture)]
    for module, fit in zip(places, fits, strict=True):
        weights, means, covariances = (torch.from_numpy(part) for part in fit[:3])
        module.load_state_dict(GaussianMixture.from_moments(weights, means, covariances).state_dict())
