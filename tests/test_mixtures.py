"""The mixture whose conditionals learn: against a plain mixture, torch.distributions, quadrature and its own draws."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch

from diffeo.bases import GaussianMixture
from diffeo.contract import check_density
from diffeo.errors import ShapeError
from diffeo.mixtures import AutoregressiveMixture, Ensemble
from diffeo.nets import MaskedMLP

SIZES = pytest.mark.parametrize("d", [1, 2, 3])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(d: int, k: int = 4) -> GaussianMixture:
    mixture = GaussianMixture(d, k, spread=2.0, generator=generator())
    with torch.no_grad():
        for parameter in (mixture.logits, mixture.log_diagonal, mixture.lower):
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator(1)))
    return mixture


def refined(d: int, k: int = 4, context: int = 0, size: float = 0.3, seed: int = 2) -> AutoregressiveMixture:
    """With a net that does something: weights of the last layer drawn at random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = MaskedMLP(range(d), 3 * k, (16, 16), context)
    with torch.no_grad():
        for parameter in net.last.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator(seed + 1)))
    return AutoregressiveMixture(start(d, k), net)


def averaged(d: int, context: int = 0) -> Ensemble:
    """Of three that differ in their weights: two in their nets, and one without a net in its place."""
    members = [refined(d, context=context, size=size, seed=seed) for size, seed in ((0.6, 2), (0.8, 11))]
    members.append(AutoregressiveMixture(start(d), None))
    with torch.no_grad():
        members[2].mixture.means.add_(1.5)
    ensemble = Ensemble(members)
    ensemble.log_weights.copy_(torch.tensor([0.2, 0.5, 0.3]).log())
    return ensemble


KINDS = pytest.mark.parametrize("kind", [refined, averaged])
Kind = Callable[..., AutoregressiveMixture | Ensemble]


