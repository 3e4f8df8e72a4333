"""The baselines against scipy's distributions and quadrature."""

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy import integrate, stats

from diffeo.baselines import Gaussian, Marginals, log_normal_mass, row_part
from diffeo.data.schema import Schema
from diffeo.errors import DataError, ShapeError


def _mixed(n: int = 600) -> pa.Table:
    rng = np.random.default_rng(1)
    a = rng.normal(3, 2, n)
    return pa.table(
        {
            "a": a,
            "rounded": np.round(a + rng.normal(0, 1, n), 2),
            "word": rng.choice(["x", "y", "z"], n, p=[0.7, 0.2, 0.1]),
            "count": rng.poisson(2, n),
        }
    )


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-0.5, 3), (2, 2.1), (7, 7.001), (-30, -29), (5, 5.00001)])
def test_mass_of_a_cell_is_the_integral(low: float, high: float) -> None:
    middle = (low + high) / 2
    # the density relative to that at the middle, so that the quadrature is accurate far out
    inside = integrate.quad(lambda v: math.exp((middle**2 - v**2) / 2), low, high, epsabs=0, epsrel=1e-12)[0]
    expected = stats.norm.logpdf(middle) + math.log(inside)
    for a, b in ((low, high), (-high, -low)):
        assert log_normal_mass(np.array([a]), np.array([b]))[0] == pytest.approx(expected, rel=1e-9, abs=1e-8)


def test_masses_stay_finite_and_continuous_over_all_widths_and_distances() -> None:
    for z in (0.0, 1.0, 8.0, 50.0, 1e4, 1e9, 1e15):
        width = np.geomspace(max(1e-12, 4e-16 * z), 1.0, 400)
        low = np.full_like(width, z)
        mass = log_normal_mass(low, low + width)
        assert np.isfinite(mass).all()
        assert (mass <= 0).all()
        assert (np.diff(mass) >= -1e-9 * np.abs(mass[1:])).all()  # a wider cell holds no less


def test_masses_over_a_line_of_cells_add_up_to_one() -> None:
    for step in (3e-5, 9e-5, 2e-4, 0.3):
        edges = np.arange(-9, 9 + step, step)
        assert np.exp(log_normal_mass(edges[:-1], edges[1:])).sum() == pytest.approx(1, abs=1e-8)


def test_marginals_are_the_product_of_scipys() -> None:
    table = _mixed()
    schema = Schema.infer(table)
    assert [column.kind for column in schema.columns] == ["continuous", "rounded", "category", "integer"]
    x = schema.encode(table)
    expected = stats.norm.logpdf(x[:, 0], x[:, 0].mean(), x[:, 0].std())
    bell = stats.norm(x[:, 1].mean(), x[:, 1].std())
    expected = expected + np.log(bell.cdf(x[:, 1] + 0.005) - bell.cdf(x[:, 1] - 0.005))
    for place in (2, 3):
        column = schema.columns[place]
        codes = column.codes(x[:, place])
        counts = np.bincount(codes, minlength=len(column.levels))
        expected = expected + np.log((counts[codes] + 1) / (len(x) + len(column.levels)))
    np.testing.assert_allclose(Marginals.fit(x, schema).log_prob(x), expected, rtol=1e-8)


def test_the_gaussian_is_scipys_where_nothing_is_rounded() -> None:
    rng = np.random.default_rng(2)
    v = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 3)) + 5
    schema = Schema.infer(pa.table(dict(zip("abc", v.T, strict=True))))
    fitted = stats.multivariate_normal(v.mean(0), np.cov(v.T, bias=True))
    np.testing.assert_allclose(Gaussian.fit(v, schema).log_prob(v), fitted.logpdf(v), atol=1e-3)


def test_the_gaussian_of_cells_bounds_the_probability_from_below() -> None:
    rng = np.random.default_rng(3)
    v = np.round(rng.multivariate_normal([0, 0], [[4, 3], [3, 4]], 3000))
    kinds = {"*": "rounded"}
    schema = Schema.infer(pa.table({"a": v[:, 0], "b": v[:, 1]}), kinds=kinds)
    assert [column.kind for column in schema.columns] == ["rounded", "rounded"]
    model = Gaussian.fit(v, schema)
    covariance = np.diag(model.scale) @ model.root @ model.root.T @ np.diag(model.scale)
    cells = stats.multivariate_normal(model.mean, covariance)
    places = np.array([[0.0, 0.0], [2, 1], [-3, 0], [5, 5]])
    exact = [
        integrate.dblquad(lambda b, a: cells.pdf([a, b]), p[0] - 0.5, p[0] + 0.5, p[1] - 0.5, p[1] + 0.5)[0]
        for p in places
    ]
    gap = np.log(exact) - model.log_prob(places)
    assert (gap >= 0).all()
    assert gap.max() < 0.2  # far from the ridge the density bends most within a cell
    every = np.array([[a, b] for a in range(-14, 15) for b in range(-14, 15)], float)
    assert 0.95 < np.exp(model.log_prob(every)).sum() <= 1


