"""A stack of couplings is the chain of them, computed as one."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from diffeo import bases, nets, scalars
from diffeo.errors import ShapeError
from diffeo.flow import Flow
from diffeo.kernels import library
from diffeo.transforms import LU, Chain, Coupling, Inverse, Partition, Stacked, Transform, chained
from diffeo.transforms.stacked import _Stack


@pytest.fixture(
    params=[pytest.param(True, marks=pytest.mark.skipif(library.LIBRARY is None, reason="no kernels here")), False],
    ids=["C", "PyTorch"],
    autouse=True,
)
def by_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to compute a stack."""
    if not request.param:
        monkeypatch.setattr(library, "LIBRARY", None)


MLP = partial(nets.MLP, hidden=(8, 8), activation="relu")


def halves(d: int, count: int = 4) -> list[Partition]:
    return [Partition.halves(d) if i % 2 else Partition.halves(d).flip() for i in range(count)]


def layers(d: int, kind: str, count: int = 4) -> list[Transform]:
    tanh, exp = scalars.affine(1.5), scalars.affine(3.0, scale="exp")
    made: dict[str, Callable[[Partition], Transform]] = {
        "tanh": lambda half: Coupling(half, tanh, MLP),
        "exp": lambda half: Coupling(half, exp, MLP),
        "inverse": lambda half: Inverse(Coupling(half, tanh, MLP)),
        "pair": lambda half: Coupling(half, exp, nets.ScaleAndShift(*half, (8, 8))),
        "pair inverse": lambda half: Inverse(Coupling(half, exp, nets.ScaleAndShift(*half, (8, 8)))),
        "no hidden": lambda half: Coupling(half, tanh, partial(MLP, hidden=())),
        "mixed": lambda half: turned(half.stay[0] > 0, Coupling(half, tanh, MLP)),
    }
    return [made[kind](half) for half in halves(d, count)]


def turned(wanted: bool, layer: Transform) -> Transform:
    return Inverse(layer) if wanted else layer


KINDS = ["tanh", "exp", "inverse", "pair", "pair inverse", "no hidden", "mixed"]


