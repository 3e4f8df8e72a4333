"""Mixtures of few parameters: EM against scikit-learn's, the criterion by hand, and what it chooses."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from diffeo.parsimonious import FAMILIES, RIDGE, Family, MixtureFit, affordable_size, anew, simplest

KINDS = {"diag": "diag", "tied": "tied", "full": "full"}


def clusters(n: int, seed: int, widths: tuple[float, ...] = (1.0, 1.0)) -> np.ndarray:
    """Rows of as many clusters as widths, far apart."""
    rng = np.random.default_rng(seed)
    centres = 8.0 * np.arange(len(widths))[:, None] * np.array([1.0, -1.0])
    which = rng.integers(len(widths), size=n)
    return centres[which] + np.array(widths)[which, None] * rng.normal(size=(n, 2))


@pytest.mark.parametrize("family", [f for f in FAMILIES.values() if f.covariance in KINDS], ids=lambda f: f.name)
def test_em_is_that_of_scikit_learn(family: Family) -> None:
    z = clusters(600, 0, (1.0, 0.5))
    found = anew(z, 2, family, seed=0)
    known = GaussianMixture(
        2, covariance_type=KINDS[family.covariance], reg_covar=RIDGE, random_state=0, tol=1e-9, max_iter=500
    ).fit(z)
    assert np.abs(found.log_prob(z) - known.score_samples(z)).max() < 1e-3
    assert family.size(2, 2) == known._n_parameters()


def test_components_alike_are_the_likeliest_of_their_family() -> None:
    """Of one shape and weight: no other scale of the variances, and no other centre, makes the rows likelier."""
    z = clusters(500, 1)
    fit = anew(z, 2, FAMILIES["upright ellipses of one shape and weight"], seed=0)
    assert np.array_equal(fit.weights, [0.5, 0.5])
    assert np.array_equal(fit.covariances[0], fit.covariances[1])
    assert fit.covariances[0, 0, 1] == 0
    best = fit.log_prob(z).mean()
    for stretch in (0.97, 1.03):
        assert fit._replace(covariances=stretch * fit.covariances).log_prob(z).mean() < best
    assert fit._replace(means=fit.means + 0.05).log_prob(z).mean() < best


def test_log_prob_is_that_of_scipy() -> None:
    fit = MixtureFit(
        np.array([0.3, 0.7]), np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([[[2.0, 0.5], [0.5, 1.0]], np.eye(2)]), 0, ""
    )
    z = np.random.default_rng(0).normal(size=(20, 2))
    exact = sum(
        w * multivariate_normal(m, c).pdf(z) for w, m, c in zip(fit.weights, fit.means, fit.covariances, strict=True)
    )
    np.testing.assert_allclose(fit.log_prob(z), np.log(exact), rtol=1e-12)


@pytest.mark.parametrize(
    ("widths", "family"),
    [((1.0, 1.0, 1.0), "upright ellipses of one shape and weight"), ((1.0, 0.2, 0.05), "upright ellipses")],
)
def test_the_simplest_that_holds_is_chosen(widths: tuple[float, ...], family: str) -> None:
    fit, found = simplest(clusters(900, 2, widths), seed=0)
    assert (len(fit.weights), found.name) == (3, family)


def test_a_correlation_asks_for_ellipses() -> None:
    z = clusters(900, 3) @ np.array([[1.0, 0.9], [0.0, 0.3]])
    fit, family = simplest(z, seed=0)
    assert len(fit.weights) == 2
    assert family.covariance == "tied"


@pytest.mark.parametrize("n", [2, 3, 7])
def test_few_rows_bear_one_component(n: int) -> None:
    fit, _ = simplest(np.random.default_rng(0).normal(size=(n, 2)), seed=0)
    assert len(fit.weights) == 1
    assert np.isfinite(fit.log_prob(np.full((1, 2), 50.0))).all()


def test_columns_of_one_value_do_no_harm() -> None:
    z = np.random.default_rng(0).normal(size=(200, 2)) * [1, 0]
    fit, _ = simplest(z, seed=0)
    assert np.isfinite(fit.log_prob(z)).all()


def test_less_time_makes_a_smaller_search() -> None:
    sizes = [affordable_size(5000, 10, seconds) for seconds in (0.1, 1.0, 10.0, 1e4)]
    assert sizes == sorted(sizes)
    assert sizes[0] >= 1
    assert sizes[-1] == affordable_size(5000, 10, None)
