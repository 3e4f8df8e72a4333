"""What conditioners promise: sizes, a zero start, masks, no extrapolation."""

import itertools

import pytest
import torch

from diffeo import nets
from diffeo.errors import ShapeError


def awake(net: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(
                0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    return net


BUILDERS = {
    "mlp": lambda i, o, c: nets.MLP(i, o, (16, 16), c),
    "mlp no hidden": lambda i, o, c: nets.MLP(i, o, (), c),
    "resmlp": lambda i, o, c: nets.ResMLP(i, o, 16, 2, c),
}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
@pytest.mark.parametrize(("i", "c", "n"), list(itertools.product((0, 3), (0, 2), (0, 1, 5))))
def test_sizes_and_zero_start(build, i: int, c: int, n: int) -> None:
    net = build(i, 7, c)
    h, context = torch.randn(n, i), torch.randn(n, c) if c else None
    out = net(h, context)
    assert out.shape == (7, n)
    assert out.is_contiguous()
    assert not out.any()
    assert awake(net)(h, context).shape == (7, n)
    assert net(h.double(), None if context is None else context.double()).dtype == torch.float32


@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
def test_activations_and_dropout(activation: str) -> None:
    net = awake(nets.MLP(2, 3, (8,), activation=activation, dropout=0.5))
    h = torch.randn(6, 2)
    assert not torch.equal(net(h), net(h))
    net.eval()
    assert torch.equal(net(h), net(h))


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("order", [[0], [1, 0], [2, 0, 1], [4, 2, 0, 1, 3]])
def test_masks_are_those_of_the_order(order: list[int], context: int) -> None:
    net = awake(nets.MaskedMLP(order, 3, (32, 32), context)).double()
    d = len(order)
    x, c = torch.randn(d, dtype=torch.float64), torch.randn(context, dtype=torch.float64)

    def raw(x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return net(x[None], c[None] if context else None).view(3, d)

    by_x, by_c = torch.autograd.functional.jacobian(raw, (x, c))
    for i, j in itertools.product(range(d), range(d)):
        assert bool((by_x[:, i, j] != 0).all()) == (order[j] < order[i])
    assert bool((by_c != 0).all())


def test_order_must_be_a_permutation() -> None:
    with pytest.raises(ShapeError, match=r"order: expected a permutation of 0..2, got"):
        nets.MaskedMLP([0, 2, 2], 1)


def test_soft_clip() -> None:
    x = torch.linspace(-9, 9, 1801, dtype=torch.float64, requires_grad=True)
    y = nets.soft_clip(x, 5.0)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(y[x.abs() <= 5], x[x.abs() <= 5])
    assert y.abs().max() < 6
    assert slope.diff().abs().max() < 0.01  # once differentiable
    assert (slope >= 0).all()


def test_far_inputs_change_nothing() -> None:
    net = awake(nets.MLP(2, 3))
    near, far = net(torch.tensor([[50.0, -50.0]])), net(torch.tensor([[1e30, -1e30]]))
    assert torch.equal(near, far)


def test_soft_clip_looks_at_each_number_alone() -> None:
    """Where all are within the bound nothing is computed: the same bits as beside an outlier, gradients too, and the
    written formula beyond."""
    x = torch.linspace(-5, 5, 41)
    beside = torch.cat([x, torch.tensor([1e30, -7.0, 5.5, torch.inf])]).requires_grad_()
    y = nets.soft_clip(beside)
    (slope,) = torch.autograd.grad(y.sum(), beside)
    assert torch.equal(y[:41], nets.soft_clip(x))
    assert torch.equal(slope[:41], torch.ones(41))
    core = beside.clamp(-5, 5)
    torch.testing.assert_close(y, core + torch.tanh(beside - core), rtol=0, atol=1e-6)
    assert nets.soft_clip(torch.tensor([torch.nan, 1.0])).isnan().tolist() == [True, False]
    wide = torch.tensor([-8.0, -5.5, 0.3, 5.1, 6.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(nets.soft_clip, wide)
    assert torch.autograd.gradgradcheck(nets.soft_clip, wide)
