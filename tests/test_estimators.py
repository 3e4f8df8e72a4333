"""Estimators of plain arrays against scikit-learn, scipy, plain sums and quadrature."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture as Estimator
from sklearn.neighbors import KernelDensity as Neighbours
from torch import Tensor

from diffeo.baselines import (
    KernelDensity,
    NormalDistribution,
    NormalMixture,
    cross_validated,
    kernel_density,
    mean_integrated_squared_error,
    scott,
    silverman,
    validated,
)
from diffeo.bases import Density, GaussianMixture, StandardNormal
from diffeo.contract import check_density
from diffeo.data.toys import toy
from diffeo.errors import DataError, ShapeError
from diffeo.flow import Flow, Mixture
from diffeo.transforms import Standardize


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def skewed(d: int) -> Tensor:
    """A bandwidth matrix that is neither symmetric nor triangular."""
    return 0.4 * (torch.eye(d).double() + 0.5 * randn(d, d, seed=d))


def plain(rows: Tensor, bandwidth: Tensor, x: Tensor) -> np.ndarray:
    """1/N sum_i N(x; x_i, H H^T), by scipy."""
    covariance = (bandwidth @ bandwidth.T).numpy()
    each = [stats.multivariate_normal(row, covariance).pdf(x.numpy()) for row in rows.numpy()]
    return np.log(np.mean(each, axis=0))


# Kernels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("h", [0.1, 0.5, 1.0])
def test_a_number_is_scikit_learns_bandwidth(d: int, h: float) -> None:
    """Theirs in one leaf: over a tree of several it loses digits where there is little density."""
    rows, x = randn(300, d), 2 * randn(100, d, seed=1)
    theirs = Neighbours(bandwidth=h, leaf_size=300).fit(rows.numpy()).score_samples(x.numpy())
    np.testing.assert_allclose(KernelDensity(rows, h).log_prob(x).numpy(), theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("rule", "name"), [(scott, "scott"), (silverman, "silverman")])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_rules_are_scipys(d: int, rule: Callable[[Tensor], Tensor], name: str) -> None:
    rows, x = randn(200, d) @ (torch.eye(d).double() + 0.5) + 100, 3 * randn(50, d, seed=1) + 100
    expected = stats.gaussian_kde(rows.numpy().T, name).logpdf(x.numpy().T)
    found = KernelDensity(rows, rule(rows)).log_prob(x).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_matrix_is_a_root_of_the_bells_covariance(d: int) -> None:
    rows, x = randn(40, d), randn(30, d, seed=1)
    for bandwidth in (skewed(d), -skewed(d), skewed(d).T):
        found = KernelDensity(rows, bandwidth).log_prob(x).numpy()
        np.testing.assert_allclose(found, plain(rows, bandwidth, x), rtol=1e-10, atol=1e-10)


def test_shorthands() -> None:
    rows, x = randn(20, 2), randn(10, 2, seed=1)
    full = KernelDensity(rows, torch.diag(torch.tensor([0.5, 2.0]).double())).log_prob(x)
    for short in ([0.5, 2.0], np.array([0.5, 2.0]), torch.tensor([0.5, 2.0])):
        assert torch.equal(KernelDensity(rows.numpy(), short).log_prob(x), full)
    assert torch.equal(KernelDensity(rows, 0.5).log_prob(x), KernelDensity(rows, [0.5, 0.5]).log_prob(x))
    assert torch.equal(KernelDensity(rows, 1).bandwidth, torch.eye(2).double())


def test_pieces_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, x = randn(57, 2), randn(31, 2, seed=1)
    density = KernelDensity(rows, skewed(2))
    whole, left_out, chosen = density.log_prob(x), density.leave_one_out(), cross_validated(rows)
    monkeypatch.setattr(kernel_density, "ROWS", 7)
    monkeypatch.setattr(kernel_density, "CENTRES", 11)
    monkeypatch.setattr("diffeo.baselines.bandwidths.PAIRS", 300)
    torch.testing.assert_close(density.log_prob(x), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(density.leave_one_out(), left_out, rtol=1e-12, atol=1e-12)
    assert torch.equal(cross_validated(rows), chosen)
    assert density.log_prob(x[:0]).shape == (0,)


def test_never_all_pairs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def counted(a: Tensor, b: Tensor) -> Tensor:
        seen.append(len(a) * len(b))
        return (a[:, None] - b).square().sum(2)

    monkeypatch.setattr(kernel_density, "squares", counted)
    KernelDensity(randn(5_000, 1), 0.2).log_prob(randn(2_500, 1, seed=1))
    assert max(seen) <= kernel_density.ROWS * kernel_density.CENTRES
    assert sum(seen) == 5_000 * 2_500


def test_leaving_one_out_is_a_fit_without_it() -> None:
    rows = randn(25, 2)
    density = KernelDensity(rows, skewed(2))
    each = [
        KernelDensity(torch.cat([rows[:i], rows[i + 1 :]]), skewed(2)).log_prob(rows[i : i + 1])[0] for i in range(25)
    ]
    torch.testing.assert_close(density.leave_one_out(), torch.stack(each), rtol=1e-12, atol=1e-12)
    with pytest.raises(DataError, match=r"^rows: expected two or more to leave one out, got 1$"):
        KernelDensity(rows[:1], 1.0).leave_one_out()


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("kind", ["kernels", "normal", "mixture"])
def test_is_a_density_and_draws_from_it(d: int, kind: str) -> None:
    """Mass 1, and draws within 5 standard errors: a false alarm of 6e-7 each."""
    rows = torch.cat([randn(60, d), 0.5 * randn(60, d, seed=1) + 3])
    fits: dict[str, Callable[[], Density]] = {
        "kernels": lambda: KernelDensity(rows, skewed(d)),
        "normal": lambda: NormalDistribution.fit(rows @ (torch.eye(d).double() + 0.5)),
        "mixture": lambda: NormalMixture.fit(rows, sizes=(2, 3)),
    }
    report = check_density(fits[kind](), width=0.25, generator=torch.Generator().manual_seed(3))
    assert report.ok, f"\n{report}"


def test_draws_about_a_row_have_the_bells_covariance() -> None:
    """H^-1 (x - x_i) has unit covariance, within 5 standard errors of 20,000 draws: a false alarm of 6e-7 each."""
    draws = KernelDensity([[1.0, -2.0]], skewed(2)).sample(20_000, generator=torch.Generator().manual_seed(0))
    noise = torch.linalg.solve(skewed(2), (draws - torch.tensor([1.0, -2.0])).T)
    assert float((noise.cov() - torch.eye(2)).abs().amax()) < 5 * math.sqrt(2 / 20_000)
    assert float(noise.mean(1).abs().amax()) < 5 / math.sqrt(20_000)


def made() -> dict[str, Density]:
    rows = randn(50, 2)
    return {
        "kernels": KernelDensity(rows, 0.3),
        "normal": NormalDistribution.fit(rows),
        "mixture": NormalMixture.fit(rows, sizes=(2,)),
    }


@pytest.mark.parametrize("kind", ["kernels", "normal", "mixture"])
def test_same_surface_as_a_flow(kind: str) -> None:
    density = made()[kind]
    x = torch.tensor([[0.0, 0.0], [50.0, -50.0], [1e15, -1e15], [math.inf, 0.0]])
    for dtype in (torch.float64, torch.float32):
        log_prob = density.to(dtype)(x.to(dtype))
        assert log_prob.dtype == dtype
        assert log_prob.isfinite().tolist() == [True, True, True, False]
        assert log_prob[3] == -math.inf
        assert density.sample(4).dtype == dtype
    assert density.half()(x.half()[:1]).dtype == torch.float32 or kind != "kernels"
    density.double()
    before = torch.random.get_rng_state()
    draws = [density.sample(5, generator=torch.Generator().manual_seed(i)) for i in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(before, torch.random.get_rng_state())
    assert density.sample(0).shape == (0, 2)
    assert not any(parameter.requires_grad for parameter in density.parameters())
    at = randn(6, 2, seed=4).requires_grad_()
    torch.autograd.gradcheck(density, at)
    with pytest.raises(ShapeError, match=r"^x: expected shape \[n, 2\], got one row \[2\]"):
        density.log_prob(torch.zeros(2))
    with pytest.raises(DataError, match=r"^x: expected numbers, got NaN in row 1"):
        density.log_prob(torch.tensor([[0.0, 0.0], [0.0, math.nan]]))
    with pytest.raises(ShapeError, match=r"^context: this .* takes no context"):
        density.log_prob(torch.zeros(1, 2), torch.zeros(1, 1))
    with pytest.raises(ShapeError, match=r"^n: expected a number of draws"):
        density.sample(-1)


@pytest.mark.parametrize("kind", ["kernels", "normal", "mixture"])
def test_goes_into_flows_and_mixtures_and_comes_back_from_a_state(kind: str) -> None:
    density = made()[kind]
    x = randn(7, 2, seed=2)
    both = Mixture([density, StandardNormal(2)]).double()
    expected = torch.logaddexp(density(x), StandardNormal(2).double()(x)) - math.log(2)
    torch.testing.assert_close(both(x).detach(), expected)
    flow = Flow(Standardize(torch.zeros(2).double(), 2 * torch.ones(2).double()), density)
    torch.testing.assert_close(flow(x), density(x / 2) - 2 * math.log(2))
    assert both.sample(9).shape == flow.sample(9).shape == (9, 2)
    other = made()[kind]
    with torch.no_grad():
        for value in other.state_dict().values():
            value.mul_(0.5)
    other.load_state_dict(density.state_dict())
    assert torch.equal(other(x), density(x))


def test_kernels_close_together_far_from_zero_keep_their_digits() -> None:
    """Dates, say: a spread of one, a million from zero; and in float32 as far as the rows themselves are exact."""
    rows, x = randn(100, 2), randn(20, 2, seed=1)
    near = KernelDensity(rows, 0.1).log_prob(x)
    torch.testing.assert_close(KernelDensity(rows + 1e6, 0.1).log_prob(x + 1e6), near, rtol=1e-6, atol=1e-6)
    moved = [(v * 64).round() / 64 + 4096 for v in (rows, x)]
    exact = KernelDensity(moved[0], 0.1).log_prob(moved[1])
    found = KernelDensity(moved[0].float(), 0.1).log_prob(moved[1].float())
    torch.testing.assert_close(found.double(), exact, rtol=2e-3, atol=2e-3)


BAD = {
    "singular": ([[1.0, 1.0], [1.0, 1.0]], DataError, r"bandwidth: expected a matrix that can be inverted, got \[\[1"),
    "zero row": ([[1.0, 0.0], [0.0, 0.0]], DataError, "bandwidth: expected a matrix that can be inverted"),
    "not finite": ([[1.0, 0.0], [0.0, math.nan]], DataError, "bandwidth: expected finite numbers"),
    "infinite": (math.inf, DataError, "bandwidth: expected finite numbers, got inf"),
    "zero": (0.0, DataError, r"bandwidth: expected positive numbers, got 0\.0"),
    "negative": ([1.0, -1.0], DataError, "bandwidth: expected positive numbers"),
    "shape": (torch.eye(3), ShapeError, r"bandwidth: expected a number, \[2\] or \[2, 2\], got shape \[3, 3\]"),
    "vector": ([1.0, 1.0, 1.0], ShapeError, r"bandwidth: expected a number, \[2\] or \[2, 2\], got shape \[3\]"),
    "word": ("scott", DataError, "bandwidth: expected a number, a vector or a matrix, got 'scott'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_bandwidths_are_refused_in_one_line(name: str) -> None:
    bandwidth, kind, text = BAD[name]
    with pytest.raises(kind, match=f"^{text}") as fault:
        KernelDensity(randn(5, 2), bandwidth)
    assert "\n" not in str(fault.value)


def test_units_do_not_make_a_matrix_singular() -> None:
    KernelDensity(randn(5, 2), [[1e-12, 0.0], [0.0, 1e12]])
    KernelDensity(randn(5, 2), [1e-30, 1e30])


@pytest.mark.parametrize(
    ("rows", "kind", "text"),
    [
        ([1.0, 2.0], ShapeError, r"rows: expected shape \[n, d\] with n at least 1, got \[2\]"),
        (np.zeros((0, 2)), ShapeError, r"rows: expected shape \[n, d\] with n at least 1, got \[0, 2\]"),
        ([[0.0], [math.nan]], DataError, r"rows: expected finite numbers, got \[nan\] in row 1"),
        ([["a"]], DataError, "rows: expected rows of numbers, got"),
        ([[1j]], DataError, "rows: expected rows of real numbers"),
    ],
)
def test_bad_rows_are_refused_in_one_line(rows: object, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=f"^{text}"):
        KernelDensity(rows, 1.0)


# Bandwidths ---------------------------------------------------------------------------------------------------------


def test_cross_validation_takes_the_likeliest() -> None:
    rows = torch.cat([randn(60, 2), 0.3 * randn(60, 2, seed=1) + 4])
    factors = (0.1, 0.3, 0.6, 1.0)
    units = {
        "isotropic": rows.var(0).mean().sqrt() * torch.eye(2).double(),
        "covariance": torch.linalg.cholesky(rows.T.cov()),
    }
    for shape, unit in units.items():
        tried = [factor * 120 ** (-1 / 6) * unit for factor in factors]
        left_out = [float(KernelDensity(rows, h).leave_one_out().sum()) for h in tried]
        found = cross_validated(rows, shape, factors=factors)  # type: ignore[arg-type]
        torch.testing.assert_close(found, tried[int(np.argmax(left_out))])
        other = 2 * randn(50, 2, seed=5)
        likely = [float(KernelDensity(rows, h).log_prob(other).sum()) for h in tried]
        assert np.argmax(likely) != np.argmax(left_out)
        torch.testing.assert_close(validated(rows, other, shape, factors), tried[int(np.argmax(likely))])  # type: ignore[arg-type]


def test_as_many_folds_as_rows_leave_one_out() -> None:
    rows = torch.cat([randn(30, 1), 0.2 * randn(30, 1, seed=1) + 3])
    assert torch.equal(cross_validated(rows, folds=60), cross_validated(rows))
    five = cross_validated(rows, folds=5, seed=1)
    assert torch.equal(five, cross_validated(rows, folds=5, seed=1))
    assert 0.3 < float(five / cross_validated(rows)) < 3


def test_cross_validation_is_near_the_best_there_is() -> None:
    """On 1,500 rows of four Gaussians, where h = 0.196 has the least exact error."""
    truth = four(0.5)
    found = float(cross_validated(toy("mixture").sample(1500, seed=0))[0, 0])
    assert mean_integrated_squared_error(found, 1500, truth) < 1.5 * mean_integrated_squared_error(0.196, 1500, truth)


def test_rules_refuse_what_has_no_spread() -> None:
    flat = torch.stack([torch.arange(5.0), torch.zeros(5)], 1)
    for rule in (scott, silverman, lambda rows: cross_validated(rows, "covariance")):
        with pytest.raises(DataError, match=r"^rows: expected a covariance that can be inverted"):
            rule(flat)
    with pytest.raises(DataError, match=r"^rows: expected a covariance that can be inverted"):
        cross_validated(torch.zeros(5, 2))
    with pytest.raises(DataError, match=r"^shape: expected isotropic or covariance, got 'round'"):
        cross_validated(flat, "round")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"^folds: expected as many as the 5 rows at most, got 6"):
        cross_validated(flat, folds=6)
    with pytest.raises(ShapeError, match=r"^valid: expected shape \[m, 2\], got \[4, 1\]"):
        validated(flat, torch.zeros(4, 1))


# The exact error ----------------------------------------------------------------------------------------------------


def four(std: float) -> GaussianMixture:
    means = torch.tensor([[0.0, 0], [0, 2], [2, 0], [2, 2]])
    return GaussianMixture.from_moments(torch.ones(4) / 4, means, std**2 * torch.eye(2).expand(4, 2, 2))


ERRORS = {
    (0.5, 0.1): 8.502e-4, (0.5, 0.5): 1.24726e-2, (0.5, 1.0): 3.12488e-2,
    (1.0, 0.1): 7.926e-4, (1.0, 0.5): 2.585e-4, (1.0, 1.0): 2.147e-3,
}  # fmt: skip


@pytest.mark.parametrize(("std", "h"), ERRORS)
def test_the_exact_errors_are_those_published(std: float, h: float) -> None:
    """Of 10,000 rows of four Gaussians, to the digits given."""
    digits = 6 if ERRORS[std, h] > 1e-2 else 4
    assert f"{mean_integrated_squared_error(h, 10_000, four(std)):.{digits - 1}e}" == f"{ERRORS[std, h]:.{digits - 1}e}"


BEST = [(0.5, 10_000, 0.139, 6.244e-4), (1.0, 10_000, 0.315, 1.194e-4), (0.5, 1_500, 0.196, 0), (1.0, 1_500, 0.443, 0)]


@pytest.mark.parametrize(("std", "n", "best", "least"), BEST)
def test_the_best_bandwidths_are_those_published(std: float, n: int, best: float, least: float) -> None:
    widths = [best - 0.001, best, best + 0.001]
    errors = [mean_integrated_squared_error(h, n, four(std)) for h in widths]
    assert errors[1] == min(errors)
    if least:
        assert errors[1] == pytest.approx(least, rel=2e-4)


def test_the_exact_error_is_squared_bias_and_variance_integrated() -> None:
    """Full matrices and unlike Gaussians, by the trapezoidal rule: the mean of a bell at x is p blurred, that of its
    square a narrower bell's, p blurred less, over (4 pi) |H|."""
    weights, means = torch.tensor([0.3, 0.7]).double(), torch.tensor([[0.0, 0.0], [1.0, -1.0]]).double()
    covariances = torch.tensor([[[1.0, 0.3], [0.3, 0.5]], [[0.4, -0.1], [-0.1, 0.8]]]).double()
    bandwidth, n = skewed(2), 50
    bell = bandwidth @ bandwidth.T
    axis = np.arange(-9, 9, 0.06)
    x = np.stack(np.meshgrid(axis, axis), -1)

    def blurred(extra: Tensor) -> np.ndarray:
        parts = zip(weights, means, covariances, strict=True)
        return np.sum(
            [float(w) * stats.multivariate_normal(m.numpy(), (s + extra).numpy()).pdf(x) for w, m, s in parts], axis=0
        )

    square = blurred(bell / 2) / (4 * math.pi * float(bandwidth.det().abs()))
    integrand = (blurred(bell) - blurred(0 * bell)) ** 2 + (square - blurred(bell) ** 2) / n
    truth = GaussianMixture.from_moments(weights, means, covariances)
    assert mean_integrated_squared_error(bandwidth, n, truth) == pytest.approx(integrand.sum() * 0.06**2, rel=1e-6)


