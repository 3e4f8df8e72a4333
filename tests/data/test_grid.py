"""Grids: values snap to what the file wrote, cells hold their values, and continuous data have none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffeo.data.grid import WARPS, Grid, unwarped, warped
from diffeo.data.rounding import find_grid


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(WARPS),
    st.integers(1, 999),
    st.integers(0, 5),
    st.lists(st.integers(1, 10_000), min_size=3, max_size=40, unique=True),
)
def test_cells_hold_their_values_and_snapping_is_idempotent(
    warp: str, size: int, digits: int, places: list[int]
) -> None:
    grid = Grid(step=size / 10**digits, warp=warp)
    k = np.array(places, float)
    if warp in ("exp", "exp10", "expneg", "exp10neg"):
        k = k[np.abs(np.log(k * grid.step)) < 500]
    v = grid.value(k)
    assert np.array_equal(grid.index(v), k)
    assert np.array_equal(grid.snap(v), v)
    low, high = grid.cell(v)
    assert np.all((low < v) & (v < high))
    inside = low + (high - low) * 0.4
    assert np.array_equal(grid.snap(inside), v)


@pytest.mark.parametrize("warp", WARPS)
def test_warps_have_inverses(warp: str) -> None:
    v = np.linspace(0.1, 3, 50)
    np.testing.assert_allclose(unwarped(warped(v, warp), warp), v, rtol=1e-12)


def test_cells_are_proper_anywhere() -> None:
    v = np.array([-1e300, -5.0, 0.0, 1e-300, 1e17, 1e300])
    for warp in WARPS:
        low, high = Grid(step=1e-3, warp=warp).cell(v)
        assert np.all(low < high)
    assert np.isnan(Grid(step=1.0).snap(np.array([np.nan])))[0]


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 500),
    st.integers(0, 6),
    st.integers(-500, 500),
    st.lists(st.integers(-3000, 3000), min_size=12, max_size=60, unique=True),
    st.booleans(),
)
def test_decimal_grids_are_found_and_give_the_values_back(
    size: int, digits: int, shift: int, places: list[int], single: bool
) -> None:
    whole = np.sort(np.array(places)) * size + shift
    u = whole / 10.0**digits
    if single:
        u = u.astype(np.float32).astype(float)
        if np.spacing(np.float32(np.abs(u).max())) * 64 > 10.0**-digits:
            return
    grid = find_grid(u, stored_single=single)
    assert grid is not None
    assert np.array_equal(grid.snap(u), u)
    expected = np.gcd.reduce(np.diff(whole)) / 10.0**digits
    assert grid.step == pytest.approx(expected)


def test_grids_under_warps_and_odd_steps() -> None:
    k = np.unique(np.random.default_rng(0).integers(147, 80_000, size=3000))
    far = np.log10(1000 / (k / 100)).astype(np.float32)
    grid = find_grid(np.unique(far).astype(float), stored_single=True, warps=True)
    assert grid is not None
    assert grid.warp == "exp10neg"
    assert grid.step == pytest.approx(1e-5)
    assert np.all(np.abs(grid.snap(far.astype(float)) - far) <= grid.slack)
    for u, step, warp in (
        (1 / np.arange(1.0, 60), 1.0, "reciprocal"),
        (np.log(np.arange(1.0, 60)), 1.0, "exp"),
        (np.arange(60) / 7, 1 / 7, "identity"),
        (np.arange(0, 60) * np.pi / 180, np.pi / 180, "identity"),
        (np.arange(60) * 1.15078, 1.15078, "identity"),
    ):
        grid = find_grid(np.sort(u), warps=True)
        assert grid is not None, step
        assert (grid.warp, grid.step) == (warp, pytest.approx(step))
        assert np.all(np.abs(grid.snap(u) - u) <= grid.slack)


def test_noise_of_arithmetic_is_slack() -> None:
    u = np.unique(np.round(np.random.default_rng(0).uniform(0, 100, 500), 2)).astype(np.float32) + 1e-8
    grid = find_grid(np.sort(u.astype(float)))
    assert grid is not None
    assert (grid.step, grid.digits) == (0.01, 2)
    assert 0 < grid.slack < 1e-5


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_continuous_data_have_no_grid(kind: str) -> None:
    rng = np.random.default_rng(0)
    for v in (rng.normal(20, 5, 100_000), rng.uniform(0, 6.28, 100_000), np.exp(rng.normal(size=1000))):
        u = np.unique(v.astype(kind)).astype(float)
        assert find_grid(u, stored_single=kind == "f4", warps=True) is None


def test_a_grid_under_a_warp_survives_a_text_file() -> None:
    """Float32 numbers printed to text have up to nine digits; the last of them is no grid."""
    parallax = np.random.default_rng(0).integers(200, 4000, 20_000) / 100
    printed = np.log10(1000 / parallax).astype(np.float32).astype(str).astype(float)
    grid = find_grid(np.unique(printed), warps=True)
    assert grid is not None
    assert (grid.warp, grid.step) == ("exp10neg", pytest.approx(1e-5))
