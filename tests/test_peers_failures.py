"""What other libraries of normalizing flows get wrong, each tried on this one.

case                                             where else it is tried
x at the bound of a spline, bounds of 32 and on  here; scalars/test_contract (linear tails)
+-inf and NaN into a spline or a flow            here; scalars/test_contract (a NaN keeps to itself), test_flow
inverses of random splines                       scalars/test_spline_fuzz
log-det in half precision                        here; scalars/test_contract, transforms/test_contract
trained round trip, latents far out              here
log_prob at 3e38                                 here
float32 against float64 in 64 dimensions         here
log-det is autograd's                            transforms/test_contract
a double model samples, mixed dtypes, integers   here; test_flow (dtypes), test_wrong_inputs
autocast                                         here
wrong width, contexts, numbers of draws          test_wrong_inputs
zero rows, draws for rows of context             here; test_flow, transforms/test_contract
one dimension, no features                       transforms/cases, test_recipes; test_wrong_inputs
ActNorm: constant, one row, never by itself      here
LU with a zero on the diagonal                   here
nothing is cached                                here; transforms/test_contract (load(save) is equal)
a trained density integrates to 1                here; test_flow, test_mixed
raw tables                                       test_hard_tables
one step on a pathological batch                 here; test_training
one seed fixes a model, imports change nothing   here; test_model; transforms/test_contract (random state untouched)
deepcopy, threads, state                         here; transforms/test_contract, test_artefact
double backward                                  here; scalars/test_contract
vmap, export, compile                            test_flow, scalars/test_contract; here (compile, slow)
weights that are NaN                             test_artefact
scores and batch size                            here; transforms/test_contract (rows do not depend on the batch)
"""

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from diffeo import bases, nets, scalars
from diffeo import transforms as T
from diffeo.errors import DataError
from diffeo.flow import Flow
from diffeo.recipes import RECIPES, Plan
from diffeo.transforms import Partition

COSTLY = ("iaf", "gaussianization", "residual", "ffjord", "flow-matching")  # many passes, roots or steps
EACH = [pytest.param(name, marks=pytest.mark.slow) if name in COSTLY else name for name in RECIPES]
# Spreads to which they are inverted here: scales to e^30, and slopes down to 1e-6, where only a noise can be matched
FARTHEST = {"homework": 3.0, "cdf": 0.0}
SIGMAS = (1.0, 3.0, 10.0, 30.0, 100.0)
FARTHER = (1e3, 1e4, 1e5, 1e6)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moons(n: int, seed: int = 0) -> Tensor:
    """Two half circles in about unit spread."""
    turn = math.pi * torch.rand(n, generator=generator(seed))
    upper = (torch.arange(n) % 2 == 0).float()
    x = torch.stack([turn.cos() + 0.5 - upper, turn.sin() * (2 * upper - 1) + 0.25 - 0.5 * upper], 1)
    return 1.4 * x + 0.1 * torch.randn(n, 2, generator=generator(seed + 1))