@pytest.mark.parametrize(("std", "h"), [(0.5, 0.3), (1.0, 0.5)])
def test_the_exact_error_is_that_of_simulations(std: float, h: float) -> None:
    """40 times 300 rows, within 4.5 standard errors; a false alarm of about 1e-4, once, for the seeds are fixed."""
    axis = torch.arange(-4.0, 6.0, 0.2).double()
    x = torch.cartesian_prod(axis, axis)
    model = toy("mixture", std=std)
    p = np.exp(model.log_prob(x.numpy()))
    errors = []
    for seed in range(40):
        q = KernelDensity(model.sample(300, seed), h).log_prob(x).exp().numpy()
        errors.append(float(((p - q) ** 2).sum()) * 0.2**2)
    exact = mean_integrated_squared_error(h, 300, four(std))
    assert abs(np.mean(errors) - exact) < 4.5 * np.std(errors, ddof=1) / math.sqrt(40)
    assert np.std(errors, ddof=1) / math.sqrt(40) < 0.05 * exact


def test_ten_thousand_rows_err_as_they_should() -> None:
    """The exercise's own setting, N = 10,000 and h = 0.5, where the error is nearly all bias: within 4 %."""
    axis = torch.arange(-3.0, 5.0, 0.25).double()
    x = torch.cartesian_prod(axis, axis)
    model = toy("mixture")
    q = KernelDensity(model.sample(10_000, seed=0), 0.5).log_prob(x).exp().numpy()
    error = ((np.exp(model.log_prob(x.numpy())) - q) ** 2).sum() * 0.25**2
    assert error == pytest.approx(1.24726e-2, rel=0.04)


