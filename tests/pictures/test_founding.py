"""RealNVP and the course's flow: the founding documents' own maps, their sizes, and the contract of transforms."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffeo import contract
from diffeo.errors import ShapeError
from diffeo.pictures.plan import PicturePlan
from diffeo.pictures.realnvp import realnvp
from diffeo.pictures.uva import uva
from diffeo.transforms import Chain, Multiscale, PictureCoupling, Transform

RECIPES: dict[str, Callable[[PicturePlan], Transform]] = {"realnvp": realnvp, "uva": uva}
EACH = pytest.mark.parametrize("name", RECIPES)
PACKED = pytest.mark.parametrize("packed", [True, False], ids=["packed", "masked"])


def flow(name: str, event: tuple[int, int, int], far: float = 0.0, **choices: Any) -> Multiscale:
    """A recipe, with weights away from their start."""
    steps = {"realnvp": 3, "uva": 2}[name]
    plan = PicturePlan(recipe=name, event=event, **{"levels": 2, "steps": steps, "width": 8, **choices})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        transform = RECIPES[name](plan)
        with torch.no_grad():
            for parameter in transform.parameters():
                parameter.add_(far * torch.randn(parameter.shape))
    assert isinstance(transform, Multiscale)
    return transform


def pictures(n: int, *event: int, seed: int = 5) -> Tensor:
    return torch.randn(n, *event, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def count(transform: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in transform.parameters())


def couplings(transform: Multiscale) -> list[list[PictureCoupling]]:
    return [[step for step in level if isinstance(step, PictureCoupling)] for level in transform.levels]


class Founding:
    """Affine couplings under masks, on pictures as torch has them, with log_dets added up on the way."""

    def __init__(self, x: Tensor, bound: float | None) -> None:
        self.x, self.log_det, self.bound = x, x.new_zeros(len(x)), bound

    def couple(self, net: torch.nn.Module, stays: Tensor) -> None:
        raw = net((self.x * stays).transpose(0, 1)).transpose(0, 1)
        log_scale, shift = raw.chunk(2, 1)
        log_scale = log_scale if self.bound is None else self.bound * torch.tanh(log_scale / self.bound)
        log_scale, shift = log_scale * ~stays, shift * ~stays
        self.x = self.x * log_scale.exp() + shift
        self.log_det = self.log_det + log_scale.flatten(1).sum(1)

    def board(self) -> Tensor:
        """True at odd fields."""
        return torch.tensor([[(i + j) % 2 == 1 for j in range(self.x.shape[3])] for i in range(self.x.shape[2])])

    def squeeze(self, order: tuple[int, ...]) -> None:
        n, c, height, width = self.x.shape
        parts = self.x.reshape(n, c, height // 2, 2, width // 2, 2).permute(*order)
        self.x = parts.reshape(n, 4 * c, height // 2, width // 2)

    def split(self) -> Tensor:
        self.x, left = self.x.chunk(2, 1)
        return left


def test_masked_realnvp_is_the_founding_flow() -> None:
    """Three couplings by a checkerboard, squeeze, three by odd and even channels, split, four by a checkerboard."""
    transform = flow("realnvp", (3, 8, 4), 0.1, packed=False, depth=2).double()
    first, second = couplings(transform)
    assert (len(first), len(second)) == (6, 4)
    x = pictures(5, 3, 8, 4)
    run = Founding(x, None)
    board = run.board()
    for layer, stays in zip(first[:3], (board, ~board, board), strict=True):
        run.couple(layer.net, stays)
    run.squeeze((0, 3, 5, 1, 2, 4))
    odd = (torch.arange(12) % 2 == 1).view(12, 1, 1)
    for layer, stays in zip(first[3:], (odd, ~odd, odd), strict=True):
        run.couple(layer.net.net, stays)
    left = run.split()
    board = run.board()
    for layer, stays in zip(second, (board, ~board, board, ~board), strict=True):
        run.couple(layer.net, stays)
    z, log_det = transform(x)
    torch.testing.assert_close(z, torch.cat([left.flatten(1), run.x.flatten(1)], 1))
    torch.testing.assert_close(log_det, run.log_det)


def test_masked_uva_is_the_courses_flow() -> None:
    """Two couplings by a checkerboard, squeeze, two by halves of the channels, split, squeeze, four by halves."""
    transform = flow("uva", (1, 8, 4), 0.1, packed=False, depth=2).double()
    first, second = couplings(transform)
    assert (len(first), len(second)) == (4, 4)
    x = pictures(5, 1, 8, 4)
    run = Founding(x, 2.0)
    board = run.board()
    run.couple(first[0].net, board)
    run.couple(first[1].net, ~board)
    run.squeeze((0, 1, 3, 5, 2, 4))
    half = (torch.arange(4) < 2).view(4, 1, 1)
    run.couple(first[2].net.net, half)
    run.couple(first[3].net.net, ~half)
    left = run.split()
    run.squeeze((0, 1, 3, 5, 2, 4))
    half = (torch.arange(8) < 4).view(8, 1, 1)
    for layer, stays in zip(second, (half, ~half, half, ~half), strict=True):
        run.couple(layer.net.net, stays)
    z, log_det = transform(x)
    torch.testing.assert_close(z, torch.cat([left.flatten(1), run.x.flatten(1)], 1))
    torch.testing.assert_close(log_det, run.log_det)


def test_founding_sizes() -> None:
    """Of the founding RealNVP, gains of normed weights and two rescalings a coupling included: 4,542,120. Of the
    course's multiscale flow 1,711,818, of which 72,076 are its noise, and 42 are factors of log-scales."""
    founding = flow("realnvp", (3, 32, 32), width=128, depth=8, packed=False)
    in_channels = [3] * 3 + [12] * 3 + [6] * 4

    def convolution(inputs: int, outputs: int, size: int) -> int:
        return inputs * outputs * size * size + 2 * outputs

    block = convolution(128, 64, 1) + convolution(64, 64, 3) + convolution(64, 128, 1)
    each = [convolution(c, 128, 3) + 8 * block + convolution(128, 2 * c, 3) + 2 for c in in_channels]
    assert count(founding) == sum(each) == 4_542_120
    assert count(flow("uva", (1, 28, 28), width=32, depth=3, packed=False)) == 1_711_818 - 72_076 - 42


