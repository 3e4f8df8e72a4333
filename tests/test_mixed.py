"""Rows of many kinds: total mass one, in the units of the file, whatever the columns; draws that are the density's."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffeo.data.column import Column
from diffeo.data.schema import Schema
from diffeo.errors import ShapeError
from diffeo.mixed import Mixed
from diffeo.quantized import POINTS
from diffeo.rows import Layout
from tests.tables import (
    ALL,
    BOOLEAN,
    BOUNDED,
    CATEGORY,
    CIRCULAR,
    CONTINUOUS,
    COUNTS,
    INTEGER,
    INVERSE,
    MOMENTS,
    ORDERED,
    POSITIVE,
    RAIN,
    ROUNDED,
    SHUT,
    SPIKED,
    UNIT,
    WARPED,
    density,
    log_probs,
    values,
)

DISCRETE = (CATEGORY, BOOLEAN, ORDERED, INTEGER, SHUT, INVERSE)
NAMED = pytest.mark.parametrize("column", ALL, ids=lambda column: column.name)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def axis(column: Column, fine: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Encoded values [m] of a column and the measure [m] of each, over which exp(score) is to be summed.

    Levels (integers with open ends: 60 beyond each, which hold all but 1e-5 of the ends), every value of a grid that
    matters, atoms, and midpoints for the rest, evenly spaced in asinh, log or logit about where the values lie.
    """
    if column is INVERSE:
        return 1 / np.arange(1.0, 100.0), np.ones(99)
    if column.coded or column is SHUT:
        levels = np.arange(len(column.levels)) if column.coded else np.array(column.levels, float)
        return levels.astype(float), np.ones(len(levels))
    if column.kind == "integer":
        return np.arange(-60.0, 70.0), np.ones(130)
    if column.kind == "circular" and column.period is not None:
        start, length = column.period
        return start + length * (np.arange(fine) + 0.5) / fine, np.full(fine, length / fine)
    if column.grid is not None:
        seen = column.grid.index(values(column, 400))
        reach = 14 * seen.std() if column.grid.warp == "identity" else 2000
        lowest = 1.0 if column.grid.warp != "identity" or column.positive else -math.inf
        k = np.arange(max(np.rint(seen.mean() - reach), lowest), seen.mean() + reach)
        return column.grid.value(k), np.ones(len(k))
    t = -14 + 28 * (np.arange(fine) + 0.5) / fine
    if column.bounds is not None:
        u, size = 1 / (1 + np.exp(-t)), column.bounds[1] - column.bounds[0]
        x, slope = column.bounds[0] + size * u, size * u * (1 - u)
    elif column.positive:
        x, slope = 5 * np.exp(t), 5 * np.exp(t)
    else:
        x, slope = 3 + 2 * np.sinh(t), 2 * np.cosh(t)
    return np.concatenate([column.atoms, x]), np.concatenate([np.ones(len(column.atoms)), slope * 28 / fine])


def total(built: Mixed, axes: Sequence[tuple[np.ndarray, np.ndarray]], points: int = POINTS) -> float:
    x = np.stack([part.ravel() for part in np.meshgrid(*(x for x, _ in axes), indexing="ij")], 1)
    measure = math.prod(np.meshgrid(*(measure for _, measure in axes), indexing="ij")).ravel()  # type: ignore[type-var]
    return float(built.score(built.layout.rows(x), points).sum(1).exp().numpy() @ measure)


# Total mass -----------------------------------------------------------------------------------------------------------


@NAMED
def test_one_column_has_mass_one(column: Column) -> None:
    """To 1e-3; where atoms' places are filled, at 4,000 points, for at 16 that is known to 5 % only."""
    built, _ = density([column], size=0.1 if column.atoms else 0.2)
    tolerance = 2e-3 if column.atoms else 1e-3
    if column.atoms:
        x, measure = axis(column)
        assert total(built, [(x, measure)]) == pytest.approx(1.0, abs=0.05)
        rest = total(built, [(x[len(column.atoms) :], measure[len(column.atoms) :])], 1)
        atoms = total(built, [(np.array(column.atoms), np.ones(len(column.atoms)))], 4000)
        assert atoms > 0.1
        assert atoms + rest == pytest.approx(1.0, abs=tolerance)
    else:
        assert total(built, [axis(column)]) == pytest.approx(1.0, abs=tolerance)


