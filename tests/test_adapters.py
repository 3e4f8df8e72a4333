"""Other people's doors lead to the same numbers: against their layers, written here once more in plain torch."""

import math

import pytest
import torch
from torch import Tensor, nn

from diffeo import transforms as T
from diffeo.adapters import (
    CouplingFlow,
    CouplingLayer,
    NormalizingFlowModel,
    PermutationFlow,
    RealNVP,
    ToyDataset,
    make_masks,
    sample_2d_datasets,
    twice_tanh,
)
from diffeo.contract import check_density, check_transform
from diffeo.errors import ShapeError
from diffeo.flow import Flow
from diffeo.nets import ScaleAndShift
from diffeo.scalars import affine


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coupling_flow(layers: int = 4, size: float = 0.3) -> CouplingFlow:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        model = CouplingFlow(layers)
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.add_(size * torch.randn(parameter.shape, generator=generator(i)))
    return model


class PlainLayer(nn.Module):
    """The homework's layer: masks by multiplication, a plain exp, everything for both coordinates."""

    def __init__(self, mask: Tensor, state: dict[str, Tensor]) -> None:
        super().__init__()

        def net() -> nn.Sequential:
            return nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(), nn.Linear(32, 32), nn.LeakyReLU(), nn.Linear(32, 2))

        self.s_func, self.t_func, self.scale_factor = net(), net(), nn.Parameter(torch.zeros(2))
        self.load_state_dict(state)
        self.mask = mask

    def steer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = x * self.mask
        return (1 - self.mask) * self.s_func(kept) * self.scale_factor, (1 - self.mask) * self.t_func(kept)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.steer(x)
        return x * self.mask + (1 - self.mask) * (x * s.exp() + t), s.sum(1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.steer(y)
        return y * self.mask + (1 - self.mask) * ((y - t) * (-s).exp()), -s.sum(1)


def plain_layers(model: CouplingFlow) -> list[PlainLayer]:
    masks = torch.eye(2)
    return [PlainLayer(masks[i % 2], layer.coupling.net.state_dict()) for i, layer in enumerate(model.layers)]


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_coupling_flow_is_the_homeworks(layers: int) -> None:
    """With the same weights: forward from noise to data, the density by the inverses from the last layer back."""
    model = coupling_flow(layers)
    plain = plain_layers(model)
    x = 2 * torch.randn(200, 2, generator=generator())
    z, total = x, torch.zeros(200)
    for layer in reversed(plain):
        z, log_det = layer.inverse(z)
        total = total + log_det
    expected = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(z) + total
    torch.testing.assert_close(model.log_probability(x), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(model(x), model.log_probability(x))
    for ours, theirs in zip(model.layers, plain, strict=True):
        for got, wanted in zip((*ours(x), *ours.inverse(x)), (*theirs(x), *theirs.inverse(x)), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_each_step_is_a_layer() -> None:
    model = coupling_flow()
    steps = model.sample_x_each_step(50, generator(1))
    assert len(steps) == 5
    assert torch.equal(steps[0], model.prior.sample(50, generator=generator(1)))
    for layer, before, after in zip(model.layers, steps, steps[1:], strict=False):
        assert torch.equal(layer(before)[0], after)
    x, log_prob = model.sample_x(50, generator(1))
    torch.testing.assert_close(x, steps[-1])
    torch.testing.assert_close(log_prob, model.log_probability(x), rtol=1e-4, atol=1e-4)
    assert all(map(torch.equal, steps, model.sample_x_each_layer(50, generator(1))))


def test_counts_and_starts() -> None:
    assert [sum(p.numel() for p in CouplingFlow(k).parameters()) for k in (1, 2, 4)] == [2438, 4876, 9752]
    layer, x = CouplingLayer([0, 1]), torch.randn(5, 2, generator=generator())
    y, log_det = layer(x)
    assert torch.equal(log_det, torch.zeros(5))
    assert torch.equal(y[:, 1], x[:, 1])
    assert not torch.equal(y[:, 0], x[:, 0])  # a shift there is from the start
    assert CouplingFlow(2).state_dict().keys() == coupling_flow(2).state_dict().keys()


@pytest.mark.parametrize("mask", [[1, 0], [0, 1], [1, 0, 1, 1, 0], [0]], ids=str)
def test_coupling_layer_keeps_the_contract(mask: list[int]) -> None:
    layer = CouplingLayer(torch.tensor(mask))
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator(i)))
    for dtype in (torch.float64, torch.float32):
        report = check_transform(T.Inverse(layer.coupling), event_shape=(len(mask),), dtype=dtype)
        assert report.ok, f"\n{report}"


@pytest.mark.parametrize("size", [0.3, 1.0, 3.0])
def test_coupling_flow_is_finite_everywhere(size: float) -> None:
    """Where a plain exp overflows too: [-50, 50]^2, and as far as float32 goes; gradients with it."""
    model = coupling_flow(4, size)
    axis = torch.linspace(-50, 50, 101)
    grid = torch.cartesian_prod(axis, axis)
    far = torch.cartesian_prod(*2 * [torch.tensor([-3e38, -1e20, -1e6, 0.0, 1e-30, 1e6, 1e20, 3e38])])
    log_prob = model.log_probability(torch.cat([grid, far]))
    assert log_prob.isfinite().all()
    slopes = torch.autograd.grad(model.log_probability(grid).mean() / 1e30, list(model.parameters()))
    assert all(slope.isfinite().all() for slope in slopes)
    if size == 3.0:  # the control: the layers as they were given overflow on this very grid
        z, total = grid, torch.zeros(len(grid))
        for layer in reversed(plain_layers(model)):
            z, log_det = layer.inverse(z)
            total = total + log_det
        assert not (total - 0.5 * z.square().sum(1)).isfinite().all()


def test_coupling_flow_is_a_density_and_trains() -> None:
    model = coupling_flow(2, 0.1)
    report = check_density(model.flow, generator=generator(1), n=5000)
    assert report.ok, f"\n{report}"
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    x = torch.randn(256, 2, generator=generator(2)) * torch.tensor([0.2, 1.0]) + torch.tensor([2.0, 0.0])
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = -model.log_probability(x).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1


def test_scalars_told_in_other_ways() -> None:
    s, t, x = torch.linspace(-4, 4, 9), torch.full((9,), 0.5), torch.full((9,), 3.0)
    for scalar, log_scale in ((affine(scale="exp"), s), (twice_tanh(), 2 * s.tanh())):
        y, log_slope = scalar.forward(x, torch.stack([s, t]))
        torch.testing.assert_close(y, x * log_scale.exp() + t, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(log_slope, log_scale, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(scalar.inverse(y, torch.stack([s, t]))[0], x, rtol=1e-3, atol=1e-4)


def test_normalizing_flow_model() -> None:
    flows = [T.LU(3, "orthogonal"), T.Planar(3), T.Radial(3)]
    model = NormalizingFlowModel(3, flows).double()
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator(i)))
    x = torch.randn(6, 3, generator=generator(), dtype=torch.float64)
    z, prior_logprob, log_det = model(x)
    steps, total = x, torch.zeros(6)
    for transform in flows:
        steps, volume = transform(steps)
        total = total + volume
    assert torch.equal(z, steps)
    torch.testing.assert_close(log_det, total)
    torch.testing.assert_close(prior_logprob, torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1))
    torch.testing.assert_close(model.flow.log_prob(x), prior_logprob + log_det)
    back, log_back = model.inverse(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_back, -log_det)
    assert torch.equal(
        model.sample(4, generator(1)), model.inverse(model.flow.base.sample(4, generator=generator(1)))[0]
    )


