"""Scalars against what they are made of: scipy's functions, quadrature, the formulas, and another library."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.interpolate import BPoly, PchipInterpolator
from torch import Tensor

from diffeo import scalars
from diffeo.errors import ShapeError
from diffeo.scalars.roots import inverted

KINDS = ("gaussian", "logistic")
WEIGHTS, MEANS, SCALES = np.array([0.2, 0.5, 0.3]), np.array([-2.0, 0.5, 3.0]), np.array([0.7, 0.3, 1.8])
LEAST = 1e-6  # of the identity is mixed in


def randn(*shape: int, seed: int = 0, size: float = 1.0) -> Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def raw_of(kind: str, bound: float = 8.0) -> Tensor:
    """The raw parameters [9, 1] of the mixture above, by the documented offsets and bounds."""
    offset = (0.2 if kind == "gaussian" else 0.24) * math.sqrt(3 / 2)
    offsets = np.array([-offset, 0, offset])
    start = np.sqrt(1 - offsets**2) if kind == "gaussian" else np.ones(3)
    places = bound * np.arctanh((MEANS - offsets) / bound)
    scales = 3 * np.arctanh(np.log(SCALES / start) / 3)
    return torch.tensor(np.concatenate([np.log(WEIGHTS), places, scales]))[:, None]


def law(kind: str) -> tuple[stats.rv_continuous, stats.rv_continuous]:
    return (stats.norm, stats.norm) if kind == "gaussian" else (stats.logistic, stats.logistic)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_is_scipys(kind: str) -> None:
    """z = G^-1(F(x)) from the nearer end, to 300 scales out, less the millionth of the identity that is mixed in."""
    part, target = law(kind)
    x = np.concatenate([np.linspace(-20, 25, 400), [-300.0, 300.0]])
    u = (x[:, None] - MEANS) / SCALES
    below = np.logaddexp.reduce(np.log(WEIGHTS) + part.logcdf(u), 1)
    above = np.logaddexp.reduce(np.log(WEIGHTS) + part.logsf(u), 1)
    if kind == "gaussian":
        from scipy.special import ndtri_exp

        z = np.where(below < above, ndtri_exp(below), -ndtri_exp(above))
    else:
        z = below - above
    log_density = np.logaddexp.reduce(np.log(WEIGHTS / SCALES) + part.logpdf(u), 1)
    found, log_slope = scalars.mixture_cdf(3, kind).forward(torch.tensor(x), raw_of(kind))  # type: ignore[arg-type]
    np.testing.assert_allclose(found.numpy(), LEAST * x + (1 - LEAST) * z, rtol=1e-12, atol=1e-13)
    near = np.abs(x) < 30
    expected = np.logaddexp(np.log(LEAST), np.log1p(-LEAST) + log_density - target.logpdf(z))
    np.testing.assert_allclose(log_slope.numpy()[near], expected[near], rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_the_slope_of_the_learned_cdf_is_its_density(kind: str) -> None:
    """g(z) dz/dx integrates, from left to any x, to G(z(x))."""
    _, target = law(kind)
    scalar, raw = scalars.mixture_cdf(5, kind), randn(15, 1, seed=3)  # type: ignore[arg-type]
    x = torch.linspace(-60, 60, 200_001, dtype=torch.float64)
    z, log_slope = scalar.forward(x, raw)
    density = target.pdf(z.numpy()) * log_slope.exp().numpy()
    cdf = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(x.numpy()))])
    np.testing.assert_allclose(cdf + target.cdf(z[0].item()), target.cdf(z.numpy()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_of_a_known_mixture_are_uniform(kind: str) -> None:
    """Kolmogorov and Smirnov's test, level 1e-6; and another mixture is refused."""
    part, target = law(kind)
    generator = np.random.default_rng(5)
    which = generator.choice(3, 4000, p=WEIGHTS)
    x = torch.tensor(MEANS[which] + SCALES[which] * part.rvs(size=4000, random_state=generator))
    scalar = scalars.mixture_cdf(3, kind)  # type: ignore[arg-type]
    ranks = target.cdf(scalar.forward(x, raw_of(kind))[0].numpy())
    assert stats.kstest(ranks, "uniform").pvalue > 1e-6
    assert stats.kstest(target.cdf(scalar.forward(x, 0.7 * raw_of(kind))[0].numpy()), "uniform").pvalue < 1e-6