def both(d: int, kind: str) -> tuple[Stacked, Chain]:
    """A stack and a chain with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        stack, chain = chained(*layers(d, kind)).double(), Chain(*layers(d, kind)).double()
        with torch.no_grad():
            for parameter in stack.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape))
    assert isinstance(stack, Stacked)
    chain.load_state_dict(stack.state_dict())
    return stack, chain


def rows(n: int, d: int, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("scale", [1.0, 6.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_values_and_gradients_are_those_of_the_chain(d: int, kind: str, scale: float, direction: str) -> None:
    """Near and far, where inputs of nets and log-scales are clipped."""
    weights = torch.randn(9, d + 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = []
    for transform in both(d, kind):
        x = rows(9, d, scale).requires_grad_()
        z, log_det = getattr(transform, direction)(x)
        assert ("_Stack" in str(z.grad_fn)) == isinstance(transform, Stacked)
        loss = (weights[:, 1:] * z).sum() + weights[:, 0] @ log_det
        found.append((z, log_det, *torch.autograd.grad(loss, [x, *transform.parameters()])))
        with torch.no_grad():
            torch.testing.assert_close(getattr(transform, direction)(x), (z, log_det), rtol=0, atol=0)
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_higher_derivatives(kind: str) -> None:
    """By x and by weights, through the gradient that was written out."""
    stack, _ = both(2, kind)
    x = rows(3, 2, 1.0).requires_grad_()
    assert torch.autograd.gradcheck(stack, x)
    assert torch.autograd.gradgradcheck(stack, x)
    found = []
    for transform in both(2, kind):
        z, log_det = transform(x)
        (slope,) = torch.autograd.grad(z.sin().sum() + log_det.sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), list(transform.parameters()), allow_unused=True))
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_far_out_and_missing() -> None:
    """1e30, infinity and NaN are to it what they are to the chain, and leave other rows alone."""
    x = rows(6, 2).float()
    x[1, 0], x[2, 1], x[3, 0], x[4] = 1e30, -torch.inf, torch.nan, 3e38
    for kind in KINDS:
        stack, chain = (transform.float() for transform in both(2, kind))
        torch.testing.assert_close(stack(x), chain(x), equal_nan=True, rtol=1e-4, atol=1e-4)
        assert torch.equal(stack(x)[0][[0, 5]], stack(torch.cat([x[:1], x[5:], x[:1], x[:1], x[:1], x[:1]]))[0][:2])


def test_training_goes_the_same_way() -> None:
    flows = [Flow(transform, bases.StandardNormal(2)) for transform in both(2, "pair inverse")]
    losses = []
    for flow in flows:
        adam = torch.optim.Adam(flow.parameters(), 1e-2)
        for _ in range(20):
            loss = -flow.log_prob(rows(64, 2)).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        losses.append(loss.detach())
    torch.testing.assert_close(*losses, rtol=1e-9, atol=1e-9)


def test_weights_that_were_exchanged_are_seen() -> None:
    stack, chain = both(2, "tanh")
    for parameter, other in zip(stack.parameters(), chain.parameters(), strict=True):
        other.data = parameter.data = parameter.data + 0.1
    torch.testing.assert_close(stack(rows(3, 2)), chain(rows(3, 2)))
    for transform in (stack, chain):
        transform.transforms[1].net.last = torch.nn.utils.parametrize.register_parametrization(
            transform.transforms[1].net.last, "weight", torch.nn.Tanh()
        )
    torch.testing.assert_close(stack(rows(3, 2)), chain(rows(3, 2)))


REFUSED: dict[str, Callable[[], list[Transform]]] = {
    "one": lambda: layers(2, "tanh", 1),
    "none": list,
    "two kinds": lambda: [*layers(2, "tanh", 2), *layers(2, "pair", 2)],
    "the same half twice": lambda: [*layers(2, "tanh", 3), *layers(2, "tanh", 1)[:1], *layers(2, "tanh", 1)],
    "silu": lambda: [Coupling(half, scalars.affine(), partial(MLP, activation="silu")) for half in halves(2)],
    "dropout": lambda: [Coupling(half, scalars.affine(), partial(MLP, dropout=0.1)) for half in halves(2)],
    "context": lambda: [Coupling(half, scalars.affine(), partial(MLP, context=1)) for half in halves(2)],
    "spline": lambda: [Coupling(half, scalars.spline(), MLP) for half in halves(2)],
    "sigmoid": lambda: [Coupling(half, scalars.affine(scale="sigmoid"), MLP) for half in halves(2)],
    "linear between": lambda: [*layers(2, "tanh", 2), LU(2), *layers(2, "tanh", 2)],
    "not halves": lambda: [
        Coupling(Partition.alternating(4), scalars.affine(), MLP),
        Coupling(Partition.alternating(4).flip(), scalars.affine(), MLP),
    ],
    "one net twice": lambda: [
        Coupling(half, scalars.affine(), net) for net in [MLP(1, 2)] for half in halves(2)
    ],
    "depths": lambda: [
        Coupling(half, scalars.affine(), partial(MLP, hidden=(8,) * (1 + i))) for i, half in enumerate(halves(2))
    ],
    "nothing stays": lambda: [Coupling(Partition.halves(1), scalars.affine(), MLP)] * 2,
}  # fmt: skip


@pytest.mark.parametrize("build", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_stacked_is_a_chain(build: Callable[[], list[Transform]]) -> None:
    assert type(chained(*build())) is Chain
    with pytest.raises(
        ShapeError, match="transforms: expected affine couplings, two or more, of halves that take turns"
    ):
        Stacked(*build())


def test_no_gradient_is_kept_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    stack, _ = both(2, "tanh")
    monkeypatch.setattr(_Stack, "apply", None)
    with torch.no_grad():
        z, log_det = stack(rows(3, 2))
        assert not z.requires_grad
        assert not log_det.requires_grad
