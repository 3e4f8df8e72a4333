"""The flow: its door, its density, its samples, its distribution."""

import copy
import importlib.util
import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import torch

from diffeo import bases, flow, mixtures, nets, scalars
from diffeo import transforms as T
from diffeo.contract import check_density
from diffeo.errors import DataError
from diffeo.flow import Flow, Mixture
from diffeo.mixtures import AutoregressiveMixture
from diffeo.transforms import Partition
from diffeo.transforms.pieces import numbers_a_row


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def held() -> Any:
    """The meter of bytes that tensors hold, of the benchmark of memory."""
    spec = importlib.util.spec_from_file_location("memory", Path(__file__).parents[1] / "benchmarks" / "memory.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Held()


def build(d: int = 2, context: int = 0, layers: int = 2, scale: float = 0.1, base: bases.Base | None = None) -> Flow:
    steps: list[T.Transform] = [T.Standardize(torch.full((d,), 3.0), torch.full((d,), 2.0))]
    for i in range(layers):
        partition = Partition.halves(d).flip() if i % 2 else Partition.halves(d)
        steps += [
            T.LU(d, generator=generator(i)),
            T.Coupling(partition, scalars.spline(), lambda i, o: nets.MLP(i, o, (16,), context)),
        ]
    made = Flow(T.Chain(*steps), base or bases.StandardNormal(d))
    with torch.no_grad():
        for i, parameter in enumerate(made.transform.parameters()):
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator(i)))
    return made


X, C = torch.zeros(4, 2), torch.zeros(4, 3)
PLAIN, GIVEN = build(2), build(2, context=3)


def test_infinities_are_impossible_and_touch_no_other_row() -> None:
    x = torch.randn(5, 2, generator=generator())
    expected = PLAIN(x)
    x[1, 0], x[3, 1] = math.inf, -math.inf
    x.requires_grad_()
    got = PLAIN(x)
    assert got[[1, 3]].tolist() == [-math.inf] * 2
    assert torch.equal(got[[0, 2, 4]], expected[[0, 2, 4]])
    (slope,) = torch.autograd.grad(got[[0, 2, 4]].sum(), x)
    assert slope.isfinite().all()


def test_nan_may_be_let_through() -> None:
    lenient = Flow(PLAIN.transform, PLAIN.base, on_nan="nan")
    assert lenient(torch.tensor([[0.0, 0.0], [math.nan, 0.0]])).isnan().tolist() == [False, True]


@pytest.mark.parametrize("value", [1e-45, 1e6, 1e15, 1e30, 3e38])
def test_log_prob_is_never_nan(value: float) -> None:
    log_prob = build(2, base=bases.GaussianMixture(2, 3, generator=generator()))(torch.tensor([[value, -value]]))
    assert log_prob.isfinite().all()


def test_outside_the_support_is_impossible() -> None:
    positive = Flow(T.Chain(T.Log(), PLAIN.transform), PLAIN.base)
    log_prob = positive(torch.tensor([[1.0, 2.0], [-1.0, 2.0], [0.0, 1.0]]))
    assert log_prob.isfinite().tolist() == [True, False, False]
    assert log_prob[1:].tolist() == [-math.inf] * 2
    gradients = torch.autograd.grad(log_prob[0], list(positive.parameters()))
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("context", [0, 2])
def test_is_a_density(d: int, context: int) -> None:
    given = torch.randn(1, context, generator=generator()) if context else None
    report = check_density(build(d, context), context=given, generator=generator(1))
    assert report.ok, f"\n{report}"


def test_autoregressive_flow_is_a_density() -> None:
    layer = T.Autoregressive([1, 0], scalars.spline(), lambda o, w: nets.MaskedMLP(o, w, hidden=(8,)))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(parameter.numel())))
    report = check_density(Flow(layer, bases.StudentT(2)), generator=generator(1))
    assert report.ok, f"\n{report}"


def test_circular_flow_is_a_density() -> None:
    layer = T.Coupling(Partition.halves(1), scalars.spline(tails="circular"), nets.MLP)
    with torch.no_grad():
        layer.net.last.bias.copy_(torch.randn(25, generator=generator()))
    circle = Flow(layer, bases.Uniform())
    x = torch.linspace(-math.pi, math.pi, 20_001, dtype=torch.float64)[:-1, None]
    total = circle(x).exp().mean() * 2 * math.pi
    assert abs(total.item() - 1) < 1e-4