def test_near_copies_and_coarse_cells_give_no_probability_above_one() -> None:
    rng = np.random.default_rng(4)
    v = np.round(rng.normal(0, 3, 1000))
    schema = Schema.infer(
        pa.table({"a": v, "b": v + (rng.random(1000) < 0.01)}), kinds={"a": "rounded:1", "b": "rounded:1"}
    )
    x = np.stack([v, v], 1)
    assert Gaussian.fit(x, schema).log_prob(x).max() < 0


def test_given_columns_are_no_part_and_may_be_left_away() -> None:
    table = _mixed()
    schema = Schema.infer(table, given=["word", "a"])
    x = schema.encode(table)
    alone = Schema.infer(table.select(["rounded", "count"]))
    for kind in (Marginals, Gaussian):
        model = kind.fit(x, schema)
        np.testing.assert_array_equal(model.log_prob(x), model.log_prob(row_part(x, schema)))
        y = alone.encode(table.select(["rounded", "count"]))
        np.testing.assert_allclose(model.log_prob(x), kind.fit(y, alone).log_prob(y))


@pytest.mark.parametrize("kind", [Marginals, Gaussian])
def test_rows_with_holes_are_not_scored_and_not_learned_from(kind: type[Marginals] | type[Gaussian]) -> None:
    table = _mixed()
    schema = Schema.infer(table)
    x = schema.encode(table)
    holes = x.copy()
    holes[0, 0] = holes[5, 2] = np.nan
    scored = kind.fit(holes, schema).log_prob(holes)
    assert np.isnan(scored).nonzero()[0].tolist() == [0, 5]
    whole = np.delete(x, [0, 5], axis=0)
    np.testing.assert_allclose(np.delete(scored, [0, 5]), kind.fit(whole, schema).log_prob(whole))


@pytest.mark.parametrize("kind", [Marginals, Gaussian])
def test_a_weight_of_two_is_a_row_twice(kind: type[Marginals] | type[Gaussian]) -> None:
    table = pa.table({"a": [1.5, 2.25, 4.125, 9.3], "b": [0.3, 0.1, 0.7, 0.15]})
    schema = Schema.infer(table, kinds={"*": "continuous"})
    x = schema.encode(table)
    weighted = kind.fit(x, schema, weights=np.array([2.0, 1, 1, 2]))
    repeated = kind.fit(x[[0, 0, 1, 2, 3, 3]], schema)
    np.testing.assert_allclose(weighted.log_prob(x), repeated.log_prob(x))


@pytest.mark.parametrize("scale", [1e-300, 1e-6, 1e6, 1e20, 1e200])
@pytest.mark.parametrize("kind", [Marginals, Gaussian])
def test_units_move_the_score_by_the_logarithm_of_their_ratio(
    kind: type[Marginals] | type[Gaussian], scale: float
) -> None:
    rng = np.random.default_rng(5)
    v = rng.normal(size=(50, 2))
    schema = Schema.infer(pa.table({"a": v[:, 0], "b": v[:, 1]}), kinds={"*": "continuous"})
    shifted = kind.fit(v * scale, schema).log_prob(v * scale)
    np.testing.assert_allclose(shifted, kind.fit(v, schema).log_prob(v) - 2 * math.log(scale), rtol=1e-9)


def test_always_defined() -> None:
    schema = Schema.infer(pa.table({"a": [0.1, 0.25, 0.7], "b": [0.1, 0.3, 0.9]}), kinds={"*": "continuous"})
    same = np.full((4, 2), 0.25)
    for kind in (Marginals, Gaussian):
        assert np.isfinite(kind.fit(same, schema).log_prob(np.array([[0.1, 0.3], [1e20, -1e20]]))).all()


def test_what_cannot_be_fitted_is_said() -> None:
    schema = Schema.infer(pa.table({"a": [0.1, 0.25, 0.7]}), kinds={"*": "continuous"})
    with pytest.raises(DataError, match="no row without a missing cell"):
        Marginals.fit(np.full((3, 1), np.nan), schema)
    with pytest.raises(ShapeError, match=r"shape \[n, 1\], got \[3, 2\]"):
        Marginals.fit(np.zeros((3, 2)), schema)
    with pytest.raises(ShapeError, match="one weight for each of 3 rows"):
        Gaussian.fit(np.zeros((3, 1)), schema, weights=np.ones(2))
