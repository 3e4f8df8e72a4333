"""Divergences against closed forms; grids; the plain loop of training."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from diffeo.bases import StandardNormal
from diffeo.errors import TrainingError
from diffeo.flow import Flow
from diffeo.studies import truth
from diffeo.studies.default import classical, default, drawn_by, log_prob_of
from diffeo.studies.learning import Loop, learn, seeded, taught, with_weights
from diffeo.studies.outcome import Options
from diffeo.transforms import ActNorm, Chain


def normal(mean: float, std: float) -> truth.LogProb:
    return lambda x: -0.5 * ((x[:, 0] - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))


def drawn(mean: float, std: float, n: int, seed: int) -> Tensor:
    return mean + std * torch.randn(n, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_divergence_is_the_closed_form() -> None:
    """Between normals; four standard errors, so false alarms below 1e-4."""
    found = truth.gap(normal(0, 1), normal(1, 2), drawn(0, 1, 40_000, 0))
    assert found.nats is not None
    assert found.error is not None
    assert abs(found.nats - (math.log(2) + 2 / 8 - 0.5)) < 4 * found.error
    assert 0 < found.error < 0.01


def test_distance_is_the_closed_form() -> None:
    """The integral of |p - q| of normals of one spread is 2 (2 Phi(d / 2) - 1); false alarms below 1e-4."""
    found = truth.distance(normal(0, 1), normal(1, 1), drawn(0, 1, 20_000, 1), drawn(1, 1, 20_000, 2))
    exact = 2 * math.erf(0.5 / math.sqrt(2))
    assert found.nats is not None
    assert found.error is not None
    assert abs(found.nats - exact) < 4 * found.error


def test_what_is_not_finite_is_said() -> None:
    found = truth.gap(normal(0, 1), lambda x: torch.full((len(x),), -math.inf), drawn(0, 1, 10, 0))
    assert str(found) == "not finite"
    assert found.plain() == {"nats": None, "standard_error": None}


def test_images_hold_their_mass() -> None:
    window = truth.Window(-6, 6, -5, 5)
    found = truth.image(StandardNormal(2).log_prob, window, 80)
    assert found.sum() * window.cell(80) == pytest.approx(1, abs=1e-6)


def test_the_loop_finds_a_maximum_and_keeps_the_best() -> None:
    """Shift and scale learned by gradient are the mean and the deviation of the data."""
    x = drawn(3, 0.5, 400, 3).float()
    flow = Flow(Chain(ActNorm(1)), StandardNormal(1))
    told = taught(flow, x, x, Loop(400, None, 0.05), lambda record: None)
    loss = 0.5 * math.log(2 * math.pi * math.e) + math.log(x.std(correction=0).item())
    assert min(told.valid) == pytest.approx(loss, abs=1e-3)
    assert told.valid[told.best_epoch - 1] == min(told.valid)
    best = with_weights(flow, told.best)
    assert -best.log_prob(x).mean().item() == pytest.approx(min(told.valid), abs=1e-6)
    assert len(told.train) == 400


def test_batches_in_order_need_no_dice() -> None:
    """Not shuffled, the first batch is the first rows: with one step, the weights do not depend on the generator."""
    x = drawn(0, 1, 100, 4).float()
    weights = []
    for seed in (0, 1):
        flow = Flow(Chain(ActNorm(1)), StandardNormal(1))
        taught(flow, x, None, Loop(2, 10, 0.1, shuffle=False), lambda record: None, seed)
        weights.append(flow.state_dict()["transform.transforms.0.shift"].item())
    assert weights[0] == weights[1]


def test_a_loss_that_is_no_number_is_one_line() -> None:
    class Broken(StandardNormal):
        def __init__(self) -> None:
            super().__init__(1)
            self.scale = torch.nn.Parameter(torch.tensor(math.nan))

        def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
            return z[:, 0] * self.scale

    with pytest.raises(TrainingError, match="no number after epoch 1"):
        next(learn(Broken(), torch.ones(3, 1), None, Loop(3)))


def test_a_seed_decides_new_parameters_and_nothing_else() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with seeded(7):
        first = torch.nn.Linear(2, 2).weight
    with seeded(7):
        second = torch.nn.Linear(2, 2).weight
    assert torch.equal(first, second)
    assert torch.equal(torch.rand(2), expected)


def test_the_default_is_a_fit_of_the_same_rows() -> None:
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) * 3
    model = default(x, Options(effort=0.001), seed=0)
    found = log_prob_of(model)(x)
    assert found.shape == (200,)
    assert np.asarray(drawn_by(model, 5, 0)).shape == (5, 2)
    assert abs(-found.mean() - (math.log(2 * math.pi * math.e) + 2 * math.log(3))) < 0.5


def test_classical_estimators_know_the_same_rows() -> None:
    """Both are near a Gaussian of 400 rows: within a tenth of a nat, where each is expected at about .02."""
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    fresh = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for log_prob in classical(x, fresh, Options(effort=0.001), seed=0).values():
        found = truth.gap(StandardNormal(2).log_prob, log_prob, fresh)
        assert found.nats is not None
        assert -0.01 < found.nats < 0.1
