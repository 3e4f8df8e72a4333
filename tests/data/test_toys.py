"""Toys: the samplers against scikit-learn, the densities against quadrature, brute force and the draws."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from scipy import integrate, stats
from sklearn.datasets import make_blobs, make_circles, make_moons

from diffeo.data.toys import TOYS, Toy, sample_2d_datasets, toy
from diffeo.data.toys.record import positive
from diffeo.errors import DataError, ShapeError

EVERY = pytest.mark.parametrize("name", TOYS)
LINE = [name for name in TOYS if TOYS[name]().features == 1]
PLANE = [name for name in TOYS if name not in LINE]
FOUR = np.array([[0, 0], [0, 2], [2, 0], [2, 2]])
SMOOTH = [name for name in PLANE if name not in ("checkerboard", "spiral")]


def brute(centres: np.ndarray, spread: float) -> Callable[[np.ndarray], np.ndarray]:
    """The density of equal Gaussians [m, 2], plainly summed."""

    def density(x: np.ndarray) -> np.ndarray:
        square = ((x[:, None] - centres) ** 2).sum(2)
        return np.exp(-square / (2 * spread**2)).mean(1) / (2 * math.pi * spread**2)

    return density


def circle(angles: np.ndarray, radius: float = 1.0) -> np.ndarray:
    return radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def middles(low: float, high: float, count: int) -> np.ndarray:
    return low + (high - low) * (np.arange(count) + 0.5) / count


def half_moons() -> np.ndarray:
    """Places evenly along both arcs; the midpoint rule errs at the curves' ends alone."""
    upper = circle(middles(0, math.pi, 10_000))
    return np.concatenate([upper, np.array([1.0, 0.5]) - upper])


def five(count: int) -> np.ndarray:
    return circle(np.arange(count) * 2 * math.pi / count, 2.5)


