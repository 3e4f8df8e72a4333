"""How much of an average each density is worth: the weights under which rows that neither learned from are likeliest.

Stacking of densities (Smyth & Wolpert 1999): with p_j(x_i) from fits that did not see row i, maximise
sum_i log sum_j w_j p_j(x_i) over weights that add up to one, a concave problem that EM solves.
"""

import numpy as np
import torch

from diffeo.mixed import Mixed
from diffeo.mixtures import Ensemble
from diffeo.parsimonious import FAMILIES, anew
from diffeo.prepare import Prepared
from diffeo.problem import folds
from diffeo.quantized import log_mean_exp
from diffeo.recipes import Plan
from diffeo.starts import FAR

__all__ = ["stack", "weights_of"]

STEPS = 500  # of EM
LEAST = 0.01  # of the learned members, which know of outliers


def stack(density: Mixed, plan: Plan, data: Prepared) -> None:
    """Weigh the learned members of an ensemble against the mixture of few numbers beside them, by rows [n] of the
    folds that each was not fitted to."""
    assert density.rest is not None
    assert isinstance(density.rest.base, Ensemble)
    *learned, _ = density.rest.base.members
    noise = torch.rand(data.train.low.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fold, each = folds(data.train.n, len(learned)), np.zeros((2, data.train.n))
    with torch.no_grad():
        z = density.numbers(data.train, noise)[0].clamp(-FAR, FAR)
        features = density.features(data.train)
        rows = z.double().numpy()
        for j, member in enumerate(learned):
            own = fold == j
            each[0, own] = member(z[own], features[own] if features.shape[1] else None).numpy()
            each[1, own] = anew(rows[~own], plan.simple, FAMILIES[plan.family], j).log_prob(rows[own])
        middle = torch.full(data.valid.low.shape, 0.5, dtype=torch.float64)
        z_valid = density.numbers(data.valid, middle)[0].clamp(-FAR, FAR)
        features = density.features(data.valid)
        apart = [member(z_valid, features if features.shape[1] else None) for member in learned]
        each[0] += float((log_mean_exp(torch.stack(apart)) - torch.stack(apart).mean(0)).mean())
        share = max(float(weights_of(each)[0]), LEAST)
        weights = torch.tensor([*[share / len(learned)] * len(learned), max(1 - share, 1e-9)])
        density.rest.base.log_weights.copy_(weights.log())


def weights_of(log_probs: np.ndarray) -> np.ndarray:
    """The weights [m] of densities under whose average rows of log-densities [m, n] are likeliest.

    >>> weights_of(np.array([[0.0, 0.0], [-9.0, -9.0]])).round(3).tolist()
    [1.0, 0.0]
    """
    heights = np.exp(log_probs - log_probs.max(0))
    weights = np.full(len(heights), 1 / len(heights))
    for _ in range(STEPS):
        shares = weights[:, None] * heights
        weights = (shares / shares.sum(0)).mean(1)
    return weights
