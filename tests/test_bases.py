"""Bases against torch.distributions, scipy and scikit-learn, and their Rosenblatt maps."""

import math
from collections.abc import Callable

import mpmath as mp
import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.mixture import GaussianMixture as SklearnMixture

from diffeo import bases, nets
from diffeo.bases import (
    Base,
    DiagonalNormal,
    FullNormal,
    GaussianMixture,
    Product,
    StandardNormal,
    StudentT,
    Uniform,
    VonMises,
)
from diffeo.contract import check_density
from diffeo.errors import ShapeError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(d: int, k: int = 4, gate: torch.nn.Module | None = None) -> GaussianMixture:
    built = GaussianMixture(d, k, gate, spread=2.0, generator=generator())
    with torch.no_grad():
        for parameter in (built.logits, built.log_diagonal, built.lower):
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator(1)))
        if gate is not None:
            for parameter in gate.parameters():
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator(2)))
    return built


def student(d: int) -> StudentT:
    built = StudentT(d)
    with torch.no_grad():
        built.raw_df.copy_(torch.linspace(-1, 1, d))
        built.loc.copy_(torch.linspace(-2, 2, d))
        built.raw_scale.copy_(torch.linspace(1, -1, d))
    return built


def awake(base: Base) -> Base:
    with torch.no_grad():
        for i, parameter in enumerate(base.parameters()):
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator(i)))
    return base


def circle(d: int, loc: float = 0.5) -> VonMises:
    """By default with little mass at the seam, over which a bell of `check_density` would not reach."""
    built = VonMises(d)
    with torch.no_grad():
        built.loc.copy_(torch.linspace(loc, -loc, d))
        built.raw_concentration.copy_(torch.linspace(1.0, 4.0, d))
    return built


BASES: dict[str, Callable[[int], Base]] = {
    "normal": StandardNormal,
    "diagonal normal": lambda d: awake(DiagonalNormal(d)),
    "full normal": lambda d: awake(FullNormal(d)),
    "mixture": mixture,
    "mixture of one": lambda d: mixture(d, 1),
    "student": student,
    "uniform": lambda d: Uniform(-1.0, 3.0, d),
    "von mises": circle,
    "product": lambda d: Product(student(1), mixture(d - 1)) if d > 1 else Product(StandardNormal(1)),
}
EVERY = pytest.mark.parametrize("build", BASES.values(), ids=BASES)


def test_every_base_is_tried() -> None:
    ours = {kind for kind in Base.__subclasses__() if kind.__module__.startswith(bases.__name__)}
    assert {type(build(1)) for build in BASES.values()} == ours


@EVERY
@pytest.mark.parametrize("d", [1, 2])
def test_is_a_density(build: Callable[[int], Base], d: int) -> None:
    report = check_density(
        build(d), generator=generator(3), tolerance=1e-2 if isinstance(build(d), Uniform | VonMises) else 1e-3
    )
    assert report.ok, f"\n{report}"


@EVERY
def test_to_normal_is_normal(build: Callable[[int], Base]) -> None:
    """Kolmogorov-Smirnov of coordinates and of a diagonal, and correlations; false alarm below 1e-5 a base."""
    base = build(3)
    n = 20_000
    w = base.to_normal(base.sample(n, generator=generator(4)).detach()).double().numpy()
    for values in (*w.T, w.sum(1) / math.sqrt(3)):
        assert scipy.stats.kstest(values, "norm").pvalue > 1e-6
    assert np.abs(np.corrcoef(w.T) - np.eye(3)).max() < 6 / math.sqrt(n)


@EVERY
def test_far_away(build: Callable[[int], Base]) -> None:
    base = build(2)
    z = torch.tensor([[1e15, -1e15], [3e38, -3e38], [1e-40, 0.0]], requires_grad=True)
    log_prob = base(z)
    if not isinstance(base, Uniform | VonMises):
        assert log_prob.isfinite().all()
        gradients = torch.autograd.grad(log_prob.sum() / 1e30, [z, *base.parameters()])
        assert all(g.isfinite().all() for g in gradients)
    assert not base.to_normal(z[:1].detach()).isnan().any()


@EVERY
def test_samples_are_the_generators(build: Callable[[int], Base]) -> None:
    base = build(2)
    before = torch.random.get_rng_state()
    a, b = base.sample(5, generator=generator(9)), base.sample(5, generator=generator(9))
    assert a.shape == (5, 2)
    assert torch.equal(a, b)
    assert torch.equal(before, torch.random.get_rng_state())
    assert base.sample(0).shape == (0, 2)
    assert base.double().sample(1).dtype == torch.float64


