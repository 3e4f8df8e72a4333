"""The baselines against scipy's distributions and quadrature."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import integrate, stats

from diffeo.baselines import Gaussian, Kernels, Marginals, Mixture, PerCategory, log_normal_mass, row_part
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


# The flexible ones ----------------------------------------------------------------------------------------------------


def _clusters(n: int = 1500, seed: int = 7) -> pa.Table:
    """Two clusters, one for each word, a rounded column, and an atom at zero."""
    rng = np.random.default_rng(seed)
    word = rng.choice(["x", "y"], n, p=[0.7, 0.3])
    a = np.where(word == "x", -4.0, 4.0) + rng.normal(size=n)
    spiked = np.where(rng.random(n) < 0.4, 0.0, np.exp(rng.normal(size=n)))
    return pa.table({"a": a, "rounded": np.round(2 * a + rng.normal(size=n)), "spiked": spiked, "word": word})


def _cluster_schema() -> tuple[Schema, np.ndarray, np.ndarray]:
    kinds = {"a": "continuous", "rounded": "rounded:1"}
    schema = Schema.infer(_clusters(), kinds=kinds)
    assert [bool(column.atoms) for column in schema.columns] == [False, False, True, False]
    return schema, schema.encode(_clusters()), schema.encode(_clusters(seed=8))


@pytest.mark.parametrize("kind", [Mixture, Kernels, PerCategory])
def test_flexible_densities_have_mass_one(kind: Any) -> None:
    """Summed over cells and words, integrated over the rest: to 1 %."""
    schema, x, _ = _cluster_schema()
    few = [0, 1, 3]  # without the spiked column
    part = schema.model_copy(update={"columns": tuple(schema.columns[i] for i in few)})
    model = kind.fit(x[:, few], part)
    a = np.linspace(-12, 12, 241)
    grid = np.stack(np.meshgrid(a, np.arange(-25.0, 26.0), [0.0, 1.0], indexing="ij"), 3).reshape(-1, 3)
    assert np.exp(model.log_prob(grid)).sum() * (a[1] - a[0]) == pytest.approx(1.0, abs=0.01)
    atoms = schema.model_copy(update={"columns": schema.columns[2:]})
    model = kind.fit(x[:, 2:], atoms)
    v = np.linspace(-20, 40, 6001)
    total = 0.0
    for word in (0.0, 1.0):
        rows = np.stack([v[v != 0], np.full((v != 0).sum(), word)], 1)
        total += np.exp(model.log_prob(rows)).sum() * (v[1] - v[0]) + np.exp(model.log_prob(np.array([[0.0, word]])))[0]
    assert total == pytest.approx(1.0, abs=0.01)


def test_flexible_densities_beat_the_plain_ones_where_there_are_clusters() -> None:
    schema, x, other = _cluster_schema()
    plain = Gaussian.fit(x, schema).log_prob(other).mean()
    scores = {kind.__name__: kind.fit(x, schema).log_prob(other).mean() for kind in (Mixture, Kernels, PerCategory)}
    assert min(scores.values()) > plain + 0.2
    assert scores["PerCategory"] > scores["Mixture"] + 0.3
    assert Mixture.fit(x, schema).numbers.size >= 2


def test_a_mixture_of_one_is_the_gaussian() -> None:
    v = np.random.default_rng(2).normal(size=(2000, 2)) @ np.array([[1.0, 0.0], [0.8, 0.6]])
    schema = Schema.infer(pa.table({"a": v[:, 0], "b": v[:, 1]}), kinds={"*": "continuous"})
    model = Mixture.fit(v, schema)
    assert model is not None
    assert model.name == "Gaussian mixture of 1 (BIC)"
    np.testing.assert_allclose(model.log_prob(v), Gaussian.fit(v, schema).log_prob(v), atol=1e-3)


def test_kernels_are_scipys_but_for_the_wide_bell() -> None:
    v = np.random.default_rng(2).normal(size=(400, 1))
    schema = Schema.infer(pa.table({"a": v[:, 0]}), kinds={"*": "continuous"})
    model = Kernels.fit(v, schema)
    assert model is not None
    bells = stats.norm.pdf(v, v.T, model.bandwidth * v.std()).sum(1) + stats.norm.pdf(v[:, 0], v.mean(), 3 * v.std())
    np.testing.assert_allclose(model.log_prob(v), np.log(bells / 401), rtol=1e-9)


@pytest.mark.parametrize("kind", [Gaussian, Marginals, Mixture, Kernels, PerCategory])
def test_an_atom_counts_with_its_mass_whatever_the_units(kind: Any) -> None:
    """Where a density at the atom would grow without bound as the unit shrinks."""
    schema, x, _ = _cluster_schema()
    column = schema.columns[2]
    part = Schema(columns=(column, schema.columns[3]))
    tiny = Schema(columns=(column.model_copy(update={"atoms": (0.0,)}), schema.columns[3]))
    rows = x[:, 2:]
    scaled = rows * [1e-9, 1.0]
    at = rows[:, 0] == 0
    found, small = kind.fit(rows, part).log_prob(rows), kind.fit(scaled, tiny).log_prob(scaled)
    np.testing.assert_allclose(small[at], found[at], atol=1e-6)
    np.testing.assert_allclose(small[~at], found[~at] + 9 * math.log(10), atol=1e-4)
    assert np.exp(found[at]).max() < 0.5


def test_mixtures_per_category_are_left_out_where_not_defined() -> None:
    schema, x, _ = _cluster_schema()
    assert PerCategory.fit(x[:60], schema) is None  # too few rows of a combination
    numbers = Schema(columns=schema.columns[:2])
    assert PerCategory.fit(x[:, :2], numbers) is None
    words = Schema(columns=schema.columns[3:])
    assert Mixture.fit(x[:, 3:], words) is None
    assert Kernels.fit(x[:, 3:], words) is None


@pytest.mark.parametrize("kind", [Mixture, Kernels, PerCategory])
def test_flexible_densities_are_always_defined(kind: Any) -> None:
    """Holes, rows far out, unseen combinations, repeated rows, one row, weights."""
    schema, x, other = _cluster_schema()
    model = kind.fit(x[x[:, 3] == 0], schema, np.linspace(0, 1, int((x[:, 3] == 0).sum())))
    if model is not None:
        odd = other[:4].copy()
        odd[0, 0] = np.nan
        odd[1, 0], odd[2, 3], odd[3, 2] = 1e30, 1.0, 0.0
        found = model.log_prob(odd)
        assert np.isnan(found).tolist() == [True, False, False, False]
        assert np.isfinite(found[1:]).all()
    for rows in (x[:1], np.repeat(x[:1], 40, 0)):
        model = kind.fit(rows, schema)
        assert model is None or np.isfinite(model.log_prob(other)).all()
