"""The check of a model of pictures: grey levels, noise, log-determinants, batches, the bound, and saving."""

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo.check.behaviour import ALONE
from diffeo.check.lines import Line, flag, most_errors, skip, worst
from diffeo.check.subject import relative
from diffeo.data.pictures import Pictures
from diffeo.pictures.material import one_hot
from diffeo.pictures.model import PictureModel
from diffeo.quantized import Quantized

__all__ = ["GROUPS", "PictureSubject"]

PICTURES = 64  # that a check looks at
DRAWS = 16  # of the tighter bound
NOISE_BACK = 1e-6  # relative, in float64
LOG_DET = 1e-6  # relative, in float64
MOST_PLACES = 1024  # pixels times channels, up to which the whole Jacobian is made
TOGETHER = 64  # of its rows


@dataclass(frozen=True)
class PictureSubject:
    """A model of pictures and some to check it on: x uint8 [n, C, H, W], and classes [n, classes] or None."""

    model: PictureModel
    x: Tensor
    context: Tensor | None
    source: str
    seed: int

    @classmethod
    def of(cls, model: PictureModel, data: Any, seed: int) -> "PictureSubject":
        """On at most PICTURES of the data, or on pictures drawn from the model; every class in turn where none is
        known. Raises DataError where the data does not fit the model."""
        classes = len(model.card.classes)
        turns = torch.eye(classes)[torch.arange(PICTURES) % classes] if classes else None
        if data is None:
            z = model.density.flow.base.sample(PICTURES, generator=torch.Generator().manual_seed(seed))
            return cls(model, model.density.from_latent(z, turns), turns, "pictures drawn from the model", seed)
        found = model.read(data)
        some = np.sort(np.random.default_rng(seed).permutation(len(found))[:PICTURES])
        found = found.take(some)
        return cls(model, torch.from_numpy(found.pixels), _classes(found, model, turns), found.source, seed)

    @property
    def density(self) -> Quantized:
        return self.model.density

    @cached_property
    def wide(self) -> Quantized:
        """The density in float64."""
        return copy.deepcopy(self.density).double()

    def given(self, n: int) -> Tensor | None:
        """Classes of n pictures, those of x in turn."""
        return None if self.context is None else self.context[torch.arange(n) % len(self.context)]

    def given_wide(self, n: int) -> Tensor | None:
        context = self.given(n)
        return None if context is None else context.double()

    @torch.no_grad()
    def score(self, x: Tensor, context: Tensor | None, points: int | None = None) -> Tensor:
        return self.density.log_prob(x, context, points)


def _classes(found: Pictures, model: PictureModel, turns: Tensor | None) -> Tensor | None:
    if turns is None or found.labels is None:
        return None if turns is None else turns[: len(found)]
    return one_hot(found.labels_of(model.card.classes), len(model.card.classes))


def grey_levels(s: PictureSubject) -> Iterator[Line]:
    """Pictures, and evenly grey ones of every level, come back from their noise to the last level; draws are such."""
    back = s.density.from_latent(s.density.to_latent(s.x, s.context), s.context)
    yield worst("pictures come back from their noise", _differing(back, s.x), 0.0, lambda i: f"picture {i + 1}")
    levels = torch.arange(s.density.levels, dtype=s.x.dtype)
    even = levels.view(-1, 1, 1, 1).expand(-1, *s.density.event_shape).contiguous()
    context = s.given(len(even))
    back = s.density.from_latent(s.density.to_latent(even, context), context)
    yield worst("every grey level comes back", _differing(back, even), 0.0, lambda i: f"level {i}")
    drawn, again = (s.model.sample(8, seed=s.seed) for _ in range(2))
    yield flag("the same seed again: draws", not np.array_equal(drawn, again))
    cold = s.model.sample(2, seed=s.seed, temperature=0.0)
    outside = max(int(drawn.max()), int(cold.max())) >= s.density.levels
    yield flag("draws are grey levels", outside or drawn.dtype != np.uint8)


def _differing(found: Tensor, expected: Tensor) -> Tensor:
    """How many numbers of each picture differ, [n]."""
    return (found != expected).flatten(1).sum(1)


@torch.no_grad()
def noise(s: PictureSubject) -> Iterator[Line]:
    """Noise comes back from what is drawn of it, in float64, and log-determinants there and back cancel."""
    n = min(8, PICTURES)
    z = s.wide.flow.base.sample(n, generator=torch.Generator().manual_seed(s.seed + 1))
    v, up = s.wide.flow.transform.inverse(z, s.given_wide(n))
    again, down = s.wide.flow.transform(v, s.given_wide(n))
    error = relative(again, z).flatten(1).amax(1)
    yield worst("noise comes back from its pictures", error, NOISE_BACK, lambda i: f"draw {i + 1}")
    gap = (up + down).abs() / down.abs().clamp(min=1)
    yield worst("log-determinants there and back cancel", gap, NOISE_BACK, lambda i: f"draw {i + 1}")


