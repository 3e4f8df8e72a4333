"""Elementwise layers: what they take from a batch, and what they refuse."""

import math

import pytest
import torch

from diffeo import nets, scalars
from diffeo.bases import StandardNormal
from diffeo.errors import DataError, ShapeError
from diffeo.flow import Flow
from diffeo.transforms import Elementwise


def test_initialize_places_the_mixtures() -> None:
    """One pass over a batch of a table far from normal is worth more than half a nat a coordinate over a Gaussian."""
    generator = torch.Generator().manual_seed(0)
    x = (
        torch.randn(1000, 3, generator=generator) * 0.2
        + torch.tensor([-2.0, 1.0, 2.0]) * torch.randn(1000, 3, generator=generator).sign()
    )
    layer = Elementwise(3, scalars.mixture_cdf(10))
    layer.initialize(x)
    gaussian = -(x.std(0).log() + 0.5 * math.log(2 * math.pi * math.e)).sum()
    assert Flow(layer, StandardNormal(3)).log_prob(x).mean() > gaussian + 1.5


def test_own_parameters_and_the_net_add_up() -> None:
    layer = Elementwise(2, scalars.additive(), lambda i, o: nets.MLP(i, o, hidden=(), context=1))
    with torch.no_grad():
        layer.raw.copy_(torch.tensor([[1.0, 2.0]]))
        layer.net.last.weight.copy_(torch.tensor([[1.0], [-1.0]]))  # type: ignore[union-attr]
    z, log_det = layer(torch.zeros(3, 2), torch.tensor([[0.0], [1.0], [2.0]]))
    assert torch.equal(z, torch.tensor([[1.0, 2.0], [2.0, 1.0], [3.0, 0.0]]))
    assert not log_det.any()


def test_what_initialize_refuses() -> None:
    layer = Elementwise((1, 2, 2), scalars.mixture_cdf(2))
    layer.initialize(torch.randn(5, 1, 2, 2))
    assert bool((layer.raw != 0).any())
    with pytest.raises(ShapeError, match="4 numbers"):
        layer.initialize(torch.randn(5, 3))
    with pytest.raises(DataError, match="one row or more"):
        layer.initialize(torch.randn(0, 4))
    with pytest.raises(DataError, match="finite"):
        layer.initialize(torch.tensor([[0.0, 1.0, math.nan, 2.0]]))
    with pytest.raises(ShapeError, match="takes no start from data"):
        Elementwise(2, scalars.affine()).initialize(torch.randn(5, 2))


def test_what_the_constructor_refuses() -> None:
    with pytest.raises(ShapeError, match="event_shape: expected a whole number"):
        Elementwise(0, scalars.affine())
    with pytest.raises(ShapeError, match="scalar: expected a Scalar"):
        Elementwise(2, 3)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="out_features=4"):
        Elementwise(2, scalars.affine(), nets.MLP(0, 5, context=1))
    with pytest.raises(ShapeError, match="moves events of 2 numbers"):
        Flow(Elementwise(2, scalars.affine()), StandardNormal(3))
