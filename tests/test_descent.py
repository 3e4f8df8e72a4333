"""Parameters laid end to end: steps against torch's own AdamW and clipping, steps that fail, whose memory is whose."""

import math

import pytest
import torch
from torch import Tensor, nn

from diffeo.descent import Part

CLIP, RATE, DECAY = 0.5, 0.01, 0.1


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))


def part_of(module: nn.Module) -> Part:
    """Matrices decay; the last bias is slower than the rest."""
    last = list(module.parameters())[-1]
    return Part([(p, 0.1 if p is last else 1.0, DECAY if p.ndim == 2 else 0.0) for p in module.parameters()])


def gradients(module: nn.Module, step: int) -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
    (20 * module(x).square().mean()).backward()


def taken(part: Part, module: nn.Module, step: int, failed: float = 0.0) -> None:
    gradients(module, step)
    shrink = (part.norm() / CLIP).clamp(min=1.0)
    part.descend(RATE, shrink, torch.tensor(failed))


def test_steps_are_those_of_torch() -> None:
    """AdamW and clip_grad_norm_, whose 1e-6 beside the norm is all the difference."""
    ours, theirs = net(), net()
    part, (w1, b1, w2, b2) = part_of(ours), theirs.parameters()
    groups = [{"params": [w1, w2]}, {"params": [b1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([*groups, {"params": [b2], "weight_decay": 0.0, "lr": 0.1 * RATE}], RATE)
    for group in optimizer.param_groups[:1]:
        group["weight_decay"] = DECAY
    for step in range(30):
        taken(part, ours, step)
        gradients(theirs, step)
        nn.utils.clip_grad_norm_(theirs.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
    start = net()
    for a, b, before in zip(ours.parameters(), theirs.parameters(), start.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-5)
        assert not torch.allclose(a, before, atol=1e-3)
    assert all(p.grad is None for p in ours.parameters())


@pytest.mark.parametrize("number", [0.0, float("nan"), float("inf")], ids=str)
def test_a_failed_step_changes_nothing(number: float) -> None:
    module = net()
    part = part_of(module)
    taken(part, module, 0)
    before = part.snapshot()
    weights = [p.detach().clone() for p in module.parameters()]
    gradients(module, 1)
    for p in module.parameters():
        assert p.grad is not None
        p.grad += number
    part.descend(RATE, part.norm().clamp(min=1.0), torch.tensor(1.0))
    part.approach(torch.tensor(0.0))
    after = part.snapshot()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(p, w) for p, w in zip(module.parameters(), weights, strict=True))


def test_averages_are_lent_and_given_back() -> None:
    module = net()
    part = part_of(module)
    start = [p.detach().clone() for p in module.parameters()]
    taken(part, module, 0)
    weights = [p.detach().clone() for p in module.parameters()]
    part.approach(torch.tensor(0.25))
    with part.averaged():
        for p, a, b in zip(module.parameters(), start, weights, strict=True):
            assert torch.allclose(p, 0.75 * a + 0.25 * b, atol=1e-7)
    assert all(torch.equal(p, w) for p, w in zip(module.parameters(), weights, strict=True))


def memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def test_released_parameters_have_a_memory_each() -> None:
    module = net()
    part = part_of(module)
    assert len({memory(p) for p in module.parameters()}) == len(part.vectors) == 3
    before = [p.detach().clone() for p in module.parameters()]
    part.release()
    assert len({memory(p) for p in module.parameters()}) == 4
    part.vectors[0].weight.zero_()
    assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))


def test_what_learns_from_nothing_stays_and_nothing_at_all_has_no_norm() -> None:
    module = net()
    part = Part([(p, 1.0, 0.0) for p in module.parameters()])
    module[0](torch.ones(1, 3)).sum().backward()
    last = module[2].weight.detach().clone()
    part.descend(RATE, part.norm().clamp(min=1.0), torch.tensor(0.0))
    assert torch.equal(module[2].weight, last)
    assert float(Part([]).norm()) == 0.0


def test_adamax_is_that_of_torch() -> None:
    """Step by step beside torch.optim.Adamax, and not moved at all by a step that failed."""
    torch.manual_seed(0)
    own = torch.nn.Parameter(torch.randn(7, dtype=torch.float64))
    other = torch.nn.Parameter(own.detach().clone())
    part = Part([(own, 1.0, 0.0)])
    expected = torch.optim.Adamax([other], lr=0.02)
    for step in range(30):
        g = torch.randn(7, dtype=torch.float64) * (step % 5)
        own.grad = g.clone() * math.nan if step % 7 == 3 else g.clone()
        norm = part.norm()
        failed = (~norm.isfinite()).float()
        part.descend(0.02, torch.ones(()), failed, "adamax")
        if step % 7 != 3:
            other.grad = g
            expected.step()
        torch.testing.assert_close(own.detach(), other.detach(), rtol=1e-6, atol=1e-6)