def test_affine_flow_is_a_gaussian() -> None:
    """A linear map of a normal is a normal: closed form."""
    made = Flow(
        T.Chain(T.Standardize(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5])), T.LU(2, "orthogonal")),
        bases.StandardNormal(2),
    )
    x = torch.randn(20, 2, dtype=torch.float64, generator=generator())
    origin = made.from_latent(torch.zeros(1, 2, dtype=torch.float64))
    jacobian = torch.cat([made.from_latent(e[None]) - origin for e in torch.eye(2, dtype=torch.float64)]).T
    normal = torch.distributions.MultivariateNormal(origin[0], jacobian @ jacobian.T)
    torch.testing.assert_close(made(x), normal.log_prob(x), rtol=1e-6, atol=1e-5)


def test_samples_follow_to_latent() -> None:
    """Draws sent to noise are normal: Kolmogorov-Smirnov at 1e-6 for each of two coordinates."""
    z = PLAIN.to_latent(PLAIN.sample(20_000, generator=generator(2))).detach().numpy()
    assert all(scipy.stats.kstest(column, "norm").pvalue > 1e-6 for column in z.T)


def test_sample_shapes() -> None:
    assert PLAIN.sample(0).shape == (0, 2)
    assert PLAIN.sample(7).shape == (7, 2)
    assert GIVEN.sample(7, C).shape == (7, 4, 2)
    assert GIVEN.sample(7, C[:0]).shape == (7, 0, 2)
    x, log_prob = GIVEN.sample_and_log_prob(7, C)
    assert x.shape == (7, 4, 2)
    assert log_prob.shape == (7, 4)


def test_zero_rows() -> None:
    assert PLAIN(X[:0]).shape == (0,)
    assert GIVEN(X[:0], C[:0]).shape == (0,)


def test_the_draw_is_the_generators_whatever_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.random.get_rng_state()
    context = torch.randn(4, 3, generator=generator())
    whole = GIVEN.sample(50, context, generator(3))
    monkeypatch.setattr(flow, "CHUNK", 16)
    pieces = GIVEN.sample(50, context, generator(3))
    assert torch.equal(pieces, GIVEN.sample(50, context, generator(3)))
    # the pieces' size is a constant of the library; were it another, matrix products would sum in another order
    torch.testing.assert_close(pieces, whole, rtol=1e-6, atol=1e-5)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("given", [False, True])
