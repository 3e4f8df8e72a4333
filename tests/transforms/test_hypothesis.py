"""The contract for any number of coordinates, any context, any weights, and the oddest numbers there are.

One example is one whole report: every property of `check_transform` for one transform. The quick run is the same every
time; `make test-slow` draws 10,000 new ones.
"""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffeo import contract
from tests.transforms import cases
from tests.transforms.cases import FAMILIES

BOUNDS = (8.0, 5.0, 1.0)  # where splines end, and 1


def odd_numbers(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Normal ones, 10^U(-6, 6), bounds and an ulp either side of them, zeros of both signs, subnormal ones."""
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    size = 10 ** (12 * torch.rand(shape, generator=generator, dtype=torch.float64) - 6)
    ends = torch.tensor([s * bound for bound in BOUNDS for s in (-1, 1)], dtype=dtype)
    beside = [ends.nextafter(torch.tensor(to, dtype=dtype)) for to in (math.inf, -math.inf)]
    least = torch.finfo(dtype).smallest_normal
    special = torch.cat([ends, *beside, torch.tensor([0.0, -0.0, least / 4, -least / 4], dtype=dtype)]).double()
    which = torch.randint(0, len(special), shape, generator=generator)
    kind = torch.randint(0, 3, shape, generator=generator)
    x = torch.where(kind == 0, normal, torch.where(kind == 1, normal.sign() * size, special[which]))
    return x.to(dtype)


def check(name: str, d: int, context: int, scale: float, double: bool, seed: int) -> None:
    family, dtype = FAMILIES[name], torch.float64 if double else torch.float32
    context = context if family.conditional else 0
    x = odd_numbers((8, d), dtype, torch.Generator().manual_seed(seed))
    x = x if family.inputs is None else family.inputs(x.double()).to(dtype)
    skip = dict(family.skip) | (cases.TENFOLD if scale == 10 else {})
    if context and not scale:
        skip["context is looked at"] = "without weights nothing is looked at"
    report = contract.check_transform(
        family.transform(d, context, scale, seed),
        event_shape=(d,),
        context_features=context,
        dtype=dtype,
        inputs=x,
        skip=skip,
    )
    assert report.ok, f"\n{report}"


ANY = {
    "d": st.integers(1, 8),
    "context": st.sampled_from([0, 1, 3]),
    "scale": st.sampled_from([0.0, 1.0, 3.0, 10.0]),
    "double": st.booleans(),
    "seed": st.integers(0, 2**31),
}
QUIETLY = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=QUIETLY)
@given(**ANY)
def test_contract(name: str, d: int, context: int, scale: float, double: bool, seed: int) -> None:
    check(name, d, context, scale, double, seed)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=10_000 // len(FAMILIES) + 1, deadline=None, suppress_health_check=QUIETLY)
@given(**ANY)
def test_contract_at_length(name: str, d: int, context: int, scale: float, double: bool, seed: int) -> None:
    check(name, d, context, scale, double, seed)
