"""Bits per dimension without a model: against counts by hand, scipy, quadrature and what is known of noise."""

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from diffeo.baselines.pictures import PixelGaussian, PixelHistogram, anchors, nearest, zlib_bits
from diffeo.data.pictures import read_pictures
from diffeo.errors import ShapeError

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (600, 1, 4, 4), dtype=np.uint8)


def _smooth(count: int, grays: int, side: int = 3) -> np.ndarray:
    """Pictures whose neighbours are alike, away from both ends of the scale."""
    rng = np.random.default_rng(count)
    field = rng.normal(size=(count, 1, 1, 1)) + 0.5 * rng.normal(size=(count, 1, side, side))
    return np.clip(grays / 2 + grays / 12 * field, 0, grays - 1).astype(np.uint8)


def test_zlib_is_zlib_of_each_picture() -> None:
    wanted = [len(zlib.compress(picture.tobytes(), 9)) * 8 / 16 for picture in NOISE[:5]]
    assert zlib_bits(NOISE[:5]).tolist() == wanted


def test_a_histogram_counts_and_its_probabilities_sum_to_one() -> None:
    train = np.array([[0, 1], [0, 2], [2, 2]], np.uint8)
    bits = PixelHistogram.fit(train, 3).bits
    np.testing.assert_allclose(2.0**-bits, [[3 / 6, 1 / 6, 2 / 6], [1 / 6, 2 / 6, 3 / 6]])
    np.testing.assert_allclose(
        PixelHistogram.fit(NOISE).bits_per_dim(NOISE[:3])[0],
        np.mean(
            [
                -np.log2(((NOISE[:, 0, i, j] == NOISE[0, 0, i, j]).sum() + 1) / (600 + 256))
                for i in range(4)
                for j in range(4)
            ]
        ),
    )


def test_the_gaussian_is_scipys_with_its_noise_averaged_by_quadrature() -> None:
    """E_u[log p] by Gauss-Legendre in each coordinate: two points are exact for squares."""
    train = RNG.integers(0, 16, (200, 2), dtype=np.uint8)
    fitted = PixelGaussian.fit(train, 16)
    covariance = np.linalg.inv(fitted.whiten.T @ fitted.whiten)
    points = 0.5 + np.array([-0.5, 0.5]) / np.sqrt(3)
    corners = np.array([[a, b] for a in points for b in points])
    law = stats.multivariate_normal(fitted.mean, covariance)
    nats = np.mean([law.logpdf((train[:20] + corner) / 16) for corner in corners], 0)
    np.testing.assert_allclose(fitted.bits_per_dim(train[:20]), np.log2(16) - nats / (2 * np.log(2)), rtol=1e-10)
    spread = np.cov((train + RNG.random((200, 2))).T / 16)
    np.testing.assert_allclose(np.diag(covariance), np.diag(spread), rtol=0.1)
    assert abs(covariance[0, 1]) <= abs(np.cov(train.T / 16, ddof=0)[0, 1]) + 1e-12


@pytest.mark.parametrize("logit", [False, True])
def test_masses_of_all_pictures_sum_to_less_than_one_and_nearly_to_it(logit: bool) -> None:
    """Two pixels of 16 levels: every bound is below its mass, and a smooth density's is near it."""
    train = _smooth(4000, 16, side=2).reshape(-1, 4)[:, :2]
    every = np.indices((16, 16)).reshape(2, -1).T.astype(np.uint8)
    bits = np.mean([PixelGaussian.fit(train, 16, logit=logit, seed=seed).bits_per_dim(every) for seed in range(8)], 0)
    mass = float((2.0 ** (-2 * bits)).sum())
    assert 0.9 < mass < 1.0 + 1e-6, mass


def test_noise_costs_all_its_bits() -> None:
    """Eight bits of chance in a number cannot be told in fewer. (False alarms: none, the seed is fixed.)"""
    for bits, _ in anchors(NOISE[:400], NOISE[400:]).values():
        assert bits >= 7.98
    many = RNG.integers(0, 4, (20_000, 1, 2, 2), dtype=np.uint8)
    assert PixelHistogram.fit(many, 4).bits_per_dim(many).mean() == pytest.approx(2.0, abs=1e-3)


