"""Samples of a density of pictures: drawn by a seed, as probable as pictures or not, copies of training or not."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor

from diffeo.baselines.pictures import nearest
from diffeo.data.pictures import Pictures
from diffeo.pictures import showing
from diffeo.pictures.findings import Copies, Sheet, Spread
from diffeo.pictures.scores import bits_each, mean_bits
from diffeo.quantized import Quantized

__all__ = ["beside", "copies_of", "noise", "samples_of", "spread_of"]

HELD = 200  # held-out pictures whose nearest training picture is looked for
QUANTILE = 0.01
BINS = 30


def noise(density: Quantized, count: int, seed: int) -> Tensor:
    return density.flow.base.sample(count, generator=torch.Generator().manual_seed(seed)).to(density.like)


@torch.no_grad()
def samples_of(
    density: Quantized, count: int, shares: tuple[float, ...], seed: int
) -> tuple[Pictures, Tensor | None, int]:
    """Samples, their classes if there are any, each as often as in training, and how many are not numbers."""
    z, context, labels = noise(density, count, seed), None, None
    if shares:
        generator = torch.Generator().manual_seed(seed + 1)
        labels = torch.multinomial(torch.tensor(shares), count, replacement=True, generator=generator)
        context = torch.nn.functional.one_hot(labels, len(shares)).to(z)
    v = density.flow.from_latent(z, context)
    broken = int((~v.flatten(1).isfinite()).any(1).sum())
    return Pictures(showing.back(density, z, context), source="samples", grays=density.levels), context, broken


@torch.no_grad()
def spread_of(
    density: Quantized,
    one: np.ndarray,
    samples: Pictures,
    context: Tensor | None,
    classes: tuple[str, ...],
    shares: tuple[float, ...],
) -> Spread:
    """Bits of held-out pictures [n] beside those of samples, by one draw each."""
    if context is None:
        theirs = bits_each(density, samples, 1, classes, shares)
    else:
        labels = context.argmax(1).cpu().numpy()
        labelled = Pictures(samples.pixels, labels, classes, "samples", grays=samples.grays)
        theirs = bits_each(density, labelled, 1, classes, shares)
    finite = np.concatenate([values[np.isfinite(values)] for values in (one, theirs)])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 8.0)
    edges = np.linspace(low, max(high, low + 0.01), BINS + 1)
    counts = [tuple(np.histogram(values, edges)[0].tolist()) for values in (one, theirs)]
    return Spread(
        edges=tuple(edges.tolist()),
        pictures=counts[0],
        samples=counts[1],
        pictures_bits=mean_bits(one),
        samples_bits=mean_bits(theirs),
    )


def beside(one: np.ndarray, earlier: Spread) -> Spread:
    """The samples of an earlier look beside other pictures' bits [n]; those beyond the edges count at the ends."""
    edges = np.array(earlier.edges)
    inside = np.clip(one, edges[0], edges[-1])
    counts = tuple(np.histogram(inside, edges)[0].tolist())
    return earlier.model_copy(update={"pictures": counts, "pictures_bits": mean_bits(one)})


def copies_of(
    samples: Pictures, train: Pictures, valid: Pictures, seconds: float, grays: int
) -> tuple[Copies | None, Sheet]:
    """Are samples nearer to training pictures than held-out pictures are? And the nearest beside the samples."""
    held = valid.pixels[:HELD]
    both = np.concatenate([samples.pixels, held])
    among = train.pixels[: _affordable(both, train.pixels, seconds)]
    places, distances = nearest(both, among)
    ours, theirs = distances[: len(samples), 0], distances[len(samples) :, 0]
    quantile = float(np.quantile(theirs, QUANTILE))
    copies = Copies(
        samples=len(samples),
        held_out=len(held),
        among=len(among),
        median=float(np.median(ours)),
        held_out_median=float(np.median(theirs)),
        quantile=quantile,
        limit=QUANTILE,
        closer=float((ours < quantile).mean()),
    )
    closest = np.argsort(ours, kind="stable")[: 2 * showing.ACROSS]
    pairs = [closest[start : start + showing.ACROSS] for start in range(0, len(closest), showing.ACROSS)]
    shown = [rows for some in pairs for rows in (samples.pixels[some], among[places[some, 0]])]
    twins = showing.sheet(
        "nearest",
        "Samples and their nearest training pictures",
        f"The {len(closest)} samples that lie nearest to a training picture, and that picture below each.",
        np.concatenate(shown),
        grays,
        beside=["sample", "nearest"] * len(pairs),
    )
    return copies, twins


def _affordable(wanted: np.ndarray, among: np.ndarray, seconds: float) -> int:
    """So many of the pictures can be looked through in the time."""
    if seconds == math.inf:
        return len(among)
    few = among[:2048]
    began = time.monotonic()
    nearest(wanted, few)
    pace = max(time.monotonic() - began, 1e-6) / len(few)
    return min(len(among), max(len(few), int(seconds / pace)))
