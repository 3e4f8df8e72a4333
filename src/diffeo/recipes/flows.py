"""One function an architecture: a plan, d numbers in unit spread and so many numbers of context -> their flow.

Every flow starts as its base, or close to it, but where a function says otherwise.
"""

from collections.abc import Iterable
from functools import partial

import torch

from diffeo.bases import GaussianMixture, StandardNormal
from diffeo.flow import Flow
from diffeo.mixtures import AutoregressiveMixture, Ensemble
from diffeo.nets import MLP, MaskedMLP, ScaleAndShift
from diffeo.recipes.plan import Plan, Recipe
from diffeo.scalars import Scalar, additive, affine, mixture_cdf, sigmoidal, spline
from diffeo.transforms import (
    LU,
    Autoregressive,
    Chain,
    Continuous,
    Coupling,
    Elementwise,
    Field,
    Inverse,
    Orthogonal,
    Partition,
    Permute,
    Planar,
    Radial,
    Residual,
    Sylvester,
    Transform,
    chained,
)

__all__ = ["RECIPES"]

LIPSCHITZ, LIPSCHITZ_MATCHED = 6.0, 20.0  # of the field of a continuous flow, by how it is learned


def auto(plan: Plan, d: int, context: int) -> Flow:
    """Gaussian mixtures fitted by EM whose conditionals then learn, averaged; at the start they are the mixtures. With
    layers: affine autoregressive ones (arXiv 1705.07057) before one such mixture, which nothing is fitted to before."""
    layers: list[Transform] = []
    for i in range(plan.layers):
        order = list(range(d))[:: -1 if i % 2 else 1]
        net = MaskedMLP(order, 2, plan.hidden, context, activation="relu", dropout=plan.dropout)
        layers.append(Autoregressive(order, affine(), net))

    def member() -> AutoregressiveMixture:
        mixture = GaussianMixture(d, plan.components)
        net = MaskedMLP(range(d), 3 * plan.components, plan.hidden, context, dropout=plan.dropout)
        return AutoregressiveMixture(mixture, net)

    members = [member() for _ in range(plan.members)]
    if plan.simple:
        members.append(AutoregressiveMixture(GaussianMixture(d, plan.simple), None))
    base = Ensemble(members) if len(members) > 1 else members[0]
    return Flow(Chain(*layers), base)


def planar(plan: Plan, d: int, context: int) -> Flow:
    """Planar layers (arXiv 1505.05770): each bends space along one direction."""
    return _stacked(plan, d, (Planar(d, context=context) for _ in range(plan.layers)))


def radial(plan: Plan, d: int, context: int) -> Flow:
    """Radial layers (arXiv 1505.05770): each draws space towards one centre or pushes it away."""
    return _stacked(plan, d, (Radial(d, context=context) for _ in range(plan.layers)))


def sylvester(plan: Plan, d: int, context: int) -> Flow:
    """Sylvester layers (arXiv 1803.05649): planar ones of many directions at once."""
    return _stacked(plan, d, (Sylvester(d, context=context) for _ in range(plan.layers)))


def nice(plan: Plan, d: int, context: int) -> Flow:
    """Additive coupling, and one scale for each number at the end (arXiv 1410.8516)."""
    layers = [_coupling(plan, d, context, additive(), i) for i in range(plan.layers)]
    return _stacked(plan, d, [*layers, Elementwise(d, affine())])


def realnvp(plan: Plan, d: int, context: int) -> Flow:
    """Affine coupling with alternating partitions (arXiv 1605.08803), and linear maps between the layers."""
    return _coupled(plan, d, context, affine())


def permutation_flow(plan: Plan, d: int, context: int) -> Flow:
    """Affine coupling whose halves are dealt anew from layer to layer by a fixed random permutation, never such that
    the same numbers would move twice running."""
    half, layers = Partition.halves(d), list[Transform]()
    for i in range(plan.layers):
        layers += [_dealt(d, i)] if i and d > 1 else []
        layers.append(Coupling(half, affine(), partial(MLP, hidden=plan.hidden, context=context, dropout=plan.dropout)))
    return _stacked(plan, d, layers)


def maf(plan: Plan, d: int, context: int) -> Flow:
    """Masked autoregressive flow (arXiv 1705.07057), the order turned round from layer to layer."""
    return _stacked(plan, d, _autoregressive(plan, d, context, affine()))


def iaf(plan: Plan, d: int, context: int) -> Flow:
    """Inverse autoregressive flow (arXiv 1606.04934): drawn in one pass, scored number by number."""
    return _stacked(plan, d, (Inverse(layer) for layer in _autoregressive(plan, d, context, affine())))


def spline_coupling(plan: Plan, d: int, context: int) -> Flow:
    """Neural spline flow, coupling (arXiv 1906.04032), with linear maps between the layers."""
    return _coupled(plan, d, context, spline(plan.bins))


def spline_autoregressive(plan: Plan, d: int, context: int) -> Flow:
    """Neural spline flow, autoregressive (arXiv 1906.04032), the order turned round from layer to layer."""
    return _stacked(plan, d, _autoregressive(plan, d, context, spline(plan.bins)))


def cdf(plan: Plan, d: int, context: int) -> Flow:
    """Each number through the distribution function of a Gaussian mixture, given those before it, and back through the
    normal's (as in Flow++, arXiv 1902.00275, but autoregressive): in one dimension z = Phi^-1(F(x))."""
    return _stacked(plan, d, _autoregressive(plan, d, context, mixture_cdf(plan.bins)))