@pytest.mark.parametrize(("recipe", "members"), [("auto", 1), ("auto", 3), ("maf", 1)])
@pytest.mark.parametrize(
    "columns",
    [
        (CATEGORY, INVERSE, ROUNDED),
        (ROUNDED, CIRCULAR),
        (POSITIVE, ORDERED, UNIT),
        (CIRCULAR, BOUNDED),
        (CONTINUOUS, ROUNDED),
        (MOMENTS, SHUT),
    ],
    ids=lambda columns: "-".join(column.name for column in columns),
)
def test_columns_together_have_mass_one(columns: tuple[Column, ...], recipe: str, members: int) -> None:
    """To 2e-3, on a coarser grid."""
    built, _ = density(columns, recipe, members=members)
    axes = [axis(column, 160 if column.kind == "circular" else 300) for column in columns]
    assert total(built, axes) == pytest.approx(1.0, abs=2e-3)


def test_two_spiked_columns_have_mass_one() -> None:
    """Atoms in both, one, and neither; at 400 points of the free places, to 2 %."""
    built, _ = density([SPIKED, RAIN], size=0.1)
    assert total(built, [axis(SPIKED, 60), axis(RAIN, 60)], 400) == pytest.approx(1.0, abs=0.02)


def test_given_columns_are_conditioned_on() -> None:
    """The mass is one for every value of what is given, and not the same density."""
    columns = [
        given_(CATEGORY), CONTINUOUS, given_(CIRCULAR), BOOLEAN, given_(INTEGER), given_(UNIT),
    ]  # fmt: skip
    built, _ = density(columns)
    x, measure = axis(CONTINUOUS, 800)
    heights = []
    for first, angle, count, unit in [(0, -170.0, 2, 0.5), (2, 10.0, 5, 0.1), (1, 10.0, 90, 0.9)]:
        known = [(np.array([float(v)]), np.ones(1)) for v in (first, angle, count, unit)]
        assert total(built, [known[0], (x, measure), known[1], axis(BOOLEAN), *known[2:]]) == pytest.approx(1, abs=1e-3)
        heights.append(log_probs(built, np.array([[first, 3.0, angle, 1.0, count, unit]]))[0])
    assert len({round(height, 3) for height in heights}) == 3
    turned = np.array([[0, 3.0, -170.0 + 360 * k, 1.0, 2, 0.5] for k in range(3)])
    np.testing.assert_allclose(log_probs(built, turned), heights[0], rtol=1e-5)


def given_(column: Column) -> Column:
    return column.model_copy(update={"role": "given"})


# Units ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1000.0, 1e-6])
@pytest.mark.parametrize(
    "column", [CONTINUOUS, POSITIVE, UNIT, BOUNDED, SPIKED, RAIN, ROUNDED, COUNTS], ids=lambda c: c.name
)
def test_densities_are_in_the_units_of_the_file(column: Column, scale: float) -> None:
    """In other units a density is divided by their ratio; masses of cells and atoms stay."""
    (plain, x), (other, y) = density([column]), density([column], scale=scale)
    np.testing.assert_allclose(y, scale * x)
    mass = np.isin(x[:, 0], column.atoms) if column.grid is None else np.ones(len(x), bool)
    expected = log_probs(plain, x) - np.where(mass, 0.0, math.log(scale))
    np.testing.assert_allclose(log_probs(other, y), expected, atol=2e-4)


def test_a_circle_has_no_seam() -> None:
    built, _ = density([CIRCULAR, BOOLEAN], size=0.5)
    x = np.array(
        [[-180.0, 1.0], [180.0, 1.0], [180.0 - 1e-4, 1.0], [540.0, 1.0], [20.0, 0.0], [380.0, 0.0], [-340.0, 0.0]]
    )
    found = log_probs(built, x)
    np.testing.assert_allclose(found[:4], found[0], atol=1e-3)
    np.testing.assert_allclose(found[4:], found[4], atol=1e-4)
    assert abs(found[0] - found[4]) > 0.01


