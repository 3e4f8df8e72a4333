"""What stands beside the flows of a study: diffeo's default and classical estimators, on the same rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffeo.baselines import KernelDensity, NormalMixture, validated
from diffeo.config import FitConfig
from diffeo.model import Model
from diffeo.studies.course import Report
from diffeo.studies.outcome import Options
from diffeo.studies.truth import LogProb

__all__ = ["EPOCHS", "classical", "default", "drawn_by", "log_prob_of"]

EPOCHS = 150  # in place of a budget: the same seed gives the same model, bit for bit


def default(x: Tensor, options: Options, seed: int, report: Report | None = None) -> Model:
    """The model that diffeo fits to rows x [n, d] when nothing is chosen but the seed and the number of epochs; a quick
    study has one density of it, of a size that is not searched for."""
    less = {"members": 1, "components": 12} if options.quick else {}
    config = FitConfig(budget=None, epochs=options.epochs(EPOCHS), seed=seed, **less)
    return Model.fit(x.double().numpy(), config=config, progress=report)


def log_prob_of(model: Model) -> Any:
    """The log-density of a model, rows [n, d] -> [n]."""
    return lambda x: model.log_prob(x.double().numpy())


def drawn_by(model: Model, n: int, seed: int) -> Any:
    """n draws [n, d] of a model, as an array."""
    return model.sample(n, seed=seed)


def classical(x: Tensor, fresh: Tensor, options: Options, seed: int) -> dict[str, LogProb]:
    """Kernels at rows x [n, d], their one bandwidth the best for the fresh points [m, d] that are scored later, which
    is more than an estimator may know; and the Gaussian mixture that the Bayesian information criterion chooses."""
    rows = x.double()
    few: dict[str, Any] = {"sizes": (1, 2, 4, 8), "shapes": ("full",)} if options.quick else {}
    mixture = NormalMixture.fit(rows, seed=seed, **few)
    return {"kernels": KernelDensity(rows, validated(rows, fresh)).log_prob, "mixture": mixture.log_prob}
