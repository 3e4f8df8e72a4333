"""Chains that keep less for their gradients: the same gradients, and a word where they would not be."""

import copy
import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from diffeo import nets, scalars
from diffeo import transforms as T
from diffeo.errors import ModelError, ShapeError
from diffeo.transforms import Chain, Partition

MODES = ("checkpoint", "invert")
BOTH = pytest.mark.parametrize("memory", MODES)
WAYS = pytest.mark.parametrize("way", ["forward", "inverse"])


def glow(d: int, depth: int, context: int = 0, dropout: float = 0.0, scalar: scalars.Scalar | None = None) -> Chain:
    """ActNorm, a linear map and a coupling, so many times, each norm initialised from what comes to it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        h, c = torch.randn(200, d), torch.randn(200, context)
        steps: list[T.Transform] = []
        for i in range(depth):
            partition = Partition.halves(d).flip() if i % 2 else Partition.halves(d)
            net = partial(nets.MLP, hidden=(16,), context=context, dropout=dropout)
            step = [T.ActNorm(d), T.LU(d, "orthogonal"), T.Coupling(partition, scalar or scalars.affine(), net)]
            with torch.no_grad():
                for parameter in (parameter for part in step[1:] for parameter in part.parameters()):
                    parameter.add_(0.1 * torch.randn(parameter.shape) / parameter.shape[-1] ** 0.5)
                step[0].initialize(h)
                h = Chain(*step)(h, c if context else None)[0]
            steps += step
        return Chain(*steps)


def slopes(chain: Chain, memory: str, way: str, x: Tensor, context: Tensor | None = None) -> list[Tensor]:
    chain.memory = memory
    x = x.clone().requires_grad_()
    context = None if context is None else context.clone().requires_grad_()
    z, log_det = (chain if way == "forward" else chain.inverse)(x, context)
    given = [x, *([] if context is None else [context]), *chain.parameters()]
    return [z, log_det, *torch.autograd.grad(z.sin().sum() + log_det.square().sum(), given)]


def rows(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@BOTH
@WAYS
@pytest.mark.parametrize(("d", "depth", "context"), [(5, 16, 3), (8, 64, 0)])
def test_gradients_are_those_of_what_is_stored(d: int, depth: int, context: int, memory: str, way: str) -> None:
    """Relative to each tensor's length 1e-4 in float32 and 1e-9 in float64; the outcomes bit for bit."""
    chain, x = glow(d, depth, context, scalar=scalars.spline(5) if context else None), rows(40, d)
    c = rows(40, context, 1) if context else None
    for dtype, allowed in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
        chain, x, c = chain.to(dtype), x.to(dtype), None if c is None else c.to(dtype)
        expected, got = slopes(chain, "store", way, x, c), slopes(chain, memory, way, x, c)
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])
        assert all(e.norm() > 1e-3 for e in expected)
        assert max(((g - e).norm() / e.norm()).item() for g, e in zip(got, expected, strict=True)) < allowed


