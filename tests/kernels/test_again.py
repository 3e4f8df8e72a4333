"""Gradients that can be differentiated again are the gradients, also where what is given is made of one another."""

from functools import partial

import pytest
import torch
from torch import Tensor

from diffeo import nets, scalars
from diffeo.transforms import Autoregressive, Coupling, Partition, Transform
from diffeo.transforms.stacked import Stacked


def autoregressive(scalar: scalars.Scalar) -> Transform:
    """Its raw parameters are made of the very numbers that they move."""
    return Autoregressive(range(3), scalar, partial(nets.MaskedMLP, hidden=(8,), activation="tanh"))


def stacked() -> Transform:
    half, net = Partition.halves(3), partial(nets.MLP, hidden=(8, 8), activation="relu")
    return Stacked(*(Coupling(part, scalars.affine(), net) for part in (half, half.flip())))


LAYERS = {
    "spline": partial(autoregressive, scalars.spline(4)),
    "circular spline": partial(autoregressive, scalars.spline(4, tails="circular")),
    "affine": partial(autoregressive, scalars.affine()),
    "affine, exp": partial(autoregressive, scalars.affine(scale="exp")),
    "stacked": stacked,
}


@pytest.mark.parametrize("name", LAYERS)
def test_first_gradients_do_not_depend_on_whether_second_ones_are_wanted(name: str) -> None:
    """Twice through the same layer, so that what it moves is made of its own weights too."""
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def slopes(again: bool) -> tuple[Tensor, ...]:
        z, first = layer(x)
        z, second = layer(z)
        value = z.sin().sum() + (first + second).square().sum()
        return torch.autograd.grad(value, [x, *layer.parameters()], create_graph=again)

    for a, b in zip(slopes(False), slopes(True), strict=True):
        torch.testing.assert_close(b.detach(), a, rtol=1e-9, atol=1e-9)