@pytest.mark.parametrize("scalar", [scalars.mixture_cdf(), scalars.mixture_cdf(kind="logistic"), scalars.sigmoidal()])
def test_far_out_it_goes_on_straight(scalar: scalars.Scalar) -> None:
    """Onto and back from 1e15, with gradients; nothing is clamped, nothing saturates."""
    raw = randn(scalar.width, 1, size=2.0).requires_grad_()
    x = torch.tensor([-1e15, -1e6, -300.0, 300.0, 1e6, 1e15], dtype=torch.float64, requires_grad=True)
    z, log_slope = scalar.forward(x, raw)
    assert (z.diff() > 0).all()
    assert all(v.isfinite().all() for v in torch.autograd.grad(z.sum() + log_slope.sum(), (x, raw), retain_graph=True))
    back, log_back = scalar.inverse(z, raw)
    torch.testing.assert_close(back, x, rtol=1e-12, atol=0)
    torch.testing.assert_close(log_back, -log_slope, rtol=0, atol=1e-9)
    assert all(v.isfinite().all() for v in torch.autograd.grad(back.sum() + log_back.sum(), (x, raw)))


@pytest.mark.parametrize(
    "scalar", [scalars.mixture_cdf(), scalars.sigmoidal(), scalars.bernstein(12)], ids=lambda s: s.name
)
def test_every_root_is_found(scalar: scalars.Scalar) -> None:
    """100,000 of them, of any steepness, near and far: z -> x -> z."""
    generator = torch.Generator().manual_seed(8)
    n = 20_000
    for std in (0.3, 1.0, 3.0, 10.0, 1e4):
        raw = std * torch.randn(scalar.width, n, generator=generator, dtype=torch.float64)
        size = 10 ** (6 * torch.rand(n, generator=generator, dtype=torch.float64) - 1)
        z = size * torch.randn(n, generator=generator, dtype=torch.float64)
        again = scalar.forward(scalar.inverse(z, raw)[0], raw)[0]
        # x is a double: z is known to what a few of its units are worth, as the slope is below e^7
        assert ((again - z).abs() / z.abs().clamp(min=1)).max() < 1e-11


