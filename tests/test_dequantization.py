"""Learned noise: it is a density on the unit cube, the one that it says it is, and uniform at first."""

import copy
import math
from collections.abc import Iterator
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from diffeo.bases import StandardNormal
from diffeo.dequantization import VariationalNoise
from diffeo.errors import ShapeError
from diffeo.flow import Flow
from diffeo.pictures.plan import PicturePlan
from diffeo.pictures.uva import uva
from diffeo.quantized import Quantized
from diffeo.transforms import Chain, Logit

Module = TypeVar("Module", bound=nn.Module)


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    """Initial weights are those of one seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def moved(noise: Module, far: float = 0.3, scale: float = 1.0, seed: int = 3) -> Module:
    """With weights away from their start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in noise.parameters():
            parameter.add_(far * torch.randn(parameter.shape, generator=generator)).mul_(scale)
    return noise


def integers(n: int, *event: int, seed: int = 5, grays: int = 256) -> Tensor:
    return torch.randint(0, grays, (n, *event), generator=torch.Generator().manual_seed(seed)).float()


def normal(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_is_uniform_at_first(steps: int) -> None:
    """log q is 0 exactly, and u is Phi(e); even without its nets having been told anything."""
    noise = VariationalNoise((3, 4, 6), width=8, steps=steps)
    e, x = normal(50, 3, 4, 6), integers(50, 3, 4, 6)
    u, log_q = noise.from_noise(e, x)
    assert not log_q.any()
    torch.testing.assert_close(u, torch.distributions.Normal(0.0, 1.0).cdf(e))


def test_the_density_is_that_of_autograds_jacobian() -> None:
    """log q(u) = log N(e) - log|det du/de|, the matrix of all derivatives in full."""
    noise = moved(VariationalNoise((1, 2, 4), width=6, steps=3, context=2), 0.1).double()
    e, x, told = normal(4, 1, 2, 4).double(), integers(4, 1, 2, 4).double(), normal(4, 2).double()
    _, log_q = noise.from_noise(e, x, told)
    for i in range(4):
        picture = slice(i, i + 1)

        def one(row: Tensor, at: slice = picture) -> Tensor:
            return noise.from_noise(row.view(1, 1, 2, 4), x[at], told[at])[0].flatten()

        jacobian = torch.autograd.functional.jacobian(one, e[i].flatten())
        exact = torch.distributions.Normal(0.0, 1.0).log_prob(e[i]).sum() - torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(log_q[i], exact, rtol=1e-9, atol=1e-9)


def test_the_density_integrates_to_one() -> None:
    """The mean of 1/q over draws from q is the volume of the cube; false alarm 1 in 16,000 by its standard error."""
    noise = moved(VariationalNoise((1, 2, 2), width=6), 0.02)
    n = 40_000
    with torch.no_grad():
        x = integers(1, 1, 2, 2).expand(n, -1, -1, -1)
        u, log_q = noise.draw(x, generator=torch.Generator().manual_seed(11))
    inverse = (-log_q).exp()
    assert log_q.std() > 0.1  # far enough from uniform to be a test
    assert (inverse.mean() - 1).abs() < 4 * inverse.std() / math.sqrt(n)
    assert (u.flatten(1).mean(0) - 0.5).abs().max() > 0.01


def test_the_bound_is_the_tightest_for_the_density_of_the_cell() -> None:
    """Learned with p(u) = 2 u in one corner: E_q[log p - log q] grows from that of uniform noise, log 2 - 1, to 0."""
    noise = VariationalNoise((1, 2, 2), width=8, steps=2)
    x = integers(1, 1, 2, 2).expand(256, -1, -1, -1)
    optimiser = torch.optim.Adam(noise.parameters(), lr=1e-2)

    def bound(generator: torch.Generator) -> Tensor:
        u, log_q = noise.draw(x, generator=generator)
        return (2 * u[:, 0, 1, 1]).log() - log_q

    generator = torch.Generator().manual_seed(1)
    assert abs(bound(generator).mean().item() - (math.log(2) - 1)) < 4 / math.sqrt(256)
    for _ in range(150):
        optimiser.zero_grad()
        loss = -bound(generator).mean()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        found = torch.stack([bound(generator) for _ in range(20)])
    assert -0.06 < found.mean() < 4 * found.std() / math.sqrt(found.numel())


def test_probabilities_of_all_pictures_add_up_to_one() -> None:
    """All 16 of 2x2 pixels of two grays, by means of p/q over the noise; false alarm 1 in 16,000 by its standard error.
    By one draw each the bound is below that."""
    plan = PicturePlan(recipe="uva-multiscale", event=(1, 2, 2), levels=1, steps=2, width=8)
    flow = moved(uva(plan), 0.05)
    noise = moved(VariationalNoise((1, 2, 2), width=6, grays=2), 0.02)
    density = Quantized(Flow(Chain(Logit(), flow), StandardNormal(4), event_shape=(1, 2, 2)), 2, noise)
    every = torch.cartesian_prod(*[torch.arange(2.0)] * 4).view(16, 1, 2, 2)
    with torch.no_grad():
        bounds = density.objective(every.repeat(3000, 1, 1, 1)).view(3000, 16).double()
        fixed = density.log_prob(every, points=50)
    probabilities = bounds.exp().mean(0)
    error = float((bounds.exp().var(0) / len(bounds)).sum().sqrt())
    assert error < 0.01
    assert abs(float(probabilities.sum()) - 1) < 4 * error
    assert abs(float(fixed.exp().sum()) - 1) < 4 * error * math.sqrt(3000 / 50)
    assert (bounds.mean(0) < probabilities.log()).all()


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize(("grays", "dtype"), [(256, torch.float32), (256, torch.float64), (2, torch.float32)])
def test_noise_never_leaves_its_cell(scale: float, grays: int, dtype: torch.dtype) -> None:
    noise = moved(VariationalNoise((3, 4, 4), width=8, grays=grays), 0.3, scale).to(dtype)
    k = integers(60, 3, 4, 4, grays=grays).to(dtype)
    e = normal(60, 3, 4, 4).to(dtype)
    e[:3] *= torch.tensor([8.0, 40.0, 1e3]).view(3, 1, 1, 1)
    u, log_q = noise.from_noise(e, k)
    assert u.dtype == log_q.dtype == dtype
    assert ((u > 0) & (u < 1)).all()
    assert ((k + u).float().floor() == k).all()
    assert log_q.isfinite().all()
    gradients = torch.autograd.grad(log_q.sum() + u.sum(), list(noise.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_noise_looks_at_its_picture_and_class() -> None:
    noise = moved(VariationalNoise((1, 4, 4), width=8, context=2))
    e, x, told = normal(1, 1, 4, 4), integers(2, 1, 4, 4), torch.eye(2)
    u, log_q = noise.from_noise(e, x[:1], told[:1])
    for other_x, other_told in ((x[1:], told[:1]), (x[:1], told[1:])):
        other, other_log_q = noise.from_noise(e, other_x, other_told)
        assert (other - u).abs().max() > 1e-3
        assert (other_log_q - log_q).abs().max() > 1e-3
    with pytest.raises(ShapeError, match="context"):
        noise.from_noise(e, x[:1])


def test_every_number_moves_and_learns() -> None:
    noise = VariationalNoise((1, 4, 4), width=8, context=2)
    before = {name: parameter.detach().clone() for name, parameter in noise.named_parameters()}
    optimiser = torch.optim.SGD(noise.parameters(), lr=1.0)
    e, x, told = normal(8, 1, 4, 4), integers(8, 1, 4, 4), torch.eye(2).repeat(4, 1)
    for _ in range(3):
        u, log_q = noise(e, x, told)
        optimiser.zero_grad()
        (log_q.mean() + (u - x / 256).square().sum(1).mean()).backward()
        optimiser.step()
    assert all((parameter != before[name]).any() for name, parameter in noise.named_parameters())
    assert (noise(e, x, told)[0] != torch.special.ndtr(e)).all()


def test_draws_are_those_of_their_generator() -> None:
    noise = moved(VariationalNoise((1, 4, 4), width=8))
    x = integers(4, 1, 4, 4)
    u, log_q = noise.draw(x, generator=torch.Generator().manual_seed(1))
    again, log_q_again = copy.deepcopy(noise).draw(x, generator=torch.Generator().manual_seed(1))
    assert torch.equal(u, again)
    assert torch.equal(log_q, log_q_again)
    assert noise.draw(x[:0])[0].shape == (0, 1, 4, 4)
    alone = noise.from_noise(normal(4, 1, 4, 4)[1:2], x[1:2])
    torch.testing.assert_close(alone[0], noise.from_noise(normal(4, 1, 4, 4), x)[0][1:2])


def test_sizes_are_checked() -> None:
    for event, said in (((1, 3, 4), "even height and width"), ((1, 0, 4), "^H: "), ((4, 4), "^event: expected")):
        with pytest.raises(ShapeError, match=said):
            VariationalNoise(event)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"^grays: expected a whole number, 2 to 65536, got 65537$"):
        VariationalNoise((1, 2, 2), grays=65537)
    with pytest.raises(ShapeError, match=r"^eps: expected pictures of shape \[2, 1, 4, 4\], got \[2, 1, 4, 2\]$"):
        VariationalNoise((1, 4, 4)).from_noise(normal(2, 1, 4, 2), integers(2, 1, 4, 4))
