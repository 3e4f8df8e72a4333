"""Continuous flows: the stepped map and its bound, the equation behind it, adaptive solvers, flow matching."""

import math
import sys

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from diffeo import bases, contract
from diffeo.errors import MissingExtraError, ModelError, ShapeError
from diffeo.flow import Flow
from diffeo.transforms import Continuous, Field
from diffeo.transforms.fields import least_steps, runge_kutta
from tests.transforms.test_residual import _seeded, awake, draw  # noqa: F401, a fixture


class Linear(nn.Module):
    """dx/dt = A x: from t = 1 to 0, x -> exp(-A) x, of log-volume -tr A."""

    def __init__(self, matrix: Tensor, lipschitz: float | None = None) -> None:
        super().__init__()
        self.d, self.matrix = len(matrix), nn.Parameter(matrix)
        self.lipschitz = lipschitz

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
        return x @ self.matrix.T.to(x.dtype)


A = torch.tensor([[0.5, -1.2, 0.0], [0.8, 0.1, 0.4], [0.0, 0.3, -1.0]], dtype=torch.float64)
TIGHT = {"method": "dopri5", "rtol": 1e-9, "atol": 1e-9}


def exact(x: Tensor) -> tuple[Tensor, Tensor]:
    return x @ torch.linalg.matrix_exp(-A).T, (-A.trace()).expand(len(x))


def test_a_linear_field_solved() -> None:
    layer, x = Continuous(Linear(A), **TIGHT), draw((20, 3))
    z, log_det = layer(x)
    torch.testing.assert_close((z, log_det), exact(x), rtol=0, atol=1e-7)
    back, log_back = layer.inverse(z)
    torch.testing.assert_close((back, log_back), (x, -log_det), rtol=0, atol=1e-7)


def test_steps_approach_the_equation_by_the_fourth_power() -> None:
    """Twice the steps, a sixteenth of the error; and `step_error` tells it to a factor of two."""
    x, errors = draw((20, 3)), []
    for steps in (4, 8, 16):
        layer = Continuous(Linear(A, 2.0), steps)
        z, log_det = layer(x)
        gaps = torch.cat([(z - exact(x)[0]).abs(), (log_det - exact(x)[1]).abs()[:, None]], 1).detach().amax(1)
        errors.append(gaps.max())
        told = layer.step_error(x)
        assert ((told > 0.5 * gaps) & (told < 2 * gaps)).all()
    assert 12 < errors[0] / errors[1] < 22
    assert 12 < errors[1] / errors[2] < 22


@pytest.mark.parametrize("d", [1, 2, 5])
def test_an_adaptive_solver_is_scipys(d: int) -> None:
    """The same field by scipy, with the trace of autograd's Jacobian; log_prob too."""
    field = awake(Field(d, (8,), 1, lipschitz=2.0))
    layer, x, context = Continuous(field, **TIGHT), draw((2, d)), draw((2, 1), 1)

    def rate(t: float, state: np.ndarray, row: int) -> np.ndarray:
        point = torch.as_tensor(state[:-1])

        def velocity(p: Tensor) -> Tensor:
            return field(t, p[None], context[row : row + 1])[0]

        slope = torch.autograd.functional.jacobian(velocity, point).trace()
        return np.append(velocity(point).detach().numpy(), slope.item())

    z, log_det = layer(x, context)
    for row in range(2):
        start = np.append(x[row].numpy(), 0.0)
        found = solve_ivp(rate, (1.0, 0.0), start, args=(row,), rtol=1e-8, atol=1e-10).y[:, -1]
        np.testing.assert_allclose(z[row].detach().numpy(), found[:-1], rtol=0, atol=1e-6)
        np.testing.assert_allclose(log_det[row].item(), found[-1], rtol=0, atol=1e-6)
    stepped = Continuous(field, steps=64)(x, context)
    torch.testing.assert_close(stepped, (z, log_det), rtol=0, atol=1e-5)


def test_the_contract_of_an_adaptive_solver() -> None:
    """What it cannot have: its way back is its inverse to the tolerance, and all rows take the hardest one's steps."""
    report = contract.check_transform(
        Continuous(Linear(A[:2, :2]), **TIGHT),
        event_shape=(2,),
        inputs=draw((3, 2)),
        skip={
            "round trip x -> z -> x",
            "round trip z -> x -> z",
            "rows do not depend on their batch mates",
            "a NaN row leaves the others alone",
            "an outlier leaves the others alone",
        },
    )
    assert report.ok, f"\n{report}"
    assert len(report.rows) > 20


def test_no_row_is_less_exact_for_its_batch() -> None:
    """One hard row among 2000 that do not move: by the norm of all together it would drown."""
    layer = Continuous(Linear(A), method="dopri5", rtol=1e-7, atol=1e-7)
    x = torch.zeros(2000, 3, dtype=torch.float64)
    x[7] = 5.0
    torch.testing.assert_close(layer(x)[0][7], exact(x[7:8])[0][0], rtol=0, atol=2e-5)


