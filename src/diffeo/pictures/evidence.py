"""What held-out pictures and samples say of a fitted density of pictures, within a share of the time for the fit.

How many pictures are looked at is decided by the clock where there is a budget, after a few are timed; which ones, and
everything drawn, by the seed.
"""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffeo.data.pictures import Pictures
from diffeo.errors import ModelError
from diffeo.pictures import showing
from diffeo.pictures.drawn import beside, copies_of, noise, samples_of, spread_of
from diffeo.pictures.findings import Moment, PictureFindings, Sheet
from diffeo.pictures.judging import judged
from diffeo.pictures.latents import latent_levels, round_trip
from diffeo.pictures.scores import anchor_bits, anchors_of, bits_each, by_class, context_of, mean_bits
from diffeo.quantized import Quantized

__all__ = ["findings_of", "of_other_pictures", "shares_of"]

SHARE = 0.07  # of the budget, for all of this
SCORED, LEAST_SCORED = 10_000, 64
OTHERS = 2_000  # of other pictures
DRAWN, LEAST_DRAWN = 64, 16
LATENTS, TRIPS = 256, 32
_PRODUCTS = 1e10  # multiplications a second of a Gaussian's covariances, on a slow processor


class _Extent(NamedTuple):
    """How many pictures are looked at."""

    scored: int
    drawn: int
    latents: int
    trips: int
    learned: int  # by a Gaussian
    among: float  # seconds for the nearest training pictures


def findings_of(
    density: Quantized,
    card: dict[str, Any],
    train: Pictures,
    valid: Pictures,
    history: list[dict[str, Any]],
    *,
    points: int,
    seed: int,
    budget: float | None,
) -> PictureFindings:
    """Findings on a density fitted to ``train``, by ``valid``, by bounds of so many draws. ``card``: what is known of
    the fit. ``history``: log-probabilities in nats. ``budget``: seconds of the fit, of which this takes 7 %.

    Raises ModelError where the log-probability of a picture is not a number.
    """
    classes = train.classes if density.context_features else ()
    shares = shares_of(train) if classes else ()
    extent = _extent(density, train, valid, points, budget)
    scored = _some(valid, extent.scored, seed)
    bits = bits_each(density, scored, points, classes, shares)
    one = bits_each(density, scored, 1, classes, shares)
    learned = bits_each(density, _some(train, len(scored), seed + 1), 1, classes, shares)
    samples, context, broken = samples_of(density, extent.drawn, shares, seed)
    found = PictureFindings(
        **_facts(card),
        event=train.event,
        grays=density.levels,
        classes=classes,
        class_shares=shares,
        conditional=bool(density.context_features),
        rows_train=len(train),
        rows_valid=len(valid),
        scored_source=valid.source,
        points=points,
        model=mean_bits(bits),
        one_draw=mean_bits(one),
        train=mean_bits(learned),
        by_class=by_class(bits, scored),
        anchors=anchors_of(bits, anchor_bits(train, scored, extent.learned)),
        anchors_from=_fitted_to(train, extent.learned),
        history=tuple(Moment(**{name: step.get(name) for name in Moment.model_fields}) for step in history),
        **_of_latents(density, scored, extent, classes),
        samples_drawn=len(samples),
        samples_broken=broken,
        spread=spread_of(density, one, samples, context, classes, shares),
        seed=seed,
    )
    copies, twins = copies_of(samples, train, scored, extent.among, density.levels)
    sheets = [
        *_of_samples(density, samples, context, seed, extent),
        twins,
        *_of_pictures(density, scored, bits, classes, seed, extent),
    ]
    found = found.model_copy(update={"copies": copies, "sheets": tuple(s for s in sheets if s is not None)})
    return found.model_copy(update={"verdict": judged(found)})


def of_other_pictures(findings: PictureFindings, density: Quantized, pictures: Pictures) -> PictureFindings:
    """The findings with all that is of held-out pictures told of others, at most 2,000 of them; what is of training and
    of samples stays. Anchors are fitted to these very pictures, each half of them by the other half."""
    f, extent = findings, _Extent(OTHERS, DRAWN, LATENTS, TRIPS, SCORED, math.inf)
    scored = _some(pictures, OTHERS, f.seed)
    bits = bits_each(density, scored, f.points, f.classes, f.class_shares)
    one = bits_each(density, scored, 1, f.classes, f.class_shares)
    names = {"extremes", "ways", "varied", "rebuilt"}
    new = [s for s in _of_pictures(density, scored, bits, f.classes, f.seed, extent) if s is not None]
    found = f.model_copy(
        update={
            "held_out": False,
            "scored_source": PictureFindings._name_only(pictures.source),
            "rows_valid": len(pictures),
            "model": mean_bits(bits),
            "one_draw": mean_bits(one),
            "by_class": by_class(bits, scored),
            "anchors": anchors_of(bits, _crossed(scored)),
            "anchors_from": "fitted to these pictures themselves, each half measured by the other half",
            **_of_latents(density, scored, extent, f.classes),
            "spread": None if f.spread is None else beside(one, f.spread),
            "sheets": (*(s for s in f.sheets if s.name not in names), *new),
        }
    )
    return found.model_copy(update={"verdict": judged(found)})


def _facts(card: dict[str, Any]) -> dict[str, Any]:
    """What the record of a fit has for the findings."""
    same = ("source", "recipe", "plan", "training", "parameters", "epochs", "steps", "skipped", "returns", "seconds")
    known = {name: card[name] for name in same if name in card}
    versions = {"diffeo": card.get("version"), "torch": card.get("torch")}
    return {**known, "versions": card.get("versions", {name: v for name, v in versions.items() if v})}


