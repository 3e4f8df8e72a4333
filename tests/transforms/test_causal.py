"""Tokens: patches are pixels in their places, layers look only where they may, and any weights and numbers will do."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from diffeo import bases, contract, nets, scalars
from diffeo import transforms as T
from diffeo.attention import CausalTransformer, Transformer
from diffeo.errors import ShapeError
from diffeo.flow import Flow
from tests.transforms.cases import among_tokens, causal

SPLITS = ("channels", "checkerboard", "checkerboard-flipped", "rows", "rows-flipped", "columns", "columns-flipped")


def awake(layer: T.Transform, size: float = 0.3) -> T.Transform:
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.add_(size * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    return layer.double()


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def jacobian(layer: T.Transform, x: Tensor, inverse: bool = False) -> Tensor:
    """Of one event x [T, F]: [T, F, T, F]."""
    step = layer.inverse if inverse else layer
    return torch.autograd.functional.jacobian(lambda x: step(x[None])[0][0], x)


@pytest.mark.parametrize(("size", "event"), [(1, (3, 2, 2)), (2, (1, 4, 6)), (3, (2, 3, 3))])
def test_patches_are_pixels_in_their_places(size: int, event: tuple[int, int, int]) -> None:
    cut, x = T.Patches(size, event), torch.arange(2.0 * math.prod(event)).view(2, *event)
    z, log_det = cut(x)
    assert z.shape[1:] == cut.event_after(event)
    assert not log_det.any()
    across = event[2] // size
    for t in range(z.shape[1]):
        i, j = size * (t // across), size * (t % across)
        assert torch.equal(z[:, t], x[:, :, i : i + size, j : j + size].flatten(1))
    assert torch.equal(cut.inverse(z)[0], x)


def test_patches_say_what_they_cannot_cut() -> None:
    for size, event in ((2, (1, 4, 5)), (2, (4, 4)), (0, (1, 4, 4)), (3, (0, 3, 3))):
        with pytest.raises(ShapeError, match="expected"):
            T.Patches(size, event)
    with pytest.raises(ShapeError, match=r"moves events of shape \[1, 4, 4\], got events of shape \[4, 4\]"):
        T.Patches(2, (1, 4, 4)).check_event((4, 4))


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("last_first", [False, True])
def test_tokens_look_only_back(last_first: bool, inverse: bool) -> None:
    """z_t depends on every number of the tokens before it, and each of its own numbers on itself: nothing else."""
    layer = awake(causal(4, 2, last_first))
    slopes = jacobian(layer, numbers(4, 2), inverse) != 0
    before = torch.ones(4, 4, dtype=torch.bool).tril(-1)
    before = before.T if last_first else before
    own = torch.eye(4, dtype=torch.bool)[:, None, :, None] & torch.eye(2, dtype=torch.bool)[None, :, None, :]
    assert torch.equal(slopes, before[:, None, :, None].expand_as(slopes) | own)


@pytest.mark.parametrize("split", SPLITS)
def test_what_stays_tells_what_moves(split: str) -> None:
    grid = (2, 3)
    layer = awake(among_tokens(grid, 4, split))  # type: ignore[arg-type]
    slopes = jacobian(layer, numbers(6, 4)).view(24, 24)
    stays = torch.tensor([torch.equal(row, unit) for row, unit in zip(slopes, torch.eye(24).double(), strict=True)])
    assert torch.equal(slopes != 0, torch.eye(24, dtype=torch.bool) | (~stays[:, None] & stays))
    fields = stays.view(*grid, 4)
    down, across = torch.arange(2)[:, None], torch.arange(3)
    expected = {
        "checkerboard": (down + across) % 2 == 1,
        "rows": down % 2 + 0 * across == 1,
        "columns": across % 2 == 1,
    }
    if split == "channels":
        assert fields.flatten(0, 1).unique(dim=0).sum(1).tolist() == [2]
    else:
        kind, _, flipped = split.partition("-")
        wanted = expected[kind].expand(grid) ^ bool(flipped)
        assert torch.equal(fields, wanted[..., None].expand_as(fields))


@pytest.mark.parametrize(("grid", "split"), [((1, 1), "checkerboard-flipped"), ((3, 1), "columns-flipped")])
def test_something_always_moves(grid: tuple[int, int], split: str) -> None:
    layer, x = awake(among_tokens(grid, 2, split)), numbers(3, math.prod(grid), 2)  # type: ignore[arg-type]
    assert (layer(x)[0] != x).all()


def test_features_are_drawn_by_lot_and_kept() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one, other = (among_tokens((1, 2), 16, "channels") for _ in range(2))
    assert not torch.equal(one.order, other.order)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.order, other.order)


@pytest.mark.parametrize("last_first", [False, True])
def test_steps_that_keep_the_past_are_passes_that_do_not(last_first: bool) -> None:
    """The inverse, against as many passes of the whole layer as there are tokens, each of which mends one more."""
    layer = awake(causal(5, 3, last_first, 2))
    z, context = numbers(4, 5, 3), numbers(4, 2)
    x = torch.zeros_like(z)
    for _ in range(5):
        features = x.permute(2, 0, 1).flip(-1) if last_first else x.permute(2, 0, 1)
        raw = layer.net(features, context).unflatten(0, (2, 3))
        raw = raw.flip(-1) if last_first else raw
        x = scalars.affine().inverse(z.permute(2, 0, 1), raw)[0].permute(1, 2, 0)
    for learning in (False, True):
        with torch.set_grad_enabled(learning):
            torch.testing.assert_close(layer.inverse(z, context)[0], x, rtol=0, atol=1e-12)


def test_gradients_of_the_inverse_are_those_of_the_inverse_function() -> None:
    """By z, the inverse of forward's Jacobian; by a weight w, minus that times dz/dw."""
    layer, z = awake(causal(3, 2)), numbers(3, 2)
    x = layer.inverse(z[None])[0][0].detach()
    forward, backward = (m.reshape(6, 6) for m in (jacobian(layer, x), jacobian(layer, z, True)))
    torch.testing.assert_close(forward @ backward, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-12)
    weights = numbers(6)
    for weight in layer.parameters():
        (found,) = torch.autograd.grad(layer.inverse(z[None])[0].flatten() @ weights, weight)
        (expected,) = torch.autograd.grad(layer(x[None])[0].flatten() @ -(backward.T @ weights), weight)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