def test_large_calls_go_in_pieces(given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of more than CHUNK numbers at its widest, here 23 x 2 numbers a row; what is found is the same."""
    made = build(3, context=3 if given else 0)
    x, context = torch.randn(100, 3, generator=generator()), torch.randn(100, 3, generator=generator(1))
    c = context if given else None
    with torch.no_grad():
        expected = made(x, c), made.to_latent(x, c), made.from_latent(x, c)
        drawn = made.sample_and_log_prob(100 if c is None else 1, c, generator(2))
    sizes = []
    made.transform.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    inverse = made.transform.inverse
    monkeypatch.setattr(made.transform, "inverse", lambda z, c: (sizes.append(len(z)), inverse(z, c))[1])
    monkeypatch.setattr(flow, "CHUNK", 46 * 16 + 45)
    with torch.no_grad():
        got = made(x, c), made.to_latent(x, c), made.from_latent(x, c)
        redrawn = made.sample_and_log_prob(100 if c is None else 1, c, generator(2))
        with torch.inference_mode():
            made(x, c)
    assert set(sizes) == {16, 4}
    assert len(sizes) == 5 * 7
    for a, b in zip((*got, *redrawn), (*expected, *drawn), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-5)
    sizes.clear()
    made(x, c), made.from_latent(x, c)
    assert sizes == [100, 100]  # with gradients all at once


WIDE = {
    "spline coupling": lambda: build(20),
    "autoregressive": lambda: Flow(
        T.Autoregressive(range(20), scalars.affine(), partial(nets.MaskedMLP, hidden=(64, 64))),
        bases.StandardNormal(20),
    ),
    "mixture": lambda: Flow(T.LU(5), bases.GaussianMixture(5, 20)),
    "refined mixture": lambda: Flow(
        T.Chain(), AutoregressiveMixture(bases.GaussianMixture(4, 8), nets.MaskedMLP(range(4), 24))
    ),
    "sums of sigmoids": lambda: Flow(
        T.Coupling(Partition.halves(4), scalars.sigmoidal(8), nets.MLP), bases.StandardNormal(4)
    ),
    "residual": lambda: Flow(T.Residual(5, (16,)), bases.StandardNormal(5)),
    "continuous": lambda: Flow(T.Continuous(T.Field(3, (32, 32))), bases.StandardNormal(3)),
    "elementwise": lambda: Flow(T.Elementwise(7, scalars.mixture_cdf(8)), bases.StandardNormal(7)),
}


@pytest.mark.parametrize("name", WIDE)
def test_what_large_calls_hold(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 times CHUNK numbers of float32 at most, beside the rows themselves; in four pieces, CHUNK made small."""
    monkeypatch.setattr(flow, "CHUNK", 2**12)
    monkeypatch.setattr(mixtures, "CHUNK", 2**12)
    made = WIDE[name]().eval()
    n = 4 * 2**12 // numbers_a_row(made, made.event_shape)
    x = made.sample(n, generator=generator())
    for act in (lambda: made(x), lambda: made.sample(n, generator=generator())):
        with torch.no_grad(), held() as most:
            act()
        assert most.peak < 32 * 4 * 2**12 + 4 * 4 * x.numel() + 4 * 4 * n
        assert most.peak > 4 * 2**12


def test_context_rows_meet_their_own_draws() -> None:
    made = build(2, context=1, scale=0.5).double()
    context = torch.tensor([[-2.0], [2.0]], dtype=torch.float64)
    x, log_prob = made.sample_and_log_prob(30, context, generator(4))
    for i in range(2):
        again = made(x[:, i], context[i : i + 1].expand(30, -1))
        torch.testing.assert_close(log_prob[:, i], again, rtol=1e-6, atol=1e-6)
    assert x[:, 0].mean(0).sub(x[:, 1].mean(0)).abs().max() > 0.1


def test_latent_round_trip_and_trace() -> None:
    z = torch.randn(10, 2, dtype=torch.float64, generator=generator())
    made = copy.deepcopy(PLAIN).double()
    x = made.from_latent(z)
    torch.testing.assert_close(made.to_latent(x), z, rtol=1e-9, atol=1e-9)
    steps = made.trace(z)
    assert len(steps) == 6  # noise, two linear maps, two couplings, units
    assert torch.equal(steps[0], z)
    torch.testing.assert_close(steps[-1], x)


def test_dtypes() -> None:
    x = torch.randn(5, 2, generator=generator())
    single, double = copy.deepcopy(PLAIN), copy.deepcopy(PLAIN).double()
    assert single(x).dtype == torch.float32
    assert single(x.double()).dtype == double(x.double()).dtype == torch.float64
    assert single(x.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(single(x).double(), double(x.double()), rtol=1e-5, atol=1e-5)
    assert copy.deepcopy(PLAIN).bfloat16()(x.bfloat16()).dtype == torch.float32


def test_units_outlive_a_change_of_dtype() -> None:
    stamps = torch.tensor([1.7e9 + 0.25, 1.7e9 + 0.5, 1.7e9 + 1.75], dtype=torch.float64)[:, None]
    made = Flow(T.Standardize.fit(stamps), bases.StandardNormal(1)).half().float()
    assert made.transform.loc.dtype == torch.float64
    torch.testing.assert_close(made.from_latent(made.to_latent(stamps)), stamps, rtol=0, atol=1e-6)
    assert made(stamps).isfinite().all()


@pytest.mark.parametrize("d", [1, 2])
def test_standardize_fits_awkward_columns(d: int) -> None:
    columns = {"constant": [7.0] * 5, "mostly one value": [0.0, 0, 0, 0, 9], "one row": [3.0], "huge": [1e300, -1e300]}
    for values in columns.values():
        x = torch.tensor(values, dtype=torch.float64)[:, None].expand(-1, d)
        unit = T.Standardize.fit(x)
        z, log_det = unit.double()(x)
        assert z.isfinite().all()
        assert log_det.isfinite().all()


def test_distribution_is_torchs() -> None:
    import torch.distributions as D

    before = (
        D.Distribution._Distribution__validate_args if hasattr(D.Distribution, "_Distribution__validate_args") else None
    )
    plain, given = PLAIN.distribution(), GIVEN.distribution(C)
    assert isinstance(plain, D.Distribution)
    assert plain.event_shape == given.event_shape == (2,)
    assert plain.batch_shape == ()
    assert given.batch_shape == (4,)
    assert plain.sample().shape == (2,)
    assert plain.sample((3, 5)).shape == (3, 5, 2)
    assert given.sample((3,)).shape == (3, 4, 2)
    x = given.rsample((3,))
    assert x.requires_grad
    assert given.log_prob(x).shape == (3, 4)
    assert given.log_prob(x[0]).shape == (4,)
    assert given.log_prob(X[0]).shape == (4,)
    torch.testing.assert_close(plain.log_prob(X.view(2, 2, 2)).flatten(), PLAIN(X))
    wide = GIVEN.distribution(C.view(2, 2, 3))
    assert wide.sample((5,)).shape == (5, 2, 2, 2)
    assert D.Independent(given, 1).log_prob(x[0]).shape == ()
    assert before == getattr(D.Distribution, "_Distribution__validate_args", None)
    with pytest.raises(ValueError, match="scale"):
        D.Normal(0.0, -1.0)


def test_distribution_of_a_mixture_base_has_no_rsample() -> None:
    made = build(2, base=bases.GaussianMixture(2, 2)).distribution()
    assert not made.has_rsample
    assert made.sample((3,)).shape == (3, 2)
    with pytest.raises(NotImplementedError, match="GaussianMixture cannot be sampled differentiably; use sample"):
        made.rsample()


def test_reverse_gradients_reach_every_parameter() -> None:
    x, log_prob = PLAIN.sample_and_log_prob(20, generator=generator())
    gradients = torch.autograd.grad(x.sum() + log_prob.sum(), list(PLAIN.parameters()), allow_unused=True)
    assert all(g is not None and g.isfinite().all() for g in gradients)


def test_mixture_of_flows() -> None:
    made = Mixture([build(2), build(2, layers=1)], torch.tensor([0.3, -0.3]))
    report = check_density(made, generator=generator(1))
    assert report.ok, f"\n{report}"
    given = Mixture([build(2, 3), bases.StandardNormal(2)])
    assert given.context_features == 3
    assert given.sample(6, C).shape == (6, 4, 2)
    assert given(X, C).shape == (4,)
    report = check_density(given, context=torch.tensor([[2.0, -1.0, 0.5]]), generator=generator(2))
    assert report.ok, f"\n{report}"


def test_mixture_of_impossible_rows_has_finite_gradients() -> None:
    made = Mixture([bases.Uniform(0.0, 1.0), bases.Uniform(0.5, 2.0)])
    log_prob = made(torch.tensor([[0.2], [5.0]]))
    assert log_prob[1] == -math.inf
    (slope,) = torch.autograd.grad(log_prob[0], made.logits)
    assert slope.isfinite().all()


def test_flow_exports_and_maps() -> None:
    x = torch.randn(4, 2, generator=generator())
    expected = PLAIN(x)
    torch.testing.assert_close(torch.func.vmap(lambda row: PLAIN(row[None])[0])(x), expected, rtol=1e-4, atol=1e-4)
    exported = torch.export.export(PLAIN, (x,)).module()
    torch.testing.assert_close(exported(x), expected)


HARD = {  # what training may meet
    "one row": torch.ones(1, 2),
    "constant": torch.full((8, 2), 3.0),
    "zeros": torch.zeros(8, 2),
    "subnormal": torch.full((8, 2), 1e-42),
    "outlier": torch.cat([torch.randn(7, 2, generator=generator()), torch.full((1, 2), 1e20)]),
    "huge": torch.full((8, 2), -3e38),
    "infinite": torch.tensor([[math.inf, 0.0], [0.0, 1.0]]),
    "no row": torch.zeros(0, 2),
    "at the bound": torch.tensor([[8.0, -8.0], [-8.0, 8.0]]),
    "a missing value": torch.tensor([[math.nan, 0.0], [0.0, 1.0]]),
}


@pytest.mark.parametrize("rows", HARD.values(), ids=HARD)
def test_a_step_on_a_hard_batch_leaves_finite_weights(rows: torch.Tensor) -> None:
    """Of the rows that are possible; what the loss is then worth is not the question."""
    made = build(2, base=bases.StudentT(2))
    made.on_nan = "nan"
    optimizer = torch.optim.SGD(made.parameters(), lr=1e-3)
    log_prob = made(rows)
    possible = log_prob.isfinite()
    (-log_prob.where(possible, 0.0).sum()).backward()
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in made.parameters())
    assert made(torch.zeros(1, 2)).isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_a_bad_row_changes_no_gradient(bad: float) -> None:
    """Of the weights and of the other rows, bit for bit, where that row does not count."""
    made = Flow(build(2).transform, bases.StudentT(2), on_nan="nan")
    x = torch.randn(6, 2, generator=generator())
    found = []
    for value in (0.5, bad):
        spoiled = x.clone()
        spoiled[2, 1] = value
        spoiled.requires_grad_()
        log_prob = made(spoiled)
        others = torch.cat([log_prob[:2], log_prob[3:]])
        slopes = torch.autograd.grad(others.sum(), [spoiled, *made.parameters()])
        found.append([others, *slopes])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_log_probs_do_not_depend_on_batch_mates() -> None:
    """For a batch of one size to the last bit, across sizes to 1e-5."""
    made, x = build(3, context=2), torch.randn(64, 3, generator=generator())
    context = torch.randn(64, 2, generator=generator(1))
    expected = made(x, context)
    other, around = x.clone(), context.clone()
    other[1:], around[1:] = 9 * x[1:].flip(0), context[1:].flip(0)
    assert torch.equal(made(other, around)[0], expected[0])
    for n in (1, 7, 33):
        torch.testing.assert_close(made(x[:n], context[:n]), expected[:n], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_rows_are_worth_what_float32_says(half: torch.dtype) -> None:
    """log_prob of them is float32's of the same numbers to 1e-4, through several layers."""
    made = Flow(T.Chain(*build(2, layers=3).transform.transforms[1:]), bases.StandardNormal(2))
    x = torch.randn(50, 2, generator=generator()).to(half)
    torch.testing.assert_close(made(x), made(x.float()), rtol=1e-4, atol=1e-4)
    assert made(x).dtype == torch.float32


def test_integers_and_other_numbers_are_never_guessed_at() -> None:
    for dtype in (torch.int32, torch.uint8, torch.bool, torch.complex128):
        with pytest.raises(DataError, match=f"x: expected floating-point numbers, got {dtype}"):
            PLAIN(torch.zeros(2, 2).to(dtype))


def test_looking_changes_nothing() -> None:
    """Scores, noise, printing and copying leave the weights and the random state as they were."""
    made = build(2, base=bases.GaussianMixture(2, 2, generator=generator()))
    weights = {name: value.clone() for name, value in made.state_dict().items()}
    before = torch.random.get_rng_state()
    first = made(X)
    made.to_latent(X), made.trace(X), repr(made), str(made.distribution()), copy.deepcopy(made)
    made.load_state_dict(made.state_dict())
    made.sample(5, generator=generator())
    assert torch.equal(made(X), first)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(value, weights[name]) for name, value in made.state_dict().items())


def test_threads_share_a_flow() -> None:
    """Eight at a time, each with its own rows and generator: bit for bit as one after another."""
    rows = [torch.randn(20, 2, generator=generator(i)) for i in range(8)]

    def work(i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return PLAIN(rows[i]).detach(), PLAIN.sample(20, generator=generator(i))

    expected = [work(i) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, [i % 8 for i in range(80)]))
    for i, (log_prob, x) in enumerate(found):
        assert torch.equal(log_prob, expected[i % 8][0])
        assert torch.equal(x, expected[i % 8][1])


def test_float64_draws_of_a_float64_flow() -> None:
    made = build(2, context=1).double()
    context = torch.zeros(2, 1, dtype=torch.float64)
    x, log_prob = made.sample_and_log_prob(5, context, generator())
    assert x.dtype == log_prob.dtype == made.sample(5, context, generator()).dtype == torch.float64
    assert made.to_latent(x[:, 0], context[:1].expand(5, -1)).dtype == torch.float64
    torch.testing.assert_close(log_prob[:, 1], made(x[:, 1], context[1:].expand(5, -1)), rtol=1e-9, atol=1e-9)