# What cannot be -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "impossible", "possible"),
    [
        (CATEGORY, [-1, 3, 0.5], [0, 2]),
        (BOOLEAN, [2], [0, 1]),
        (INTEGER, [2.5, 3.001], [2, -7, 1e6, -1e6]),
        (SHUT, [-1, 2], [0, 1]),
        (INVERSE, [0.13, -0.125, 0.0, 1e9], [1 / 7, 1 / 9, 1 / 5]),
        (POSITIVE, [0.0, -1.0], [1e-3, 1e9]),
        (UNIT, [0.0, 1.0, -0.1, 1.1], [1e-9, 1 - 1e-9]),
        (BOUNDED, [-2.0, 5.0, 6.0], [0.0]),
        (RAIN, [-1.0], [0.0, 7.0, 3.0]),
        (SPIKED, [], [0.0, 1e15, -1e15]),
        (CONTINUOUS, [], [3e15, -3e15]),
        (ROUNDED, [], [-1e9 + 0.25, 1e9 + 0.25]),
        (WARPED["reciprocal"], [-3.0, 0.0], [0.04, 2.0]),
        (WARPED["exp10"], [-9.0], [math.log10(20), math.log10(0.5)]),
    ],
    ids=lambda value: value.name if isinstance(value, Column) else "",
)
def test_what_cannot_be(column: Column, impossible: list[float], possible: list[float]) -> None:
    built, _ = density([BOOLEAN if column is not BOOLEAN else CATEGORY, column])
    rows = np.array([[1.0, v] for v in (*impossible, *possible)], float)
    found = log_probs(built, rows)
    assert (found[: len(impossible)] == -math.inf).all()
    assert np.isfinite(found[len(impossible) :]).all()


def test_wrong_shapes_are_refused() -> None:
    built, x = density([CATEGORY, ROUNDED])
    with pytest.raises(ShapeError, match=r"encoded rows of shape \[n, 2\], got \[400, 1\]"):
        built.log_prob(torch.from_numpy(x[:, :1]))
    conditional, _ = density([given_(CATEGORY), ROUNDED])
    with pytest.raises(ShapeError, match="give the columns"):
        conditional.sample(3)
    assert log_probs(built, x[:0]).shape == (0,)
    assert built.sample(0).shape == (0, 2)


# Scores ---------------------------------------------------------------------------------------------------------------


