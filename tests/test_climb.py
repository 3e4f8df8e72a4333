"""EM: its steps and log-densities against scikit-learn's from the same shares, clusters, hard rows."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from diffeo import climb
from diffeo.climb import climbed, clusters, heights


def rows(n: int = 600, d: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice([-2.0, 0.0, 3.0], (n, 1)) + rng.normal(size=(n, d)) @ (0.5 * rng.normal(size=(d, d)))


@pytest.mark.parametrize("block", [400_000, 700], ids=["at once", "in blocks"])
def test_steps_are_those_of_scikit_learn(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven steps of EM from the same shares; in blocks nothing is kept."""
    monkeypatch.setattr(climb, "BLOCK", block)
    monkeypatch.setattr(climb, "STEPS", 7)
    monkeypatch.setattr(climb, "GAIN", 0.0)
    z, labels = rows(), np.random.default_rng(1).integers(4, size=600)
    weights, means, covariances = climbed(z, 4, 1e-3, 0, labels)
    theirs = GaussianMixture(4, reg_covar=1e-3, warm_start=True)
    theirs._check_parameters, theirs.converged_ = lambda *given, **named: None, False
    theirs._initialize(z, np.eye(4)[labels])
    for _ in range(7):
        theirs._m_step(z, theirs._e_step(z)[1])
    for ours, other in zip(
        (weights, means, covariances), (theirs.weights_, theirs.means_, theirs.covariances_), strict=True
    ):
        np.testing.assert_allclose(ours, other, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(heights(z, weights, means, covariances), theirs.score_samples(z), rtol=1e-9, atol=1e-9)


def test_heights_are_log_densities() -> None:
    """Far out too, and where a component is a millionth wide."""
    z = np.concatenate([rows(50, 2), [[100.0, -100.0]]])
    means, covariances = np.array([[0.0, 1.0], [2.0, 2.0]]), np.array([np.eye(2), [[1e-6, 0], [0, 4.0]]])
    expected = [
        np.log(w) + multivariate_normal(m, c).logpdf(z) for w, m, c in zip((0.3, 0.7), means, covariances, strict=True)
    ]
    found = heights(z, np.array([0.3, 0.7]), means, covariances)
    np.testing.assert_allclose(found, np.logaddexp(*expected), rtol=1e-8, atol=1e-5)


def test_no_step_loses_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(climb, "GAIN", 0.0)
    z, reached = rows(300, 2, 2), []
    for steps in range(1, 12):
        monkeypatch.setattr(climb, "STEPS", steps)
        reached.append(heights(z, *climbed(z, 5, 1e-9, 3)).mean())
    assert (np.diff(reached) > -1e-7).all()
    assert reached[-1] > reached[0] + 0.01


def test_clusters_are_tight_and_repeatable() -> None:
    centres = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    true = np.arange(300) % 3
    z = centres[true] + np.random.default_rng(0).normal(size=(300, 2))
    labels = clusters(z, 3, seed=1, tries=2)
    assert len({(a, b) for a, b in zip(true, labels, strict=True)}) == 3
    assert np.array_equal(labels, clusters(z, 3, seed=1, tries=2))
    assert np.array_equal(clusters(z, 1, seed=0), np.zeros(300))


@pytest.mark.parametrize("z", [np.ones((20, 3)), np.zeros((3, 1)), np.repeat(rows(4, 2), 9, 0)], ids=str)
def test_rows_that_are_alike(z: np.ndarray) -> None:
    weights, means, covariances = climbed(z, 3, 1e-6, 0)
    assert weights.sum() == pytest.approx(1.0)
    assert np.isfinite(heights(z, weights, means, covariances)).all()
    assert np.isfinite(means).all()
    assert (np.linalg.eigvalsh(covariances) > 0).all()
