"""The mixture to start from: as good as the best single one on validation rows, on whatever rows there are."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from diffeo import starts
from diffeo.starts import ROWS, TAILS, MixtureFit, affordable_rows, best_mixtures

SHARE = sum(weight for _, weight in TAILS)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fewer sizes, restarts and ridges than in earnest; whatever warns is an error."""
    monkeypatch.setattr(starts, "SIZES", (1, 2, 4))
    monkeypatch.setattr(starts, "POOLED", 3)
    monkeypatch.setattr(starts, "CANDIDATES", 2)
    monkeypatch.setattr(starts, "RIDGES", (1e-6, 1e-2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def best_mixture(*given: Any, **options: Any) -> MixtureFit:
    """The one of an ensemble of one."""
    return best_mixtures(*given, **options)[0]


def clusters(n: int, d: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice([-2.0, 2.0], (n, 1)) + 0.4 * rng.normal(size=(n, d))


def test_log_prob_is_scipys() -> None:
    fit = best_mixture(clusters(200, 3), clusters(100, 3, 1), seed=0)
    z = 3 * np.random.default_rng(2).normal(size=(20, 3))
    parts = zip(fit.weights, fit.means, fit.covariances, strict=True)
    expected = sum(weight * multivariate_normal(mean, covariance).pdf(z) for weight, mean, covariance in parts)
    np.testing.assert_allclose(fit.log_prob(z), np.log(expected), rtol=1e-6)
    assert fit.weights.sum() == pytest.approx(1.0)


def test_no_worse_than_any_single_mixture() -> None:
    """On the validation rows, but for the share of mass that the wide components take."""
    z, z_valid = clusters(150), clusters(80, seed=1)
    fit = best_mixture(z, z_valid, seed=0)
    singles = [best_mixture(z, z_valid, seed=0, components=k, stop=lambda fits: True).valid for k in (1, 2, 4)]
    assert fit.valid >= max(singles) - 1e-9
    assert fit.valid == pytest.approx(fit.log_prob(z_valid).mean())
    assert fit.fits > 3


def test_restarts_are_pooled_where_that_helps() -> None:
    z, z_valid = clusters(60, 4), clusters(300, 4, seed=1)
    fit = best_mixture(z, z_valid, seed=0, components=4)
    assert "pooled" in fit.found
    assert len(fit.weights) == 3 * 4 + len(TAILS)


def test_members_are_restarts_of_one_size() -> None:
    z, z_valid = clusters(60, 4), clusters(300, 4, seed=1)
    fits = best_mixtures(z, z_valid, seed=0, members=lambda components: 3, components=4)
    assert {len(fit.weights) for fit in fits} == {3 * 4 + len(TAILS)}
    assert len({fit.valid for fit in fits}) == 3
    assert np.array_equal(fits[0].means, best_mixture(z, z_valid, seed=0, components=4).means)


def test_members_repeat_where_there_is_no_time() -> None:
    fits = best_mixtures(clusters(60), clusters(30, seed=1), seed=0, members=lambda k: 3, stop=lambda fits: True)
    assert [fit.fits for fit in fits] == [1, 1, 1]
    assert np.array_equal(fits[0].means, fits[2].means)


def test_wide_components_reach_outliers() -> None:
    z = clusters(300)
    fit = best_mixture(z, z[:50], seed=0)
    assert fit.log_prob(np.array([[300.0, -300.0]]))[0] > -60
    bare = MixtureFit(fit.weights[:-4] / (1 - SHARE), fit.means[:-4], fit.covariances[:-4], 0.0, "")
    assert (fit.log_prob(z) >= bare.log_prob(z) + np.log1p(-SHARE) - 1e-12).all()


def test_outliers_do_not_carry_it_away() -> None:
    """A cell a trillion spreads out costs the others less than 0.1 nats a row."""
    z, z_valid = clusters(300), clusters(200, seed=1)
    spoiled = z.copy()
    spoiled[7, 1] = 1e12
    assert best_mixture(spoiled, z_valid, seed=0).valid > best_mixture(z, z_valid, seed=0).valid - 0.1
    far = np.concatenate([z_valid, [[1e12, -1e12]]])
    assert np.isfinite(best_mixture(z, far, seed=0).valid)


def test_the_search_is_repeatable_and_can_be_cut() -> None:
    z, z_valid = clusters(100), clusters(50, seed=1)
    for one, other in zip(best_mixture(z, z_valid, 3), best_mixture(z, z_valid, 3), strict=True):
        assert np.array_equal(one, other)
    asked: list[int] = []

    def stop(fits: int) -> bool:
        asked.append(fits)
        return fits >= 2

    cut = best_mixture(z, z_valid, 3, stop=stop)
    assert cut.fits == 2
    assert min(asked) >= 1
    again = best_mixture(z, z_valid, 3, stop=lambda fits: fits >= cut.fits)
    assert np.array_equal(cut.means, again.means)
    assert best_mixture(z, z_valid, 3, stop=lambda fits: True).fits == 1


def test_affordable_rows() -> None:
    """More rows for more seconds, fewer for more dimensions or components; the numbers alone decide."""
    for d in (1, 7, 60):
        found = [affordable_rows(d, seconds) for seconds in (0.01, 0.1, 1.0, 10.0, 100.0, 1e4)]
        assert found == sorted(found)
        assert all(500 <= rows <= ROWS for rows in found)
    assert affordable_rows(7, None) == ROWS
    assert affordable_rows(40, 3.0) <= affordable_rows(7, 3.0)
    assert affordable_rows(7, 1.0, most=32) <= affordable_rows(7, 1.0, most=4)


def test_at_most_so_many_rows_and_components() -> None:
    z, z_valid = clusters(500), clusters(50, seed=1)
    assert len(best_mixture(z, z_valid, 0, most=1).weights) == 1 + len(TAILS)
    rows_seen = []
    em = starts._em

    def spy(rows: np.ndarray, *rest: object) -> MixtureFit:
        rows_seen.append(len(rows))
        return em(rows, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starts, "_em", spy)
        best_mixture(z, z_valid, 0, at_most=60)
    assert set(rows_seen) == {60}


RNG = np.random.default_rng(0)
HARD = {
    "2 rows": RNG.normal(size=(2, 1)),
    "2 equal rows": np.ones((2, 3)),
    "8 rows": RNG.normal(size=(8, 2)),
    "duplicates": np.repeat(RNG.normal(size=(5, 2)), 40, 0),
    "a constant column": np.column_stack([RNG.normal(size=200), np.full(200, 0.3)]),
    "nearly the same twice": (x := RNG.normal(size=(200, 1))) + np.hstack([np.zeros((200, 1)), 1e-7 * x**2]),
    "the same thrice": np.repeat(RNG.normal(size=(100, 1)), 3, 1),
    "40 columns of 100 rows": RNG.normal(size=(100, 40)),
    "tiny spread": 1e-9 * RNG.normal(size=(100, 2)),
    "on a lattice": RNG.integers(0, 2, (300, 3)).astype(float),
}


@pytest.mark.parametrize("z", HARD.values(), ids=HARD)
@pytest.mark.parametrize("components", [None, 6])
def test_hard_rows(z: np.ndarray, components: int | None) -> None:
    """Without a warning; the outcome is a density that a base can be made of."""
    from diffeo.bases import GaussianMixture

    fit = best_mixture(z, z[: max(1, len(z) // 5)], seed=0, components=components)
    assert np.isfinite(fit.valid)
    moments = (torch.from_numpy(part) for part in fit[:3])
    base = GaussianMixture.from_moments(*moments)
    found = base(torch.from_numpy(z)).detach().numpy()
    np.testing.assert_allclose(found, fit.log_prob(z), rtol=1e-3, atol=2e-2)


def test_correlations_are_shrunk_where_rows_are_few() -> None:
    """90 rows of 40 independent numbers, against the density that they were drawn from: -0.5 nats, unshrunk -6.7."""
    rng = np.random.default_rng(0)
    z, z_valid, z_test = rng.normal(size=(90, 40)), rng.normal(size=(10, 40)), rng.normal(size=(500, 40))
    fit = best_mixture(z, z_valid, seed=0)
    assert "shrunk" in fit.found
    truth = -20 * np.log(2 * np.pi) - 0.5 * np.square(z_test).sum(1)
    assert np.mean(fit.log_prob(z_test) - truth) > -2.0
