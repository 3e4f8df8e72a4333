"""Convolutional conditioners: the nets that they say they are, and conduct fit for a flow."""

import copy
from collections.abc import Callable, Iterator
from itertools import product

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from diffeo import nets
from diffeo.errors import ShapeError
from diffeo.picturenets import BottleneckResNet, GatedResNet, Masked

NETS: dict[str, Callable[..., nn.Module]] = {"bottleneck": BottleneckResNet, "gated": GatedResNet}
EACH = pytest.mark.parametrize("make", NETS.values(), ids=NETS)


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    """Initial weights are those of one seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def moved(net: nn.Module, far: float = 0.1, seed: int = 3) -> nn.Module:
    """With weights away from their start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(far * torch.randn(parameter.shape, generator=generator))
    return net


def planes(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Residual(nn.Sequential):
    def forward(self, h: Tensor) -> Tensor:
        return h + super().forward(h)


def reference_bottleneck(c_in: int, c_out: int, width: int, blocks: int, inner: int) -> nn.Sequential:
    def conv(a: int, b: int, size: int) -> nn.Module:
        return weight_norm(nn.Conv2d(a, b, size, padding="same"))

    middle = [
        Residual(conv(width, inner, 1), nn.ReLU(), conv(inner, inner, 3), nn.ReLU(), conv(inner, width, 1))
        for _ in range(blocks)
    ]
    return nn.Sequential(conv(c_in, width, 3), nn.ReLU(), *middle, nn.ReLU(), conv(width, c_out, 3))


def test_bottleneck_is_the_net_of_weight_normed_layers() -> None:
    """Against torch's own weight norm and containers, weights taken over by their order."""
    net = moved(BottleneckResNet(3, 6, width=16, blocks=2, bottleneck=8, zero_last=False))
    reference = reference_bottleneck(3, 6, 16, 2, 8)
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    theirs = [module for module in reference.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        for a, b in zip(convs, theirs, strict=True):
            b.bias.copy_(a.bias)
            b.parametrizations.weight.original0.copy_(a.gain)
            b.parametrizations.weight.original1.copy_(a.weight)
    count = sum(p.numel() for p in net.parameters())
    assert count == sum(p.numel() for p in reference.parameters())
    h = planes(3, 4, 6, 8)
    torch.testing.assert_close(net(h), reference(h.transpose(0, 1)).transpose(0, 1), rtol=1e-5, atol=1e-5)


def test_bottleneck_starts_at_the_weights_of_its_convolutions() -> None:
    """Norms are at first those of the weights, so that normed convolutions start as plain ones do."""
    conv = BottleneckResNet(2, 4, width=8, blocks=1, bottleneck=4).first
    h = planes(3, 2, 4, 4)
    plain = nn.functional.conv2d(h, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(h), plain)


class Gated(nn.Module):
    """One block written out place by place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look, self.mix = nn.Conv2d(2 * width, width, 3, padding=1), nn.Linear(2 * width, 2 * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, h: Tensor) -> Tensor:
        inner = self.look(torch.cat([nn.functional.elu(h), nn.functional.elu(-h)], 1))
        z = h.clone()
        for y, x in product(range(h.shape[2]), range(h.shape[3])):
            at = inner[:, :, y, x]
            a, b = self.mix(torch.cat([nn.functional.elu(at), nn.functional.elu(-at)], 1)).chunk(2, 1)
            z[:, :, y, x] = self.norm(h[:, :, y, x] + a / (1 + (-b).exp()))
        return z


def test_gated_is_the_net_written_out() -> None:
    net = moved(GatedResNet(2, 4, width=6, blocks=2))
    blocks = [Gated(6), Gated(6)]
    with torch.no_grad():
        for ours, theirs in zip(net.blocks, blocks, strict=True):
            state = dict(ours.state_dict())
            state["mix.weight"] = state["mix.weight"][:, :, 0, 0]
            theirs.load_state_dict(state)
        h = planes(2, 3, 5, 4)
        out = nn.functional.conv2d(h.transpose(0, 1), net.first.weight, net.first.bias, padding=1)
        for block in blocks:
            out = block(out)
        out = torch.cat([nn.functional.elu(out), nn.functional.elu(-out)], 1)
        out = nn.functional.conv2d(out, net.last.weight, net.last.bias, padding=1)
        torch.testing.assert_close(net(h), out.transpose(0, 1), rtol=1e-5, atol=1e-5)


def test_the_gated_nets_of_the_course_have_its_counts_of_weights() -> None:
    """556,312 in eight couplings of one channel under masks, 72,076 in four of noise; a factor for each channel's
    log-scale beside every net, as the course has, and this net has not."""
    of_pixels, of_noise = GatedResNet(1, 2), GatedResNet(2, 2, width=16)
    assert 8 * (sum(p.numel() for p in of_pixels.parameters()) + 1) == 556_312
    assert 4 * (sum(p.numel() for p in of_noise.parameters()) + 1) == 72_076


@EACH
@pytest.mark.parametrize(("context", "border"), [(0, False), (3, True)])
def test_is_nothing_at_first_and_learns_in_every_part(
    make: Callable[..., nn.Module], context: int, border: bool
) -> None:
    net = make(2, 4, width=8, blocks=1, context=context, border=border)
    h, told = planes(2, 5, 4, 6), torch.eye(5, context) if context else None
    assert not net(h, told).any()
    learn(net, h, told)


def learn(net: nn.Module, h: Tensor, told: Tensor | None) -> None:
    """Every number of the net moves within three steps."""
    before = [parameter.detach().clone() for parameter in net.parameters()]
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    wanted = planes(net.out_features, *h.shape[1:], seed=9)
    for _ in range(3):
        optimiser.zero_grad()
        (net(h, told) - wanted).square().mean().backward()
        optimiser.step()
    for start, (name, parameter) in zip(before, net.named_parameters(), strict=True):
        assert (parameter != start).any(), name


@pytest.mark.parametrize("zero_last", [False, True])
def test_rescaled_log_scales_start_at_zero_and_learn(zero_last: bool) -> None:
    """All log-scales are 0 at first, shifts only with ``zero_last``."""
    net = BottleneckResNet(2, 6, width=8, blocks=1, bottleneck=4, zero_last=zero_last, rescale=True)
    h = planes(2, 5, 4, 4)
    raw = net(h)
    assert not raw[:3].any()
    assert raw[3:].any() != zero_last
    learn(net, h, None)


def test_rescaled_log_scales_are_a_tanh_and_b() -> None:
    net = moved(BottleneckResNet(2, 6, width=8, blocks=1, bottleneck=4, rescale=True))
    plain = BottleneckResNet(2, 6, width=8, blocks=1, bottleneck=4)
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if k != "rescale"})
    with torch.no_grad():
        net.rescale.copy_(torch.tensor([0.7, -0.3]))
        h = planes(2, 5, 4, 4)
        out, raw = plain(h), net(h)
        torch.testing.assert_close(raw, torch.cat([0.7 * torch.tanh(out[:3]) - 0.3, out[3:]]))


@EACH
def test_a_border_is_one_more_input(make: Callable[..., nn.Module]) -> None:
    net, plain = moved(make(2, 4, width=8, blocks=1, border=True)), make(3, 4, width=8, blocks=1)
    plain.load_state_dict(net.state_dict())
    h = planes(2, 5, 4, 6)
    torch.testing.assert_close(net(h), plain(torch.cat([h, torch.ones(1, 5, 4, 6)])))


@EACH
def test_a_class_is_looked_at_where_it_is_told(make: Callable[..., nn.Module]) -> None:
    net = moved(make(2, 4, width=8, blocks=2, context=3))
    h = planes(2, 1, 4, 4).expand(-1, 3, -1, -1)
    raw = net(h, torch.eye(3))
    assert all((raw[:, i] - raw[:, j]).abs().max() > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))
    torch.testing.assert_close(net(h, torch.eye(3).roll(1, 0)), raw.roll(1, 1))
    with pytest.raises(ShapeError, match="context: this net takes 3 context features, got none"):
        net(h)


@EACH
def test_a_picture_does_not_depend_on_its_mates(make: Callable[..., nn.Module]) -> None:
    net = moved(make(2, 4, width=8, blocks=1)).double()
    h = planes(2, 7, 4, 6).double()
    raw = net(h)
    for i in range(7):
        torch.testing.assert_close(net(h[:, i : i + 1])[:, 0], raw[:, i])
    spoilt = h.clone()
    spoilt[:, 3] = torch.nan
    others = [i for i in range(7) if i != 3]
    torch.testing.assert_close(net(spoilt)[:, others], raw[:, others])
    assert net(h[:, :0]).shape == (4, 0, 4, 6)


@EACH
def test_precision_follows_the_weights(make: Callable[..., nn.Module]) -> None:
    net = moved(make(2, 4, width=8, blocks=2, context=2))
    wide = copy.deepcopy(net).double()
    h, told = planes(2, 5, 6, 4), planes(5, 2)
    exact = wide(h.double(), told.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(net(h, told).double(), exact, rtol=1e-5, atol=1e-5)
    assert torch.equal(net(h.double(), told.double()), net(h, told))


@EACH
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_stays_finite_far_outside(make: Callable[..., nn.Module], scale: float) -> None:
    net = moved(make(2, 4, width=8, blocks=2), 0.3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(scale)
    h = (planes(2, 6, 4, 4) * torch.logspace(0, 37, 6)[None, :, None, None]).requires_grad_()
    raw = net(h)
    gradients = torch.autograd.grad(raw.square().sum(), [h, *net.parameters()])
    assert raw.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


@EACH
def test_derivatives_are_those_of_differences(make: Callable[..., nn.Module]) -> None:
    net = moved(make(2, 2, width=4, blocks=1, context=2, border=True)).double()
    h, told = planes(2, 2, 3, 2).double().requires_grad_(), planes(2, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(net, (h, told))


@EACH
def test_a_copy_and_what_was_saved_are_the_same_net(make: Callable[..., nn.Module]) -> None:
    net = moved(make(2, 4, width=8, blocks=1, context=2, border=True))
    h, told = planes(2, 3, 4, 4), torch.eye(3, 2)
    fresh = make(2, 4, width=8, blocks=1, context=2, border=True)
    fresh.load_state_dict(load(save(net.state_dict())))
    for other in (fresh, copy.deepcopy(net)):
        assert torch.equal(other(h, told), net(h, told))
    assert not list(net.buffers())


@EACH
def test_bfloat16_is_only_within(make: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is asked for, and there is a device for it; here the processor stands in for one."""
    net = moved(make(2, 4, width=16, blocks=2))
    h = planes(2, 5, 8, 8)
    plain = net(h)
    net.autocast = True
    assert torch.equal(net(h), plain)
    monkeypatch.setattr(nets, "SHORT", ("cpu",))
    short = net(h)
    assert short.dtype == torch.float32
    error = (short - plain).abs().max() / plain.abs().max()
    assert 1e-5 < error < 5e-2
    gradients = torch.autograd.grad(short.square().sum(), list(net.parameters()))
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)
    assert torch.equal(net.double()(h), copy.deepcopy(net)(h))
    assert (net(h).float() - plain).abs().max() < 1e-4


def test_a_masked_net_sees_zeros_and_speaks_of_what_moves() -> None:
    net = moved(GatedResNet(4, 8, width=8, blocks=1, context=2))
    h, told = planes(2, 5, 4, 6), planes(5, 2)
    whole = torch.zeros(4, 5, 4, 6)
    whole[3], whole[0] = h[0], h[1]
    raw = net(whole, told)
    masked = Masked(net, stay=[3, 0], move=[1, 2])
    assert (masked.in_features, masked.out_features, masked.context_features) == (2, 4, 2)
    torch.testing.assert_close(masked(h, told), raw[[1, 2, 5, 6]])
    assert not masked(h[:, :0], told[:0]).numel()
    with pytest.raises(ShapeError, match=r"^stay, move: expected 0..2 once each .*, got \[0, 1, 1\]$"):
        Masked(net, [0, 1], [1])
    with pytest.raises(ShapeError, match=r"^net: expected in_features=3 .*, got 4 -> 8$"):
        Masked(net, [0, 1], [2])


def test_sizes_are_checked() -> None:
    for make, name in product((BottleneckResNet, GatedResNet), ("in_features", "out_features", "width")):
        sizes = {"in_features": 2, "out_features": 2, name: 0}
        with pytest.raises(ShapeError, match=f"^{name}: expected a whole number, 1 or more, got 0$"):
            make(**sizes)
    with pytest.raises(ShapeError, match=r"^blocks: expected a whole number, 0 or more, got -1$"):
        GatedResNet(2, 2, blocks=-1)
    with pytest.raises(ShapeError, match=r"^bottleneck: expected a whole number"):
        BottleneckResNet(2, 2, bottleneck=0)
    with pytest.raises(ShapeError, match="even number with rescale, got 3"):
        BottleneckResNet(2, 3, rescale=True)