@pytest.mark.parametrize(
    "scalar", [scalars.mixture_cdf(3), scalars.sigmoidal(3), scalars.bernstein(4)], ids=lambda s: s.name
)
def test_inverses_as_programs(scalar: scalars.Scalar) -> None:
    """The loop is one node of an exported program, and finds the same."""

    class Inverse(torch.nn.Module):
        def forward(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
            return scalar.inverse(y, raw)

    given = randn(7, size=3.0), randn(scalar.width, 7)
    torch.testing.assert_close(torch.export.export(Inverse(), given).module()(*given), scalar.inverse(*given))


def test_a_root_needs_no_good_start() -> None:
    """x^3 = y from the far end of a wide bracket, and the slope there."""
    y = torch.tensor([1e-6, 8.0, 1e9], dtype=torch.float64)
    low, high = torch.full_like(y, -1e3), torch.full_like(y, 1e6)
    x, log_slope = inverted(lambda x: (x**3, (3 * x**2 + 1e-300).log()), (), y, low, high, high)
    torch.testing.assert_close(x, y ** (1 / 3), rtol=1e-12, atol=0)
    torch.testing.assert_close(log_slope, -(3 * x**2).log())


@pytest.mark.parametrize("degree", [1, 4, 20])
def test_a_bernstein_polynomial_is_scipys(degree: int) -> None:
    raw, bound = randn(degree + 1, 1, size=2.0), 5.0
    steep = math.log(1e3)
    steps = np.exp(steep * np.tanh(raw[:-1, 0].numpy() / steep)) * 2 * bound / degree
    c = np.concatenate([[0], np.cumsum(steps)])
    exact = BPoly((c - c[-1] / 2 + raw[-1].item())[:, None], [-bound, bound])
    x = np.linspace(-bound, bound, 301)
    y, log_slope = scalars.bernstein(degree, bound).forward(torch.tensor(x), raw)
    np.testing.assert_allclose(y.numpy(), exact(x), rtol=0, atol=1e-12)
    np.testing.assert_allclose(log_slope.exp().numpy(), exact.derivative()(x), rtol=1e-10)
    outside = torch.tensor([-1e3, 1e3], dtype=torch.float64)
    ends = torch.tensor([-bound, bound], dtype=torch.float64)
    (far, _), (near, log_end) = (scalars.bernstein(degree, bound).forward(v, raw) for v in (outside, ends))
    torch.testing.assert_close(far, near + log_end.exp() * (outside - ends))


def test_a_bernstein_polynomial_is_zukos() -> None:
    """On the same coefficients: zuko's are increments of softplus from a first one."""
    zuko = pytest.importorskip("zuko")
    theta, bound = randn(7, seed=2), 5.0
    with torch.no_grad():
        theirs = zuko.transforms.BernsteinTransform(theta, bound=bound)
    steps = theirs.theta.diff()
    degree, steep = len(steps), math.log(1e3)
    logs = (steps * degree / (2 * bound)).log()
    middle = (theirs.theta[0] + theirs.theta[-1]) / 2
    raw = torch.cat([steep * torch.atanh(logs / steep), middle[None]])[:, None]
    x = torch.linspace(-4.99, 4.99, 101, dtype=torch.float64)
    torch.testing.assert_close(scalars.bernstein(degree, bound).forward(x, raw)[0], theirs(x), rtol=0, atol=1e-9)


def test_an_equal_mixture_is_zukos() -> None:
    """Gaussianization by zuko, with its equal weights, where it does not saturate."""
    zuko = pytest.importorskip("zuko")
    raw = torch.cat([torch.zeros(4, 1, dtype=torch.float64), randn(8, 1, seed=4)])
    offsets = 0.2 * torch.linspace(-1, 1, 4, dtype=torch.float64) * math.sqrt(3 * 3 / 5)
    means = offsets + 8 * torch.tanh(raw[4:8, 0] / 8)
    scales = (3 * torch.tanh(raw[8:, 0] / 3)).exp() * (1 - offsets**2).sqrt()
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)
    theirs = zuko.transforms.GaussianizationTransform(-means / scales, -scales.log())
    torch.testing.assert_close(scalars.mixture_cdf(4).forward(x, raw)[0], theirs(x), rtol=0, atol=1e-4)


def test_a_stack_is_the_network() -> None:
    """logit(sum w sigmoid(a x + b)) twice over, written plainly."""
    raw = randn(18, 1, seed=6)
    offsets = 0.24 * torch.linspace(-1, 1, 3, dtype=torch.float64) * math.sqrt(3 * 2 / 4)
    x = torch.linspace(-3, 3, 31, dtype=torch.float64)
    y = x
    for part in raw[:, 0].split(9):
        w, a = part[:3].softmax(0), (-3 * torch.tanh(part[6:] / 3)).exp()
        m = offsets + 8 * torch.tanh(part[3:6] / 8)
        y = LEAST * y + (1 - LEAST) * torch.logit((w * torch.sigmoid(a * (y[:, None] - m))).sum(1))
    torch.testing.assert_close(scalars.sigmoidal(3, 2).forward(x, raw)[0], y, rtol=0, atol=1e-11)


def test_a_linear_spline_is_interpolation() -> None:
    raw, bound = randn(5, 1, size=2.0), 3.0
    shares = 1e-3 + (1 - 5e-3) * raw[:, 0].softmax(0)
    heights = np.concatenate([[0], np.cumsum(shares.numpy())]) * 2 * bound - bound
    x = torch.linspace(-bound, bound, 101, dtype=torch.float64)
    y = np.interp(x.numpy(), np.linspace(-bound, bound, 6), heights)
    np.testing.assert_allclose(scalars.linear_spline(5, bound).forward(x, raw)[0].numpy(), y, rtol=0, atol=1e-13)