def made(recipe: str, d: int = 2, context: int = 0) -> Flow:
    plan = Plan(
        recipe=recipe, components=8 if recipe == "auto" else 1, layers=4, hidden=(16, 16), bins=8, dropout=0.0,
        start_rows=1, units=(), given_units=(),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RECIPES[recipe].build(plan, d, context)


def shaken(flow: Flow, size: float = 0.1) -> Flow:
    with torch.no_grad():
        for i, parameter in enumerate(flow.parameters()):
            parameter.add_(size * torch.randn(parameter.shape, generator=generator(i)))
    return flow.eval()


@pytest.fixture(scope="module", params=EACH)
def trained(request: pytest.FixtureRequest) -> Flow:
    """A flow of each recipe after 120 steps on the moons."""
    flow, rows = made(request.param), moons(2000)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    before = float(flow(rows).detach().mean())
    for step in range(120):
        optimizer.zero_grad()
        (-flow(rows[step * 200 % 2000 :][:200]).mean()).backward()
        optimizer.step()
    assert float(flow(rows).detach().mean()) > before + (0.005 if request.param == "radial" else 0.3)
    flow.farthest = FARTHEST.get(request.param, math.inf)
    return flow.eval()


def points(size: float, dtype: torch.dtype) -> Tensor:
    """Rows so many spreads out: in every direction, along the axes, and in a box."""
    u = torch.randn(200, 2, generator=generator(1), dtype=torch.float64)
    axis = torch.eye(2, dtype=torch.float64).repeat(20, 1) * u[:40].sign()
    box = 2 * torch.rand(200, 2, generator=generator(2), dtype=torch.float64) - 1
    return size * torch.cat([u / u.norm(dim=1, keepdim=True), axis, box]).to(dtype)


def relative(got: Tensor, wanted: Tensor) -> Tensor:
    return (got - wanted).abs().amax(1) / wanted.abs().amax(1).clamp(min=1)


# Far from the data --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_trained_round_trip(trained: Flow) -> None:
    """Points in float64 through trained weights in float32, both ways."""
    for size in (size for size in (*SIGMAS, *FARTHER) if size <= trained.farthest):
        p = points(size, torch.float64)
        for there, back in ((trained.to_latent, trained.from_latent), (trained.from_latent, trained.to_latent)):
            q = back(there(p))
            assert q.isfinite().all()
            assert relative(q, p).max() <= 1e-6


@torch.no_grad()
def test_trained_round_trip_in_float32(trained: Flow) -> None:
    """Within 1e-4 where it ends, or of the noise that it came from: where a map is flat, noise in float32 does not
    hold where a point was, and any point with the same noise is as good an answer."""
    exact = copy.deepcopy(trained).double()
    for size in (size for size in (*SIGMAS, *FARTHER) if size <= trained.farthest):
        p = points(size, torch.float32)
        pairs = (
            (trained.to_latent, trained.from_latent, exact.to_latent),
            (trained.from_latent, trained.to_latent, exact.from_latent),
        )
        for there, back, again in pairs:
            middle = there(p)
            q = back(middle)
            assert middle.isfinite().all()
            assert q.isfinite().all()
            error = torch.minimum(relative(q, p), relative(again(q.double()), middle.double()).float())
            assert size > 100 or error.max() <= 1e-4, (size, float(error.max()))


@torch.no_grad()
def test_log_prob_anywhere(trained: Flow) -> None:
    for dtype, ends in ((torch.float32, (1e6, 1e15, 1e30, 3e38)), (torch.float64, (1e6, 1e30, 1e150, 1.7e308))):
        for end in ends:
            p = points(end, dtype) if end < 1e300 else points(1.0, dtype).sign() * end
            got = trained(p)
            assert not got.isnan().any()
            assert not (got == math.inf).any()
            assert end > 1e6 or got.isfinite().all()
    infinite = torch.tensor([[math.inf, 0], [0, -math.inf], [math.inf, -math.inf]])
    assert (trained(infinite) == -math.inf).all()


@torch.no_grad()
def test_a_trained_density_integrates_to_one(trained: Flow) -> None:
    """By the midpoint rule in asinh space, as far as 5,000 spreads."""
    step = 20 / 280
    t = -10 + step * (torch.arange(280, dtype=torch.float64) + 0.5)
    grid = torch.cartesian_prod(t, t)
    log_prob = trained((0.5 * grid.sinh()).float()).double()
    total = (log_prob + (0.5 * grid.cosh() * step).log().sum(1)).exp().sum()
    assert abs(float(total) - 1) < 5e-3


@torch.no_grad()
def test_draws_score_finite(trained: Flow) -> None:
    draws, log_prob = trained.sample_and_log_prob(2000, generator=generator())
    assert log_prob.isfinite().all()
    # two routes in float32, whose errors grow with the slopes of the map
    assert (trained(draws) - log_prob).abs().median() < 1e-3
    assert trained(trained.sample(2000, generator=generator(1))).isfinite().all()


@torch.no_grad()
def test_one_bad_row_never_changes_another(trained: Flow) -> None:
    rows = moons(64, seed=5)
    expected = trained(rows)
    lenient = copy.deepcopy(trained)
    lenient.on_nan = "nan"
    for bad in (math.nan, math.inf, -math.inf, 3e38, 1e20):
        spoiled = rows.clone()
        spoiled[7] = bad
        got = lenient(spoiled)
        assert torch.equal(got[:7], expected[:7])
        assert torch.equal(got[8:], expected[8:])
        assert bool(got[7].isnan()) == math.isnan(bad)


@torch.no_grad()
def test_scores_do_not_depend_on_the_batch_size(trained: Flow) -> None:
    """Products of other shapes add up in another order: 1e-5 but where a float32 map is steep, never 1e-4."""
    rows = moons(130, seed=6)
    whole = trained(rows)
    for size in (1, 7, 64):
        pieces = torch.cat([trained(part) for part in rows.split(size)])
        error = (pieces - whole).abs() / (1 + whole.abs())
        assert error.quantile(0.95) <= 1e-5
        assert error.max() <= 1e-4


@pytest.mark.parametrize("bound", [8.0, 32.0, 1000.0, 1e5])
def test_splines_at_their_bound(bound: float) -> None:
    """Where an epsilon added to the last knot is less than half a unit in its last place."""
    scalar = scalars.spline(8, bound)
    raw = torch.randn(scalar.width, 6, generator=generator())
    end = torch.tensor(bound)
    x = torch.stack([end, -end, *(end.nextafter(torch.tensor(far)) for far in (math.inf, 0.0)), -end, end])
    for step in (scalar.forward, scalar.inverse):
        y, log_slope = step(x, raw)
        torch.testing.assert_close(y, x, rtol=1e-5, atol=0)
        assert log_slope.isfinite().all()


def test_splines_of_no_number() -> None:
    scalar = scalars.spline()
    raw = torch.randn(scalar.width, 3, generator=generator())
    for step in (scalar.forward, scalar.inverse):
        y, log_slope = step(torch.tensor([math.inf, -math.inf, math.nan]), raw)
        assert y[:2].tolist() == [math.inf, -math.inf]
        assert (log_slope[:2] == 0).all()
        assert y[2].isnan()


# Precision ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", EACH)
@torch.no_grad()
def test_float32_is_float64_in_64_dimensions(recipe: str) -> None:
    flow = shaken(made(recipe, 64), 0.02)
    x = torch.randn(200, 64, generator=generator())
    single, double = flow(x), copy.deepcopy(flow).double()(x.double())
    assert ((single - double).abs() <= 1e-5 * (1 + double.abs())).all()


def test_dtypes_of_models_and_rows(trained: Flow) -> None:
    rows = moons(20)
    double = copy.deepcopy(trained).double()
    assert double.sample(5, generator=generator()).dtype == torch.float64
    assert double(rows.double()).dtype == trained(rows.double()).dtype == torch.float64
    torch.testing.assert_close(trained(rows.double()).float(), trained(rows), rtol=1e-4, atol=1e-4)
    with pytest.raises(DataError, match=r"got torch\.int64; pass x\.float\(\)"):
        trained(rows.long())


@torch.no_grad()
def test_half_precision_models(trained: Flow) -> None:
    """Weights rounded to bfloat16 are another model; of that one, float32 rows get float32 scores."""
    rows = moons(200, seed=3)
    half = copy.deepcopy(trained).bfloat16()
    wide = copy.deepcopy(half).float()
    got = half(rows.bfloat16())
    assert got.dtype == torch.float32
    assert got.isfinite().all()
    assert (got - wide(rows.bfloat16().float())).abs().median() < 0.5  # its nets see and give bfloat16


@torch.no_grad()
def test_autocast_changes_no_score(trained: Flow) -> None:
    rows = moons(200, seed=3)
    z = trained.to_latent(rows)
    expected = trained(rows), z, trained.from_latent(z), trained.sample(50, generator=generator())
    with torch.autocast("cpu", torch.bfloat16):
        got = trained(rows), trained.to_latent(rows), trained.from_latent(z), trained.sample(50, generator=generator())
        assert torch.is_autocast_enabled("cpu")
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("recipe", EACH)
def test_double_backward(recipe: str) -> None:
    """Second derivatives of the log-density in x against differences of the first."""
    flow = shaken(made(recipe), 0.3).double()
    x = moons(3).double().requires_grad_()
    assert torch.autograd.gradcheck(flow, (x,))
    assert torch.autograd.gradgradcheck(flow, (x,), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", EACH)
def test_compiles_whole(recipe: str) -> None:
    flow, x = shaken(made(recipe)), moons(10)
    compiled = torch.compile(flow, fullgraph=True)
    torch.testing.assert_close(compiled(x), flow(x), rtol=1e-5, atol=1e-5)


# Shapes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", EACH)
def test_zero_rows_and_draws_for_each_context(recipe: str) -> None:
    if not RECIPES[recipe].conditional:
        return
    flow = shaken(made(recipe, 3, context=2))
    given = torch.randn(5, 2, generator=generator())
    assert flow(torch.zeros(0, 3), given[:0]).shape == (0,)
    assert flow.to_latent(torch.zeros(0, 3), given[:0]).shape == (0, 3)
    assert flow.sample(0, given).shape == (0, 5, 3)
    assert flow.sample(7, given[:0]).shape == (7, 0, 3)
    draws, log_prob = flow.sample_and_log_prob(7, given)
    assert (draws.shape, log_prob.shape) == ((7, 5, 3), (7, 5))


# Layers with a past -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "batch", [torch.full((50, 2), 3.0), torch.tensor([[1.0, 1e6]]), torch.tensor([[1e-35, 0.0]] * 3)]
)
def test_actnorm_of_one_value(batch: Tensor) -> None:
    norm = T.ActNorm(2)
    norm.initialize(batch)
    z, log_det = norm(batch)
    assert z.abs().max() < 1e-6
    assert (log_det == 0).all()
    assert torch.equal(norm.inverse(z)[0], batch)


def test_actnorm_never_initialises_itself() -> None:
    norm = T.ActNorm(2)
    flow = Flow(norm, bases.StandardNormal(2))
    for mode in (True, False):
        flow.train(mode)
        flow(5 * moons(50) + 3)
        flow.sample(50, generator=generator())
        assert not norm.initialized
        assert torch.equal(flow.to_latent(moons(5)), moons(5))


def test_lu_with_a_zero_on_the_diagonal() -> None:
    layer = T.LU(3)
    with torch.no_grad():
        layer.log_diagonal[1] = -1e9
    x = torch.randn(20, 3, generator=generator())
    z, log_det = layer(x)
    assert log_det.tolist() == [-3.0] * 20
    torch.testing.assert_close(layer.inverse(z)[0], x, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_nothing_is_cached(trained: Flow) -> None:
    rows, flow = moons(20), copy.deepcopy(trained)
    flow(rows), flow.sample(5, generator=generator())
    other = shaken(copy.deepcopy(trained), 0.05)
    flow.load_state_dict(other.state_dict())
    assert torch.equal(flow(rows), other(rows))
    assert torch.equal(flow.sample(5, generator=generator()), other.sample(5, generator=generator()))
    assert not torch.equal(flow(rows), trained(rows))


@torch.no_grad()
def test_copies_have_their_own_storage(trained: Flow) -> None:
    twin, rows = copy.deepcopy(trained), moons(20)
    expected = trained(rows)
    assert torch.equal(twin(rows), expected)
    for parameter in twin.parameters():
        parameter.add_(0.1)
    assert torch.equal(trained(rows), expected)


# Training -----------------------------------------------------------------------------------------------------------

ROWS = moons(32)
BATCHES = {
    "times 1e6": ROWS * 1e6,
    "times 1e-6": ROWS * 1e-6,
    "constant": torch.ones(32, 2),
    "unix time": ROWS + 1.7e9,
    "Cauchy": ROWS / ROWS.flip(0),
    "one of 1e20": torch.cat([ROWS, torch.full((1, 2), 1e20)]),
    "one of 3e38": torch.cat([ROWS, torch.full((1, 2), 3e38)]),
    "one infinite": torch.cat([ROWS, torch.full((1, 2), math.inf)]),
    "a column twice": ROWS[:, :1].expand(-1, 2),
    "one row": ROWS[:1],
    "no rows": ROWS[:0],
    "integers": ROWS.round(),
    "zeros": torch.zeros(32, 2),
    "subnormal": torch.full((32, 2), 1e-42),
}


@pytest.mark.parametrize("name", BATCHES)
def test_one_step_leaves_finite_weights(name: str) -> None:
    """Of every recipe, twice, so that the second meets moments of the first."""
    for recipe in RECIPES:
        flow = made(recipe)
        optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
        for _ in range(2):
            optimizer.zero_grad()
            (-flow(BATCHES[name]).sum()).backward()
            optimizer.step()
        assert all(parameter.isfinite().all() for parameter in flow.parameters()), recipe


def test_a_nan_row_is_refused_before_a_step() -> None:
    flow = made("maf")
    before = copy.deepcopy(flow.state_dict())
    with pytest.raises(DataError, match="x: expected numbers, got NaN in row 32"):
        flow(torch.cat([ROWS, torch.full((1, 2), math.nan)]))
    assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())


# The process --------------------------------------------------------------------------------------------------------


def test_one_seed_fixes_a_model() -> None:
    def build() -> Flow:
        torch.manual_seed(11)
        steps = [
            T.Permute.random(4),
            T.LU(4, "orthogonal"),
            T.Coupling(Partition.halves(4), scalars.spline(), nets.MLP),
        ]
        return Flow(T.Chain(*steps), bases.GaussianMixture(4, 3))

    with torch.random.fork_rng(devices=[]):
        one, other = build().state_dict(), build().state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_looking_at_a_model_draws_nothing(trained: Flow) -> None:
    before = torch.random.get_rng_state()
    assert repr(trained)
    trained(ROWS), copy.deepcopy(trained), trained.state_dict(), trained.distribution().log_prob(ROWS)
    assert torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0)  # nobody has turned its checks off


@torch.no_grad()
def test_threads_share_a_model(trained: Flow) -> None:
    """Eight threads, 80 calls, each equal to the same call alone."""
    batches = [moons(16, seed) for seed in range(20)]
    alone = [(trained(rows), trained.sample(4, generator=generator(i))) for i, rows in enumerate(batches)]

    def call(i: int) -> bool:
        with torch.no_grad():
            scores = trained(batches[i % 20])
            draws = trained.sample(4, generator=generator(i % 20))
        return torch.equal(scores, alone[i % 20][0]) and torch.equal(draws, alone[i % 20][1])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(80)))
