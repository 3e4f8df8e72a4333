"""The noise that pictures come from: standard normal, level by level, where the density is right; and the way back."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from diffeo.pictures.findings import LatentLevel, RoundTrip
from diffeo.quantized import Quantized, cell_noise
from diffeo.transforms import Chain, Multiscale, Transform

__all__ = ["latent_levels", "level_of", "noise_of", "parts_of", "round_trip"]

SURE = 4.0  # standard errors, by chance once in 16,000
MEAN, SPREAD, KURTOSIS, LENGTH, NEIGHBOURS = 0.1, 0.15, 2.0, 0.3, 0.15  # away from normal, and worth a word


def levels_of(transform: Transform) -> Multiscale | None:
    """The levels that a flow ends with, if it has any."""
    while isinstance(transform, Chain) and len(transform.transforms):
        last = transform.transforms[-1]
        assert isinstance(last, Transform)
        transform = last
    return transform if isinstance(transform, Multiscale) else None


def parts_of(density: Quantized, z: Tensor) -> list[Tensor]:
    """The share of every level in noise z [n, *latent], the finest first; all in one where there are no levels."""
    levels = levels_of(density.flow.transform)
    return [z] if levels is None else levels.parts(z.flatten(1))


def joined(density: Quantized, parts: list[Tensor]) -> Tensor:
    """The way back from `parts_of`."""
    levels = levels_of(density.flow.transform)
    return parts[0] if levels is None else levels.joined(parts)


def level_name(place: int, count: int) -> str:
    """
    >>> level_name(0, 2), level_name(0, 1)
    ('level 1, the finest', 'all of it')
    """
    if count == 1:
        return "all of it"
    return f"level {place + 1}" + (", the finest" if place == 0 else ", the coarsest" if place == count - 1 else "")


@torch.no_grad()
def noise_of(density: Quantized, x: Tensor, context: Tensor | None) -> Tensor:
    """Grey levels x [n, C, H, W] -> noise [n, *latent], from a place of each cell that is a function of the picture."""
    x = x.to(density.like)
    u = cell_noise(x)
    if density.noise is not None:
        u, _ = density.noise.from_noise(torch.special.ndtri(u), x)  # type: ignore[operator]
    return density.flow.to_latent((x + u) / density.levels, context)


def latent_levels(density: Quantized, x: Tensor, context: Tensor | None) -> tuple[LatentLevel, ...]:
    """What is seen of the noise of pictures x [n, C, H, W], of every level."""
    parts = [part.double().cpu().numpy() for part in parts_of(density, noise_of(density, x, context))]
    return tuple(level_of(level_name(place, len(parts)), part) for place, part in enumerate(parts))


def level_of(name: str, z: np.ndarray) -> LatentLevel:
    """One level's noise z [n, *shape] against the standard normal.

    >>> level_of("", np.random.default_rng(0).normal(size=(200, 2, 8, 8))).words
    ()
    """
    n, each = len(z), math.prod(z.shape[1:])
    mean, spread = float(z.mean()), float(z.std())
    standard = (z - mean) / max(spread, 1e-12)
    lengths = (z.reshape(n, -1) ** 2).mean(1)
    neighbours, pairs = _neighbours(standard)
    numbers = {
        "mean": mean,
        "spread": spread,
        "kurtosis": float((standard**4).mean() - 3),
        "length": float(lengths.mean()),
        "neighbours": neighbours,
    }
    total = n * each
    errors = (
        total**-0.5,
        (2 * total) ** -0.5,
        (24 / total) ** 0.5,
        (2 / total) ** 0.5,
        max(pairs, 1) ** -0.5,
    )
    return LatentLevel(
        name=name,
        shape=z.shape[1:],
        pictures=n,
        length_spread=float(lengths.std() / math.sqrt(2 / each)),
        errors=errors,
        words=_words(numbers, errors),
        **numbers,
    )


def _words(found: dict[str, float], errors: tuple[float, ...]) -> tuple[str, ...]:
    due = {"mean": 0.0, "spread": 1.0, "kurtosis": 0.0, "length": 1.0, "neighbours": 0.0}
    least = dict(zip(due, (MEAN, SPREAD, KURTOSIS, LENGTH, NEIGHBOURS), strict=True))
    off = {
        name: found[name] - due[name]
        for name, error in zip(due, errors, strict=True)
        if not abs(found[name] - due[name]) <= max(least[name], SURE * error)
    }
    words = {
        "mean": ("shifted down", "shifted up"),
        "spread": ("too little spread", "too much spread"),
        "kurtosis": ("light tails", "heavy tails"),
        "length": ("too near the centre", "too far from the centre"),
        "neighbours": ("neighbours opposed", "neighbours alike"),
    }
    if "spread" in off:
        off.pop("length", None)  # the same fault
    return tuple(words[name][away > 0] for name, away in off.items())


def _neighbours(z: np.ndarray) -> tuple[float, int]:
    """(the correlation, of how many pairs) of numbers side by side in [n, C, H, W]; else along the first axis."""
    axes = (2, 3) if z.ndim == 4 else (1,)
    total, pairs = 0.0, 0
    for axis in axes:
        if z.shape[axis] < 2:
            continue
        one, other = (np.take(z, places, axis) for places in (range(z.shape[axis] - 1), range(1, z.shape[axis])))
        total += float((one * other).sum())
        pairs += one.size
    return (total / pairs, pairs) if pairs else (0.0, 0)


@torch.no_grad()
def round_trip(density: Quantized, x: Tensor, context: Tensor | None) -> RoundTrip:
    """Pictures x [n, C, H, W] to noise and back, and there once more. A grey level comes back where its place v does
    not leave its cell."""
    x = x.to(density.like)
    v = (x + 0.5) / density.levels
    z = density.flow.to_latent(v, context)
    if not bool(z.isfinite().all()):
        return RoundTrip(pictures=len(x), numbers=x.numel(), levels=x.numel(), v_error=None, z_error=None)
    back = density.flow.from_latent(z, context)
    wrong = int(((back * density.levels).floor() != x).sum())
    v_error = z_error = None
    if bool(back.isfinite().all()):
        v_error = float((back - v).abs().max())
        again = density.flow.to_latent(back, context)
        z_error = float((again - z).abs().max()) if bool(again.isfinite().all()) else None
    return RoundTrip(pictures=len(x), numbers=x.numel(), levels=wrong, v_error=v_error, z_error=z_error)