def test_a_quadratic_spline_has_a_piecewise_linear_slope() -> None:
    """Its slope is 1 at both ends, linear between knots that are softmax's, and integrates to the map."""
    raw, bound = randn(7, 1, seed=9), 3.0
    scalar = scalars.quadratic_spline(4, bound)
    widths = 2 * bound * (1e-3 + (1 - 4e-3) * raw[:4, 0].softmax(0))
    knots = torch.cat([torch.zeros(1), widths.cumsum(0)]).double() - bound
    inside = knots[1:-1]
    slopes = np.concatenate([[1], scalar.forward(inside, raw)[1].exp().numpy(), [1]])
    x = torch.linspace(-bound + 1e-9, bound - 1e-9, 2001, dtype=torch.float64)
    y, log_slope = scalar.forward(x, raw)
    np.testing.assert_allclose(log_slope.exp().numpy(), np.interp(x.numpy(), knots.numpy(), slopes), rtol=1e-7)
    rise = PchipInterpolator(x.numpy(), log_slope.exp().numpy()).antiderivative()(x.numpy())
    np.testing.assert_allclose(y.numpy(), -bound + rise, rtol=0, atol=1e-5)
    assert slopes.min() > 1e-3


def test_a_learned_bound_is_the_spline_on_another_interval() -> None:
    raw, x = randn(12, 1), torch.linspace(-30, 30, 301, dtype=torch.float64)
    found = scalars.spline(4, 5.0, learned_bound=True).forward(x, raw)
    limit = math.log(4)
    bound = 5.0 * math.exp(limit * math.tanh(raw[-1].item() / limit))
    torch.testing.assert_close(found, scalars.spline(4, bound).forward(x, raw[:-1]))
    outside = x.abs() > bound
    assert torch.equal(found[0][outside], x[outside])
    assert bool(outside.any())


def test_affine_scales_by_name() -> None:
    """The scales of the founding texts, in double precision."""
    r, x = torch.linspace(-4, 4, 9, dtype=torch.float64), torch.full((9,), 2.0, dtype=torch.float64)
    raw = torch.stack([r, torch.ones_like(r)])
    for scale, expected in (
        ("tanh", (2 * torch.tanh(r / 2)).exp()),
        ("exp", r.exp()),
        ("sigmoid", torch.sigmoid(r + 2) / torch.sigmoid(torch.tensor(2.0, dtype=torch.float64))),
    ):
        y, log_slope = scalars.affine(scale=scale).forward(x, raw)  # type: ignore[arg-type]
        torch.testing.assert_close(y, 2 * expected + 1)
        torch.testing.assert_close(log_slope, expected.log())
    torch.testing.assert_close(scalars.affine(5.0).forward(x, raw)[1], 5 * torch.tanh(r / 5))


def test_places_at_quantiles_follow_the_data() -> None:
    """Two narrow humps: placed, the map sends them to nearly standard normals; at raw 0 it does not."""
    x = randn(2000, 2, size=0.3) + 2 * randn(2000, 2, seed=1).sign()
    scalar = scalars.mixture_cdf(12)
    assert scalar.start is not None
    raw = scalar.start(x)
    z, log_slope = scalar.forward(x, raw[:, None])
    plain = (x.mean(), x.std())
    normal = -0.5 * ((x - plain[0]) / plain[1]).square() - plain[1].log()
    assert (-0.5 * z.square() + log_slope).mean() > normal.mean() + 0.5
    assert raw.shape == (36, 2)
    for few in (scalars.mixture_start(x[:1], 3), scalars.mixture_start(torch.ones(5, 1), 1)):
        assert few.isfinite().all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: scalars.affine(scale="cube"), "scale: expected one of tanh, exp, sigmoid"),  # type: ignore[arg-type]
        (lambda: scalars.affine(100.0), "limit: expected a number above 0 and up to 80"),
        (lambda: scalars.affine(50.0, "exp"), "limit: expected a number above 0 and up to 30"),
        (lambda: scalars.mixture_cdf(kind="cauchy"), "kind: expected gaussian or logistic"),  # type: ignore[arg-type]
        (lambda: scalars.mixture_cdf(0), "components: expected a whole number"),
        (lambda: scalars.mixture_cdf(bound=0.0), "bound: expected a number above 0"),
        (lambda: scalars.sigmoidal(layers=0), "layers: expected a whole number"),
        (lambda: scalars.bernstein(65), "degree: expected at most 64"),
        (lambda: scalars.bernstein(bound=math.inf), "bound: expected a finite number"),
        (lambda: scalars.linear_spline(501), "bins: expected at most 500"),
        (lambda: scalars.quadratic_spline(bound=-1.0), "bound: expected a finite number"),
        (lambda: scalars.spline(tails="circular", learned_bound=True), "learned_bound: a circle has no bound"),
    ],
)
def test_wrong_choices(build: object, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build()  # type: ignore[operator]