def test_packed_realnvp_is_of_the_same_size_nearly() -> None:
    packed = flow("realnvp", (3, 32, 32), width=128, depth=8)
    assert abs(count(packed) / 4_542_120 - 1) < 0.03


@EACH
@PACKED
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_contract(name: str, packed: bool, dtype: torch.dtype) -> None:
    transform = flow(name, (1, 4, 4), 0.1, packed=packed, classes=2)
    report = contract.check_transform(transform, event_shape=(1, 4, 4), context_features=2, dtype=dtype)
    assert report.ok, f"\n{report}"


@PACKED
def test_where_they_start(packed: bool) -> None:
    """Scales are 1 in all of them; shifts are 0, but for those of the founding RealNVP."""
    x = pictures(4, 3, 8, 8).float()
    for name in RECIPES:
        transform = flow(name, (3, 8, 8), packed=packed, classes=2)
        z, log_det = transform(x, torch.eye(2).repeat(2, 1))
        assert not log_det.any()
        still = bool(torch.equal(z.sort(1)[0], x.flatten(1).sort(1)[0]))
        assert still == (packed or name == "uva")


@EACH
@PACKED
def test_learns_with_every_number(name: str, packed: bool) -> None:
    """A few steps of Adam lower the negative log-likelihood of correlated pictures, and move every parameter."""
    transform = flow(name, (1, 8, 8), packed=packed, classes=2, depth=1)
    x = pictures(64, 1, 8, 8).float()
    x = 0.5 * (x + x.roll(1, 3))
    told = torch.eye(2).repeat(32, 1)
    before = {key: parameter.detach().clone() for key, parameter in transform.named_parameters()}
    optimiser = torch.optim.Adam(transform.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        z, log_det = transform(x, told)
        loss = (z.square().sum(1) / 2 - log_det).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1
    for key, parameter in transform.named_parameters():
        assert (parameter != before[key]).any(), key


@EACH
@PACKED
@pytest.mark.parametrize("memory", ["checkpoint", "invert"])
def test_memory_changes_no_gradient(name: str, packed: bool, memory: str) -> None:
    x = pictures(3, 1, 8, 8)
    found = []
    for how in ("store", memory):
        transform = flow(name, (1, 8, 8), 0.05, packed=packed, memory=how).double()
        assert {level.memory for level in transform.levels if isinstance(level, Chain)} == {how}
        z, log_det = transform(x)
        found.append(torch.autograd.grad(z.square().sum() - log_det.sum(), list(transform.parameters())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "event", "packed"),
    [
        ("realnvp", (3, 5, 8), True),
        ("realnvp", (1, 6, 8), True),
        ("realnvp", (1, 7, 8), False),
        ("uva", (1, 6, 8), True),
    ],
)
def test_sizes_that_do_not_fit(name: str, event: tuple[int, int, int], packed: bool) -> None:
    with pytest.raises(ShapeError, match="even height and width"):
        flow(name, event, packed=packed)


def test_odd_sizes_where_masks_allow_them() -> None:
    transform = flow("realnvp", (1, 6, 10), 0.1, packed=False).double()
    x = pictures(2, 1, 6, 10)
    z, log_det = transform(x)
    back, log_det_back = transform.inverse(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det_back, -log_det)
