"""Perceptrons at once: values and gradients against a plain network in float64, wherever they may be asked for."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from diffeo import nets
from diffeo.kernels import linear, perceptron
from tests.kernels.inputs import anyway

SIZES = {"usual": (3, 17, 33, 5), "one layer": (4, 6), "wide": (70, 130, 65)}


@pytest.fixture(params=["oneDNN", "torch"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "oneDNN":
        anyway(monkeypatch)


def drawn(sizes: tuple[int, ...], n: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Inputs, then weights and biases, all to be learned."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(sizes[0], n), *(shape for k, m in pairwise(sizes) for shape in ((m, k), (m,)))]
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).div(shape[-1] ** 0.5).to(dtype).requires_grad_()
        for shape in shapes
    ]


def plainly(h: Tensor, *layers: Tensor) -> Tensor:
    """Batch first, by torch's own modules."""
    h = h.T
    for i in range(0, len(layers), 2):
        h = nn.functional.linear(torch.relu(h) if i else h, layers[i], layers[i + 1])
    return h.T


def slopes(run, given: list[Tensor], weight: Tensor) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
    return torch.autograd.grad(run(*given), [v for v in given if v.requires_grad], weight)


@pytest.mark.parametrize("n", [0, 1, 7, 200])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_values_and_gradients(sizes: tuple[int, ...], n: int) -> None:
    given = drawn(sizes, n)
    exact = [v.detach().double().requires_grad_() for v in given]
    with torch.no_grad():
        bare = perceptron(*given)
    found = perceptron(*given)
    assert torch.equal(found, bare)
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), plainly(*exact), rtol=1e-5, atol=1e-5)
    g = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    for mine, own in zip(slopes(perceptron, given, g), slopes(plainly, exact, g.double()), strict=True):
        torch.testing.assert_close(mine.double(), own, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("learned", [(0,), (1,), (2,), (3, 4), (0, 6), (5, 6)], ids=str)
def test_what_is_not_learned_gets_no_gradient(learned: tuple[int, ...]) -> None:
    given = [v.detach().requires_grad_(i in learned) for i, v in enumerate(drawn(SIZES["usual"], 7))]
    g = torch.ones(5, 7)
    for mine, own in zip(slopes(perceptron, given, g), slopes(plainly, given, g), strict=True):
        torch.testing.assert_close(mine, own, rtol=1e-5, atol=1e-5)


def test_second_derivatives() -> None:
    given = drawn((2, 5, 3), 4, torch.float64)
    assert torch.autograd.gradcheck(perceptron, given)
    assert torch.autograd.gradgradcheck(perceptron, given)
    found = []
    for run, dtype in ((perceptron, torch.float32), (plainly, torch.float64)):
        own = [v.detach().to(dtype).requires_grad_() for v in given]
        (by_h,) = torch.autograd.grad(run(*own).square().sum(), own[:1], create_graph=True)
        found.append(torch.autograd.grad(by_h.square().sum(), own))
    for mine, exact in zip(*found, strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=1e-4, atol=1e-4)


def test_second_derivatives_of_weights_used_twice() -> None:
    """Inputs that are themselves made of the weights are not followed twice."""
    h, weight, bias = drawn((3, 3), 4, torch.float64)
    first, second = (weight, bias, weight, bias), (h, weight, bias)

    def twice(run):  # type: ignore[no-untyped-def]
        end = run(run(h, *first), *first).square().sum()
        by = torch.autograd.grad(end, second, create_graph=True)
        return [*by, *torch.autograd.grad(sum(v.square().sum() for v in by), second)]

    for mine, own in zip(twice(perceptron), twice(plainly), strict=True):
        torch.testing.assert_close(mine, own, rtol=1e-9, atol=1e-9)


def test_numbers_that_are_none_are_passed_on() -> None:
    """NaN, infinities, and no row touches another."""
    given = [v.detach() for v in drawn(SIZES["usual"], 7)]
    usual = perceptron(*given)
    given[0] = given[0].clone()
    given[0][1, 2], given[0][0, 4] = torch.nan, torch.inf
    found, expected = perceptron(*given), plainly(*given)
    assert found[:, 2].isnan().all()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    others = [0, 1, 3, 5, 6]
    torch.testing.assert_close(found[:, others], usual[:, others], rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own rules of jvp
def test_under_transformations_and_tracers() -> None:
    h, *layers = (v.detach() for v in drawn(SIZES["usual"], 7))
    expected = plainly(h, *layers)
    usual = {"rtol": 1e-5, "atol": 1e-5}
    batched = torch.func.vmap(lambda h: perceptron(h, *layers))(torch.stack([h, h]))
    torch.testing.assert_close(batched[1], expected, **usual)
    torch.testing.assert_close(make_fx(perceptron)(h, *layers)(h, *layers), expected, **usual)
    compiled = torch.compile(perceptron, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(h, *layers), expected, **usual)
    by_map = torch.func.jacrev(lambda h: perceptron(h, *layers))(h)
    by_hand = torch.func.jacfwd(lambda h: plainly(h, *layers))(h)
    torch.testing.assert_close(by_map, by_hand, **usual)
    x = h.clone().requires_grad_()
    units = torch.eye(5 * 7).view(-1, 5, 7)
    (rows,) = torch.autograd.grad(perceptron(x, *layers), x, units, is_grads_batched=True)
    torch.testing.assert_close(rows.view(5, 7, 3, 7), by_hand, **usual)
    _, slope = torch.func.jvp(lambda h: perceptron(h, *layers), (h,), (torch.ones_like(h),))
    torch.testing.assert_close(slope, by_hand.sum((2, 3)), **usual)


def test_autocast_is_heeded() -> None:
    h, *layers = drawn(SIZES["usual"], 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert perceptron(h, *layers).dtype == linear(h, layers[0], layers[1]).dtype == torch.bfloat16


@pytest.mark.parametrize("build", [nets.MLP, nets.MaskedMLP], ids=["MLP", "MaskedMLP"])
def test_nets_are_their_layers(build: type[nn.Module]) -> None:
    """A net at once is what its layers give one by one, which hooks ask for; with dropout too."""
    inputs = ([0, 1, 2], 2) if build is nets.MaskedMLP else (3, 6)
    made = build(*inputs, hidden=(16, 16), context=2, activation="relu", dropout=0.3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    x, context = torch.randn(9, 3), torch.randn(9, 2)
    torch.manual_seed(3)
    dropped = made(x, context)
    made.eval()
    at_once, calls = made(x, context), []
    assert not torch.equal(dropped, at_once)
    by_once = torch.autograd.grad(at_once.square().sum(), list(made.parameters()))
    hook = made.hidden[0].register_forward_hook(lambda *_: calls.append(1))
    by_layer = made(x, context)
    hook.remove()
    assert calls == [1]
    torch.testing.assert_close(at_once, by_layer, rtol=1e-5, atol=1e-5)
    by_layers = torch.autograd.grad(by_layer.square().sum(), list(made.parameters()))
    for mine, own in zip(by_once, by_layers, strict=True):
        torch.testing.assert_close(mine, own, rtol=1e-4, atol=1e-4)
    for layer, slope in zip(made.hidden, by_once[::2], strict=False):
        if build is nets.MaskedMLP:
            assert not slope[layer.mask == 0].any()
    reparametrised = nn.utils.parametrizations.weight_norm(made.hidden[0])
    assert reparametrised is made.hidden[0]
    torch.testing.assert_close(made(x, context), at_once, rtol=1e-5, atol=1e-5)