BY_HAND: dict[str, tuple[Toy, np.ndarray, float]] = {
    "moons": (toy("moons"), half_moons(), 0.1),
    "moons of little noise": (toy("moons", noise=0.05), half_moons(), 0.05),
    "circles": (toy("circles"), np.concatenate([circle(middles(0, 2 * math.pi, 400), r) for r in (1.0, 0.8)]), 0.1),
    "rings": (
        toy("rings"),
        np.concatenate([circle(middles(0, 2 * math.pi, 800), r * 0.75) for r in range(1, 5)]),
        0.08,
    ),
    "grid": (toy("grid"), FOUR, 0.5),
    "mixture": (toy("mixture", std=1), FOUR, 1.0),
    "rotated": (toy("rotated", gaussians=7), five(7), math.sqrt(0.1)),
    "three": (toy("three"), np.array([[0, 6], [-2.5, 3], [2.5, 3]]), 1.0),
    "eight-gaussians": (
        toy("eight-gaussians"),
        circle(np.arange(8) * math.pi / 4, 4 / math.sqrt(2)),
        0.5 / math.sqrt(2),
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_density_is_the_sum_over_its_curve(name: str) -> None:
    made, centres, spread = BY_HAND[name]
    x = made.sample(300, seed=3) + 0.3 * np.random.default_rng(0).normal(size=(300, 2))
    found = brute(centres, spread)(x)
    seen = found > 1e-9  # further out the ends of the arcs would need ever more places
    assert seen.mean() > 0.7
    np.testing.assert_allclose(made.log_prob(x)[seen], np.log(found[seen]), atol=2e-4)


def test_the_two_spirals_are_the_integral_over_their_curve() -> None:
    """The share of the curve up to t is (t / end)^2: places at even shares, which crowd where it winds."""
    t = 3 * math.pi * np.sqrt(middles(0, 1, 20_000))[:, None]
    arm = t / 3 * np.concatenate([-np.cos(t), np.sin(t)], 1)
    made = toy("two-spirals")
    x = made.sample(100, seed=3)
    np.testing.assert_allclose(made.log_prob(x), np.log(brute(np.concatenate([arm, -arm]), 0.1)(x)), atol=1e-4)


def blurred(x: tuple[float, float], curve: Callable[[Any], tuple[Any, Any, Any]], low: Any, high: Any) -> float:
    """log of the integral of w(t) N(x; c(t), 0.01 I) along a curve t -> (c(t), w(t)): in 30 digits, in panels that
    become ever shorter towards both ends."""

    def height(t: Any) -> Any:
        u, v, weight = curve(t)
        return weight * mp.exp(-50 * ((x[0] - u) ** 2 + (x[1] - v) ** 2))

    ends = [(high - low) * mp.mpf(10) ** -k for k in range(3, 8)]
    edges = [low + (high - low) * k / 150 for k in range(151)] + [low + e for e in ends] + [high - e for e in ends]
    return float(mp.log(mp.quad(height, sorted(edges), maxdegree=4))) - math.log(2 * math.pi * 0.01)


@pytest.mark.parametrize("x", [(30.0, -40.0), (50.0, 0.0)])
def test_far_away_it_is_as_exact(x: tuple[float, float]) -> None:
    """Fifty units away, where the density is that of a curve's end, or of its nearest place: exp(-100,000)."""
    with mp.workdps(30):
        upper = blurred(x, lambda t: (mp.cos(t), mp.sin(t), 0.5 / mp.pi), mp.mpf(0), mp.pi)
        lower = blurred(x, lambda t: (1 - mp.cos(t), mp.mpf("0.5") - mp.sin(t), 0.5 / mp.pi), mp.mpf(0), mp.pi)
        assert toy("moons").log_prob([x])[0] == pytest.approx(np.logaddexp(upper, lower), rel=1e-10)
        end = 3 * mp.pi
        one = blurred(x, lambda t: (-t / 3 * mp.cos(t), t / 3 * mp.sin(t), t / end**2), mp.mpf(0), end)
        other = blurred(x, lambda t: (t / 3 * mp.cos(t), -t / 3 * mp.sin(t), t / end**2), mp.mpf(0), end)
        assert toy("two-spirals").log_prob([x])[0] == pytest.approx(np.logaddexp(one, other), rel=1e-8)


# Mass and entropy ---------------------------------------------------------------------------------------------------


def box(name: str) -> tuple[np.ndarray, np.ndarray]:
    draws = TOYS[name]().sample(20_000, seed=1)
    spread = draws.max(0) - draws.min(0)
    return draws.min(0) - 0.35 * spread, draws.max(0) + 0.35 * spread


def simpson(made: Toy, points: int, low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """Mass and entropy by Simpson's rule on a box."""
    axes = [np.linspace(a, b, points) for a, b in zip(low, high, strict=True)]
    log_prob = made.log_prob(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, made.features))
    values = [np.exp(log_prob), -np.exp(log_prob) * np.maximum(log_prob, -1e5)]
    for axis in reversed(axes):
        values = [integrate.simpson(v.reshape(-1, len(axis)), x=axis, axis=1) for v in values]
    return float(values[0][0]), float(values[1][0])


@pytest.mark.parametrize("name", SMOOTH)
def test_mass_is_one_and_the_entropy_right_in_the_plane(name: str) -> None:
    mass, entropy = simpson(TOYS[name](), 241 if name in ("rings", "two-spirals", "pinwheel") else 161, *box(name))
    assert mass == pytest.approx(1, abs=1e-4)
    assert entropy == pytest.approx(TOYS[name]().entropy, abs=2e-4)


@pytest.mark.parametrize("name", LINE)
def test_mass_is_one_and_the_entropy_right_on_the_line(name: str) -> None:
    mass, entropy = simpson(TOYS[name](), 4001, np.array([-9.0]), np.array([9.0]))
    assert mass == pytest.approx(1, abs=1e-8)
    assert entropy == pytest.approx(TOYS[name]().entropy, abs=1e-6)


def test_the_checkerboard_is_uniform_on_half_of_the_board() -> None:
    board = toy("checkerboard")
    x = (np.stack(np.meshgrid(np.arange(200), np.arange(200)), -1).reshape(-1, 2) + 0.5) / 20 - 5
    log_prob = board.log_prob(x)
    assert np.exp(log_prob).sum() / 400 == pytest.approx(1)
    assert np.isneginf(log_prob[np.abs(x).max(1) > 4]).all()
    assert np.isfinite(board.log_prob(board.sample(10_000, seed=0))).all()
    assert board.entropy == math.log(32)


@pytest.mark.parametrize(("variance", "turns"), [(0.25, 2), (0.0625, 2), (0.25, 1)])
def test_the_spirals_density_is_that_of_its_radius_given_its_angle(variance: float, turns: int) -> None:
    """Mass and entropy in polar coordinates, from the definition: at an angle t and a signed radius r the density is
    1/|r| (the Jacobian) of the sum of p(t, r) over all that name the point."""
    made, std = toy("spiral", variance=variance, turns=turns), math.sqrt(variance)
    phi, rho = middles(0, 2 * math.pi, 240), middles(0, turns * math.pi + 9 * std, 1600)
    step = (phi[1] - phi[0]) * (rho[1] - rho[0])
    p, r = (v.ravel() for v in np.meshgrid(phi, rho))
    names = [(p + math.pi * i, r * (-1) ** i) for i in range(-1, 2 * turns)]
    named = [stats.norm.pdf(s, t / 2, std) * ((t >= 0) & (t <= 2 * math.pi * turns)) for t, s in names]
    expected = np.sum(named, 0) / (2 * math.pi * turns * r)
    found = made.log_prob(np.stack([r * np.cos(p), r * np.sin(p)], 1))
    np.testing.assert_allclose(found[expected > 1e-200], np.log(expected[expected > 1e-200]), rtol=1e-9)
    assert (np.exp(found) * r).sum() * step == pytest.approx(1, abs=1e-4)
    assert -(np.exp(found) * found * r).sum() * step == pytest.approx(made.entropy, abs=1e-3)


def test_the_spirals_pole() -> None:
    spiral = toy("spiral")
    assert math.exp(spiral.log_prob([[1e-3, 0.0]])[0]) == pytest.approx(64, abs=1)
    assert spiral.log_prob([[1e-3, 1e-9]])[0] - spiral.log_prob([[1e-2, 1e-8]])[0] == pytest.approx(
        math.log(10), abs=0.05
    )
    assert np.isfinite(spiral.log_prob([[0.0, 0.0], [-0.0, -0.0], [1.0, -1e-20]])).all()


LISTED = {
    ("moons", 0.1): 1.00758, ("moons", 0.08): 0.77539, ("circles", None): 1.17483, ("grid", None): 2.71702,
    ("rotated", 3): 1.63390, ("rotated", 5): 2.14472, ("rotated", 7): 2.47945, ("mixture", 0.5): 2.71702,
    ("mixture", 1): 3.51153,
}  # fmt: skip
OPTION = {"moons": "noise", "rotated": "gaussians", "mixture": "std"}


@pytest.mark.parametrize(("name", "value"), LISTED)
def test_entropies_are_those_listed(name: str, value: float | None) -> None:
    made = toy(name) if value is None else toy(name, **{OPTION[name]: value})
    assert made.entropy == pytest.approx(LISTED[name, value], abs=1e-5)


def test_the_spirals_entropies_are_those_listed() -> None:
    assert toy("spiral").entropy == pytest.approx(4.0851, abs=1e-4)
    assert toy("spiral", variance=0.0625).entropy == pytest.approx(3.4023, abs=1e-4)


# Draws --------------------------------------------------------------------------------------------------------------


def by_hand(seed: int) -> Iterator[tuple[str, dict[str, float], np.ndarray]]:
    same = {"shuffle": True, "random_state": seed}
    yield "moons", {}, make_moons(151, noise=0.1, **same)[0]
    yield "moons", {"noise": 0.08}, make_moons(151, noise=0.08, **same)[0]
    yield "circles", {}, make_circles(151, noise=0.1, factor=0.8, **same)[0]
    yield "grid", {}, make_blobs(151, centers=FOUR, cluster_std=0.5, **same)[0]
    for count in (3, 5, 7):
        angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
        centres = np.stack([2.5 * np.array([np.cos(angle), np.sin(angle)]) for angle in angles])
        yield "rotated", {"gaussians": count}, make_blobs(151, centers=centres, cluster_std=np.sqrt(0.1), **same)[0]


@pytest.mark.parametrize("seed", [0, 8, 2**32 - 1])
def test_draws_equal_scikit_learns_bit_for_bit(seed: int) -> None:
    for name, options, expected in by_hand(seed):
        np.testing.assert_array_equal(toy(name, **options).sample(151, seed), expected)


def test_the_exercises_names() -> None:
    plain = {"Moons": ("moons", {}), "Circles": ("circles", {}), "GaussiansGrid": ("grid", {})}
    expected = [(name, options, rows) for name, options, rows in by_hand(4) if options != {"noise": 0.08}]
    for name, (ours, _) in plain.items():
        rows = next(rows for found, _, rows in expected if found == ours)
        np.testing.assert_array_equal(sample_2d_datasets(name, 151, seed=4), rows)
    for _, options, rows in expected[3:]:
        np.testing.assert_array_equal(
            sample_2d_datasets("GaussiansRot", 151, seed=4, num_gaussians=int(options["gaussians"])), rows
        )
    assert sample_2d_datasets("Moons").shape == (1000, 2)
    with pytest.raises(NotImplementedError, match="dist_type: expected one of Circles, Moons"):
        sample_2d_datasets("moons")


def surprise(made: Toy, draws: np.ndarray, cells: int) -> float:
    """p-value of Pearson's chi-square of draws [n, d] on a grid of cells over [-12, 12]^d, each cell's mass by
    Gauss-Legendre; cells of fewer than ten draws expected are one. Where a sampler is more even than chance, as
    scikit-learn's are, the statistic is smaller and a false alarm rarer."""
    node, weight = np.polynomial.legendre.leggauss(10)
    side = 24 / cells
    at = (np.arange(cells)[:, None] * side - 12 + side * (node + 1) / 2).ravel()
    shares = np.tile(weight * side / 2, cells)
    if made.features == 1:
        mass = (np.exp(made.log_prob(at[:, None])) * shares).reshape(cells, -1).sum(1)
        counts = np.histogram(draws[:, 0], cells, (-12, 12))[0]
    else:
        x = np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)
        density = np.zeros(len(x))
        near = (x >= draws.min(0) - 1).all(1) & (x <= draws.max(0) + 1).all(1)
        density[near] = np.exp(made.log_prob(x[near]))
        mass = (density.reshape(len(at), -1) * shares[:, None] * shares).reshape(cells, 10, cells, 10).sum((1, 3))
        counts = np.histogram2d(*draws.T, cells, [(-12, 12), (-12, 12)])[0]
    many = len(draws) * mass >= 10
    seen = np.append(counts[many], counts[~many].sum())
    expected = len(draws) * np.append(mass[many], max(1 - mass[many].sum(), 1e-9))
    few = expected[-1] < 10
    seen, expected = (v[:-1] if few else v for v in (seen, expected))
    return float(stats.chi2.sf(((seen - expected) ** 2 / expected).sum(), len(seen) - 1))


@EVERY
def test_draws_follow_the_density(name: str) -> None:
    """20,000 draws, alpha 1e-5 each, the seed fixed."""
    made = TOYS[name]()
    assert surprise(made, made.sample(20_000, seed=11), 240 if made.features == 1 else 48) > 1e-5


def test_draws_of_another_density_are_noticed() -> None:
    """The control: noise a tenth larger, a spread 5 % smaller, radii never negative."""
    assert surprise(toy("moons"), toy("moons", noise=0.11).sample(20_000, 11), 120) < 1e-5
    assert surprise(toy("rotated"), 0.95 * toy("rotated").sample(20_000, 11), 48) < 1e-5
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 4 * math.pi, 20_000)
    radius = np.abs(rng.normal(angle / 2, 0.5))
    folded = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    assert surprise(toy("spiral"), folded, 48) < 1e-5


