"""What the command line asks of a model of pictures: a line of scores for each picture, and one picture of many."""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from diffeo.data.pictures import Pictures
from diffeo.errors import DataError
from diffeo.pictures.model import PictureModel

__all__ = ["as_they_are", "asking", "looking_in", "one_picture", "score_tables"]

TOGETHER = 500  # pictures scored at a time


def asking(model: PictureModel, **choices: Any) -> PictureModel:
    """The same model, that reads pictures by other choices of PictureConfig: `where`, `skip_bad` and so on."""
    other = copy.copy(model)
    config = model.card.config.model_copy(update=choices)
    other.card = model.card.model_copy(update={"config": config})
    other.lenient = bool(choices.get("skip_bad", model.lenient))
    return other


def looking_in(model: PictureModel, where: str | None) -> PictureModel:
    """The same model, that looks for data sets in a folder; where the fit did, if none is named."""
    return model if where is None else asking(model, where=where)


def as_they_are(model: PictureModel) -> PictureModel:
    """The same model for pictures that it has read already: they are not cut and resized again."""
    return asking(model, size=None, crop=None, gray=False)


def one_picture(model: PictureModel, place: str) -> Pictures:
    """The one picture at a place, as the model reads it: of a file, or `DATA@K`, the K-th (from 1) of several. Raises
    DataError where there is no such picture, or where several are and none is named."""
    data, at, number = place.rpartition("@")
    if not at or not number.isdecimal() or Path(place).exists():
        found = model.read(place)
        if len(found) != 1:
            raise DataError(f"{place}: has {len(found)} pictures; name one of them as {place}@1, {place}@2, ...")
        return found
    found = model.read(data)
    if not 1 <= int(number) <= len(found):
        raise DataError(f"{place}: has {len(found)} pictures, numbered from 1; there is no picture {number}")
    return found.take([int(number) - 1])


def score_tables(model: PictureModel, pictures: Pictures, draws: int | None = None) -> Iterator[pa.Table]:
    """Tables of at most 500 lines: picture (the name of its file, or its number), log_prob in nats, bits_per_dim,
    percentile (the share of training pictures, in %, that are no more probable), and the reason for files that could
    not be read, which come last. `pictures` are as `model.read` gives them; `draws` are those of the bound. Raises
    ModelError where a log-probability is not a number.

    >>> from diffeo.config import PictureConfig
    >>> x = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    >>> model = PictureModel.fit(x, config=PictureConfig(epochs=1, budget=None, hidden=8, layers=1))
    >>> next(score_tables(model, model.read(x[:3])))["picture"].to_pylist()
    ['1', '2', '3']
    """
    plain = as_they_are(model)
    numbers = [str(number) for number in range(1, len(pictures) + 1)]
    words = list(pictures.names or numbers)
    named = replace(pictures, names=tuple(pictures.name(number) for number in range(len(pictures))))
    for start in range(0, len(pictures), TOGETHER):
        some = slice(start, start + TOGETHER)
        log_prob = plain.log_prob(named.take(some), points=draws)
        ranked = log_prob if draws in (None, model.card.points) else plain.log_prob(named.take(some))
        yield _lines(model, words[some], log_prob, ranked, [None] * len(log_prob))
    if pictures.skipped:
        pairs = [line.partition(": ") for line in pictures.skipped]
        nothing = np.full(len(pairs), np.nan)
        reasons: list[str | None] = [why or "unreadable" for _, _, why in pairs]
        yield _lines(model, [name for name, _, _ in pairs], nothing, nothing, reasons)


def _lines(
    model: PictureModel, names: list[str], log_prob: np.ndarray, ranked: np.ndarray, reasons: list[str | None]
) -> pa.Table:
    """`ranked`: the same scores by as many draws as those of the training pictures."""
    card, missing = model.card, np.isnan(log_prob)
    percentile = 100.0 * np.searchsorted(card.percentiles, ranked, side="right") / len(card.percentiles)
    numbers = {
        "log_prob": log_prob,
        "bits_per_dim": -log_prob / (model.density.dimensions * math.log(2)),
        "percentile": percentile,
    }
    columns = {name: pa.array(values, mask=missing) for name, values in numbers.items()}
    return pa.table({"picture": pa.array(names, pa.string()), **columns, "reason": pa.array(reasons, pa.string())})
