"""diffeo's default beside the flows of a study: `diffeo.fit` on the same rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffeo.model import Model, fit
from diffeo.studies.course import Report
from diffeo.studies.outcome import Options

__all__ = ["EPOCHS", "default", "drawn_by", "log_prob_of"]

EPOCHS = 150  # in place of a budget: the same seed gives the same model, bit for bit


def default(x: Tensor, options: Options, seed: int, report: Report | None = None) -> Model:
    """The model that diffeo fits to rows x [n, d] when nothing is chosen but the seed and the number of epochs; a quick
    study has one density of it and not the mean of several."""
    members = {"members": 1} if options.quick else {}
    return fit(x.double().numpy(), epochs=options.epochs(EPOCHS), seed=seed, progress=report, **members)


def log_prob_of(model: Model) -> Any:
    """The log-density of a model, rows [n, d] -> [n]."""
    return lambda x: model.log_prob(x.double().numpy())


def drawn_by(model: Model, n: int, seed: int) -> Any:
    """n draws [n, d] of a model, as an array."""
    return model.sample(n, seed=seed)