@BOTH
@WAYS
def test_first_and_second_derivatives(memory: str, way: str) -> None:
    """Against finite differences, by x, context and every weight."""
    chain = glow(3, 2, context=2).double()
    chain.memory = memory
    names, weights = zip(*chain.named_parameters(), strict=True)

    class Way(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.chain = chain

        def forward(self, *given: Tensor) -> Any:
            return getattr(self.chain, way)(*given)

    module = Way()

    def outcome(x: Tensor, context: Tensor, *values: Tensor) -> Any:
        state = {f"chain.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(module, state, (x, context))

    given = [v.detach().clone().requires_grad_() for v in (rows(2, 3).double(), rows(2, 2, 1).double(), *weights)]
    assert torch.autograd.gradcheck(outcome, given, atol=1e-6, fast_mode=True)
    assert torch.autograd.gradgradcheck(outcome, given, atol=1e-5, fast_mode=True)


def test_slopes_of_slopes_where_weights_are_made_of_x() -> None:
    """A weight that depends on x tells of x once, through itself."""
    chain = Chain(T.ActNorm(2), T.Flip(2)).double()
    x = rows(4, 2).double().requires_grad_()
    found = []
    for memory in ("store", *MODES):
        chain.memory = memory
        state = {name: value + x.mean() for name, value in chain.named_parameters()}
        z, log_det = torch.func.functional_call(chain, state, (x,))
        (first,) = torch.autograd.grad((z.pow(3).sum() + log_det.sum()), x, create_graph=True)
        found.append((first, torch.autograd.grad(first.square().sum(), x)[0]))
    for got in found[1:]:
        torch.testing.assert_close(got, found[0])


class Drifting(T.Transform):
    """x + 1, and a way back that is off by so much in one row."""

    def __init__(self, off: float) -> None:
        super().__init__()
        self.off = off

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x + 1, x.new_zeros(len(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = z - 1
        return torch.cat([x[:-1], x[-1:] + self.off]), z.new_zeros(len(z))


@pytest.mark.parametrize(("place", "off"), [(0, 0.01), (2, 0.01), (2, float("nan")), (3, float("inf"))])
def test_a_rebuilt_input_that_differs_is_told(place: int, off: float) -> None:
    steps: list[T.Transform] = [T.ActNorm(3), T.LU(3), T.Flip(3)]
    chain = Chain(*steps[:place], Drifting(off), *steps[place:], memory="invert")
    wanted = rf'memory: step {place} \(Drifting\) gives another input back .* choose memory="checkpoint"'
    with pytest.raises(ModelError, match=wanted):
        chain(rows(5, 3))[0].sum().backward()
    chain.memory = "checkpoint"
    chain(rows(5, 3))[0].sum().backward()


def test_a_step_is_named_by_its_place_backwards_too() -> None:
    class Wrong(Drifting):
        def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return z - 2, z.new_zeros(len(z))

    chain = Chain(T.ActNorm(3), T.Flip(3), Wrong(0.0), T.Flip(3), memory="invert")
    with pytest.raises(ModelError, match=r"step 2 \(Wrong\)"):
        chain.inverse(rows(5, 3))[0].sum().backward()


def test_roundings_are_not_told() -> None:
    chain = Chain(T.ActNorm(3), Drifting(1e-6), memory="invert")
    x = torch.cat([rows(5, 3), torch.tensor([[torch.nan, 0, 0], [torch.inf, 0, 0], [1e15, 0, 0], [1e-40, 0, 0]])])
    chain(x)[1].sum().backward()


def test_dropout_is_repeated_or_refused() -> None:
    chain = glow(4, 3, dropout=0.4).train()
    x, found = rows(30, 4), []
    for memory in ("store", "checkpoint"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            found.append(slopes(chain, memory, "forward", x))
    torch.testing.assert_close(found[1], found[0])
    assert not torch.equal(slopes(chain, "checkpoint", "forward", x)[0], found[0][0])
    with torch.random.fork_rng(devices=[]):
        with pytest.raises(
            ModelError, match=r"step 2 \(Coupling\) draws random numbers, .*checkpoint.*, or \.eval\(\)"
        ):
            slopes(chain, "invert", "forward", x)
        with pytest.raises(ModelError, match=r"step 8 \(Coupling\) draws random numbers"):
            slopes(chain, "invert", "inverse", x)
        with torch.no_grad():
            chain(x)
    slopes(chain.eval(), "invert", "forward", x)


@BOTH
def test_one_step_taken_twice_learns_from_both(memory: str) -> None:
    lu = T.LU(3, "orthogonal")
    chain = Chain(lu, T.ActNorm(3), lu, T.Permute([1, 2, 0]))
    torch.testing.assert_close(
        slopes(chain, memory, "forward", rows(6, 3)),
        slopes(chain, "store", "forward", rows(6, 3)),
        rtol=1e-4,
        atol=1e-5,
    )


@BOTH
@WAYS
def test_units_in_double_precision(memory: str, way: str) -> None:
    """They may stand anywhere in a chain of single precision."""
    units = T.Standardize(torch.tensor([1e3, 0.0], dtype=torch.float64), torch.tensor([5.0, 1e-3], dtype=torch.float64))
    chain = Chain(T.ActNorm(2), units, T.LU(2))
    x = rows(6, 2) if way == "inverse" else rows(6, 2) * torch.tensor([5.0, 1e-3]) + torch.tensor([1e3, 0.0])
    expected = slopes(chain, "store", way, x)
    torch.testing.assert_close(slopes(chain, memory, way, x), expected, rtol=1e-4, atol=1e-4)


@BOTH
def test_what_is_frozen_gets_no_gradient(memory: str) -> None:
    chain = glow(4, 3)
    chain[1].requires_grad_(False)
    chain[2].requires_grad_(False)
    chain.memory = memory
    z, log_det = chain(rows(6, 4))
    (z.sum() + log_det.sum()).backward()
    assert {name for name, p in chain.named_parameters() if p.grad is None} == {
        f"transforms.{i}.{name}" for i in (1, 2) for name, _ in chain[i].named_parameters()
    }
    chain.requires_grad_(False)
    x = rows(6, 4).requires_grad_()
    chain(x)[1].sum().backward()
    assert x.grad is not None
    assert not chain(rows(6, 4))[0].requires_grad


@BOTH
def test_nothing_to_do(memory: str) -> None:
    x = rows(3, 2).requires_grad_()
    z, log_det = Chain(memory=memory)(x)
    z.sum().backward()
    assert torch.equal(x.grad, torch.ones(3, 2))
    assert torch.equal(log_det, torch.zeros(3))
    view = rows(3, 2).requires_grad_()
    Chain(T.Permute([0, 1]), memory=memory)(view)[0].square().sum().backward()
    torch.testing.assert_close(view.grad, 2 * view.detach())
    Chain(T.ActNorm(2), memory=memory)(rows(0, 2))[0].sum().backward()


def test_weights_changed_before_the_gradient_are_noticed() -> None:
    chain = glow(3, 2)
    chain.memory = "invert"
    z, _ = chain(rows(4, 3))
    with torch.no_grad():
        next(chain.parameters()).add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_the_choice_is_no_part_of_what_is_saved() -> None:
    chain = glow(3, 1)
    names = set(chain.state_dict())
    chain.memory = "invert"
    assert set(chain.state_dict()) == names
    assert copy.deepcopy(chain).memory == "invert"
    for bad in ("all", None):
        with pytest.raises(ShapeError, match="memory: expected one of store, checkpoint, invert, got"):
            Chain(memory=bad)
        with pytest.raises(ShapeError, match="memory: expected one of"):
            chain.memory = bad


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, on its way to jvp
@BOTH
def test_programs_store(memory: str) -> None:
    """Traced, mapped, or differentiated forward."""
    chain, x = glow(3, 2), rows(5, 3)
    expected = chain(x)
    chain.memory = memory
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(chain, backend="eager", fullgraph=True)(x), expected)
    torch.testing.assert_close(torch.export.export(chain, (x,)).module()(x), expected)
    torch.testing.assert_close(
        torch.func.vmap(lambda row: chain(row[None])[0][0])(x), expected[0], rtol=1e-4, atol=1e-5
    )
    tangents = torch.func.jvp(lambda x: chain(x)[0], (x,), (torch.ones_like(x),))[1]
    chain.memory = "store"
    torch.testing.assert_close(tangents, torch.func.jvp(lambda x: chain(x)[0], (x,), (torch.ones_like(x),))[1])


def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("memory", Path(__file__).parents[2] / "benchmarks" / "memory.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_a_step_holds() -> None:
    """Of a Glow, above weights and gradients: with depth grow all, a stored state a step, or next to nothing."""
    memory = bench()
    memory.ROWS = 32
    state = memory.ROWS * 4 * 8 * 8 * 4 / 2**20
    held = {how: [memory.step(depth, how)[0] for depth in (4, 16)] for how in ("store", *MODES)}
    assert held["store"][1] > 3 * held["store"][0]
    assert held["checkpoint"][1] - held["checkpoint"][0] < 1.3 * 12 * state
    assert held["invert"][1] < 1.05 * held["invert"][0]


@BOTH
def test_nets_that_are_computed_at_once_learn_the_same(memory: str) -> None:
    """Perceptrons with ReLU, splines and affine maps, which keep what their gradients need in their own way."""
    torch.manual_seed(0)
    mlp, masked = (partial(net, hidden=(16, 16), activation="relu") for net in (nets.MLP, nets.MaskedMLP))
    chain = Chain(
        T.Coupling(Partition.halves(4), scalars.spline(), mlp),
        T.LU(4),
        T.Autoregressive(range(4), scalars.affine(), masked),
    )
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    x = rows(50, 4)
    for a, b in zip(slopes(chain, "store", "forward", x), slopes(chain, memory, "forward", x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
