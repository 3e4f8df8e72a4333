"""Pictures to learn from: read as a configuration says, parted, and known again by one sha256; grids on the way."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo import artefact
from diffeo.config import PictureConfig
from diffeo.data.pictures import Pictures, grid, read_pictures, write_png
from diffeo.data.split import held_out
from diffeo.errors import DataError

__all__ = ["Material", "Shots", "one_hot", "parted", "read"]

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Material:
    """Pictures uint8 [n, C, H, W] to learn from and held out, with their classes one-hot or None."""

    train: Tensor
    valid: Tensor
    train_context: Tensor | None
    valid_context: Tensor | None
    grays: int
    classes: int


def one_hot(labels: np.ndarray | None, classes: int) -> Tensor | None:
    """labels [n] -> float [n, classes]; None where there are no classes."""
    if not classes or labels is None:
        return None
    return torch.nn.functional.one_hot(torch.from_numpy(labels), classes).float()


def read(
    data: Any,
    config: PictureConfig,
    report: Progress,
    event: tuple[int, int, int] | None = None,
    grays: int | None = None,
) -> Pictures:
    """Pictures from wherever they are; of a shape and so many grey levels, where these are known."""
    found = read_pictures(
        data,
        size=config.size,
        crop=config.crop,
        gray=config.gray,
        skip_bad=config.skip_bad,
        labelled=config.label,
        where=config.where,
        like=event,
        report=lambda text: report({"message": text}),
    )
    if grays is not None and found.grays < grays:
        told = f"{found.grays} grey levels, but this model takes {grays}"
        raise DataError(f"{found.source}: has {told}; bring them to the same scale, and fit or score them again")
    if grays is not None and found.grays > grays and len(found.pixels) and int(found.pixels.max()) >= grays:
        top = int(found.pixels.max())
        hint = "PNG files that diffeo wrote are spread to 0..255, an .npy keeps the levels"
        raise DataError(f"{found.source}: expected grey levels 0..{grays - 1}, as in the fit, got {top}; {hint}")
    return found


def parted(
    pictures: Pictures, held: Pictures | None, config: PictureConfig
) -> tuple[Material, str, tuple[Pictures, Pictures]]:
    """What is learned from and what is held out, by a hash of their numbers unless pictures are named; and all that
    decides the fit, as one sha256."""
    n = len(pictures.pixels)
    if n < 2:
        raise DataError(f"{pictures.source}: expected two pictures or more to learn from, got {n}")
    classes = len(pictures.classes) if config.label else 0
    if config.label and pictures.labels is None:
        raise DataError(f"{pictures.source}: --label asks for labels, and there are none; leave it out")
    if held is None:
        mask = held_out(n, config.valid_fraction, config.seed)
        if not mask.any() or mask.all():
            mask = np.arange(n) == n - 1
        parts = pictures.take(~mask), pictures.take(mask)
    else:
        parts = pictures, held
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part.pixels.shape).encode() + part.pixels.tobytes())
        if classes:
            digest.update(part.labels_of(pictures.classes).tobytes())
    train, valid = (torch.from_numpy(part.pixels) for part in parts)
    labels = [one_hot(part.labels_of(pictures.classes), classes) if classes else None for part in parts]
    return Material(train, valid, labels[0], labels[1], pictures.grays, classes), digest.hexdigest(), parts


class Shots:
    """Grids of samples during training, written into the model's folder."""

    def __init__(self, folder: Path, grays: int, fresh: bool) -> None:
        self.folder, self.grays, self.fresh = folder / artefact.SAMPLES, grays, fresh

    def __call__(self, step: int, pixels: np.ndarray) -> None:
        with suppress(OSError):
            for path in list(self.folder.glob("step_*.png")) if self.fresh else []:  # of another run
                path.unlink(missing_ok=True)
            self.fresh = False
            self.folder.mkdir(parents=True, exist_ok=True)
            write_png(self.folder / f"step_{step:06d}.png", grid(pixels, grays=self.grays), overwrite=True)
