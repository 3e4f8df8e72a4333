"""Glow's net by products of matrices, against torch's convolutions with the same weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo import nets
from diffeo.convnets import FASTER, ConvNet
from diffeo.errors import ShapeError


def moved(net: ConvNet) -> ConvNet:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator).to(p.dtype))
    return net


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def by_convolutions(net: ConvNet, h: Tensor, told: Tensor | None) -> Tensor:
    """The same by torch.nn.functional.conv2d, pictures first; the border is a channel of ones before zero padding."""
    x = h.transpose(0, 1)
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    given = 0.0 if told is None or net.given is None else (told @ net.given.T)[:, :, None, None]
    grown = (FASTER * net.log_scale).exp()
    if net.width:
        x = F.relu(F.conv2d(x, net.first, net.first_bias, padding=1) + given)
        x = F.relu(F.conv2d(x, net.second, net.second_bias))
        given = 0.0
    y = F.conv_transpose2d(x, net.last.transpose(0, 1), padding=1) + net.last_bias[:, None, None]
    return (y * grown[:, None, None] + given).transpose(0, 1)


@pytest.mark.parametrize("width", [0, 16])
@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 6)])
def test_products_are_convolutions(width: int, context: int, size: tuple[int, int]) -> None:
    """Values and all gradients; the last is a convolution with its kernel turned round, as every place tells others."""
    net = moved(ConvNet(2, 3, width=width, context=context)).double()
    h, told = drawn(2, 4, *size).double().requires_grad_(), drawn(4, 3).double() if context else None
    found, expected = net(h, told), by_convolutions(net, h, told)
    torch.testing.assert_close(found, expected)
    weights = drawn(*found.shape).double()
    given = [h, *net.parameters()]
    pair = [torch.autograd.grad((raw * weights).sum(), given) for raw in (found, expected)]
    for one, other in zip(*pair, strict=True):
        torch.testing.assert_close(one, other)


def test_the_start_is_nothing() -> None:
    for width in (0, 8):
        assert not ConvNet(2, 4, width=width, context=2)(drawn(2, 3, 4, 4), drawn(3, 2)).any()


def test_the_border_is_seen() -> None:
    """Of an even picture, places at the border get other numbers than those within."""
    raw = moved(ConvNet(1, 1, width=8))(torch.zeros(1, 1, 7, 7))[0, 0]
    assert torch.equal(raw[3, 3], raw[3, 2].detach()) or torch.isclose(raw[3, 3], raw[3, 2])
    assert not torch.isclose(raw[0, 3], raw[3, 3])


def test_bfloat16_is_only_within(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is asked for, and there is a device for it; here the processor stands in for one."""
    net = moved(ConvNet(2, 4, width=16, context=3))
    h, told = drawn(2, 5, 8, 8), torch.eye(5, 3)
    plain = net(h, told)
    net.autocast = True
    assert torch.equal(net(h, told), plain)
    monkeypatch.setattr(nets, "SHORT", ("cpu",))
    short = net(h, told)
    assert short.dtype == torch.float32
    assert 1e-5 < (short - plain).abs().max() / plain.abs().max() < 5e-2
    gradients = torch.autograd.grad(short.square().sum(), list(net.parameters()))
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ShapeError, match="context: this net takes 3 context features, got none"):
        ConvNet(2, 4, context=3)(drawn(2, 5, 4, 4))
    with pytest.raises(ShapeError, match="in_features: expected a whole number, 1 or more, got 0"):
        ConvNet(0, 4)
