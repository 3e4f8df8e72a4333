"""Couplings of pictures: gradients whatever is kept for them, inputs that are rebuilt, and how much a row takes."""

from functools import partial

import pytest
import torch
from torch import Tensor

from diffeo import scalars
from diffeo import transforms as T
from diffeo.attention import CausalTransformer
from diffeo.convnets import ConvNet
from diffeo.transforms.pieces import numbers_a_row

EVENT = (2, 4, 6)


def moved(module: torch.nn.Module, by: float) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return module


def coupling(split: str, flip: bool, event: tuple[int, ...] = EVENT, context: int = 0, width: int = 8) -> T.Transform:
    net = partial(ConvNet, width=width, context=context)
    return T.PictureCoupling(split, scalars.affine(), net, event, flip)


def pictures(n: int, event: tuple[int, ...] = EVENT, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, *event, dtype=dtype, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("split", ["channels", "alternate", "checkerboard", "masked"])
def test_what_is_rebuilt_in_one_go_is_what_went_in(split: str, flip: bool) -> None:
    """The input, both outcomes and their gradients are those of the inverse and then the forward."""
    layer = moved(coupling(split, flip).double(), 0.1)
    z = pictures(3)
    found = [layer.retraced(z), T.Transform.retraced(layer, z)]
    torch.testing.assert_close(*[(x.detach(), z.detach(), log_det.detach()) for x, z, log_det in found])
    assert found[0][0].is_leaf
    slopes = [
        torch.autograd.grad(z.sin().sum() + log_det.square().sum(), (x, *layer.parameters())) for x, z, log_det in found
    ]
    assert all(bool(slope.any()) for slope in slopes[1])
    torch.testing.assert_close(*slopes)


def glow(memory: str, steps: int, by: float, context: int = 0) -> T.Multiscale:
    torch.manual_seed(0)
    event, levels = (1, 8, 8), []
    for channels, side in ((4, 4), (8, 2)):
        here = (channels, side, side)
        parts = [T.Squeeze()]
        for _ in range(steps):
            parts += [T.Conv1x1(here), coupling("channels", False, here, context, 16)]
        levels.append(T.Chain(*parts, memory=memory))
    return moved(T.Multiscale(*levels, event=event), by)


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-8), (torch.float32, 2e-3)])
def test_gradients_are_the_same_whatever_is_kept(dtype: torch.dtype, allowed: float) -> None:
    x, context = pictures(6, (1, 8, 8), dtype), torch.eye(6, 3, dtype=dtype)
    found = []
    for memory in ("store", "checkpoint", "invert"):
        flow = glow(memory, 8, 0.03, 3).to(dtype)
        given = [x.clone().requires_grad_(), context.clone().requires_grad_()]
        z, log_det = flow(*given)
        found.append(
            torch.autograd.grad(
                0.5 * z.square().sum() - log_det.sum(), (*given, *(p for p in flow.parameters() if p.requires_grad))
            )
        )
    for slopes in found[1:]:
        assert (
            max(float((a - b).norm() / b.norm().clamp(min=1)) for a, b in zip(slopes, found[0], strict=True)) < allowed
        )


def test_where_roundings_have_grown_steps_are_taken_again() -> None:
    """A flow so wild that its inverse in float32 is nothing like what went in."""
    x, found = pictures(6, (1, 8, 8), torch.float32) * 3, []
    for memory in ("store", "invert"):
        flow = glow(memory, 16, 0.12)
        z, log_det = flow(x)
        found.append(
            torch.autograd.grad(
                z.square().mean().log() - log_det.mean(), [p for p in flow.parameters() if p.requires_grad]
            )
        )
    with torch.no_grad():
        back = flow.levels[0].inverse(flow.levels[0](x)[0])[0]
    assert float((back - x).abs().max()) > 1e-2
    for a, b in zip(*found, strict=True):
        assert float((a - b).norm()) <= 0.02 * float(b.norm()) + 1e-3


def test_hooks_on_weights_run_once_under_every_memory() -> None:
    x, found = pictures(4, (1, 8, 8), torch.float32), []
    for memory in ("store", "invert"):
        flow = glow(memory, 1, 0.1)
        weight = flow.levels[0][2].net.first
        weight.register_hook(lambda g: 2 * g)
        flow(x)[0].square().sum().backward()
        found.append(weight.grad)
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-3)


def test_a_row_takes_what_its_widest_place_takes() -> None:
    """Behind a squeeze, or with fields packed, a net works at a quarter of the places."""
    assert numbers_a_row(T.Chain(T.Squeeze(), coupling("channels", False, (4, 14, 14), 0, 32)), (1, 28, 28)) == 32 * 196
    assert numbers_a_row(coupling("checkerboard", False, (1, 28, 28), 0, 32), (1, 28, 28)) == 32 * 196
    assert numbers_a_row(coupling("masked", False, (1, 28, 28), 0, 32), (1, 28, 28)) == 32 * 784
    net = partial(CausalTransformer, width=16, depth=1, heads=2)
    assert numbers_a_row(T.TokenAutoregressive(49, 16, scalars.affine(), net), (49, 16)) == 49 * 64