# Gaussians ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 3])
def test_one_gaussian_is_scipys(d: int) -> None:
    rows, x = randn(200, d) @ (torch.eye(d).double() + 0.5) + 7, 3 * randn(50, d, seed=1) + 7
    mean, covariance = rows.numpy().mean(0), np.cov(rows.numpy().T, bias=True)
    expected = stats.multivariate_normal(mean, covariance).logpdf(x.numpy())
    np.testing.assert_allclose(NormalDistribution.fit(rows).log_prob(x), expected, rtol=1e-10, atol=1e-10)
    ours = NormalDistribution(mean, np.atleast_2d(covariance))
    np.testing.assert_allclose(ours.log_prob(x), expected, rtol=1e-10, atol=1e-10)
    with pytest.raises(ShapeError, match=r"^covariances: expected positive definite"):
        NormalDistribution.fit(torch.zeros(5, 2))


def test_a_mixture_is_the_plain_sum() -> None:
    weights, means = [0.1, 0.9], randn(2, 2)
    covariances = torch.stack([skewed(2) @ skewed(2).T, 3 * torch.eye(2).double()])
    x = randn(30, 2, seed=1)
    each = [stats.multivariate_normal(m, s).pdf(x) for m, s in zip(means, covariances, strict=True)]
    found = NormalMixture(weights, means, covariances).log_prob(x)
    np.testing.assert_allclose(found, np.log(weights @ np.array(each)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", ["full", "tied", "diag", "spherical"])
def test_a_fit_is_scikit_learns_whatever_the_shape(shape: str) -> None:
    rows = toy("rotated", gaussians=3).sample(300, seed=0) * [1.0, 1000.0]
    fit = NormalMixture.fit(rows, sizes=(3,), shapes=(shape,), seed=5)
    mean, scale = rows.mean(0), rows.std(0)
    theirs = Estimator(3, covariance_type=shape, reg_covar=1e-6, max_iter=500, n_init=3, random_state=5)
    expected = theirs.fit((rows - mean) / scale).score_samples((rows - mean) / scale) - np.log(scale).sum()
    np.testing.assert_allclose(fit.log_prob(torch.as_tensor(rows)), expected, rtol=1e-9, atol=1e-9)
    assert (fit.components, fit.shape) == (3, shape)


def test_the_criterion_finds_the_sizes_and_shapes_that_made_the_rows() -> None:
    fit = NormalMixture.fit(toy("grid").sample(1500, seed=0))
    assert (fit.components, fit.shape) == (4, "spherical") or (fit.components, fit.shape) == (4, "tied")
    bent = toy("moons")
    assert NormalMixture.fit(bent.sample(600, seed=0), sizes=(1, 2, 4, 8)).components == 8


def test_other_rows_choose_what_is_likeliest_for_them() -> None:
    model = toy("moons")
    rows, valid = model.sample(200, seed=0), model.sample(200, seed=1)
    one = [NormalMixture.fit(rows, sizes=(k,), shapes=("full",)) for k in (1, 4, 64)]
    scores = [float(fit.log_prob(torch.as_tensor(valid)).mean()) for fit in one]
    best = NormalMixture.fit(rows, valid, sizes=(1, 4, 64), shapes=("full",))
    assert best.log_prob(torch.as_tensor(valid)).mean() == pytest.approx(max(scores), abs=1e-9)
    assert np.argmax(scores) == 1


def test_what_a_fit_refuses() -> None:
    rows = randn(5, 2)
    with pytest.raises(ShapeError, match=r"^sizes, shapes: expected some, of full, tied, diag, spherical, got"):
        NormalMixture.fit(rows, shapes=("round",))
    with pytest.raises(ShapeError, match=r"^sizes: expected one of at most the 5 rows, got"):
        NormalMixture.fit(rows, sizes=(9,))
    with pytest.raises(ShapeError, match=r"^valid: expected shape \[m, 2\], got \[4, 1\]"):
        NormalMixture.fit(rows, torch.zeros(4, 1))
    with pytest.raises(ShapeError, match=r"^weights: expected shares that add up to 1"):
        NormalMixture([0.5, 0.2], randn(2, 1), torch.ones(2, 1, 1))