@EVERY
def test_the_mean_log_density_of_draws_is_minus_the_entropy(name: str) -> None:
    """Within 5 standard errors: a false alarm of 6e-7 each."""
    made = TOYS[name]()
    log_prob = made.log_prob(made.sample(20_000, seed=2**31))
    assert abs(log_prob.mean() + made.entropy) <= 5 * log_prob.std() / math.sqrt(len(log_prob)) + 1e-12


@EVERY
def test_seeds_decide_the_draws_and_nothing_else_does(name: str) -> None:
    made = TOYS[name]()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(made.sample(50, seed=5), TOYS[name]().sample(50, seed=5))
    assert not np.array_equal(made.sample(50, seed=5), made.sample(50, seed=6))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert made.sample(0).shape == (0, made.features)
    assert made.sample(1, seed=0).shape == (1, made.features)
    assert made.sample(7).dtype == np.float64
    assert made.name == name


# At the door --------------------------------------------------------------------------------------------------------


@EVERY
def test_far_away_it_is_finite(name: str) -> None:
    made = TOYS[name]()
    axis = np.linspace(-50, 50, 41)
    x = np.stack(np.meshgrid(*[axis] * made.features), -1).reshape(-1, made.features)
    far = made.log_prob(np.array([[1e15] * made.features, [-np.inf] * made.features, [1e300] * made.features]))
    assert far[1] == -np.inf
    assert not np.isnan(far).any()
    if name != "checkerboard":
        assert np.isfinite(made.log_prob(x)).all()
        assert np.isfinite(far[0])
    assert made.log_prob(x[:0]).shape == (0,)