def test_what_neighbours_tell_is_used() -> None:
    """A Gaussian beats independent pixels where neighbours are alike; levels that never vary cost next to nothing."""
    train, test = _smooth(3000, 256), _smooth(1000, 256)
    found = anchors(train, test)
    assert found["gaussian"][0] < found["histogram"][0] - 0.3
    assert found["gaussian of logits"][0] < found["histogram"][0] - 0.3
    assert all(0 < error < 0.1 for _, error in found.values())
    flat = np.concatenate([train, np.zeros_like(train)], 1)
    constant = 0.5 * np.log2(2 * np.pi * np.e / 12)  # what a normal distribution loses on a uniform one
    half = (PixelGaussian.fit(train).bits_per_dim(train[:50]).mean() + constant) / 2
    assert PixelGaussian.fit(flat).bits_per_dim(flat[:50]).mean() == pytest.approx(half, abs=0.01)


def test_few_pictures_of_many_numbers() -> None:
    train = RNG.integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
    test = RNG.integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
    for logit in (False, True):
        bits = PixelGaussian.fit(train, logit=logit).bits_per_dim(test)
        assert np.isfinite(bits).all()
        assert bits.mean() < 9.5


def test_figures_of_fashion() -> None:
    """Known from elsewhere: zlib 4.66, histogram 4.59, Gaussian 6.5, of logits 5.5."""
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("install dataset-fashion-mnist to run this test")
    train, test = (read_pictures(name).pixels for name in ("fashion-mnist", "fashion-mnist:test"))
    assert zlib_bits(test[:2000]).mean() == pytest.approx(4.66, abs=0.02)
    assert PixelHistogram.fit(train).bits_per_dim(test).mean() == pytest.approx(4.59, abs=0.005)
    assert PixelGaussian.fit(train).bits_per_dim(test).mean() == pytest.approx(6.49, abs=0.01)


def test_nearest() -> None:
    some, many = NOISE[:7], np.concatenate([NOISE[100:], NOISE[:3]])
    places, distances = nearest(some, many, k=3)
    every = np.sqrt(((some[:, None].astype(float) - many[None].astype(float)) ** 2).sum((2, 3, 4)))
    np.testing.assert_array_equal(places, np.argsort(every, axis=1, kind="stable")[:, :3])
    np.testing.assert_allclose(distances, np.sort(every, 1)[:, :3], rtol=1e-12)
    assert distances[:3, 0].tolist() == [0, 0, 0]
    large = np.zeros((5000, 1, 2, 2), np.uint8)
    large[4321] = 9
    assert nearest(large[4321:4322], large)[0].tolist() == [[4321]]
    assert nearest(some, many[:2], k=5)[0].shape == (7, 2)


@pytest.mark.parametrize(
    "act",
    [
        lambda: zlib_bits(np.zeros((2, 3))),
        lambda: PixelHistogram.fit(NOISE, 16),
        lambda: PixelHistogram.fit(NOISE).bits_per_dim(NOISE[:, :, :2]),
        lambda: PixelGaussian.fit(NOISE[:1]),
        lambda: PixelGaussian.fit(NOISE, 300),
        lambda: nearest(NOISE, NOISE[:, :, 1:]),
        lambda: nearest(NOISE, NOISE, k=0),
    ],
)
def test_wrong_arrays_are_named(act) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ShapeError, match=r"^(pixels|train|test|among|grays|k): expected"):
        act()


def test_shared_digits() -> None:
    shared = Path(os.environ.get("DIFFEO_DATA", "nowhere"), "mnist", "mnist_10k.npz")
    if not shared.is_file():
        pytest.skip("set DIFFEO_DATA to the folder of shared data to run this test")
    train, test = (read_pictures(f"{shared}:{part}").pixels for part in ("train", "test"))
    assert PixelHistogram.fit(train).bits_per_dim(test).mean() == pytest.approx(1.706, abs=0.001)
    assert zlib_bits(test).mean() == pytest.approx(1.94, abs=0.02)
