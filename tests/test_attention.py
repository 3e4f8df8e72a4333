"""What transformers promise: the textbook's attention and layers, a zero start, who sees whom, no step done twice."""

import copy

import pytest
import torch
from torch import Tensor, nn

from diffeo import attention
from diffeo.attention import CausalTransformer, Transformer, attend
from diffeo.errors import ShapeError
from tests.test_nets import awake

KINDS = pytest.mark.parametrize("kind", [Transformer, CausalTransformer])


def net_of(kind: type, tokens: int = 5, context: int = 0, depth: int = 2, width: int = 8) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return awake(kind(tokens, 3, 4, width=width, depth=depth, heads=2, context=context))


def numbers(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n", "s"), [(0, 3), (2, 1), (2, 40)])
def test_attention_is_the_textbooks(causal: bool, n: int, s: int, dtype: torch.dtype) -> None:
    """Values and gradients, against one sum of weights a number."""
    q, k, v = numbers(3, n, 2, s, 4, dtype=dtype).unbind()

    def slowly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen = [slice(0, i + 1) if causal else slice(None) for i in range(s)]
        weights = [(q[..., i, None, :] * k[..., seen[i], :]).sum(-1).div(2).exp() for i in range(s)]
        found = [(w[..., None] * v[..., seen[i], :]).sum(-2) / w.sum(-1, keepdim=True) for i, w in enumerate(weights)]
        return torch.stack(found, -2)

    torch.testing.assert_close(attend(q, k, v, causal), slowly(q, k, v))
    given = [part.clone().requires_grad_() for part in (q, k, v)]
    slopes = [torch.autograd.grad(act(*given).square().sum(), given) for act in (lambda *g: attend(*g, causal), slowly)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_has_second_and_batched_derivatives(causal: bool) -> None:
    given = [part.requires_grad_() for part in numbers(3, 1, 2, 3, 2).unbind()]
    assert torch.autograd.gradgradcheck(lambda *g: attend(*g, causal), given)
    found = attend(*given, causal)
    weights = numbers(3, *found.shape)
    together = torch.autograd.grad(found, given, weights, retain_graph=True, is_grads_batched=True)
    apart = [torch.autograd.grad(found, given, weight, retain_graph=True) for weight in weights]
    torch.testing.assert_close(together, tuple(map(torch.stack, zip(*apart, strict=True))))


def test_compiled_nets_learn_the_same() -> None:
    net, h = net_of(CausalTransformer), numbers(3, 4, 5, dtype=torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    slopes = [torch.autograd.grad(run(h).square().sum(), list(net.parameters())) for run in (net, compiled)]
    torch.testing.assert_close(*slopes)


def test_attention_as_elsewhere_than_on_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients where torch's attention is not in parts, and has to be computed once more."""
    given = [part.requires_grad_() for part in numbers(3, 2, 2, 5, 4).unbind()]
    expected = torch.autograd.grad(attend(*given, True).square().sum(), given)
    monkeypatch.setattr(attention, "BACKWARD", None)
    torch.testing.assert_close(torch.autograd.grad(attend(*given, True).square().sum(), given), expected)


def test_a_block_is_torchs_own_layer() -> None:
    """torch's pre-norm encoder layer, given the same weights."""
    block = net_of(Transformer).blocks[0].double()
    layer = nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64)
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(block.asks.weight)
        layer.self_attn.in_proj_bias.copy_(block.asks.bias)
        pairs = (
            (layer.self_attn.out_proj, block.mixed), (layer.linear1, block.up), (layer.linear2, block.down),
            (layer.norm1, block.norm_mix), (layer.norm2, block.norm_bend),
        )  # fmt: skip
        for theirs, ours in pairs:
            theirs.load_state_dict(ours.state_dict())
    h = numbers(4, 6, 8)
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1)
    torch.testing.assert_close(block(h, True), layer(h, src_mask=mask))
    torch.testing.assert_close(block(h, False), layer(h))


@KINDS
@pytest.mark.parametrize(("n", "context"), [(0, 0), (3, 0), (3, 2)])
def test_sizes_and_zero_start(kind: type, n: int, context: int) -> None:
    net = kind(5, 3, 4, width=8, depth=1, heads=2, context=context)
    h, c = torch.randn(3, n, 5), torch.randn(n, context) if context else None
    assert net(h, c).shape == (4, n, 5)
    assert not net(h, c).any()
    assert net(h.double(), c).dtype == torch.float32
    assert awake(net)(h, c).any() == (n > 0)


@KINDS
def test_who_sees_whom(kind: type) -> None:
    """A token is told by every other one, or by exactly those before it."""
    net = net_of(kind).double()
    slopes = torch.autograd.functional.jacobian(lambda h: net(h).sum((0, 1)), numbers(3, 1, 5))  # [t, in, 1, t]
    seen = (slopes != 0).all(1).squeeze(1)
    assert torch.equal(seen, (slopes != 0).any(1).squeeze(1))
    assert torch.equal(seen, torch.ones(5, 5).tril(-1).bool() if kind is CausalTransformer else torch.ones(5, 5).bool())


@KINDS
def test_tokens_know_their_places_and_the_context(kind: type) -> None:
    net, same = net_of(kind, context=2), torch.ones(3, 1, 5)
    told = net(same, torch.zeros(1, 2))
    assert told.unique(dim=2).shape[2] == 5
    assert (net(same, torch.ones(1, 2)) != told).all()
    with pytest.raises(ShapeError, match="takes 2 context features, got none"):
        net(same)


@KINDS
def test_nothing_extrapolates(kind: type) -> None:
    net = net_of(kind, context=2)
    far = [net(torch.full((3, 1, 5), size), torch.full((1, 2), size)) for size in (1e4, 1e30)]
    torch.testing.assert_close(*far, rtol=0, atol=0)


@pytest.mark.parametrize("learning", [False, True])
@pytest.mark.parametrize("context", [0, 2])
def test_step_by_step_is_the_whole(context: int, learning: bool) -> None:
    """Keys and values that were kept, against all computed at once; written in place, and not."""
    net, h = net_of(CausalTransformer, 7, context).double(), numbers(3, 4, 7)
    c = numbers(4, context) if context else None
    with torch.set_grad_enabled(learning):
        past = net.begun()
        steps = [net.step(past, 4, h[..., i - 1] if i else None, c) for i in range(7)]
        torch.testing.assert_close(torch.stack(steps, -1), net(h, c), rtol=0, atol=1e-13)


def test_a_step_computes_one_token() -> None:
    """Each block is asked T times for one token, not for all of those before it."""
    net, rows = net_of(CausalTransformer, 6), []
    for block in net.blocks:
        block.register_forward_hook(lambda _, given, __: rows.append(given[0].shape[1]))
    past = net.begun()
    for i in range(6):
        net.step(past, 2, torch.zeros(3, 2) if i else None)
    assert rows == [1] * 12


@KINDS
def test_large_products_are_the_same(kind: type) -> None:
    """Where products are large they may go another way: values and gradients of all weights, to rounding."""
    net = kind(16, 3, 4, width=128, depth=1, heads=2)
    with torch.no_grad():
        net.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    exact, h = copy.deepcopy(net).double(), numbers(3, 40, 16, dtype=torch.float32)
    found, expected = net(h), exact(h.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    slopes = torch.autograd.grad(found.square().sum(), list(net.parameters()))
    wanted = torch.autograd.grad(expected.square().sum(), list(exact.parameters()))
    for slope, want in zip(slopes, wanted, strict=True):
        assert (slope.double() - want).norm() < 1e-4 * want.norm() + 1e-3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"heads": 3}, "heads: expected a number that divides the width, 8, got 3"),
        ({"tokens": 0}, "tokens: expected a whole number, 1 or more"),
        ({"in_features": -1}, "in_features: expected a whole number, 0 or more"),
        ({"depth": 0}, "depth: expected"),
        ({"context": -1}, "context: expected"),
    ],
    ids=lambda value: "",
)
@KINDS
def test_wrong_sizes_are_refused(kind: type, wrong: dict[str, int], said: str) -> None:
    sizes = {"tokens": 5, "in_features": 3, "out_features": 4, "width": 8, "depth": 1, "heads": 2} | wrong
    with pytest.raises(ShapeError, match=said):
        kind(**sizes)
