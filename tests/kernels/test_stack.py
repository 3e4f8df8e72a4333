"""The kernel of a stack of couplings against the same by tensor operations."""

import copy
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from diffeo import nets, scalars
from diffeo.kernels import library
from diffeo.kernels import stack as kernel
from diffeo.transforms import Coupling, Inverse, Partition, Stacked, chained
from tests.kernels.inputs import NEEDS

pytestmark = NEEDS
KINDS = ("tanh", "exp", "pair")


def made(d: int, hidden: tuple[int, ...], kind: str, dtype: torch.dtype = torch.float64, moved: float = 0.3) -> Stacked:
    """Three couplings, the second inverted."""
    half, layers = Partition.halves(d), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        for i in range(3):
            scalar = scalars.affine(2.0) if kind == "tanh" else scalars.affine(2.0, scale="exp")
            small = partial(nets.MLP, hidden=hidden, activation="relu")
            coupling = Coupling(half, scalar, nets.ScaleAndShift(*half, hidden) if kind == "pair" else small)
            layers.append(Inverse(coupling) if i == 1 else coupling)
            half = half.flip()
        stack = chained(*layers).double()
        with torch.no_grad():
            for parameter in stack.parameters():
                parameter.add_(moved * torch.randn(parameter.shape))
    assert isinstance(stack, Stacked)
    return stack.float().to(dtype)  # float32 numbers in either


def rows(n: int, d: int, scale: float = 2.0) -> Tensor:
    return (scale * torch.randn(n, d, generator=torch.Generator().manual_seed(1))).double()


