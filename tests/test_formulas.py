"""Log-densities against the formulas of the papers in 50 digits, written here once more with mpmath.

Weights come from seeds and are exact float64 numbers to both. Agreement to 1e-9 (1 + |log p|).
"""

from collections.abc import Callable, Sequence
from typing import Any

import mpmath as mp
import pytest
import torch

from diffeo import bases, nets, scalars
from diffeo import transforms as T
from diffeo.flow import Flow
from diffeo.mixtures import AutoregressiveMixture
from diffeo.transforms import Partition

mp.mp.dps = 50
Vector = list[Any]


def randn(*shape: int, seed: int, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def awake(module: torch.nn.Module, size: float = 0.5) -> Any:
    module.double()
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.add_(randn(*parameter.shape, seed=i, size=size))
    return module


def exact(values: torch.Tensor) -> Any:
    """Nested lists of mpf."""
    values = values.detach().double()
    return mp.mpf(values.item()) if values.ndim == 0 else [exact(v) for v in values]


def affine(x: Any, raw: Vector) -> tuple[Any, Any]:
    log_scale = 2 * mp.tanh(raw[0] / 2)
    return x * mp.exp(log_scale) + raw[1], log_scale


def spline(bins: int, bound: float) -> Callable[[Any, Vector], tuple[Any, Any]]:
    """Equations 4 and 5 of arXiv 1906.04032, bins of at least 1e-3 of the interval, slopes within 1e-3 .. 1e3."""

    def move(x: Any, raw: Vector) -> tuple[Any, Any]:
        if abs(x) >= bound:
            return x, mp.mpf(0)
        xs, ys = knots(raw[:bins]), knots(raw[bins : 2 * bins])
        steep = mp.log(mp.mpf(1e3))
        slopes = [mp.mpf(1), *(mp.exp(steep * mp.tanh(r / steep)) for r in raw[2 * bins :]), mp.mpf(1)]
        k = max(i for i in range(bins) if xs[i] <= x)
        s = (ys[k + 1] - ys[k]) / (xs[k + 1] - xs[k])
        xi = (x - xs[k]) / (xs[k + 1] - xs[k])
        below = s + (slopes[k + 1] + slopes[k] - 2 * s) * xi * (1 - xi)
        y = ys[k] + (ys[k + 1] - ys[k]) * (s * xi**2 + slopes[k] * xi * (1 - xi)) / below
        slope = s**2 * (slopes[k + 1] * xi**2 + 2 * s * xi * (1 - xi) + slopes[k] * (1 - xi) ** 2) / below**2
        return y, mp.log(slope)

    def knots(raw: Vector) -> Vector:
        total = mp.fsum(mp.exp(r) for r in raw)
        sizes = [mp.mpf(1e-3) + (1 - mp.mpf(1e-3) * bins) * mp.exp(r) / total for r in raw]
        return [2 * bound * mp.fsum(sizes[:i]) - bound for i in range(bins + 1)]

    return move


def through(net: Any, h: Vector) -> Vector:
    """A perceptron with silu between its layers, masked where it has masks; inputs within +-5."""
    assert all(abs(v) <= 5 for v in h)
    layers = [*net.hidden, net.last]
    for i, layer in enumerate(layers):
        mask = getattr(layer, "mask", getattr(net, "mask", None) if layer is net.last else None)
        weight = exact(layer.weight if mask is None else layer.weight * mask)
        h = [mp.fdot(row, h) + b for row, b in zip(weight, exact(layer.bias), strict=True)]
        h = [v / (1 + mp.exp(-v)) for v in h] if i + 1 < len(layers) else h
    return h


def coupled(layer: T.Coupling, move: Callable, x: Vector) -> tuple[Vector, Any]:
    raw, z, total = through(layer.net, [x[i] for i in layer.partition.stay]), list(x), mp.mpf(0)
    m = len(layer.partition.move)
    for j, i in enumerate(layer.partition.move):
        z[i], log_slope = move(x[i], raw[j::m])
        total += log_slope
    return z, total


def one_by_one(layer: T.Autoregressive, move: Callable, x: Vector) -> tuple[Vector, Any]:
    raw, d = through(layer.net, x), len(x)
    moved = [move(x[i], raw[i::d]) for i in range(d)]
    return [z for z, _ in moved], mp.fsum(slope for _, slope in moved)


def linear(layer: T.LU, x: Vector) -> tuple[Vector, Any]:
    """W = P L (U + diag s), row i of W being row order[i] of L (U + diag s); |det W| from W itself."""
    d = len(x)
    lower, upper = exact(layer.lower), exact(layer.upper)
    raw, sign = exact(layer.log_diagonal), exact(layer.sign)
    left = mp.matrix(d, d)
    right = mp.matrix(d, d)
    for i in range(d):
        left[i, i], right[i, i] = 1, sign[i] * mp.exp(3 * mp.tanh(raw[i] / 3))
        for j in range(i):
            left[i, j], right[j, i] = lower[i][j], upper[j][i]
    product, order = left * right, layer.order.tolist()
    weight = mp.matrix([[product[order[i], j] for j in range(d)] for i in range(d)])
    z = weight * mp.matrix(x) + mp.matrix(exact(layer.bias))
    return [z[i] for i in range(d)], mp.log(abs(mp.det(weight)))


def normal(z: Vector) -> Any:
    return -mp.fdot(z, z) / 2 - len(z) * mp.log(2 * mp.pi) / 2


def gaussians(base: bases.GaussianMixture, z: Vector) -> Any:
    """log sum_k w_k N(z; mu_k, Sigma_k), Sigma_k the inverse of P_k^T P_k."""
    d, heights = len(z), []
    weights = [mp.exp(v) for v in exact(base.logits)]
    for weight, mean, factor in zip(weights, exact(base.means), exact(base.factors()), strict=True):
        covariance = (mp.matrix(factor).T * mp.matrix(factor)) ** -1
        away = mp.matrix([a - b for a, b in zip(z, mean, strict=True)])
        square = (away.T * covariance**-1 * away)[0]
        heights.append(weight / mp.fsum(weights) * mp.exp(-square / 2) / mp.sqrt((2 * mp.pi) ** d * mp.det(covariance)))
    return mp.log(mp.fsum(heights))


def refined(base: AutoregressiveMixture, z: Vector) -> Any:
    """prod_i sum_k w_ki N(z_i; ...), w_ki of the mixture given z_<i, moved by the net."""
    d, k = len(z), base.mixture.components
    raw = through(base.net, z)
    shift, stretch, move = ([[raw[(a * k + j) * d + i] for i in range(d)] for j in range(k)] for a in range(3))
    means, factors, logits = (exact(v) for v in (base.mixture.means, base.mixture.factors(), base.mixture.logits))
    u = [
        [mp.fdot(factors[j][i], [a - b for a, b in zip(z, means[j], strict=True)]) for i in range(d)] for j in range(k)
    ]
    total = mp.mpf(0)
    for i in range(d):
        heights, weights = [], []
        for j in range(k):
            before = mp.exp(logits[j]) * mp.fprod(factors[j][m][m] * mp.exp(-(u[j][m] ** 2) / 2) for m in range(i))
            scale = mp.exp(3 * mp.tanh(stretch[j][i] / 3))
            v = u[j][i] * scale + move[j][i]
            weights.append(before * mp.exp(shift[j][i]))
            heights.append(weights[-1] * factors[j][i][i] * scale * mp.npdf(v))
        total += mp.log(mp.fsum(heights) / mp.fsum(weights))
    return total


def student(base: bases.StudentT, z: Vector) -> Any:
    total = mp.mpf(0)
    for x, df, loc, scale in zip(z, *(exact(v) for v in (base.raw_df, base.loc, base.raw_scale)), strict=True):
        nu, s = 5 * mp.exp(3 * mp.tanh(df / 3)), mp.exp(3 * mp.tanh(scale / 3))
        t = (x - loc) / s
        total += mp.log(mp.gamma((nu + 1) / 2) / mp.gamma(nu / 2) / mp.sqrt(nu * mp.pi) / s)
        total -= (nu + 1) / 2 * mp.log(1 + t**2 / nu)
    return total


def check(density: Any, rows: torch.Tensor, formula: Callable[[Vector], Any]) -> None:
    found = density(rows).detach().tolist()
    for row, got in zip(exact(rows), found, strict=True):
        wanted = formula(row)
        assert abs(got - wanted) < 1e-9 * (1 + abs(wanted))


def net(i: int, o: int) -> nets.MLP:
    return nets.MLP(i, o, (5, 4))


def masked(order: Sequence[int], width: int) -> nets.MaskedMLP:
    return nets.MaskedMLP(order, width, (6, 5))


MOVES = {"affine": (scalars.affine(), affine), "spline": (scalars.spline(6, 4.0), spline(6, 4.0))}


@pytest.mark.parametrize(("scalar", "move"), MOVES.values(), ids=MOVES)
def test_couplings_and_linear_maps(scalar: scalars.Scalar, move: Callable) -> None:
    """Units, a coupling, a linear map, a coupling the other way round, standard normal noise."""
    first = awake(T.Coupling(Partition.halves(3), scalar, net))
    turn = awake(T.LU(3, "orthogonal", torch.Generator().manual_seed(1)), 0.2)
    second = awake(T.Coupling(Partition.halves(3).flip(), scalar, net))
    loc, scale = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([2.0, 0.1, 30.0]).double()
    units = T.Standardize(loc, scale).double()
    flow = Flow(T.Chain(units, first, turn, second), bases.StandardNormal(3).double())

    def formula(x: Vector) -> Any:
        x = [(a - b) / c for a, b, c in zip(x, exact(loc), exact(scale), strict=True)]
        x, a = coupled(first, move, x)
        x, b = linear(turn, x)
        x, c = coupled(second, move, x)
        return normal(x) + a + b + c - mp.log(mp.fprod(exact(scale)))

    check(flow, loc + scale * randn(6, 3, seed=9, size=0.8), formula)


@pytest.mark.parametrize(("scalar", "move"), MOVES.values(), ids=MOVES)
def test_autoregressive_over_student(scalar: scalars.Scalar, move: Callable) -> None:
    layer, base = awake(T.Autoregressive([1, 2, 0], scalar, masked)), awake(bases.StudentT(3))

    def formula(x: Vector) -> Any:
        z, log_det = one_by_one(layer, move, x)
        return student(base, z) + log_det

    check(Flow(layer, base), randn(6, 3, seed=10), formula)


def test_logarithms_bounds_and_tails() -> None:
    """A column each by log, logit and asinh, in a Gaussian mixture."""
    base = awake(bases.GaussianMixture(3, 3))
    flow = Flow(T.Chain(T.Log([0]), T.Logit([1], -2.0, 5.0), T.Asinh([2])).double(), base)

    def formula(x: Vector) -> Any:
        z = [mp.log(x[0]), mp.log((x[1] + 2) / (5 - x[1])), mp.asinh(x[2])]
        slopes = [1 / x[0], 7 / (x[1] + 2) / (5 - x[1]), 1 / mp.sqrt(1 + x[2] ** 2)]
        return gaussians(base, z) + mp.log(mp.fprod(slopes))

    x = randn(6, 3, seed=11)
    check(flow, torch.stack([x[:, 0].exp(), 7 * x[:, 1].sigmoid() - 2, 10 * x[:, 2]], 1), formula)


def test_mixtures() -> None:
    mixture = awake(bases.GaussianMixture(3, 3))
    check(mixture, randn(6, 3, seed=12), lambda z: gaussians(mixture, z))
    base = awake(AutoregressiveMixture(mixture, masked([0, 1, 2], 9)), 0.3)
    check(base, randn(6, 3, seed=13), lambda z: refined(base, z))


def test_actnorm_and_a_permutation() -> None:
    norm = T.ActNorm(3).double()
    batch = randn(20, 3, seed=14) * torch.tensor([1.0, 10.0, 0.1]) + 3
    norm.initialize(batch)
    columns = [[row[i] for row in exact(batch)] for i in range(3)]
    means = [mp.fsum(c) / 20 for c in columns]
    spreads = [mp.sqrt(mp.fsum((v - m) ** 2 for v in c) / 20) for c, m in zip(columns, means, strict=True)]

    def formula(x: Vector) -> Any:
        z = [(a - m) / s for a, m, s in zip(x, means, spreads, strict=True)]
        return student(base, [z[2], z[0], z[1]]) - mp.log(mp.fprod(spreads))

    base = awake(bases.StudentT(3))
    check(Flow(T.Chain(norm, T.Permute([2, 0, 1])), base), batch[:5], formula)