BUILT = {
    "causal": lambda t, f, c: causal(t, f, t % 2 == 0, c),
    "channels": lambda t, f, c: among_tokens((t, 1), f, "channels", c),
    "rows": lambda t, f, c: among_tokens((t, 1), f, "rows", c),
    "checkerboard": lambda t, f, c: among_tokens((2, t), f, "checkerboard-flipped", c),
}


@pytest.mark.parametrize("scale", [0.0, 3.0, 10.0])
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize(("tokens", "features"), [(1, 1), (2, 3), (5, 2)])
@pytest.mark.parametrize("name", BUILT)
def test_any_size_and_any_weights(name: str, tokens: int, features: int, context: int, scale: float) -> None:
    """The whole contract in both dtypes, with weights moved and multiplied, at ordinary and at odd numbers."""
    layer = BUILT[name](tokens, features, context)
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            moved = parameter + 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
            parameter.copy_(scale * moved)
    event = (2 * tokens if name == "checkerboard" else tokens, features)
    x = numbers(6, *event)
    x[2] *= 10 ** torch.linspace(-6, 6, x[2].numel(), dtype=torch.float64).view(event)
    x[3], x[4] = 5.0, -0.0
    skip = [] if scale else ["context is looked at"]
    skip += ["log_det of float16 is float32"] if scale == 10 else []  # float16 ends at 65504
    for dtype in (torch.float64, torch.float32):
        report = contract.check_transform(
            layer, event_shape=event, context_features=context, dtype=dtype, inputs=x, skip=skip
        )
        assert report.ok, f"\n{report}"


def test_a_sample_has_the_density_it_is_drawn_from() -> None:
    """Pictures through patches: log-densities beside draws are those of the draws, and classes change them."""
    cut = T.Patches(2, (1, 4, 4))
    chain = T.Chain(cut, causal(4, 4, False, 3), causal(4, 4, True, 3), among_tokens((2, 2), 4, "rows", 3))
    flow = Flow(awake(chain), bases.StandardNormal((4, 4)), event_shape=(1, 4, 4)).double()
    classes = torch.eye(3, dtype=torch.float64)
    x, log_prob = flow.sample_and_log_prob(2, classes, torch.Generator().manual_seed(0))
    assert x.shape == (2, 3, 1, 4, 4)
    for draw, expected in zip(x, log_prob, strict=True):
        torch.testing.assert_close(flow.log_prob(draw, classes), expected)
        assert (flow.log_prob(draw, classes.roll(1, 0)) != expected).all()


def test_wrong_parts_are_refused() -> None:
    affine, net = scalars.affine(), partial(CausalTransformer, width=8, depth=1, heads=2)
    with pytest.raises(ShapeError, match="net: expected a CausalTransformer"):
        T.TokenAutoregressive(2, 3, affine, partial(Transformer, width=8, depth=1, heads=2))
    with pytest.raises(ShapeError, match="net: expected tokens=2, got 4; build it with tokens=2"):
        T.TokenAutoregressive(2, 3, affine, net(4, 3, 6))
    with pytest.raises(ShapeError, match="net: expected out_features=6, got 5"):
        T.TokenAutoregressive(2, 3, affine, net(2, 3, 5))
    with pytest.raises(ShapeError, match="scalar: expected a Scalar"):
        T.TokenAutoregressive(2, 3, "affine", net)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="split: expected one of channels, "):
        T.TokenCoupling((1, 2), 3, "halves", affine, nets.MLP)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="net: expected tokens=1, got 2; build it with tokens=1"):
        T.TokenCoupling((1, 2), 3, "columns", affine, Transformer(2, 3, 6, width=8, depth=1, heads=2))
    for grid in ((0, 2), 4, (1, 2, 3)):
        with pytest.raises(ShapeError, match="grid: expected"):
            among_tokens(grid, 3, "rows")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"moves events of shape \[2, 3\], got events of shape \[3, 2\]"):
        causal(2, 3).check_event((3, 2))
    with pytest.raises(ShapeError, match=r"moves events of shape \[4, 3\], got events of shape \[12\]"):
        among_tokens((2, 2), 3, "rows").check_event((12,))
