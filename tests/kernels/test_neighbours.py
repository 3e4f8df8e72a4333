"""Convolutions as products of matrices: against PyTorch's, with all gradients."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo.kernels.neighbours import gathered, neighbours

SHAPES = pytest.mark.parametrize("shape", [(3, 2, 5, 4), (2, 3, 1, 6), (2, 3, 6, 1), (1, 1, 1, 1), (2, 0, 4, 4)])


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def by_neighbours(h: Tensor, weight: Tensor) -> Tensor:
    spread = neighbours(h).flatten(0, 1).flatten(1)
    return (weight.permute(0, 2, 3, 1).flatten(1) @ spread).view(len(weight), *h.shape[1:])


def by_gathering(h: Tensor, weight: Tensor) -> Tensor:
    told = weight.flip(2, 3).permute(2, 3, 0, 1).flatten(0, 2) @ h.flatten(1)
    return gathered(told.view(9, len(weight), *h.shape[1:]))


@SHAPES
@pytest.mark.parametrize("product", [by_neighbours, by_gathering])
def test_a_product_is_a_convolution(product: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    h, weight = numbers(*shape), numbers(4, shape[0], 3, 3, seed=1)
    got, expected = product(h, weight), F.conv2d(h.transpose(0, 1), weight, padding=1).transpose(0, 1)
    torch.testing.assert_close(got, expected)
    slopes = [torch.autograd.grad(v.sin().sum(), (h, weight), create_graph=True) for v in (got, expected)]
    torch.testing.assert_close(*slopes)
    seconds = [
        torch.autograd.grad(sum(g.pow(3).sum() for g in gs), (h, weight), materialize_grads=True) for gs in slopes
    ]
    torch.testing.assert_close(*seconds)


@SHAPES
def test_one_is_the_adjoint_of_the_other(shape: tuple[int, ...]) -> None:
    h, y = numbers(*shape).detach(), numbers(9, *shape, seed=1).detach()
    torch.testing.assert_close((neighbours(h) * y).sum(), (h * gathered(y)).sum())


@SHAPES
def test_step_by_step_the_numbers_are_the_same(shape: tuple[int, ...]) -> None:
    """As a program that is traced or mapped sees them."""
    h, y = numbers(*shape).detach(), numbers(9, *shape, seed=1).detach()
    torch.testing.assert_close(torch.func.vmap(neighbours)(h[None])[0], neighbours(h))
    torch.testing.assert_close(torch.func.vmap(gathered)(y[None])[0], gathered(y))