def slopes(s: PictureSubject) -> Iterator[Line]:
    """The log-determinant at one picture, against the determinant of autograd's Jacobian, in float64."""
    name = "log-determinant against autograd"
    if s.density.dimensions > MOST_PLACES:
        yield skip(name, f"a Jacobian of {s.density.dimensions} x {s.density.dimensions} numbers takes too long")
        return
    x = (s.x[:1].double() + 0.5) / s.density.levels
    context = s.given_wide(1)
    rows = [_slopes(s.wide, x, context, some) for some in torch.arange(s.density.dimensions).split(TOGETHER)]
    with torch.no_grad():
        log_det = s.wide.flow.transform(x, context)[1]
    expected = torch.linalg.slogdet(torch.cat(rows))[1]
    yield Line(name, float(relative(log_det, expected[None])), LOG_DET, "picture 1")


def _slopes(density: Quantized, x: Tensor, context: Tensor | None, places: Tensor) -> Tensor:
    """Rows of the Jacobian of the flow at x [1, *event], as many pictures at once: [len(places), D]."""
    many = x.expand(len(places), *x.shape[1:]).clone().requires_grad_()
    z = density.flow.transform(many, None if context is None else context.expand(len(places), -1))[0].flatten(1)
    return torch.autograd.grad(z[torch.arange(len(places)), places].sum(), many)[0].flatten(1)


def scores(s: PictureSubject) -> Iterator[Line]:
    """Scores are finite for any picture, the same again, of each picture alone, and raised by more draws."""
    shape, top = (3, *s.density.event_shape), s.density.levels - 1
    drawn = torch.randint(0, top + 1, shape, generator=torch.Generator().manual_seed(s.seed))
    odd = torch.cat([drawn, torch.zeros(1, *shape[1:]), torch.full((1, *shape[1:]), top)]).to(s.x.dtype)
    words = ("random levels", "random levels", "random levels", "all black", "all white")
    broken = (~s.score(odd, s.given(len(odd))).isfinite()).double()
    yield worst("finite for noise, black and white", broken, 0.0, lambda i: words[i] if broken[i] else "")
    found = s.score(s.x, s.context)
    yield flag("the same again: scores", not torch.equal(s.score(s.x, s.context), found))
    yield _alone(s, found)
    gain = (s.score(s.x, s.context, DRAWS) - s.score(s.x, s.context, 1)).double()
    room = most_errors(1) * float(gain.std()) / len(gain) ** 0.5 if len(gain) > 1 else 0.0
    yield Line(f"{DRAWS} draws raise the bound of one", -float(gain.mean()), room)


def _alone(s: PictureSubject, found: Tensor) -> Line:
    """In other batches, and one at a time, up to a few times what float32 rounds."""
    sizes = [7] * (len(s.x) // 7) + [1] * (len(s.x) % 7)
    contexts = [None] * len(sizes) if s.context is None else s.context.split(sizes)
    parts = [s.score(x, c) for x, c in zip(s.x.split(sizes), contexts, strict=True)]
    with torch.no_grad():
        exact = s.wide.log_prob(s.x, s.given_wide(len(s.x)))
    errors, rounding = relative(torch.cat(parts), found), float(relative(found, exact).max())
    tolerance = max(ALONE, 4 * rounding)
    return worst("pictures do not depend on their batch", errors, tolerance, lambda i: f"picture {i + 1}")


def saving(s: PictureSubject) -> Iterator[Line]:
    """The model that is saved and loaded again scores and draws the same, bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        saved = copy.copy(s.model).save(Path(folder, "model"))
        again = PictureModel.load(saved)
        with torch.no_grad():
            scores = again.density.log_prob(s.x, s.context)
    yield flag("loaded equals saved: scores", not torch.equal(scores, s.score(s.x, s.context)))
    drawn, expected = (model.sample(4, seed=s.seed) for model in (again, s.model))
    yield flag("loaded equals saved: draws", not np.array_equal(drawn, expected))


GROUPS = (
    ("grey levels come back", grey_levels),
    ("noise comes back", noise),
    ("log-determinants", slopes),
    ("scores", scores),
    ("saving", saving),
)