@SIZES
def test_starts_as_the_mixture(d: int) -> None:
    mixture = start(d).double()
    base = AutoregressiveMixture(mixture, MaskedMLP(range(d), 12, (8,)))
    z = mixture.sample(2000, generator=generator())
    torch.testing.assert_close(base(z), mixture(z), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(base.to_normal(z), mixture.to_normal(z), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(base.float()(z.float()).double(), base.double()(z), rtol=1e-5, atol=1e-5)
    far = 10 * z
    assert (base(far) >= mixture(far) - 1e-9).all()  # the faintest components are kept up, at a cost below k e^-30


def test_conditionals_are_those_of_the_chain_rule() -> None:
    """Coordinate by coordinate with torch.distributions, from the net's numbers."""
    d, k = 3, 4
    base = refined(d, k).double()
    mixture, z = base.mixture, torch.randn(20, d, dtype=torch.float64, generator=generator())
    shift, stretch, move = base.net(z).view(3, k, d, 20)
    factors = mixture.factors()
    u = torch.stack([factors[j] @ (z - mixture.means[j]).T for j in range(k)])  # [k, d, n]
    total = torch.zeros(20, dtype=torch.float64)
    for i in range(d):
        logits = torch.log_softmax(mixture.logits, 0)[:, None] + shift[:, i]
        for j in range(i):
            logits = logits + mixture.log_diagonal[:, j, None] - u[:, j].square() / 2
        slope = mixture.log_diagonal[:, i].exp()[:, None] * torch.exp(3 * torch.tanh(stretch[:, i] / 3))
        v = u[:, i] * torch.exp(3 * torch.tanh(stretch[:, i] / 3)) + move[:, i]
        parts = torch.distributions.Normal(z[:, i] - v / slope, 1 / slope)
        choice = torch.distributions.Categorical(logits=logits.T)
        total += torch.distributions.MixtureSameFamily(choice, _transposed(parts)).log_prob(z[:, i])
    torch.testing.assert_close(base(z), total, rtol=1e-9, atol=1e-9)


def _transposed(normal: torch.distributions.Normal) -> torch.distributions.Normal:
    return torch.distributions.Normal(normal.loc.T, normal.scale.T)


@KINDS
@SIZES
def test_is_a_density(kind: Kind, d: int) -> None:
    """Its integral is 1 (d = 1, 2), and its draws come from it (5 standard errors)."""
    report = check_density(kind(d), generator=generator(4))
    assert report.ok, f"\n{report}"


@KINDS
def test_is_a_density_for_every_context(kind: Kind) -> None:
    base = kind(2, context=2)
    for row in torch.tensor([[[-1.0, 0.5]], [[2.0, 2.0]]]):
        report = check_density(base, context=row, generator=generator(5))
        assert report.ok, f"\n{report}"


@KINDS
def test_context_is_one_row_a_row(kind: Kind) -> None:
    base = kind(2, context=1)
    z, context = torch.randn(6, 2, generator=generator()), torch.linspace(-2, 2, 6)[:, None]
    together = base(z, context)
    torch.testing.assert_close(together, torch.cat([base(z[i : i + 1], context[i : i + 1]) for i in range(6)]))
    assert (base(z, context.flip(0)) - together).abs().max() > 1e-3
    draws = base.sample(12000, torch.tensor([[-2.0], [2.0]]), generator(6))
    assert draws.shape == (12000, 2, 2)
    for j, value in enumerate((-2.0, 2.0)):  # false alarm below 1e-5 in all
        w = base.to_normal(draws[:, j].double(), torch.full((12000, 1), value)).numpy()
        assert all(scipy.stats.kstest(column, "norm").pvalue > 1e-6 for column in w.T)
        other = base.to_normal(draws[:, j].double(), torch.full((12000, 1), -value)).numpy()
        assert min(scipy.stats.kstest(column, "norm").pvalue for column in other.T) < 1e-6


@KINDS
def test_a_conditional_sees_only_what_stands_before_it(kind: Kind) -> None:
    """The Rosenblatt map of coordinate i depends on coordinates 0..i alone, and rises with coordinate i."""
    base, d = kind(4).double(), 4
    z = torch.randn(5, d, dtype=torch.float64, generator=generator())
    w = base.to_normal(z)
    for j in range(d):
        moved = z.clone()
        moved[:, j] += 0.1
        change = base.to_normal(moved) - w
        assert torch.equal(change[:, :j], torch.zeros(5, j, dtype=torch.float64))
        assert (change[:, j] > 0).all()
        assert change[:, j + 1 :].abs().gt(1e-6).all()


@KINDS
@SIZES
def test_to_normal_is_normal(kind: Kind, d: int) -> None:
    """Kolmogorov-Smirnov of coordinates and of a diagonal, and correlations; false alarm below 1e-5 a size."""
    base, n = kind(d), 20_000
    w = base.to_normal(base.sample(n, generator=generator(7)).double()).numpy()
    for values in (*w.T, w.sum(1) / math.sqrt(d)):
        assert scipy.stats.kstest(values, "norm").pvalue > 1e-6
    assert np.abs(np.corrcoef(w.T) - np.eye(d)).max() < 6 / math.sqrt(n)


@KINDS
def test_to_normal_slopes_are_the_density(kind: Kind) -> None:
    """log p(z) = log phi(w) + log|det dw/dz|, by central differences in float64."""
    base, h = kind(2).double(), 1e-5
    z = torch.randn(8, 2, dtype=torch.float64, generator=generator())
    w = base.to_normal(z)
    slopes = [
        (base.to_normal(z + h * torch.eye(2, dtype=torch.float64)[i]) - base.to_normal(z - h * torch.eye(2)[i]))[:, i]
        / (2 * h)
        for i in range(2)
    ]
    expected = sum(s.log() for s in slopes) - 0.5 * w.square().sum(1) - math.log(2 * math.pi)
    torch.testing.assert_close(base(z), expected, rtol=1e-6, atol=1e-6)


def test_an_ensemble_is_the_average() -> None:
    ensemble, z = averaged(2).double(), torch.randn(30, 2, dtype=torch.float64, generator=generator())
    shares = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    expected = (shares @ torch.stack([member(z).exp() for member in ensemble.members])).log()
    torch.testing.assert_close(ensemble(z), expected, rtol=1e-6, atol=1e-6)
    assert (ensemble.members[0](z) - expected).abs().max() > 0.1
    with pytest.raises(ShapeError, match="members: expected one or more of one event shape"):
        Ensemble([refined(2), refined(3)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_away(dtype: torch.dtype) -> None:
    base = refined(3, context=1).to(dtype)
    z = torch.tensor([[1e15, -1e15, 1e15], [3e38, 0.0, -3e38], [1e-40, 1e15, 0.0]], dtype=dtype)
    context = torch.tensor([[0.0], [1e6], [-1e30]], dtype=dtype)
    assert base(z, context).isfinite().all()
    assert not base.to_normal(z, context).isnan().any()
    z = torch.tensor([[1e6, -1e6, 1e6], [-1e6, 0.0, 1e6], [30.0, 30.0, 30.0]], dtype=dtype, requires_grad=True)
    gradients = torch.autograd.grad(base(z, context).sum(), [z, *base.parameters()])
    assert all(g.isfinite().all() for g in gradients)


def test_float32_is_close_to_float64() -> None:
    base = refined(4, k=8)
    z = 2 * torch.randn(500, 4, generator=generator())
    torch.testing.assert_close(base(z).double(), copy.deepcopy(base).double()(z.double()), rtol=2e-5, atol=2e-5)


def test_copies_are_equal() -> None:
    base, other = refined(2), refined(2, size=0.0)
    z = torch.randn(9, 2, generator=generator())
    assert torch.equal(copy.deepcopy(base)(z), base(z))
    assert not torch.equal(other(z), base(z))
    other.load_state_dict(base.state_dict())
    assert torch.equal(other(z), base(z))


@KINDS
def test_few_rows(kind: Kind) -> None:
    for d in (1, 3):
        base = kind(d)
        z = torch.randn(4, d, generator=generator())
        assert base(z[:0]).shape == (0,)
        assert base.to_normal(z[:0]).shape == (0, d)
        assert base.sample(0).shape == (0, d)
        torch.testing.assert_close(base(z[:1]), base(z)[:1])


@KINDS
def test_samples_are_the_generators(kind: Kind) -> None:
    base = kind(2)
    before = torch.random.get_rng_state()
    a, b = base.sample(5, generator=generator(9)), base.sample(5, generator=generator(9))
    assert torch.equal(a, b)
    assert torch.equal(before, torch.random.get_rng_state())
    assert base.double().sample(1).dtype == torch.float64


def test_faint_components_can_be_reached() -> None:
    """A component that the mixture gives nothing at a row still gets a gradient there through its weight."""
    mixture = GaussianMixture.from_moments(
        torch.ones(2) / 2, torch.tensor([[0.0, 0.0], [40.0, 40.0]]), torch.eye(2).expand(2, 2, 2)
    )
    base = AutoregressiveMixture(mixture, MaskedMLP(range(2), 6, (8,)))
    base(torch.tensor([[0.0, 40.0]])).sum().backward()
    assert base.net.last.bias.grad is not None
    assert base.net.last.bias.grad.view(3, 2, 2)[0, :, 1].abs().gt(0.5).all()


def test_a_net_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"net: expected the order 0\.\.1 and 24 outputs"):
        AutoregressiveMixture(start(2), MaskedMLP([1, 0], 12))
    with pytest.raises(ShapeError, match=r"24 outputs, got .* and 8"):
        AutoregressiveMixture(start(2), MaskedMLP([0, 1], 4))
