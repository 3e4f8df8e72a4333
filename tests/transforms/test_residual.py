"""Residual layers: the bound whatever the weights, the certified inverse, log-volumes exact and estimated."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from diffeo import bases
from diffeo.errors import ShapeError
from diffeo.flow import Flow
from diffeo.transforms import Chain, Residual
from diffeo.transforms.lipschitz import LipschitzMLP, Push, invert, jacobian, spectral_bound
from diffeo.transforms.volume import fixed_probes, fresh_probes, series, terms_for


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Constructors draw their weights from torch's global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def draw(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def awake(layer: torch.nn.Module, scale: float = 1.0, seed: int = 0) -> torch.nn.Module:
    """In float64, its weights random and multiplied by ``scale``."""
    generator = torch.Generator().manual_seed(seed)
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator)).mul_(scale)
    return layer


@pytest.mark.parametrize("shape", [(1, 1), (2, 64), (64, 2), (48, 48), (7, 5)], ids=str)
@pytest.mark.parametrize("kind", ["random", "orthogonal", "one direction", "zero", "tiny", "huge"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_the_bound_is_one(shape: tuple[int, int], kind: str, dtype: torch.dtype) -> None:
    """Never below the largest singular value (LAPACK's), and no further above it than stated."""
    random = draw(shape)
    weight = {
        "random": random,
        "orthogonal": torch.linalg.svd(random, full_matrices=False)[0]
        @ torch.linalg.svd(random, full_matrices=False)[2],
        "one direction": random[:, :1] * random[:1],
        "zero": torch.zeros(shape),
        "tiny": 1e-12 * random,
        "huge": 1e12 * random,
    }[kind].to(dtype)
    largest = torch.linalg.matrix_norm(weight.double(), 2)
    bound = spectral_bound(weight).double()
    rounding = 1e-5 if dtype == torch.float32 else 1e-12
    assert bound >= largest * (1 - rounding)
    assert bound <= largest * min(shape) ** (1 / 128) * (1 + rounding) + (1e-14 if kind in ("zero", "tiny") else 0)


@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("coefficient", [0.5, 0.97, 6.0])
def test_no_distance_is_stretched_by_more(scale: float, coefficient: float) -> None:
    """The largest singular values of autograd's Jacobians, for weights far beyond those of training."""
    net = awake(LipschitzMLP(4, (16, 16), 2, coefficient), scale)
    ready, side = net.ready(torch.float64), draw((1, 2), 1)
    steepest = 0.0
    for row in draw((20, 1, 4), 2):
        found = torch.autograd.functional.jacobian(lambda x: net.shift(ready, side, x)[0][0], row)[:, 0]
        steepest = max(steepest, float(torch.linalg.matrix_norm(found, 2)))
    assert steepest <= coefficient
    if scale:
        assert steepest > 0.02 * coefficient  # and the bound is not idle


def test_the_jacobian_is_autograds() -> None:
    net = awake(LipschitzMLP(3, (8, 8), 1, 0.9))
    ready, side, x = net.ready(torch.float64), draw((5, 1), 1), 4 * draw((5, 3))
    found = jacobian(x, net.shift(ready, side, x)[1])
    for i in range(5):
        wanted = torch.autograd.functional.jacobian(
            lambda row, i=i: row + net.shift(ready, side[i : i + 1], row[None])[0][0], x[i]
        )
        torch.testing.assert_close(found[i].T, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("coefficient", [0.5, 0.97, 0.99])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_the_inverse_is_certified(coefficient: float, scale: float) -> None:
    """|x + g(x) - z| / (1 - coefficient) bounds the distance from the root; as long as forward is right, so is x."""
    layer = awake(Residual(5, (32, 32), coefficient=coefficient), scale)
    z = 10 * draw((200, 5))
    x, log_det = layer.inverse(z)
    again, log_back = layer(x)
    assert float((again - z).detach().norm(dim=1).max()) / (1 - coefficient) < 1e-11
    torch.testing.assert_close(log_det, -log_back, rtol=0, atol=1e-9)


def test_where_newton_fails_the_fixed_point_holds() -> None:
    """x + g(x) = 0.01 x + 1.98 tanh(x), on which Newton's method from 3 goes to and fro between +-198 for ever; and a
    row that is no number ends."""
    c, z = 0.99, torch.tensor([[0.0], [1.0], [-3.0], [1e5], [math.nan]], dtype=torch.float64)

    def shift(x: Tensor) -> tuple[Tensor, Push]:
        return c * (2 * x.tanh() - x), lambda v: v * (c * (1 - 2 * x.tanh().square()))[:, None]

    x = torch.tensor([[3.0]], dtype=torch.float64)
    for _ in range(50):
        g, push = shift(x)
        x = x - (x + g) / (1 + push(torch.ones_like(x)[None])[0])
    assert x.abs() > 100
    x = invert(shift, z, c, torch.full_like(z, 3.0))
    found = x[:4]
    torch.testing.assert_close(found + shift(found)[0], z[:4], rtol=1e-12, atol=1e-12)
    assert x[4].isnan().all()
    alone = invert(shift, z[:1], c, torch.full_like(z[:1], 3.0))
    assert torch.equal(alone, x[:1])


def test_a_new_layer_is_the_identity() -> None:
    x = draw((7, 3)).float()
    z, log_det = Residual(3)(x)
    assert torch.equal(z, x)
    assert torch.equal(log_det, torch.zeros(7))


def test_the_roulette_is_right_on_average() -> None:
    """90,000 estimates of log|det(I + J)| for one J of norm 0.9 against LAPACK, to 5 standard errors: a false alarm in
    6e-7 of right estimators. With every term of one sign, as here, what is left out or not weighed would be seen."""
    turn = torch.linalg.qr(draw((6, 6)))[0]
    J = -turn @ torch.diag(torch.linspace(0.7, 0.9, 6, dtype=torch.float64)) @ turn.T
    exact = torch.linalg.slogdet(torch.eye(6, dtype=torch.float64) + J)[1]
    rows = torch.zeros(300, 6, dtype=torch.float64)
    means = torch.stack([series(lambda v: v @ J.T, fresh_probes(rows), 0.9).mean() for _ in range(300)])
    error = means.std() / math.sqrt(len(means))
    assert float((means.mean() - exact).abs() / error) < 5
    axes = math.sqrt(6) * torch.eye(6, dtype=torch.float64)[None]
    terms = [(k, -((-1) ** k) / k * torch.linalg.matrix_power(J, k).trace()) for k in range(1, 200)]
    unweighed = sum(0.9 ** max(0, k - 4) * term for k, term in terms)
    assert float((unweighed - exact).abs() / error) > 10
    torch.testing.assert_close(series(lambda v: v @ J.T, axes, 0.9, 300)[0], exact, rtol=0, atol=1e-8)


def test_the_series_ends_within_its_bound() -> None:
    """The hardest case, J = -c I, where every term has one sign and all that is left is left."""
    for d, c in ((1, 0.5), (4, 0.9), (50, 0.97)):
        terms = terms_for(d, c)
        probes = fixed_probes(d).double()[None]
        assert probes.shape[1] == min(d, 16)
        torch.testing.assert_close((probes**2).sum(2), torch.full_like(probes[..., 0], d), rtol=1e-5, atol=0)
        short = d * math.log(1 - c) - series(lambda v, c=c: -c * v, probes, c, terms).item()
        assert -1.1e-3 < short < 1e-4
        assert series(lambda v, c=c: -c * v, probes, c, terms - 1).item() - d * math.log(1 - c) > 2e-4


def test_estimates_in_training_and_in_evaluation() -> None:
    x = draw((9, 20))
    kinds = {kind: awake(Residual(20, (16,), coefficient=0.8, log_det=kind)) for kind in ("auto", "exact", "estimate")}
    for layer in kinds.values():
        layer.load_state_dict(kinds["exact"].state_dict(), strict=False)  # the probes of an estimate stay
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exact = kinds["exact"](x)[1]
        assert torch.equal(kinds["exact"](x)[1], exact)
        for kind in ("auto", "estimate"):
            assert not torch.equal(kinds[kind](x)[1], kinds[kind](x)[1])
        for layer in kinds.values():
            layer.eval()
        assert torch.equal(kinds["auto"](x)[1], exact)
        state = torch.random.get_rng_state()
        estimate = kinds["estimate"](x)[1]
        assert torch.equal(kinds["estimate"](x)[1], estimate)
        assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(estimate, exact)
    assert float((estimate - exact).detach().abs().max()) < 0.5


def test_a_flow_of_them_learns_a_shape() -> None:
    """Half a ring: from the identity to a density that beats the Gaussian by far, on rows not learned from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flow = Flow(Chain(*(Residual(2, (16, 16)) for _ in range(4))), bases.StandardNormal(2))
        angle = math.pi * torch.rand(1500)
        x = torch.stack([angle.cos(), 2 * angle.sin() - 1], 1) * 1.4 + 0.1 * torch.randn(1500, 2)
        new, old = x[1000:], x[:1000]
        before = flow.log_prob(new).mean().item()
        optimizer = torch.optim.Adam(flow.parameters(), 2e-2)
        for _ in range(80):
            loss = -flow.log_prob(old[torch.randint(0, 1000, (256,))]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert flow.log_prob(new).mean().item() > before + 0.5
    back = flow.from_latent(flow.to_latent(new))
    torch.testing.assert_close(back, new, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"d": 0}, "d: expected a whole number"),
        ({"d": 2, "hidden": ()}, "hidden: expected one width"),
        ({"d": 2, "hidden": 3}, "hidden: expected one width"),
        ({"d": 2, "hidden": (0,)}, "hidden: expected a whole number"),
        ({"d": 2, "context": -1}, "context: expected a whole number"),
        ({"d": 2, "coefficient": 1.0}, "coefficient: expected a number above 0 and at most 0.99, got 1.0"),
        ({"d": 2, "log_det": "exakt"}, "log_det: expected one of auto, exact, estimate, got 'exakt'"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        Residual(**arguments)


def test_wrong_events() -> None:
    with pytest.raises(ShapeError, match="Residual moves events of 3 numbers"):
        Flow(Residual(3), bases.StandardNormal(2))
    with pytest.raises(ShapeError, match="context: this transform takes 2 context features, got none"):
        Residual(3, context=2)(torch.ones(1, 3))