def neural_autoregressive(plan: Plan, d: int, context: int) -> Flow:
    """Each number through a monotone net of sigmoids, given those before it (arXiv 1804.00779)."""
    return _stacked(plan, d, _autoregressive(plan, d, context, sigmoidal(plan.bins)))


def gaussianization(plan: Plan, d: int, context: int) -> Flow:
    """Distribution functions of each number by itself, and rotations between them (arXiv 2003.01941). Starts from the
    quantiles of the data, layer by layer."""
    layers: list[Transform] = []
    for i in range(plan.layers):
        generator = torch.Generator().manual_seed(i)
        layers += [Orthogonal(d, generator=generator)] if i and d > 1 else []
        net = partial(MLP, hidden=plan.hidden, context=context, dropout=plan.dropout) if context else None
        layers.append(Elementwise(d, mixture_cdf(plan.bins), net))
    return _stacked(plan, d, layers)


def residual(plan: Plan, d: int, context: int) -> Flow:
    """Invertible residual layers (arXiv 1811.00995, 1906.02735)."""
    return _stacked(plan, d, (Residual(d, plan.hidden, context) for _ in range(plan.layers)))


def ffjord(plan: Plan, d: int, context: int) -> Flow:
    """A continuous flow, learned by likelihood (FFJORD, arXiv 1810.01367)."""
    return _stacked(plan, d, (Continuous(Field(d, plan.hidden, context, LIPSCHITZ)) for _ in range(plan.layers)))


def flow_matching(plan: Plan, d: int, context: int) -> Flow:
    """A continuous flow, its field learned by flow matching (arXiv 2210.02747) and its log-density as exact."""
    hidden = (*plan.hidden, plan.hidden[-1])
    field = Field(d, hidden, context, LIPSCHITZ_MATCHED)
    return Flow(Continuous(field), StandardNormal(d), learn="matching")


def homework(plan: Plan, d: int, context: int) -> Flow:
    """Affine coupling as in a course: two nets of d-32-32-d with leaky ReLU a layer, exp of the log-scale times a
    learned factor that is 0 at first; 9,752 numbers for four layers in two dimensions. Shifts start at random."""
    layers: list[Transform] = []
    for i in range(plan.layers):
        even, odd = tuple(range(0, d, 2)), tuple(range(1, d, 2))
        partition = Partition(even, odd) if (i % 2 == 0 and odd) else Partition(odd, even)
        net = ScaleAndShift(partition.stay, partition.move, plan.hidden)
        layers.append(Inverse(Coupling(partition, affine(scale="exp"), net)))
    return _stacked(plan, d, reversed(layers))


RECIPES: dict[str, Recipe] = {
    "auto": Recipe(auto, layers=0),
    "planar": Recipe(planar, layers=16, learning_rate=1e-2),
    "radial": Recipe(radial, layers=16, learning_rate=1e-2),
    "sylvester": Recipe(sylvester, layers=8),
    "nice": Recipe(nice),
    "realnvp": Recipe(realnvp),
    "permutation-flow": Recipe(permutation_flow),
    "maf": Recipe(maf),
    "iaf": Recipe(iaf),
    "spline-coupling": Recipe(spline_coupling),
    "spline-autoregressive": Recipe(spline_autoregressive),
    "cdf": Recipe(cdf, layers=2),
    "neural-autoregressive": Recipe(neural_autoregressive, layers=2),
    "gaussianization": Recipe(gaussianization),
    "residual": Recipe(residual, layers=10, learning_rate=1e-2),
    "ffjord": Recipe(ffjord, layers=1, learning_rate=2e-2),
    "flow-matching": Recipe(flow_matching, layers=1, learning_rate=1e-2, epochs=400),
    "homework": Recipe(homework, layers=4, hidden=32, conditional=False),
}


def _stacked(plan: Plan, d: int, layers: Iterable[Transform]) -> Flow:
    base = StandardNormal(d) if plan.components == 1 else GaussianMixture(d, plan.components)
    return Flow(chained(*layers), base)


def _coupling(plan: Plan, d: int, context: int, scalar: Scalar, i: int) -> Coupling:
    partition = Partition.alternating(d).flip() if i % 2 else Partition.alternating(d)
    return Coupling(partition, scalar, lambda a, b: MLP(a, b, plan.hidden, context, dropout=plan.dropout))


def _coupled(plan: Plan, d: int, context: int, scalar: Scalar) -> Flow:
    layers: list[Transform] = []
    for i in range(plan.layers):
        layers += [LU(d)] if i else []
        layers.append(_coupling(plan, d, context, scalar, i))
    return _stacked(plan, d, layers)


def _autoregressive(plan: Plan, d: int, context: int, scalar: Scalar) -> list[Transform]:
    layers: list[Transform] = []
    for i in range(plan.layers):
        order = list(range(d))[:: -1 if i % 2 else 1]
        net = MaskedMLP(order, scalar.width, plan.hidden, context, dropout=plan.dropout)
        layers.append(Autoregressive(order, scalar, net))
    return layers


def _dealt(d: int, seed: int) -> Permute:
    """A random permutation that brings other numbers into the second half."""
    generator, second = torch.Generator().manual_seed(seed), set(range(d // 2, d))
    while True:
        order = torch.randperm(d, generator=generator).tolist()
        if set(order[d // 2 :]) != second:
            return Permute(order)
