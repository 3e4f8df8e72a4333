"""Weights of an average: against a search over all, and in a fit."""

import numpy as np
import torch

from diffeo import FitConfig, Model
from diffeo.mixtures import Ensemble
from diffeo.problem import folds
from diffeo.stacking import LEAST, weights_of
from diffeo.starts import POOLED, TAILS


def test_weights_are_the_likeliest() -> None:
    """Rows of 0.3 N(0, 1) + 0.7 N(4, 1): the weights are those that a fine search finds."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=400) + 4 * (rng.random(400) < 0.7)
    each = np.stack([-0.5 * (x - centre) ** 2 for centre in (0, 4)])
    found = weights_of(each)
    grid = np.linspace(0.001, 0.999, 999)
    best = grid[np.argmax([np.log(w * np.exp(each[0]) + (1 - w) * np.exp(each[1])).mean() for w in grid])]
    assert abs(found[0] - best) < 1e-3
    assert abs(found.sum() - 1) < 1e-12


def test_an_impossible_row_of_one_density_does_no_harm() -> None:
    found = weights_of(np.array([[0.0, -np.inf], [-1.0, -1.0]]))
    assert np.isfinite(found).all()
    assert found[1] > 0.3


def test_folds_are_even_and_the_same_each_time() -> None:
    fold = folds(103, 8)
    assert sorted(np.bincount(fold)) == [12] + 7 * [13]
    assert np.array_equal(fold, folds(103, 8))


def ensemble(model: Model) -> Ensemble:
    assert model.density.rest is not None
    base = model.density.rest.base
    assert isinstance(base, Ensemble)
    return base


def test_a_simple_density_is_found_out() -> None:
    """Four round clusters: the mixture of few numbers gets most of the weight, and what it says is the model's."""
    rng = np.random.default_rng(1)
    x = 4.0 * rng.integers(2, size=(600, 2)) + rng.normal(size=(600, 2))
    model = Model.fit(x, config=FitConfig(epochs=2, members=6, hidden=8))
    plan = model.card.plan
    assert plan.apart
    assert plan.simple == 4
    weights = ensemble(model).log_weights.exp()
    assert float(weights[-1]) > 0.1
    assert abs(float(weights.sum()) - 1) < 1e-5
    assert float(weights[:-1].sum()) >= LEAST - 1e-6


def test_a_size_that_was_asked_for_is_kept() -> None:
    """Or several of that size, pooled."""
    x = np.random.default_rng(1).normal(size=(300, 2))
    model = Model.fit(x, config=FitConfig(epochs=1, members=6, hidden=8, components=7))
    assert model.card.plan.components - len(TAILS) in (7, 7 * POOLED)


def test_few_members_learn_from_all_rows() -> None:
    x = np.random.default_rng(1).normal(size=(300, 2))
    model = Model.fit(x, config=FitConfig(epochs=1, members=3, hidden=8))
    assert not model.card.plan.apart
    assert model.card.plan.simple == 0


def test_weights_are_saved(tmp_path) -> None:
    x = np.random.default_rng(1).normal(size=(300, 2))
    model = Model.fit(x, config=FitConfig(epochs=1, members=6, hidden=8), out=tmp_path / "m")
    again = Model.load(tmp_path / "m")
    assert torch.equal(ensemble(again).log_weights, ensemble(model).log_weights)
    assert np.array_equal(again.log_prob(x), model.log_prob(x))


def test_a_run_by_the_clock_is_repeated(tmp_path) -> None:
    x = np.random.default_rng(1).normal(size=(300, 2))
    model = Model.fit(x, config=FitConfig(budget=1.5, members=6, hidden=8), out=tmp_path / "m")
    again = Model.fit(x, config=FitConfig(epochs=150, members=6, hidden=8), schedule=tmp_path / "m")
    assert again.card.plan == model.card.plan
    assert torch.equal(ensemble(again).log_weights, ensemble(model).log_weights)
    assert np.array_equal(again.log_prob(x), model.log_prob(x))


def test_rows_that_were_asked_for_judge_alone() -> None:
    """Held-out rows that a person names, and weights, are for the members to be judged by; nothing is set aside."""
    x = np.random.default_rng(1).normal(size=(300, 2))
    model = Model.fit(x, valid=x[:50], config=FitConfig(epochs=1, members=6, hidden=8))
    assert not model.card.plan.apart
    assert len(ensemble(model).members) == 6