def everything(stack: Stacked, x: Tensor, direction: str, by_kernel: bool) -> list[Tensor]:
    """z, log_det, and the gradients of their weighted sum with respect to x and all weights."""
    x = x.clone().requires_grad_()
    weights = torch.randn(len(x), x.shape[1] + 1, generator=torch.Generator().manual_seed(2)).to(x.dtype)
    with pytest.MonkeyPatch.context() as patch:
        if not by_kernel:
            patch.setattr(library, "LIBRARY", None)
        z, log_det = getattr(stack, direction)(x)
        assert z.grad_fn is not None
        gradients = torch.autograd.grad((z, log_det), [x, *stack.parameters()], (weights[:, 1:], weights[:, 0]))
    return [z.detach(), log_det.detach(), *gradients]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows the C function is asked for, time after time."""
    found: list[int] = []
    assert library.LIBRARY is not None
    run = library.LIBRARY.stack
    counted = library.LIBRARY._replace(stack=lambda *given: (found.append(given[3]), run(*given)))
    monkeypatch.setattr(library, "LIBRARY", counted)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", [(), (1,), (5, 64), (17, 3, 8)], ids=str)
@pytest.mark.parametrize(("d", "n"), [(2, 1), (2, 63), (3, 64), (7, 65), (32, 150)])
def test_it_is_the_same_in_float64(d: int, n: int, hidden: tuple[int, ...], kind: str, target: int) -> None:
    stack = made(d, hidden, kind)
    for direction in ("forward", "inverse"):
        found = [everything(stack, rows(n, d, 4.0), direction, by_kernel) for by_kernel in (True, False)]
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [2, 5])
def test_float32_is_as_exact(d: int, kind: str, target: int) -> None:
    """Root mean square errors against float64, of z, log_det, dx and the weights, the tensors of which count alike, are
    at most twice those of tensor operations, or a rounding."""
    exact, single = (made(d, (32, 32), kind, dtype, 0.1) for dtype in (torch.float64, torch.float32))
    for n, direction in product((64, 5000), ("forward", "inverse")):
        x = rows(n, d, 1.5)
        true = everything(exact, x, direction, False)
        ours, theirs = (everything(single, x.float(), direction, by_kernel) for by_kernel in (True, False))
        errors = torch.tensor(
            [
                [float((v.double() - right).square().mean() / right.square().mean().clamp(min=1e-9)) for v in pair]
                for *pair, right in zip(ours, theirs, true, strict=True)
            ]
        )
        for part in (*errors[:3], errors[3:].mean(0)):
            assert part[0].sqrt() <= 2 * part[1].sqrt() + 2**-24, (n, direction)


def test_a_row_depends_on_no_other_nor_on_threads(target: int) -> None:
    """To the last bit."""
    stack, x = made(3, (16, 16), "tanh", torch.float32), rows(4000, 3).float()
    before, found = torch.get_num_threads(), []
    with torch.no_grad():
        try:
            for count in (1, 3):
                torch.set_num_threads(count)
                found.append(stack(x))
        finally:
            torch.set_num_threads(before)
        assert all(map(torch.equal, *found))
        for i in (0, 17, 64, 3999):
            assert torch.equal(stack(x[i : i + 1])[0][0], found[0][0][i])


def test_who_takes_it(calls: list[int]) -> None:
    stack = made(4, (8, 8), "tanh", torch.float32)
    x = rows(10, 4).float()
    turned = x.T.contiguous().T
    torch.testing.assert_close(stack(turned), stack(x))
    z, log_det = stack(rows(0, 4).float())
    assert z.shape == (0, 4)
    (z.sum() + log_det.sum()).backward()
    assert all(bool((p.grad == 0).all()) for p in stack.parameters() if p.grad is not None)
    assert calls == [10, 10, 0]
    stack.double()
    stack(x.double())
    assert calls[3:] == [10]


def test_what_has_no_room(calls: list[int]) -> None:
    """Too wide, of too many coordinates, of unequal widths, too deep: tensor operations, and the same numbers."""
    for d, hidden in ((2, (kernel.MOST_WIDTH + 1,)), (kernel.MOST_D + 2, (8,)), (2, (4,) * (kernel.MOST_DEPTH + 1))):
        stack = made(d, hidden, "tanh")
        assert stack._layouts == (None, None)
        stack(rows(3, d))
    half = Partition.halves(2)
    widths = [partial(nets.MLP, hidden=(width,), activation="relu") for width in (8, 9)]
    uneven = chained(*(Coupling(h, scalars.affine(), w) for h, w in zip((half, half.flip()), widths, strict=True)))
    uneven(rows(3, 2).float())
    assert calls == []


def test_weights_of_other_shapes_or_strides_are_not_taken(calls: list[int]) -> None:
    stack = made(2, (6, 6), "tanh")
    x = rows(5, 2)
    expected = stack(x)
    assert calls == [5]
    layer = stack.transforms[0].net.hidden[1]  # type: ignore[union-attr, index]
    layer.weight.data = layer.weight.data.T.contiguous().T
    torch.testing.assert_close(stack(x), expected)
    wider = stack.transforms[0].net  # type: ignore[union-attr]
    wider.hidden[0] = nets._Linear(1, 9).double()
    wider.hidden[1] = nets._Linear(9, 6).double()
    assert stack(x)[0].shape == (5, 2)
    assert calls == [5]


def test_weights_changed_before_the_gradient_are_refused() -> None:
    stack = made(2, (6, 6), "tanh")
    z, _ = stack(rows(5, 2))
    with torch.no_grad():
        next(stack.parameters()).add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_odd_numbers(target: int) -> None:
    """NaN and infinities in one row stay in it; gradients of weights become NaN where tensor operations say so."""
    for kind, odd in product(KINDS, (torch.nan, torch.inf, -torch.inf, 1e38)):
        stack, x = made(2, (8, 8), kind, torch.float32), rows(70, 2).float()
        x[3, 0] = odd
        ours, theirs = (everything(stack, x, "forward", by_kernel) for by_kernel in (True, False))
        for mine, his in zip(ours, theirs, strict=True):
            assert bool((mine.isnan() <= his.isnan()).all()), (kind, odd)  # a pair's unused weights have none here
        for mine, his in zip(ours[:3], theirs[:3], strict=True):
            torch.testing.assert_close(mine, his, equal_nan=True, rtol=1e-3, atol=1e-3)


def test_it_is_copied_with_its_weights() -> None:
    stack = made(2, (6, 6), "tanh")
    twin = copy.deepcopy(stack)
    for parameter in twin.parameters():
        nn.init.zeros_(parameter)
    x = rows(5, 2)
    torch.testing.assert_close(twin(x)[0], x)
    assert not torch.equal(stack(x)[0], x)