def test_what_is_wrong_is_said_in_one_line() -> None:
    moons = toy("moons")
    with pytest.raises(DataError, match=r"^monos: there is no such toy; did you mean 'moons'\?$"):
        toy("monos")
    with pytest.raises(DataError, match=r"^7: there is no such toy; there are: moons, circles"):
        toy(7)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"^moons: there is no option 'nois'; there are: noise$"):
        toy("moons", nois=0.1)
    with pytest.raises(DataError, match=r"^claw: there is no option 'name'; it has none$"):
        toy("claw", name="claw")
    for wrong in (0, -1.0, math.nan, math.inf, "0.1", True, None):
        with pytest.raises(DataError, match=r"^noise: expected a positive number, got"):
            toy("moons", noise=wrong)
    assert positive("noise", np.float32(0.5)) == 0.5
    with pytest.raises(DataError, match=r"^gaussians: expected a whole number, 1 or more, got 2\.5$"):
        toy("rotated", gaussians=2.5)
    with pytest.raises(DataError, match=r"^factor: expected a number below 1, got 1\.0$"):
        toy("circles", factor=1)
    with pytest.raises(ShapeError, match=r"^n: expected a whole number, 0 or more, got -1$"):
        moons.sample(-1)
    for seed in (-1, 2**32, 0.5, True):
        with pytest.raises(DataError, match=r"^seed: expected a whole number from 0"):
            moons.sample(1, seed)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"^x: expected shape \[n, 2\], got \[2\]$"):
        moons.log_prob([0.0, 0.0])
    with pytest.raises(DataError, match=r"^x: expected numbers, got NaN in row 1"):
        moons.log_prob([[0.0, 0.0], [math.nan, 0.0]])
