"""Draws against densities, with both error rates stated.

False alarms by the Dvoretzky-Kiefer-Wolfowitz-Massart inequality: the empirical distribution function of n draws is
nowhere further than sqrt(log(2 / alpha) / 2n) from the true one but with probability alpha. A fault whose distance is
twice that goes unseen with the same probability at most. Seeds are fixed, nothing is tried twice.
"""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from diffeo import bases, nets, scalars
from diffeo import transforms as T
from diffeo.bases import Density
from diffeo.flow import Flow, Mixture
from diffeo.mixtures import AutoregressiveMixture
from diffeo.transforms import Partition

N, ALPHA = 100_000, 1e-6
BAND = math.sqrt(math.log(2 / ALPHA) / (2 * N))  # 0.0085; a distance of 0.017 is missed with probability 1e-6


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def awake(module: torch.nn.Module, size: float = 0.4) -> torch.nn.Module:
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.add_(size * torch.randn(parameter.shape, generator=generator(i)))
    return module.double()


def net(i: int, o: int) -> nets.MLP:
    return nets.MLP(i, o, (8,))


def masked(order: list[int], width: int) -> nets.MaskedMLP:
    return nets.MaskedMLP(order, width, (8,))


def flow(*steps: T.Transform, base: bases.Base | None = None, d: int = 1) -> Flow:
    return Flow(T.Chain(*steps), base or bases.StandardNormal(d))


LINE: dict[str, Callable[[], Density]] = {
    "normal": lambda: bases.StandardNormal(1),
    "student": lambda: bases.StudentT(1),
    "mixture": lambda: bases.GaussianMixture(1, 3, generator=generator()),
    "uniform": lambda: bases.Uniform(-1.0, 3.0),
    "product": lambda: bases.Product(bases.StudentT(1)),
    "refined mixture": lambda: AutoregressiveMixture(
        bases.GaussianMixture(1, 3, generator=generator()), nets.MaskedMLP([0], 9, (8,))
    ),
    "mixture of densities": lambda: Mixture([bases.StandardNormal(1), bases.StudentT(1)]),
    "standardize": lambda: flow(T.Standardize(torch.tensor([3.0]), torch.tensor([0.2]))),
    "log": lambda: flow(T.Log()),
    "logit": lambda: flow(T.Logit(None, -1.0, 4.0)),
    "asinh": lambda: flow(T.Asinh()),
    "lu": lambda: flow(T.LU(1)),
    "actnorm": lambda: flow(T.ActNorm(1)),
    "affine": lambda: flow(T.Coupling(Partition.halves(1), scalars.affine(), net)),
    "spline": lambda: flow(T.Coupling(Partition.halves(1), scalars.spline(), net)),
    "spline over student": lambda: flow(T.Autoregressive([0], scalars.spline(4), masked), base=bases.StudentT(1)),
    "circle": lambda: flow(
        T.Coupling(Partition.halves(1), scalars.spline(4, tails="circular"), net), base=bases.Uniform()
    ),
}


def distances(density: Density, x: Tensor, end: float = math.inf) -> float:
    """The greatest distance between the draws' distribution function [n] and the integral of the density."""
    low, middle, high = torch.quantile(x, torch.tensor([0.25, 0.5, 0.75], dtype=x.dtype))
    points, reach = 40_000, 14.0
    t = -reach + 2 * reach / points * (torch.arange(points, dtype=torch.float64) + 0.5)
    spread = (high - low) / 1.349
    with torch.no_grad():
        at = middle + spread * t.sinh()
        log_prob = density(at[:, None]).where(at.abs() <= end, -math.inf)
    mass = (log_prob.exp() * spread * t.cosh() * 2 * reach / points).cumsum(0)
    edges = middle + spread * (t + reach / points).sinh()
    found = torch.searchsorted(x.sort().values, edges, right=True) / len(x)
    return float((found - mass).abs().max())


