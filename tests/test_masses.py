"""Exact masses: they sum to one over all codes, start as the frequencies, and are what is drawn from."""

import copy
import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch

from diffeo.masses import Masses, OneHot


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(sizes: list[int], ordinal: list[bool], open_ended: list[bool] = (), context: int = 0) -> Masses:  # type: ignore[assignment]
    """Masses with a net that does something, and frequencies that are not all the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        masses = Masses(sizes, ordinal, open_ended, context, hidden=(16, 16))
    with torch.no_grad():
        for parameter in masses.net.last.parameters():
            parameter.add_(0.7 * torch.randn(parameter.shape, generator=generator(2)))
        masses.frequencies.copy_(torch.randn(sum(sizes), generator=generator(3)))
        masses.beyond.fill_(0.2)
    return masses.eval()


def every(sizes: list[int]) -> torch.Tensor:
    return torch.tensor(list(itertools.product(*(range(size) for size in sizes))), dtype=torch.long)


CASES = {
    "one column": ([4], [False]),
    "one level": ([1], [False]),
    "one level among others": ([3, 1, 2], [True, False, False]),
    "three": ([3, 2, 4], [False, True, True]),
}


@pytest.mark.parametrize(("sizes", "ordinal"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("context", [0, 2])
def test_sums_to_one(sizes: list[int], ordinal: list[bool], context: int) -> None:
    masses, codes = trained(sizes, ordinal, context=context), every(sizes)
    for seed in range(3 if context else 1):
        given = torch.randn(1, context, generator=generator(seed)).expand(len(codes), -1) if context else None
        assert float(masses(codes, given).double().exp().sum().detach()) == pytest.approx(1.0, abs=1e-6)


def test_sums_to_one_with_open_ends() -> None:
    """Over all codes within 400 steps of the levels of the first column; the rest by the geometric series."""
    masses, far = trained([3, 2], [True, False], [True, False]), 400
    codes = torch.tensor(list(itertools.product(range(-far, 3 + far), range(2))), dtype=torch.long)
    total = float(masses(codes).double().exp().sum().detach())
    last = masses(torch.tensor([[-far, 0], [-far, 1], [2 + far, 0], [2 + far, 1]])).double().exp().sum()
    ratio = masses(torch.tensor([[-9, 0]])).double().exp() / masses(torch.tensor([[-8, 0]])).double().exp()
    assert float(total + (last * ratio / (1 - ratio)).detach()) == pytest.approx(1.0, abs=1e-6)
    inside = masses(every([3, 2])).double().exp().sum()
    assert float(inside.detach()) == pytest.approx(0.8, abs=1e-6)


def test_open_ends_fall_on_both_sides_and_stay_finite() -> None:
    masses = trained([5], [True], [True])
    steps = torch.tensor([[-1], [-2], [-3], [-(2**40)], [5], [6], [7], [2**40]])
    low, high = masses(steps).detach().split(4)
    torch.testing.assert_close(low, high)
    assert low.isfinite().all()
    assert (low.diff() < 0).all()


def test_closed_ends_count_as_the_nearest_level() -> None:
    masses = trained([3, 2], [True, False])
    torch.testing.assert_close(masses(torch.tensor([[9, -4]])), masses(torch.tensor([[2, 0]])))


def test_starts_as_the_frequencies() -> None:
    """The product of weighted frequencies, with as many counts as levels were seen spread over all levels."""
    rng = np.random.default_rng(0)
    codes, weights = rng.integers(0, [3, 4], (500, 2)), rng.uniform(0, 2, 500)
    codes[codes[:, 1] == 2, 1] = 1  # a level never seen
    masses = Masses([3, 4], [False, True], [False, True])
    masses.start(torch.from_numpy(codes), torch.from_numpy(weights))
    found = masses(every([3, 4])).detach().double().exp().numpy().reshape(3, 4)
    expected = np.ones((3, 4))
    for j, size in enumerate((3, 4)):
        seen = len(np.unique(codes[:, j]))
        share = np.array([weights[codes[:, j] == level].sum() + seen / size for level in range(size)])
        share /= share.sum()
        expected *= share[:, None] if j == 0 else share * (1 - 1 / (weights.sum() + 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_column_sees_only_those_before_it() -> None:
    masses = trained([3, 2, 4], [False, True, True])
    codes = torch.tensor([[0, 0, 0], [0, 0, 3], [0, 1, 0], [2, 0, 0]])
    first, second, third = masses._logits(codes, None)
    assert torch.equal(first, first[:, :1].expand(-1, 4))
    assert torch.equal(second[:, :3], second[:, :1].expand(-1, 3))
    assert not torch.isclose(second[:, 0], second[:, 3]).any()
    assert torch.equal(third[:, 0], third[:, 1])
    assert not torch.isclose(third[:, 0], third[:, 2]).any()


@pytest.mark.parametrize("context", [False, True])
def test_draws_follow_the_masses(context: bool) -> None:
    """Chi-square of 20,000 draws over all combinations; false alarm 1e-6 each."""
    sizes, n = [3, 2, 4], 20_000
    masses, codes = trained(sizes, [False, True, True], context=int(context)), every(sizes)
    given = torch.tensor([[0.7], [-2.0]]) if context else None
    draws = masses.sample(n, given, generator(4))
    assert draws.shape == ((n, 2, 3) if context else (n, 3))
    for j in range(2 if context else 1):
        rows = draws[:, j] if context else draws
        row = None if given is None else given[j : j + 1].expand(len(codes), -1)
        expected = n * masses(codes, row).detach().double().exp().numpy()
        counts = np.bincount(np.ravel_multi_index(tuple(rows.numpy().T), tuple(sizes)), minlength=len(codes))
        assert scipy.stats.chisquare(counts, expected * n / expected.sum()).pvalue > 1e-6


def test_draws_are_the_generators() -> None:
    masses = trained([3, 2], [False, False])
    assert torch.equal(masses.sample(20, generator=generator(5)), masses.sample(20, generator=generator(5)))
    assert masses.sample(0).shape == (0, 2)


def test_gradients_and_copies() -> None:
    masses = trained([3, 2], [True, False], [True, False], context=1)
    codes, context = torch.tensor([[2, 1], [-5, 0], [0, 1]]), torch.tensor([[0.0], [1e6], [-1e30]])
    log_prob = masses(codes, context)
    assert log_prob.isfinite().all()
    gradients = torch.autograd.grad(log_prob.sum(), list(masses.parameters()))
    assert all(g.isfinite().all() for g in gradients)
    assert torch.equal(copy.deepcopy(masses)(codes, context), log_prob)
    other = Masses([3, 2], [True, False], [True, False], 1, hidden=(16, 16)).eval()
    other.load_state_dict(masses.state_dict())
    assert torch.equal(other(codes, context), log_prob)
    assert masses(codes[:0], context[:0]).shape == (0,)


def test_one_hot_features() -> None:
    features = OneHot([2, 4, 1], [False, True, True])
    assert features.width == 9
    assert features.places == [0, 0, 1, 1, 1, 1, 1, 2, 2]
    found = features(torch.tensor([[1, 0, 0], [0, 3, 0], [5, -3, 7]]))
    expected = [[0, 1, 1, 0, 0, 0, -1.7, 1, -1.7], [1, 0, 0, 0, 0, 1, 1.7, 1, -1.7], [0, 1, 1, 0, 0, 0, -1.7, 1, -1.7]]
    torch.testing.assert_close(found, torch.tensor(expected))
    levels = torch.arange(4)[:, None] * torch.tensor([0, 1, 0])
    assert math.isclose(float(features(levels)[:, 6].mean()), 0.0, abs_tol=1e-6)
