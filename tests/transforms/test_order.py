"""What may move with what: elementwise maps keep the order, and layers look only where they may."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffeo import scalars
from diffeo import transforms as T
from diffeo.errors import ShapeError
from diffeo.transforms import Partition
from tests.scalars.cases import CASES as EVERY
from tests.transforms.cases import actnorm, autoregressive, coupling, elementwise

ELEMENTWISE: dict[str, tuple[Callable[[], T.Transform], tuple[float, float]]] = {
    "standardize": (lambda: T.Standardize(torch.tensor([3.0]), torch.tensor([0.5])), (-1e6, 1e6)),
    "log": (T.Log, (1e-30, 1e6)),
    "logit": (lambda: T.Logit(None, -3.0, 7.0), (-3 + 1e-9, 7 - 1e-9)),
    "asinh": (T.Asinh, (-1e6, 1e6)),
    "actnorm": (lambda: actnorm(1), (-1e6, 1e6)),
}


@pytest.mark.parametrize(("build", "ends"), ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_the_order_is_kept(build: Callable[[], T.Transform], ends: tuple[float, float]) -> None:
    """Strictly in float64, among numbers a millionth apart, about zero and over the whole range; both ways."""
    transform = build().double()
    low, high = ends
    middle = (max(low, -1.0) + min(high, 1.0)) / 2
    near = middle + 1e-6 * torch.arange(-2000, 2000, dtype=torch.float64)
    x = torch.cat([torch.linspace(low, high, 4001, dtype=torch.float64), near[(near > low) & (near < high)]])
    x = x.unique().unsqueeze(1)
    z = transform(x)[0]
    assert (z.diff(dim=0) > 0).all()
    back = transform.inverse(z)[0]
    assert (back.diff(dim=0) > 0).all()


def jacobian(transform: T.Transform, context: int = 0, inverse: bool = False) -> Tensor:
    """[d, d] of one row: of which coordinate each outcome can tell; steps and nets awake."""
    transform = transform.double()
    with torch.no_grad():
        for i, parameter in enumerate(transform.parameters()):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    if isinstance(transform, T.Elementwise):
        d = transform.raw.shape[1]
    else:
        d = len(transform.order) if isinstance(transform, T.Autoregressive) else len(sum(transform.partition, ()))
    c = torch.ones(1, context, dtype=torch.float64) if context else None
    step = transform.inverse if inverse else transform
    x = torch.linspace(-1, 1, d, dtype=torch.float64)
    return torch.autograd.functional.jacobian(lambda x: step(x[None], c)[0][0], x)


SCALARS = {"affine": scalars.affine(), "spline": scalars.spline(4), "circular": scalars.spline(3, tails="circular")}


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("scalar", SCALARS.values(), ids=SCALARS)
@pytest.mark.parametrize("order", [[0], [1, 0], [2, 0, 1], [4, 2, 0, 1, 3]], ids=str)
@pytest.mark.parametrize("context", [0, 2])
def test_autoregressive_layers_look_only_back(
    order: list[int], scalar: scalars.Scalar, inverse: bool, context: int
) -> None:
    """Forward: z_i depends on x_i and on every x_j before it; backward, x_i on z_i and every z_j before it."""
    found = jacobian(autoregressive(order, scalar, context), context, inverse)
    expected = torch.tensor([[a >= b for b in order] for a in order])
    assert torch.equal(found != 0, expected)


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("scalar", SCALARS.values(), ids=SCALARS)
@pytest.mark.parametrize(
    "partition",
    [Partition.halves(1), Partition.halves(5), Partition.alternating(4), Partition.alternating(4).flip()],
    ids=lambda partition: f"{partition.stay}",
)
def test_what_stays_tells_what_moves(partition: Partition, scalar: scalars.Scalar, inverse: bool) -> None:
    """What stays does so to the last bit, and every coordinate that moves hears of every one that stays, only."""
    found = jacobian(coupling(partition, scalar), inverse=inverse)
    expected = torch.eye(len(found), dtype=torch.bool)
    for i in partition.move:
        expected[i, list(partition.stay)] = True
    assert torch.equal(found != 0, expected)
    assert torch.equal(found[list(partition.stay)], torch.eye(len(found), dtype=torch.float64)[list(partition.stay)])


MOVING = [case.scalar for case in EVERY if case.bound != 1.0]  # a spline of one bin is the identity
STRUCTURES: dict[str, tuple[Callable[[scalars.Scalar], T.Transform], list[list[int]]]] = {
    "diagonal": (lambda scalar: elementwise(3, scalar), [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    "triangular": (lambda scalar: autoregressive([0, 1, 2], scalar), [[1, 0, 0], [1, 1, 0], [1, 1, 1]]),
    "block": (lambda scalar: coupling(Partition.halves(3), scalar), [[1, 0, 0], [1, 1, 0], [1, 0, 1]]),
    "one": (lambda scalar: coupling(Partition.one(1, 3), scalar), [[1, 0, 0], [1, 1, 1], [0, 0, 1]]),
}


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("scalar", MOVING, ids=[scalar.name for scalar in MOVING])
def test_three_structures(structure: str, scalar: scalars.Scalar, inverse: bool) -> None:
    """Every scalar in a layer of each kind: dz/dx is not zero exactly where it may be so."""
    build, expected = STRUCTURES[structure]
    assert torch.equal(jacobian(build(scalar), inverse=inverse) != 0, torch.tensor(expected, dtype=torch.bool))


def test_one_moves() -> None:
    assert Partition.one(0, 1) == ((), (0,))
    assert Partition.one(2, 4) == ((0, 1, 3), (2,))
    for i, d in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(ShapeError, match="expected"):
            Partition.one(i, d)


def test_an_angle_may_be_given_in_any_turn() -> None:
    """The same z, to rounding, for x a whole turn on."""
    layer = coupling(Partition.halves(1), scalars.spline(4, tails="circular")).double()
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    torch.testing.assert_close(layer(x + 2 * math.pi)[0], layer(x)[0], rtol=0, atol=1e-12)