def test_every_step_is_a_contraction() -> None:
    """Beside the identity, for weights far beyond those of training: singular values of autograd's Jacobians."""
    for lipschitz in (0.5, 5.0, 12.0):
        field = awake(Field(3, (16, 16), lipschitz=lipschitz), 10.0)
        h, at = 1 / least_steps(lipschitz), field.stream(torch.float64, None)
        for row in draw((10, 1, 3)):
            found = torch.autograd.functional.jacobian(lambda x, at=at, h=h: runge_kutta(at, 0.5, -h, x)[0][0], row)
            assert torch.linalg.matrix_norm(found[:, 0], 2) <= 0.9


def test_coarse_steps_still_make_a_density() -> None:
    """As few steps as can be, along a field that bends far more within one of them: the integral is 1 all the same."""
    field = awake(Field(1, (16,), lipschitz=3.0), 3.0)
    flow = Flow(Continuous(field), bases.StandardNormal(1)).double()
    x = torch.linspace(-60, 60, 100_001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        mass = flow.log_prob(x).exp().sum() * (x[1] - x[0])
        assert flow.transform.step_error(x[::1000]).max() > 1e-2
    torch.testing.assert_close(float(mass), 1.0, rtol=0, atol=1e-6)


def test_estimates_of_the_trace() -> None:
    """Of exp(-A) x, right on average in training (5 standard errors, a false alarm in 6e-7), one for every row."""
    matrix = 0.1 * draw((20, 20)) - 0.2 * torch.eye(20, dtype=torch.float64)
    layer, x = Continuous(Linear(matrix, 2.0), steps=16, log_det="estimate"), draw((2000, 20))
    with torch.no_grad():
        found = layer(x)[1]
        error = float(found.std()) / math.sqrt(2000)
        assert abs(float(found.mean()) + float(matrix.trace())) < 5 * error
    assert 1e-3 < error < 0.1
    assert len(found.unique()) > 1000


@pytest.mark.parametrize("kind", ["auto", "estimate"])
def test_log_dets_in_training_and_in_evaluation(kind: str) -> None:
    """Fresh noise in training, the same every time in evaluation; and by either method, of one equation."""
    field, x = awake(Field(20, (16,), lipschitz=2.0)), draw((10, 20))
    layer, solver = (Continuous(field, log_det=kind, **way) for way in ({"steps": 24}, TIGHT))
    exact = Continuous(field, log_det="exact", **TIGHT)(x)[1].detach()
    for each in (layer, solver):
        assert not torch.equal(each(x)[1], each(x)[1])
        each.eval()
        assert torch.equal(each(x)[1], each(x)[1])
    z, log_det = layer(x)
    torch.testing.assert_close(log_det, solver(x)[1], rtol=0, atol=2e-3)
    torch.testing.assert_close(layer.inverse(z)[1], -log_det, rtol=0, atol=1e-8)
    gap = float((solver(x)[1].detach() - exact).abs().max())
    assert gap < 1e-6 if kind == "auto" else 1e-3 < gap < 1.0


def test_matching_is_what_the_paper_says() -> None:
    """The loss by hand from the same noise; and for one Gaussian the best field is known, and nothing else has less."""
    layer, x = Continuous(awake(Field(2, (8,)))), draw((6, 2))
    loss = layer.matching_loss(x, generator=torch.Generator().manual_seed(3))
    assert torch.equal(loss, layer.matching_loss(x, generator=torch.Generator().manual_seed(3)))
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    t = torch.rand(6, generator=generator, dtype=torch.float64)
    for i in range(6):
        v = layer.field(t[i].item(), ((1 - t[i]) * noise[i] + t[i] * x[i])[None])[0]
        torch.testing.assert_close(loss[i], (v - (x[i] - noise[i])).square().sum())

    class Best(nn.Module):
        """E[x - e | x_t] for x ~ N(m, s²): m + (t s² - (1 - t)) / (t² s² + (1 - t)²) (x_t - t m)."""

        def __init__(self, m: float, s: float) -> None:
            super().__init__()
            self.d, self.lipschitz = 1, 4.0
            self.m, self.s = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (m, s))

        def forward(self, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
            t = t[:, None] if t.ndim else t
            spread = t**2 * self.s**2 + (1 - t) ** 2
            return self.m + (t * self.s**2 - (1 - t)) / spread * (x - t * self.m)

    data = 2.0 + 0.5 * draw((20_000, 1))
    losses = {
        (m, s): Continuous(Best(m, s)).matching_loss(data, None, torch.Generator().manual_seed(0)).mean().item()
        for m, s in ((2.0, 0.5), (1.9, 0.5), (2.1, 0.5), (2.0, 0.45), (2.0, 0.55))
    }
    assert min(losses, key=losses.__getitem__) == (2.0, 0.5)
    flow = Flow(Continuous(Best(2.0, 0.5), steps=64), bases.StandardNormal(1)).double()
    rows = draw((50, 1)) + 2
    wanted = torch.distributions.Normal(2.0, 0.5).log_prob(rows)[:, 0]
    torch.testing.assert_close(flow.log_prob(rows), wanted, rtol=0, atol=1e-4)


def test_flow_matching_learns_a_mixture() -> None:
    """Two bells, 1.5 and 0.4 wide: from 0.8 nats of a Gaussian's divergence to below 0.1; and its mass is 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        which = torch.rand(4000, 1) < 0.5
        x = torch.where(which, torch.tensor([1.2, 0.0]), torch.tensor([-1.2, 0.0])) + 0.4 * torch.randn(4000, 2)
        flow = Flow(Continuous(Field(2, (32, 32), lipschitz=5.0)), bases.StandardNormal(2))
        optimizer = torch.optim.Adam(flow.parameters(), 2e-2)
        for i in range(400):
            for group in optimizer.param_groups:
                group["lr"] = 2e-2 * (1 - i / 400)
            loss = flow.transform.matching_loss(x[torch.randint(0, 3000, (256,))]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    bells = [torch.distributions.Normal(torch.tensor([m, 0.0]), 0.4).log_prob(x[3000:]).sum(1) for m in (1.2, -1.2)]
    truth = torch.logsumexp(torch.stack(bells), 0) - math.log(2)
    with torch.no_grad():
        divergence = float((truth - flow.log_prob(x[3000:])).mean())
        before = float((truth - flow.base.log_prob(x[3000:])).mean())
        axis = torch.linspace(-6, 6, 241)
        mass = flow.log_prob(torch.cartesian_prod(axis, axis)).double().exp().sum() * 0.05**2
    assert before > 0.3
    assert divergence < 0.1
    torch.testing.assert_close(float(mass), 1.0, rtol=0, atol=1e-3)


def test_gradients_of_an_adaptive_solver() -> None:
    """By the field's weights, of exp(-A) x and -tr A."""
    linear, x = Linear(A.clone()), draw((4, 3))
    z, log_det = Continuous(linear, **TIGHT)(x)
    found = torch.autograd.grad(z.square().sum() + log_det.sum(), linear.matrix)[0]
    matrix = A.clone().requires_grad_()
    moved = x @ torch.linalg.matrix_exp(-matrix).T
    wanted = torch.autograd.grad(moved.square().sum() - 4 * matrix.trace(), matrix)[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_nan_and_no_rows_in_an_adaptive_solver() -> None:
    layer, x = Continuous(Linear(A), method="dopri5"), draw((3, 3))
    x[1] = math.nan
    z, log_det = layer(x)
    assert z[1].isnan().all()
    assert log_det[1].isnan()
    assert z[[0, 2]].isfinite().all()
    assert [v.shape for v in layer(x[:0])] == [(0, 3), (0,)]


def test_a_steep_field_ends_with_a_word() -> None:
    layer = Continuous(Linear(1e4 * A), method="dopri5", most=200)
    with pytest.raises(
        ModelError, match=r"^field: dopri5 did not get to rtol=1e-06, atol=1e-06 within 200 evaluations"
    ):
        layer(draw((2, 3)))


def test_without_torchdiffeq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'diffeo\[continuous\]', or take method='rk4'") as caught:
        Continuous(Field(2), method="dopri5")
    assert caught.value.exit_code == 3
    assert Continuous(Field(2))(torch.ones(1, 2))[0].shape == (1, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Continuous(3), "field: expected a module"),
        (lambda: Continuous(nn.Linear(2, 2)), "field.d: expected a whole number"),
        (lambda: Continuous(Linear(A)), "field.lipschitz: method='rk4' needs a bound"),
        (lambda: Continuous(Field(2), 3), r"steps: expected 16 or more for a field of lipschitz=10, got 3"),
        (lambda: Continuous(Field(2), method="euler"), "method: expected one of rk4, dopri5, dopri8, bosh3"),
        (lambda: Continuous(Field(2), rtol=0.0), "rtol: expected a number within 0 and 1"),
        (lambda: Continuous(Field(2), log_det="none"), "log_det: expected one of"),
        (lambda: Continuous(Field(2), most=0), "most: expected a whole number"),
        (lambda: Field(2, lipschitz=-1.0), "lipschitz: expected a finite number above 0"),
        (lambda: Field(0), "d: expected a whole number"),
        (lambda: Flow(Continuous(Field(2)), bases.StandardNormal(3)), "Continuous moves events of 2 numbers"),
        (lambda: Continuous(Field(2, context=1))(torch.ones(1, 2)), "takes 1 context features, got none"),
        (lambda: Continuous(Field(2), method="dopri5").step_error(torch.ones(1, 2)), "step_error: of method='rk4'"),
    ],
)
def test_wrong_arguments(make: object, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        make()