@pytest.mark.parametrize("build", [RealNVP, PermutationFlow])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_flows_of_couplings(build, d: int) -> None:
    """Volume is kept at first; after a first batch its outcome is standard; log-scales stay within 2 a coupling."""
    flow: Flow = build(d)
    assert len(flow.transform) == 13
    batch = 5 * torch.randn(500, d, generator=generator()) + 3
    torch.testing.assert_close(flow.log_prob(batch), flow.base.log_prob(batch), rtol=1e-4, atol=1e-4)
    flow.transform[0].initialize(batch)
    z = flow.transform[0](batch)[0]
    torch.testing.assert_close(z.mean(0), torch.zeros(d), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(d), rtol=0, atol=1e-5)
    couplings = [step for step in flow.transform if isinstance(step, T.Coupling)]
    assert len(couplings) == 6
    with torch.no_grad():
        for i, parameter in enumerate(flow.parameters()):
            parameter.add_(3 * torch.randn(parameter.shape, generator=generator(i)))
    for i, coupling in enumerate(couplings):
        moved = [j for j, m in enumerate(make_masks(d, i % 2 == 0)) if m] or [0]
        assert list(coupling.partition.move) == moved
        assert (coupling(batch)[1].abs() <= 2 * len(moved) + 1e-5).all()


def test_real_nvp_by_hand() -> None:
    """One coupling of the first coordinate's telling: z_2 = x_2 exp(2 tanh s(x_1)) + t(x_1)."""
    flow = RealNVP(2, n_couplings=1, hidden_dims=4)
    coupling = flow.transform[1]
    with torch.no_grad():
        coupling.net.last.bias.copy_(torch.tensor([0.3, -0.7]))
    z, log_det = coupling(torch.tensor([[5.0, 2.0]]))
    assert z.tolist()[0] == [5.0, pytest.approx(2 * math.exp(2 * math.tanh(0.3)) - 0.7)]
    assert log_det.item() == pytest.approx(2 * math.tanh(0.3))
    assert isinstance(flow.transform[2], T.LU)
    assert isinstance(RealNVP(2).transform[4], T.Linear)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CouplingLayer([0.5, 1]), r"mask: expected a row of zeros and ones, got \[0.5, 1.0\]"),
        (lambda: CouplingLayer([1, 1]), "expected 0..1 once each and something to move, got"),
        (lambda: CouplingFlow(0), "num_layers: expected a whole number, 1 or more, got 0"),
        (lambda: CouplingFlow(2).log_probability(torch.zeros(3, 5)), r"x: expected shape \[n, 2\], got \[3, 5\]"),
        (lambda: NormalizingFlowModel(2, [T.LU(2)])(torch.zeros(3)), r"x: expected shape \[n, 2\], got \[3\]"),
        (lambda: NormalizingFlowModel(2, [T.LU(3)]), "LU moves events of 3 columns"),
        (
            lambda: NormalizingFlowModel(2, [T.Planar(2, context=1)]),
            "flows: expected transforms without context, got 1",
        ),
        (lambda: make_masks(0), "num_features: expected a whole number, 1 or more, got 0"),
        (lambda: ScaleAndShift([0], [0, 2]), r"stay, move: expected 0..2 once each and something to move, got \[0, 0"),
    ],
)
def test_what_is_refused(build, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build()


def test_toy_dataset_is_what_the_sampler_gives() -> None:
    points = ToyDataset("GaussiansRot", num_samples=40, seed=3, num_gaussians=7)
    expected = torch.from_numpy(sample_2d_datasets("GaussiansRot", 40, 3, 7)).float()
    batches = list(torch.utils.data.DataLoader(points, batch_size=16))
    assert [len(batch) for batch in batches] == [16, 16, 8]
    assert torch.equal(torch.cat(batches), expected)
    with pytest.raises(NotImplementedError):
        ToyDataset("Stars")