def test_scores_are_repeatable_and_do_not_depend_on_the_batch() -> None:
    built, x = density(ALL)
    found = log_probs(built, x)
    assert np.array_equal(found, log_probs(built, x))
    alone = np.concatenate([log_probs(built, x[i : i + 1]) for i in range(40)])
    np.testing.assert_allclose(found[:40], alone, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(built(torch.from_numpy(x)).numpy(), found)
    parts = built.score(built.layout.rows(x))
    assert parts.shape == (400, len(built.parts))
    np.testing.assert_allclose(parts.sum(1).numpy(), found)


def test_training_and_scoring_agree() -> None:
    """part_log_probs at given noise is what score averages: the masses and angles, and the numbers at each point."""
    built, x = density([CATEGORY, CIRCULAR, ROUNDED, RAIN, CONTINUOUS])
    rows = built.layout.rows(x[:50])
    with torch.no_grad():
        noise = torch.rand(500, 50, 3, dtype=torch.float64, generator=generator())
        each = torch.stack([built.part_log_probs(rows, u) for u in noise])
    found = built.score(rows, 4000)
    torch.testing.assert_close(each[0, :, :2], found[:, :2], rtol=1e-5, atol=1e-5)
    ratio = (each[:, :, 2] - found[:, 2]).exp()
    error = (ratio.mean(0) - 1) / (ratio.std(0) / math.sqrt(500))
    assert error.abs().max() < 6  # 50 rows; false alarm below 1e-6


def test_an_ensembles_score_is_that_of_the_average() -> None:
    """Of members that learn each by itself, whether a number has free places or not."""
    for last, points in ((CONTINUOUS, 16), (ROUNDED, 3000)):
        built, x = density([CATEGORY, CIRCULAR, last], members=3)
        rows = built.layout.rows(x[:60])
        named = [("masses", 1.0), ("circular", 1.0), *((f"numbers {j}", 1 / 3) for j in (1, 2, 3))]
        assert [(name, share) for name, _, share in built.learners] == named
        shares = torch.tensor([0.5, 0.3, 0.2])
        built.rest.base.log_weights.copy_(shares.log())  # type: ignore[union-attr, operator]
        each, found = built.score_members(rows, points), built.score(rows, points)
        assert each.shape == (60, 5)
        assert each[:, 2:].std(1).min() > 1e-3
        torch.testing.assert_close(found[:, :2], each[:, :2])
        average = (each[:, 2:].exp() * shares).sum(1).log()
        torch.testing.assert_close(found[:, 2], average, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(built.score_members(rows, points, [1])[:, 2], each[:, 3])


@pytest.mark.parametrize(("step", "error"), [(0.5, 1e-4), (2.0, 2e-3), (6.0, 0.03)])
def test_a_cells_points_against_a_fine_quadrature(step: float, error: float) -> None:
    """Cells of 1/4, 1 and 3 standard deviations, beside a column without cells."""
    grid = ROUNDED.grid.model_copy(update={"step": step})  # type: ignore[union-attr]
    built, x = density([ROUNDED.model_copy(update={"grid": grid}), CONTINUOUS])
    rows = built.layout.rows(x[:100])
    few, many = built.score(rows), built.score(rows, 4000)
    assert (few - many).abs().max() < error


# Draws ----------------------------------------------------------------------------------------------------------------


def snapped(built: Mixed, x: np.ndarray) -> np.ndarray:
    """Draws with rounded values brought onto their grids, as decoding does."""
    x = x.copy()
    for i, column in enumerate(built.layout.schema.columns):
        if column.grid is not None:
            x[:, i] = column.grid.snap(x[:, i])
    return x


def test_draws_are_possible() -> None:
    built, _ = density(ALL)
    x = snapped(built, built.sample(2000, generator=generator()).numpy())
    assert np.isfinite(log_probs(built, x)).all()
    again = snapped(built, built.sample(2000, generator=generator()).numpy())
    assert np.array_equal(x, again)


@pytest.mark.parametrize("column", [UNIT, BOUNDED, POSITIVE, CONTINUOUS, RAIN], ids=lambda c: c.name)
@pytest.mark.parametrize("stored", ["double", "float"])
def test_draws_far_out_stay_possible(column: Column, stored: str) -> None:
    """A tail a thousand spreads wide leaves neither the support nor the finite numbers of the column's type."""
    built, _ = density([column.model_copy(update={"type": stored})])
    assert built.rest is not None
    with torch.no_grad():
        for parameter in built.rest.parameters():
            parameter.zero_()
        built.rest.base.mixture.log_diagonal.fill_(-7.0)  # type: ignore[union-attr, operator]
    x = built.sample(500, generator=generator()).numpy()
    if stored == "float":
        x = x.astype(np.float32).astype(float)
    assert np.isfinite(x).all()
    assert (built.layout.rows(x).low.numpy() == x).all()
    if column.kind != "continuous":
        assert np.isfinite(log_probs(built, x)).all()


@pytest.mark.parametrize(
    "columns", [(CATEGORY, INTEGER, POSITIVE, CIRCULAR, ROUNDED), (INVERSE, UNIT, COUNTS, SPIKED), (RAIN, CONTINUOUS)]
)
def test_draws_of_every_kind_are_the_densitys(columns: tuple[Column, ...]) -> None:
    """The mean of h(x) / p(x) over draws is the total of h, 1: within 5 standard errors (false alarm 6e-7).

    h is uniform on levels, atoms and the circle, else a bell on the scale of each number, integrated over cells.
    """
    built, _ = density(columns, size=0.1)
    x = snapped(built, built.sample(3000, generator=generator(1)).numpy())
    points = 400 if any(column.atoms for column in columns) else POINTS  # at few points atoms are a bound from below
    found = built.score(built.layout.rows(x), points).sum(1).numpy()
    ratio = np.exp(sum(bell(column, v) for column, v in zip(columns, x.T, strict=True)) - found)
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(len(ratio))
    assert ratio.std() / math.sqrt(len(ratio)) < 0.1


def bell(column: Column, x: np.ndarray) -> np.ndarray:
    """log h [n]."""
    if column.discrete:
        return np.full(len(x), -math.log(len(column.levels)))
    if column.kind == "circular":
        return np.full(len(x), -math.log(360.0))
    warps = {"positive": (np.log, lambda x: 1 / x), "unit": (scipy.special.logit, lambda x: 1 / (x * (1 - x)))}
    warp, slope = warps.get(column.kind, (lambda x: x, np.ones_like))
    warp = np.log if column is COUNTS else warp
    free = warp(values(column, 400)[~np.isin(values(column, 400), column.atoms)])
    normal = scipy.stats.norm(np.median(free), 0.7 * free.std())
    if column.grid is not None:
        low, high = column.grid.cell(x)
        return np.log(np.maximum(normal.cdf(warp(high)) - normal.cdf(warp(low)), 1e-300))
    atom = np.isin(x, column.atoms)
    safe = np.where(atom, 1.0, x)
    found = normal.logpdf(warp(safe)) + np.log(slope(safe))
    return np.where(atom, 0.0, found) - math.log(1 + len(column.atoms))


def test_draws_of_codes_atoms_and_angles_have_their_frequencies() -> None:
    """Chi-square of 20,000 draws; false alarm 1e-6 each."""
    n = 20_000
    for column in (*DISCRETE, RAIN, CIRCULAR):
        built, _ = density([column])
        x = built.sample(n, generator=generator(2)).numpy()[:, 0]
        if column is CIRCULAR:
            edges = np.linspace(-180, 180, 25)
            fine, measure = axis(column, 2400)
            shares = (np.exp(log_probs(built, fine[:, None])) * measure).reshape(24, 100).sum(1)
            counts = np.histogram(x, edges)[0]
        else:
            levels = np.array(column.atoms) if column.atoms else axis(column)[0]
            shares = built.score(built.layout.rows(levels[:, None]), 4000).sum(1).exp().numpy()
            counts = np.array([(x == level).sum() for level in levels])
            if column.kind == "integer":  # open ends are not drawn
                shares = np.where(np.isin(levels, column.levels), shares, 0.0)
                shares /= shares.sum()
        shares, counts = np.append(shares, max(1 - shares.sum(), 1e-12)), np.append(counts, n - counts.sum())
        seen = shares > 1e-3
        assert counts[~seen].sum() <= 5 + 2 * n * shares[~seen].sum()
        expected = shares[seen] * counts[seen].sum() / shares[seen].sum()
        assert len(expected) == 1 or scipy.stats.chisquare(counts[seen], expected).pvalue > 1e-6


def test_draws_honour_what_is_given() -> None:
    """The frequencies of a boolean for each level of a given category; 5 standard errors, false alarm below 2e-6."""
    built, _ = density([given_(CATEGORY), BOOLEAN, ROUNDED], size=0.6)
    n = 6000
    known = np.zeros((3 * n, 3))
    known[:, 0] = np.repeat([0, 1, 2], n)
    drawn = built.sample_given(built.layout.rows(known), generator(3))
    assert drawn.shape == (3 * n, 2)
    shares = []
    for level in range(3):
        x = np.array([[level, 1.0, 3.25]])
        share = math.exp(float(built.score(built.layout.rows(x))[0, 0]))
        found = drawn[known[:, 0] == level, 0].mean()
        assert abs(found - share) < 5 * math.sqrt(share * (1 - share) / n)
        shares.append(share)
    assert len({round(share, 2) for share in shares}) > 1


# Rows and back --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_and_encoded_are_inverses(data: st.DataObject) -> None:
    columns = data.draw(st.lists(st.sampled_from(ALL), min_size=1, max_size=6, unique_by=lambda c: c.name))
    seed, n = data.draw(st.integers(0, 1000)), data.draw(st.integers(0, 5))
    layout = Layout(Schema(columns=tuple(columns)))
    x = np.stack([values(column, n, seed) for column in columns], 1)
    rows = layout.rows(x)
    assert rows.possible.all()
    place = data.draw(st.floats(0.001, 0.999))
    numbers = (rows.low + place * rows.width).numpy()
    numbers[rows.atom.numpy()] = data.draw(st.sampled_from([np.nan, 0.3]))  # an atom's place is free
    back = layout.encoded(rows.codes.numpy(), rows.angles.numpy(), numbers)
    for column, before, after in zip(columns, x.T, back.T, strict=True):
        if column.grid is not None:
            assert np.array_equal(column.grid.snap(after), column.grid.snap(before))
        elif column.kind == "circular":
            np.testing.assert_allclose(after, before, atol=1e-9)
        else:
            assert np.array_equal(after, before)


@NAMED
def test_a_subset_of_rows_is_the_rows_of_a_subset(column: Column) -> None:
    layout, x = Layout(Schema(columns=(column, CONTINUOUS))), np.stack([values(column, 30), values(CONTINUOUS, 30)], 1)
    pick = torch.tensor([3, 1, 29])
    for a, b in itertools.zip_longest(layout.rows(x)[pick].parts(), layout.rows(x[pick.numpy()]).parts()):
        assert torch.equal(a, b)
