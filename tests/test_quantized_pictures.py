"""Densities of grey levels: bounds against integrals, noise that covers its cell and no more, whole numbers back."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from diffeo import nets, scalars
from diffeo.bases import StandardNormal, Uniform
from diffeo.dequantization import VariationalNoise
from diffeo.errors import DataError, ShapeError
from diffeo.flow import Flow
from diffeo.pictures.recipes import build, planned
from diffeo.quantized import Quantized, bits_per_dim, cell_noise
from diffeo.transforms import Chain, Coupling, Logit, Partition


def moved(module: torch.nn.Module, by: float, seed: int = 0) -> None:
    """Every parameter moved at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))


def of_two_pixels(levels: int = 4) -> Quantized:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        coupling = [Coupling(p, scalars.affine(), nets.MLP) for p in (Partition.halves(2), Partition.halves(2).flip())]
    density = Quantized(Flow(Chain(Logit(), *coupling), StandardNormal(2)), levels)
    moved(density, 0.1)
    return density


def small(size: int = 8, **choices: int) -> Quantized:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        density = build(planned("glow-small", (1, size, size), **{"steps": 2, "width": 8, **choices}))
        moved(density, 0.05)
    return density


def test_even_noise_has_eight_bits() -> None:
    even = Quantized(Flow(Chain(), Uniform(0.0, 1.0, 48)))
    x = torch.randint(0, 256, (100, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for points in (1, 7):
        bits = bits_per_dim(even.log_prob(x, points=points), 48)
        torch.testing.assert_close(bits, torch.full((100,), 8.0), atol=1e-3, rtol=0)


def test_probabilities_sum_to_one() -> None:
    density = of_two_pixels()
    every = torch.tensor(list(itertools.product(range(4), repeat=2)))
    with torch.no_grad():
        total = density.double().log_prob(every, points=4000).exp().sum()
    assert abs(float(total) - 1) < 1e-3


def test_learned_noise_is_divided_out() -> None:
    """All 16 pictures of four pixels, black or white, with noise that is not even; nor so narrow that a mean over
    draws says little."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noise = VariationalNoise((1, 2, 2), width=8, grays=2)
    moved(noise, 0.05)
    density = Quantized(Flow(Logit(), StandardNormal((1, 2, 2))), levels=2, noise=noise).double()
    every = torch.tensor(list(itertools.product(range(2), repeat=4))).view(16, 1, 2, 2)
    with torch.no_grad():
        costs = noise.from_noise(torch.randn(16, 1, 2, 2).double(), every.double())[1]
        total = density.log_prob(every, points=3000).exp().sum()
    assert costs.abs().mean() > 0.1
    assert abs(float(total) - 1) < 0.05


def test_bound_lies_below_the_integral_and_grows() -> None:
    """Against the mass of each cell by Gauss and Legendre's rule."""
    density = of_two_pixels().double()
    nodes, weights = np.polynomial.legendre.leggauss(60)
    u = torch.from_numpy(np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2) / 2 + 0.5)
    w = torch.from_numpy(np.outer(weights, weights).reshape(-1) / 4)
    every = torch.tensor(list(itertools.product(range(4), repeat=2))).double()
    with torch.no_grad():
        exact = torch.stack([(density.flow.log_prob((x + u) / 4).exp() * w).sum() / 16 for x in every]).log()
        each = torch.stack([density._at(every, None, partial(cell_noise, every, i)) for i in range(400)])
        few = [torch.logsumexp(each.view(-1, m, 16), 1).sub(math.log(m)).mean(0) for m in (1, 8)]
    assert abs(float(exact.exp().sum()) - 1) < 1e-4
    assert bool((few[0] < exact + 0.01).all())
    assert bool((few[0] < few[1]).all())
    assert bool((few[1] < exact + 0.01).all())


def test_noise_covers_a_level_and_no_more() -> None:
    levels = torch.arange(256.0).repeat(40, 1)
    levels += torch.arange(40.0)[:, None] * 0
    levels[:, 0] = torch.arange(40.0)
    u = cell_noise(levels)
    assert 0 < float(u.min()) < 1e-3
    assert 1 - 1e-3 < float(u.max()) < 1
    assert torch.equal((levels + u).floor(), levels)
    assert torch.equal(((levels + u) / 256 * 256).floor(), levels)


def test_noise_is_even_and_independent() -> None:
    """Kolmogorov and Smirnov's test at 1e-3 for each of 12 looks, Pearson's correlations below 4 standard errors (of
    780: false alarm 5 %)."""
    x = torch.zeros(3000, 40)
    x[:, 7], x[:, 8] = torch.arange(3000.0) % 256, torch.arange(3000.0).div(256).floor()
    for draw in range(2):
        u = cell_noise(x, draw).numpy()
        for column in (0, 1, 7, 8, 39):
            assert scipy.stats.kstest(u[:, column], "uniform").pvalue > 1e-3
        assert scipy.stats.kstest(u[5], "uniform").pvalue > 1e-3
        assert np.abs(np.corrcoef(u.T) - np.eye(40)).max() < 4 / math.sqrt(3000)
    pair = np.corrcoef(cell_noise(x, 0).numpy().T, cell_noise(x, 1).numpy().T)[:40, 40:]
    assert np.abs(pair).max() < 4.5 / math.sqrt(3000)


def test_scores_repeat_and_rows_are_alone() -> None:
    density = small().eval()
    x = torch.randint(0, 256, (9, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.no_grad():
        together = density.log_prob(x, points=3)
        torch.testing.assert_close(density.log_prob(x, points=3), together, rtol=0, atol=0)
        torch.testing.assert_close(torch.cat([density.log_prob(row[None], points=3) for row in x]), together)
        torch.testing.assert_close(density.log_prob(x.long(), points=3), together, rtol=0, atol=0)


@pytest.mark.parametrize("far", [0.0, 0.05])
def test_every_grey_level_comes_back(far: float) -> None:
    density = small()
    moved(density, far, 3)
    every = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8)
    mixed = torch.randint(0, 256, (64, 1, 8, 8), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    for x in (every, mixed):
        assert torch.equal(density.from_latent(density.to_latent(x)), x)


def test_samples_are_grey_levels_whatever_the_noise() -> None:
    density = small()
    x = density.sample(5, generator=torch.Generator().manual_seed(0), temperature=30.0)
    assert x.shape == (5, 1, 8, 8)
    assert x.dtype == torch.uint8
    z = 30 * torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    v = density.flow.from_latent(z)
    assert bool((v < 0).any())
    assert torch.equal(density.from_latent(z).long(), (v * 256).floor().long().clamp(0, 255))
    assert len({float(v) for v in density.sample(4, temperature=0.0).flatten(1).float().std(0)}) == 1


def test_learning_and_scoring_agree() -> None:
    """The mean of the random objective against fixed noise: their difference within 4 standard errors."""
    density = small()
    x = torch.randint(0, 256, (1, 1, 8, 8), generator=torch.Generator().manual_seed(4)).expand(400, -1, -1, -1)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        drawn = density.objective(x)
        places = [partial(cell_noise, x[:1].float(), i) for i in range(400)]
        fixed = torch.stack([density._at(x[:1].float(), None, place) for place in places])
    error = math.sqrt(float(drawn.var() + fixed.var()) / 400)
    assert abs(float(drawn.mean() - fixed.mean())) < 4 * error


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(2, 1, 8, 7), r"x: expected grey levels of shape \[n, 1, 8, 8\], got \[2, 1, 8, 7\]"),
        (torch.full((2, 1, 8, 8), 256), "whole numbers from 0 to 255, got 256 to 256"),
        (torch.full((2, 1, 8, 8), -1), "whole numbers from 0 to 255, got -1 to -1"),
        (torch.full((2, 1, 8, 8), 0.5), "got fractions"),
        (torch.full((2, 1, 8, 8), math.nan), "whole numbers from 0 to 255, got nan"),
        (np.zeros((2, 1, 8, 8)), "expected a torch.Tensor, got ndarray"),
    ],
)
def test_what_is_no_grey_level_is_refused(x: Tensor, words: str) -> None:
    with pytest.raises((DataError, ShapeError), match=words):
        small().log_prob(x)


def test_bad_options_are_refused() -> None:
    flow = Flow(Chain(), StandardNormal(2))
    with pytest.raises(ShapeError, match="levels: expected 256 or fewer, got 257"):
        Quantized(flow, 257)
    with pytest.raises(ShapeError, match="flow: expected a Flow"):
        Quantized(Chain())  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="temperature: expected a number, 0 or more, got -1"):
        Quantized(flow).sample(1, temperature=-1)
    with pytest.raises(ShapeError, match="points"):
        Quantized(flow).log_prob(torch.zeros(1, 2), points=0)


def test_classes_condition_scores_and_samples() -> None:
    density = small(classes=3)
    x = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    with torch.no_grad():
        found = torch.stack([density.log_prob(x, torch.eye(3)[[k, k]]) for k in range(3)])
    assert len(set(found[:, 0].tolist())) == 3
    assert density.sample(4, torch.eye(3)).shape == (4, 3, 1, 8, 8)
    with pytest.raises(ShapeError, match="takes 3 context features, got none"):
        density.log_prob(x)
