"""No NaN, no exception, no wrong inverse among a million random splines in float32 (10^8 in the slow test)."""

from collections.abc import Callable

import pytest
import torch

from diffeo import scalars
from tests.scalars.fuzz import Count, invert, invert_circle, invert_latent

SIZES = [(8, 8.0), (2, 5.0), (5, 3.0), (16, 10.0)]


def total(cases: int, seed: int, block: int = 50_000) -> tuple[int, int, int]:
    """(cases, NaN, wrong) over both directions, all sizes and standard deviations up to 1e4."""
    generator = torch.Generator().manual_seed(seed)
    kinds: list[Callable[..., Count]] = [invert, invert_latent]
    counts = [Count(0, 0, 0)]
    turn = 0
    while sum(count.cases for count in counts) < cases:
        bins, bound = SIZES[turn % len(SIZES)]
        std = (10.0, 100.0, 1e4)[turn % 3]
        counts.append(kinds[turn % 2](scalars.spline(bins, bound), bins, bound, block, std, generator))
        turn += 1
    return tuple(map(sum, zip(*counts, strict=True)))  # type: ignore[return-value]


def test_a_million() -> None:
    cases, nan, wrong = total(1_000_000, seed=0)
    assert cases >= 1_000_000
    assert (nan, wrong) == (0, 0)


def test_circles() -> None:
    generator = torch.Generator().manual_seed(0)
    for bins in (1, 3, 8):
        assert invert_circle(bins, 50_000, 1e4, generator)[1:] == (0, 0)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_hundred_million() -> None:
    assert total(100_000_000, seed=1)[1:] == (0, 0)


def test_known_hard_splines() -> None:
    """Two splines on which published inverses disagree by several units or stop with an assertion."""
    hard = [
        (5.0, -4.979546546936035, [0, 0, 0], [-10.4, -4.094245433807373, 5.903450012207031], [11, -23]),
        (5.0, 4.999533, [0, 7], [12.091976, -6.65], [18.1]),
    ]
    for bound, at, widths, heights, slopes in hard:
        scalar = scalars.spline(len(widths), bound)
        raw, y = torch.tensor([*widths, *heights, *slopes])[:, None], torch.tensor([at])
        x, _ = scalar.inverse(y, raw)
        again, _ = scalar.forward(x.double(), raw.double())
        exact, _ = scalar.inverse(y.double(), raw.double())
        assert min((again - y).abs().item(), (exact - x).abs().item()) < 64 * torch.finfo(torch.float32).eps * bound
