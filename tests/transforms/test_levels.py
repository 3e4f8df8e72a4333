"""Pictures in other shapes: which place becomes which channel, who stays in a coupling, what each level has of z."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from diffeo import scalars
from diffeo.convnets import ConvNet
from diffeo.errors import ShapeError
from diffeo.transforms import ActNorm, Chain, Conv1x1, Multiscale, PictureCoupling, Squeeze
from diffeo.transforms.pictures import Split


def numbered(*shape: int) -> Tensor:
    return torch.arange(float(torch.Size(shape).numel())).view(1, *shape)


class Loud(nn.Module):
    """A net that says 1 for everything, and remembers what it saw."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        self.seen = h
        return torch.ones(self.out_features, *h.shape[1:])


def test_channel_order_is_that_of_pixel_unshuffle() -> None:
    x = numbered(3, 4, 6)
    assert torch.equal(Squeeze("channel")(x)[0], torch.nn.functional.pixel_unshuffle(x, 2))


def test_spatial_order_is_that_of_space_to_depth() -> None:
    """(0, 3, 5, 1, 2, 4) of the founding RealNVP, as in its TensorFlow original: the corner before the channel."""
    x = numbered(3, 4, 6)
    expected = x.view(1, 3, 2, 2, 3, 2).permute(0, 3, 5, 1, 2, 4).reshape(1, 12, 2, 3)
    assert torch.equal(Squeeze("spatial")(x)[0], expected)


def test_checkerboard_order_has_one_colour_first() -> None:
    x = numbered(2, 4, 4)
    colour = (torch.arange(4)[:, None] + torch.arange(4)) % 2
    z = Squeeze("checkerboard")(x)[0][0]
    for half, fields in ((z[:4], colour == 0), (z[4:], colour == 1)):
        assert set(half.flatten().tolist()) == set(x[0][:, fields].flatten().tolist())


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("split", ["channels", "alternate", "checkerboard", "masked"])
def test_who_stays_and_who_is_seen(split: Split, flip: bool) -> None:
    layer = PictureCoupling(split, scalars.additive(), Loud, (2, 4, 4), flip)
    x = numbered(2, 4, 4)
    z, log_det = layer(x)
    colour = ((torch.arange(4)[:, None] + torch.arange(4)) % 2 == 0).expand(2, 4, 4)
    channel = (torch.arange(2) == 0)[:, None, None].expand(2, 4, 4)
    stays = (channel if split in ("channels", "alternate") else colour) ^ flip
    assert torch.equal(z[0], torch.where(stays, x[0], x[0] + 1))
    assert not log_det.any()
    seen = layer.net.seen.flatten()
    if split == "masked":
        assert torch.equal(seen, torch.where(stays, x[0], 0.0).flatten())
    else:
        assert sorted(seen.tolist()) == sorted(x[0][stays].tolist())


@pytest.mark.parametrize("c", [2, 3, 5])
def test_channels_are_parted_as_told(c: int) -> None:
    for split, flip in itertools.product(("channels", "alternate"), (False, True)):
        layer = PictureCoupling(split, scalars.additive(), Loud, (c, 2, 2), flip)
        moved = (layer(numbered(c, 2, 2))[0] != numbered(c, 2, 2))[0, :, 0, 0].tolist()
        first = [i < c // 2 for i in range(c)] if split == "channels" else [i % 2 == 0 for i in range(c)]
        assert moved == [stays == flip for stays in first]


def test_levels_share_one_z() -> None:
    flow = Multiscale(Squeeze(), Squeeze(), Chain(), event=(1, 8, 8))
    x = numbered(1, 8, 8)
    z, log_det = flow(x)
    parts = flow.parts(z)
    assert [tuple(part.shape[1:]) for part in parts] == [(2, 4, 4), (4, 2, 2), (4, 2, 2)]
    assert torch.equal(flow.joined(parts), z)
    assert torch.equal(flow.inverse(z)[0], x)
    assert torch.equal(parts[0], Squeeze()(x)[0][:, 2:])
    assert log_det.shape == (1,)


def test_a_level_s_prior_knows_what_goes_on() -> None:
    """What leaves is moved by what stays, never the other way round: an autograd Jacobian of blocks."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = PictureCoupling("channels", scalars.affine(), lambda i, o: ConvNet(i, o, width=0), (4, 2, 2))
        for p in prior.parameters():
            torch.nn.init.normal_(p)
    flow = Multiscale(Chain(Squeeze(), prior), Chain(), event=(1, 4, 4))
    jacobian = torch.func.jacrev(lambda x: flow(x[None])[0][0])(torch.randn(1, 4, 4)).view(16, 16)
    kept = Squeeze().inverse(torch.cat([torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)], 1))[0].flatten() == 1
    assert bool((jacobian[:8][:, kept] != 0).any())
    assert not bool(jacobian[8:][:, ~kept].any())


def test_a_batch_settles_every_step() -> None:
    """After settling, every step's channels have mean 0 and spread 1 on that batch, seen one after another."""
    torch.manual_seed(0)
    x = 5 * torch.randn(200, 1, 8, 8) + 3
    first, second, last = Conv1x1((4, 4, 4)), Conv1x1((8, 2, 2)), ActNorm((8, 2, 2))
    flow = Multiscale(Chain(Squeeze(), first), Chain(Squeeze(), second, last), event=(1, 8, 8))
    flow.settle(x)
    for part, seen in ((first.norm, Squeeze()(x)[0]), (last, None)):
        assert bool(part.initialized)
        if seen is not None:
            y = part(seen)[0]
            torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
            torch.testing.assert_close(y.std((0, 2, 3), correction=0), torch.ones(4), atol=1e-4, rtol=0)
    z = flow.parts(flow(x)[0])[-1]
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(8), atol=1e-4, rtol=0)


def test_a_1x1_convolution_is_one() -> None:
    """Against torch's conv2d with the same matrix and shift."""
    torch.manual_seed(0)
    conv = Conv1x1((3, 4, 5))
    x = 2 * torch.randn(30, 3, 4, 5) - 1
    conv.settle(x)
    for p in conv.parameters():
        p.data += 0.1 * torch.randn(p.shape)
    matrix, offset, log_det = conv._line(x)
    expected = torch.nn.functional.conv2d(x, matrix[:, :, None, None], offset[:, 0])
    torch.testing.assert_close(conv(x)[0], expected)
    torch.testing.assert_close(log_det, 20 * matrix.slogdet()[1].expand(30))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Squeeze("diagonal"), "order: expected one of channel, spatial, checkerboard, got 'diagonal'"),
        (lambda: Multiscale(event=(1, 4, 4)), "levels: expected one Transform or more"),
        (lambda: Multiscale(Squeeze(), event=(1, 5, 4)), "Squeeze moves events of even height and width"),
        (lambda: Multiscale(Chain(), Chain(), event=(1, 4, 4)), "two channels or more behind every level but the last"),
        (lambda: PictureCoupling("rows", scalars.affine(), ConvNet, (2, 4, 4)), "split: expected one of channels"),
        (lambda: PictureCoupling("channels", scalars.affine(), ConvNet, (1, 4, 4)), "squeeze first"),
        (lambda: PictureCoupling("checkerboard", scalars.affine(), ConvNet, (1, 3, 4)), "even height and width"),
        (lambda: PictureCoupling("channels", scalars.affine(), ConvNet(2, 4), (2, 4, 4)), "expected in_features=1"),
        (lambda: PictureCoupling("channels", scalars.affine(), ConvNet, (4, 4)), r"shape \(C, H, W\)"),
    ],
)
def test_what_does_not_fit_is_refused(build, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ShapeError, match=words):
        build()
