"""Bits per dimension of pictures: of the density, by draws of a bound, and of what is known without a model."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from diffeo.baselines.pictures import PixelGaussian, PixelHistogram, zlib_bits
from diffeo.data.pictures import Pictures
from diffeo.errors import ModelError
from diffeo.pictures.findings import Anchor, Bits, ClassBits
from diffeo.quantized import Quantized, log_sum_exp

__all__ = ["anchor_bits", "anchors_of", "bits_each", "by_class", "context_of", "mean_bits"]

FEWEST = 20  # pictures that a histogram or a Gaussian is fitted to
LEARNED = 20_000  # pictures that a Gaussian is fitted to, at most


def context_of(density: Quantized, pictures: Pictures, classes: tuple[str, ...]) -> Tensor | None:
    """The one-hot classes [n, c] that the density is conditioned on; None where it is on none, or where these pictures
    have no labels."""
    if not density.context_features or pictures.labels is None:
        return None
    labels = torch.from_numpy(pictures.labels_of(classes))
    return torch.nn.functional.one_hot(labels, density.context_features).to(density.like)


@torch.no_grad()
def bits_each(
    density: Quantized, pictures: Pictures, points: int, classes: tuple[str, ...], shares: tuple[float, ...]
) -> np.ndarray:
    """Bits per dimension of each picture, bounds by so many draws: float64 [n], infinite where one is impossible. Of
    pictures without labels under a density given classes: averaged over the classes by their shares.

    Raises ModelError where one is not a number: it is never left out.
    """
    x = torch.tensor(pictures.pixels)
    context = context_of(density, pictures, classes)
    if density.context_features and context is None:
        every = torch.eye(density.context_features).to(density.like)
        each = torch.stack([density.log_prob(x, row.expand(len(x), -1), points) for row in every])
        found = log_sum_exp(each + torch.tensor(shares).to(each).log()[:, None])
    else:
        found = density.log_prob(x, context, points)
    bits = -found.double().cpu().numpy() / (density.dimensions * math.log(2))
    if np.isnan(bits).any():
        worst = pictures.name(int(np.isnan(bits).argmax()))
        raise ModelError(f"the log-probability of {worst} is not a number; fit with a smaller rate, or another seed")
    return bits


def mean_bits(bits: np.ndarray) -> Bits:
    """The mean and its standard error of bits [n].

    >>> mean_bits(np.array([3.0, 5.0])), mean_bits(np.array([3.0, np.inf])).impossible
    (Bits(n=2, mean=4.0, error=1.0, impossible=0), 1)
    """
    n, impossible = len(bits), int((~np.isfinite(bits)).sum())
    if impossible or not n:
        return Bits(n=n, impossible=impossible)
    error = float(bits.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    return Bits(n=n, mean=float(bits.mean()), error=error)


def by_class(bits: np.ndarray, pictures: Pictures) -> tuple[ClassBits, ...]:
    """The bits [n] of every class that there is, where pictures have labels."""
    if pictures.labels is None:
        return ()
    groups = ((name, bits[pictures.labels == place]) for place, name in enumerate(pictures.classes))
    return tuple(ClassBits(name=name, bits=mean_bits(group)) for name, group in groups if len(group))


def anchor_bits(train: Pictures, test: Pictures, most: int = LEARNED) -> dict[str, np.ndarray]:
    """Bits per dimension [n] of test pictures without a model, by name; what must learn does so from the training
    pictures, a Gaussian from `most` of them, and is left out where they are too few."""
    grays = max(train.grays, test.grays)
    found = {"zlib": zlib_bits(test.pixels)}
    if len(train) < FEWEST:
        return found
    found["histogram"] = PixelHistogram.fit(train.pixels, grays).bits_per_dim(test.pixels)
    for name, logit in (("Gaussian", False), ("Gaussian of logits", True)):
        fitted = PixelGaussian.fit(train.pixels, grays, logit=logit, most=most)
        found[name] = fitted.bits_per_dim(test.pixels)
    return found


def anchors_of(model: np.ndarray, found: dict[str, np.ndarray]) -> tuple[Anchor, ...]:
    """Anchors beside the bits of a model [n] on the same pictures."""
    with np.errstate(invalid="ignore"):
        return tuple(
            Anchor(name=name, bits=mean_bits(bits), ahead=mean_bits(bits - model)) for name, bits in found.items()
        )