def _some(pictures: Pictures, most: int, seed: int) -> Pictures:
    """So many of them at most, drawn by the seed, in their order."""
    if len(pictures) <= most:
        return pictures
    return pictures.take(np.sort(np.random.default_rng(seed).permutation(len(pictures))[:most]))


def _fitted_to(train: Pictures, learned: int) -> str:
    few = f" (the Gaussians to {learned:,} of them)" if learned < len(train) else ""
    return f"fitted to the {len(train):,} training pictures{few}"


def shares_of(train: Pictures) -> tuple[float, ...]:
    """How often each class is there, at least once in a thousand pictures."""
    labels = np.zeros(0, np.int64) if train.labels is None else train.labels
    counts = np.bincount(labels, minlength=len(train.classes)) + 1e-3
    return tuple((counts / counts.sum()).tolist())


# How much ------------------------------------------------------------------------------------------------------------


def _extent(density: Quantized, train: Pictures, valid: Pictures, points: int, budget: float | None) -> _Extent:
    """Of the time, six tenths are for scores, a quarter for samples, the rest for what needs no model."""
    d, everything = density.dimensions, _Extent(SCORED, DRAWN, LATENTS, TRIPS, SCORED, math.inf)
    if budget is None:
        return everything
    seconds = SHARE * budget
    forth, back = _pace(density, valid)
    scored = int(0.6 * seconds / (points + 2) / forth)
    drawn = int(0.25 * seconds / (5 * back)) // LEAST_DRAWN * LEAST_DRAWN
    return _Extent(
        scored=min(SCORED, max(LEAST_SCORED, scored)),
        drawn=min(DRAWN, max(LEAST_DRAWN, drawn)),
        latents=min(LATENTS, max(LEAST_SCORED, scored // 4)),
        trips=min(TRIPS, max(8, drawn // 2)),
        learned=min(SCORED, max(2000, int(0.2 * seconds * _PRODUCTS / (4 * d * d)))),
        among=0.1 * seconds,
    )


@torch.no_grad()
def _pace(density: Quantized, pictures: Pictures) -> tuple[float, float]:
    """Seconds that a picture takes forth and back, of some together; the second of two tries."""
    x = torch.tensor(pictures.pixels[:LEAST_DRAWN])
    context = None
    if density.context_features:
        context = torch.eye(density.context_features).to(density.like)[:1].expand(len(x), -1)
    for _ in range(2):
        began = time.monotonic()
        density.log_prob(x, context)
        between = time.monotonic()
        density.sample(len(x)) if context is None else density.sample(1, context)
        ended = time.monotonic()
    return max(between - began, 1e-6) / len(x), max(ended - between, 1e-6) / len(x)


# Samples -------------------------------------------------------------------------------------------------------------


def _of_samples(
    density: Quantized, samples: Pictures, context: Tensor | None, seed: int, extent: _Extent
) -> list[Sheet]:
    rows = max(2, extent.drawn // showing.ACROSS)
    z = noise(density, len(samples), seed)[:rows]
    drawn = showing.sheet(
        "samples", "As they come", "Drawn by the density itself, none chosen.", samples.pixels, density.levels
    )
    return [drawn, showing.temperatures(density, z, None if context is None else context[:rows])]


# Pictures ------------------------------------------------------------------------------------------------------------


def _given(density: Quantized, pictures: Pictures, classes: tuple[str, ...]) -> tuple[Tensor, Tensor | None]:
    """Grey levels [n, C, H, W] and what the density is conditioned on: their labels, or the most probable class."""
    x, context = torch.tensor(pictures.pixels), context_of(density, pictures, classes)
    if context is None and density.context_features:
        every = torch.eye(density.context_features).to(density.like)
        with torch.no_grad():
            each = torch.stack([density.log_prob(x, row.expand(len(x), -1), 1) for row in every])
        context = every[each.argmax(0)]
    return x, context


def _of_latents(density: Quantized, scored: Pictures, extent: _Extent, classes: tuple[str, ...]) -> dict[str, Any]:
    x, context = _given(density, scored.take(slice(0, extent.latents)), classes)
    trips = slice(0, extent.trips)
    try:
        latents = latent_levels(density, x, context)
    except ValueError as fault:
        raise ModelError("the noise of held-out pictures is not finite; fit with a smaller rate") from fault
    return {
        "latents": latents,
        "round_trip": round_trip(density, x[trips], None if context is None else context[trips]),
    }


def _of_pictures(
    density: Quantized, scored: Pictures, bits: np.ndarray, classes: tuple[str, ...], seed: int, extent: _Extent
) -> list[Sheet | None]:
    """Sheets of held-out pictures."""
    count = min(len(scored), showing.ACROSS)
    x, context = _given(density, scored.take(slice(0, count)), classes)
    rows = min(count // 2, max(1, extent.drawn // 16))
    found: list[Sheet | None] = [showing.extremes(scored.pixels, bits, density.levels)]
    if rows:
        ends = None if context is None else context[: 2 * rows]
        found.append(showing.ways(density, x[: 2 * rows], ends))
    generator = torch.Generator().manual_seed(seed + 2)
    found.append(showing.varied(density, x[:1], None if context is None else context[:1], generator))
    found.append(showing.rebuilt(density, x, context))
    return found


def _crossed(pictures: Pictures) -> dict[str, np.ndarray]:
    """Bits [n] without a model, each half of the pictures by a fit to the other."""
    halves = np.arange(len(pictures)) % 2
    if len(pictures) < 2:
        return anchor_bits(pictures, pictures)
    found: dict[str, np.ndarray] = {}
    for half in (0, 1):
        mine, other = np.flatnonzero(halves == half), np.flatnonzero(halves != half)
        for name, bits in anchor_bits(pictures.take(other), pictures.take(mine)).items():
            found.setdefault(name, np.zeros(len(pictures)))[mine] = bits
    return found