@pytest.mark.parametrize("name", LINE)
def test_draws_follow_the_integral_of_the_density(name: str) -> None:
    """One dimension, 100,000 draws, within 0.0085 and 1e-3 for the quadrature; false alarm 1e-6 each."""
    density = awake(LINE[name]())
    x = density.sample(N, generator=generator(1)).detach()[:, 0]
    end = math.pi if name == "circle" else math.inf  # beyond half a turn the same angles are met again
    assert distances(density, x, end) < BAND + 1e-3


def test_draws_of_another_density_are_noticed() -> None:
    """The control: a spread 8 % too large (a distance of 0.019), a shift of 0.05 spreads (0.02)."""
    density = awake(LINE["spline"]())
    x = density.sample(N, generator=generator(1))[:, 0]
    assert distances(density, 1.08 * x) > BAND + 1e-3
    assert distances(density, x + 0.05 * x.std()) > BAND + 1e-3


SEVERAL: dict[str, Callable[[], Flow]] = {
    "affine couplings": lambda: flow(
        T.Standardize(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.1, 1.0, 10.0])),
        T.Coupling(Partition.halves(3), scalars.affine(), net),
        T.LU(3, "orthogonal", generator()),
        T.Coupling(Partition.halves(3).flip(), scalars.affine(), net),
        d=3,
    ),
    "splines over a mixture": lambda: flow(
        T.Autoregressive([2, 0, 1], scalars.spline(4), masked),
        T.Permute([1, 2, 0]),
        T.Coupling(Partition.halves(3), scalars.spline(4), net),
        base=bases.GaussianMixture(3, 3, generator=generator()),
    ),
    "a refined mixture": lambda: flow(
        T.LU(3),
        base=AutoregressiveMixture(bases.GaussianMixture(3, 2, generator=generator()), masked([0, 1, 2], 6)),
    ),
}


def wrong(w: np.ndarray, alpha: float = 1e-4) -> bool:
    """Whether any coordinate [n, d] fails as a standard normal: mean, variance and distribution function, alpha/3d
    each, so that all pass with probability 1 - alpha at least."""
    n, share = len(w), alpha / 3 / w.shape[1]
    band = math.sqrt(math.log(2 / share) / (2 * n))
    mean = np.abs(w.mean(0)) * math.sqrt(n) > scipy.stats.norm.isf(share / 2)
    low, high = scipy.stats.chi2.ppf([share / 2, 1 - share / 2], n - 1)
    total = w.var(0) * n
    ranks = np.arange(n + 1)[:, None] / n
    level = scipy.stats.norm.cdf(np.sort(w, 0))
    apart = np.maximum(np.abs(level - ranks[1:]), np.abs(level - ranks[:-1])).max(0)
    return bool(np.any(mean | (total < low) | (total > high) | (apart > band)))


def latents(made: Flow, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        return made.base.to_normal(made.to_latent(x)).double().numpy()


@pytest.mark.parametrize("build", SEVERAL.values(), ids=SEVERAL)
def test_latents_are_standard_normal(build: Callable[[], Flow]) -> None:
    """3,000 draws sent back to noise, alpha 1e-4; and those of a flow whose weights differ are not."""
    made = awake(build())
    x = made.sample(3000, generator=generator(2))
    assert not wrong(latents(made, x))
    other = copy.deepcopy(made)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.7)
    assert wrong(latents(other, x))


def test_what_the_test_of_latents_notices() -> None:
    """Its controls, 200 times each: a spread 10 % too small or too large and a mean off by 0.13 are noticed at least
    198 times, and what is right is refused in 1e-4 of cases (200 times: a false alarm of 2 % in this test, once, for
    the seed is fixed)."""
    rng = np.random.default_rng(0)
    found = {"right": 0, "narrow": 0, "wide": 0, "moved": 0}
    for _ in range(200):
        w = rng.normal(size=(3000, 2))
        for name, v in {"right": w, "narrow": 0.9 * w, "wide": 1.1 * w, "moved": w + np.array([0.13, 0])}.items():
            found[name] += wrong(v)
    assert found["right"] == 0
    assert min(found["narrow"], found["wide"], found["moved"]) >= 198