def test_mixture_is_torchs() -> None:
    ours = mixture(3).double()
    z = torch.randn(50, 3, dtype=torch.float64, generator=generator())
    factors = ours.lower.tril(-1) + torch.diag_embed(ours.log_diagonal.exp())
    parts = torch.distributions.MultivariateNormal(ours.means, precision_matrix=factors.mT @ factors)
    theirs = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=ours.logits), parts)
    torch.testing.assert_close(ours(z), theirs.log_prob(z), rtol=1e-10, atol=1e-10)


def test_from_moments_is_sklearns() -> None:
    rows = mixture(3).sample(2000, generator=generator()).detach().double().numpy()
    fitted = SklearnMixture(3, random_state=0, max_iter=20, tol=1e-2).fit(rows)
    moments = (torch.as_tensor(v) for v in (fitted.weights_, fitted.means_, fitted.covariances_))
    ours = GaussianMixture.from_moments(*moments)
    expected = fitted.score_samples(rows)
    np.testing.assert_allclose(ours(torch.as_tensor(rows)).detach().numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(ours(torch.as_tensor(rows).float()).detach().numpy(), expected, atol=1e-4)


def test_from_moments_refuses_what_is_no_covariance() -> None:
    with pytest.raises(ShapeError, match="covariances: expected positive definite"):
        GaussianMixture.from_moments(torch.ones(1), torch.zeros(1, 2), torch.ones(1, 2, 2))


def test_gate_weighs_by_context() -> None:
    base = mixture(2, 3, nets.MLP(1, 3, (8,)))
    assert base.context_features == 1
    context = torch.tensor([[-3.0], [3.0]])
    z = base.sample(4000, context, generator(5))
    assert z.shape == (4000, 2, 2)
    for i in range(2):
        report = check_density(base, context=context[i : i + 1], generator=generator(6))
        assert report.ok, f"\n{report}"
        w = base.to_normal(z[:, i], context[i : i + 1].expand(4000, -1)).double().numpy()
        assert all(scipy.stats.kstest(column, "norm").pvalue > 1e-6 for column in w.T)
    assert not torch.equal(base(z[:, 0], context[:1].expand(4000, -1)), base(z[:, 0], context[1:].expand(4000, -1)))


def test_mixtures_tails_are_accurate_both_ways() -> None:
    base = GaussianMixture.from_moments(torch.ones(1), torch.zeros(1, 1), torch.ones(1, 1, 1))
    z = torch.tensor([[-30.0], [-9.0], [0.5], [9.0], [30.0]], dtype=torch.float64)
    torch.testing.assert_close(base.to_normal(z), z, rtol=1e-9, atol=1e-9)


def test_student_is_torchs() -> None:
    ours = student(3).double()
    z = 5 * torch.randn(50, 3, dtype=torch.float64, generator=generator())
    df = 5 * torch.exp(3 * torch.tanh(ours.raw_df / 3))
    theirs = torch.distributions.StudentT(df, ours.loc, torch.exp(3 * torch.tanh(ours.raw_scale / 3)))
    torch.testing.assert_close(ours(z), theirs.log_prob(z).sum(1), rtol=1e-10, atol=1e-10)


def test_students_draws_carry_gradients() -> None:
    base = student(2)
    gradients = torch.autograd.grad(base.sample(10, generator=generator()).sum(), list(base.parameters()))
    assert all(g.isfinite().all() and g.any() for g in gradients)


def test_normals_are_scipys() -> None:
    diagonal, full = awake(DiagonalNormal((2, 2))).double(), awake(FullNormal(3)).double()
    z = 3 * torch.randn(50, 4, dtype=torch.float64, generator=generator())
    scale = torch.exp(3 * torch.tanh(diagonal.raw_scale / 3)).detach().flatten()
    expected = scipy.stats.norm(diagonal.loc.detach().flatten(), scale).logpdf(z).sum(1)
    np.testing.assert_allclose(diagonal(z.view(50, 2, 2)).detach(), expected, rtol=1e-12)
    factor = full.lower.detach().tril(-1) + torch.diag(torch.exp(3 * torch.tanh(full.raw_diagonal.detach() / 3)))
    covariance = torch.linalg.inv(factor.T @ factor)
    expected = scipy.stats.multivariate_normal(full.loc.detach(), covariance).logpdf(z[:, :3])
    np.testing.assert_allclose(full(z[:, :3]).detach(), expected, rtol=1e-10)
    x = full.sample(50_000, generator=generator(1)).detach()
    # a correlation is off by six of its standard errors in 2e-9 of right cases
    errors = 6 / math.sqrt(50_000) * torch.outer(covariance.diagonal(), covariance.diagonal()).sqrt() * math.sqrt(2)
    assert (torch.cov(x.T) - covariance).abs().le(errors).all()


@pytest.mark.parametrize("base", [DiagonalNormal(3), FullNormal(3)], ids=["diagonal", "full"])
def test_normals_start_standard_and_draw_with_gradients(base: Base) -> None:
    z = torch.randn(5, 3, generator=generator())
    torch.testing.assert_close(base(z), StandardNormal(3)(z))
    assert base.reparametrised
    draws = base.sample(10, generator=generator()).square().sum()
    assert all(g.isfinite().all() and g.any() for g in torch.autograd.grad(draws, list(base.parameters())))


def test_von_mises_is_scipys() -> None:
    """Density, distribution function (scipy's by an approximation where kappa is above 50), and draws at the seam."""
    ours = circle(3, 2.5).double()
    kappa = torch.exp(5 * torch.tanh(ours.raw_concentration / 5)).detach()
    theirs = scipy.stats.vonmises(kappa.numpy(), ours.loc.detach().numpy())
    z = math.pi * (2 * torch.rand(200, 3, dtype=torch.float64, generator=generator()) - 1)
    np.testing.assert_allclose(ours(z).detach(), theirs.logpdf(z.numpy()).sum(1), rtol=1e-10)
    centred = VonMises(3).double()
    centred.load_state_dict(ours.state_dict() | {"loc": torch.zeros(3)})
    level = scipy.stats.norm.cdf(centred.to_normal(z))
    np.testing.assert_allclose(level, scipy.stats.vonmises(kappa.numpy()).cdf(z.numpy()), atol=1e-6)
    draws = ours.float().sample(20_000, generator=generator(1)).double()
    for column in ours.to_normal(draws).T.numpy():  # false alarm below 1e-5
        assert scipy.stats.kstest(column, "norm").pvalue > 1e-6


@pytest.mark.parametrize("raw", [-30.0, 0.0, 3.0, 30.0])
def test_von_mises_tails_are_accurate(raw: float) -> None:
    """Both ways, for every concentration that can be learned, against quadrature in 30 digits."""
    base = VonMises().double()
    with torch.no_grad():
        base.raw_concentration.fill_(raw)
    z = torch.tensor([[-3.0], [-1.0], [-0.1], [0.1], [1.0], [2.0], [3.0]], dtype=torch.float64)
    with mp.workdps(30):
        kappa = mp.mpf(base.concentration(torch.float64).item())
        total = 2 * mp.pi * mp.besseli(0, kappa)

        def beyond(angle: float) -> mp.mpf:
            spots = [angle + (mp.pi - angle) * i / 8 for i in range(9)]
            return mp.quad(lambda t: mp.exp(kappa * mp.cos(t)), spots) / total

        expected = [math.copysign(-scipy.stats.norm.ppf(float(beyond(abs(a)))), a) for a in z[:, 0].tolist()]
    np.testing.assert_allclose(base.to_normal(z)[:, 0], expected, rtol=1e-10, atol=1e-12)


def test_von_mises_is_a_circles() -> None:
    """The same at both ends of the seam, impossible beyond; its gradients are finite for every parameter."""
    base = circle(1, 2.5).double()
    ends = base(torch.tensor([[math.pi], [-math.pi]]).double())
    torch.testing.assert_close(ends[0], ends[1])
    z = torch.tensor([[1.0], [3.2], [1e15]], dtype=torch.float64)
    assert base(z).isfinite().tolist() == [True, False, False]
    for raw in (-100.0, 100.0):
        with torch.no_grad():
            base.raw_concentration.fill_(raw)
        assert all(g.isfinite().all() for g in torch.autograd.grad(base(z)[0], list(base.parameters())))


def test_uniform_outside_is_impossible() -> None:
    log_prob = bases.Uniform()(torch.tensor([[math.pi], [-math.pi], [3.2]]))
    assert log_prob.tolist() == [pytest.approx(-math.log(2 * math.pi))] * 2 + [-math.inf]
