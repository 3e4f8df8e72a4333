"""Transforms under torch's own machinery: finite differences, vmap, compile, export, threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from diffeo.transforms import Transform
from tests.transforms.cases import CASES, Case

PARAMETERS = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
STEPS = ("forward", "inverse")
QUICK = {  # one of each kind; compiling all of them is left to the slow tests
    "standardize", "logit bounds", "permute", "lu", "actnorm", "spline coupling residual net", "circular coupling",
    "affine autoregressive", "planar", "orthogonal exponential",
}  # fmt: skip


class Step(torch.nn.Module):
    """One direction of a transform as the forward of a module."""

    def __init__(self, transform: Transform, step: str) -> None:
        super().__init__()
        self.transform, self.step = transform, step

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return getattr(self.transform, self.step)(x, context)


def start(case: Case, step: str, n: int = 16) -> tuple[Step, tuple[Tensor, ...]]:
    transform, x, context = case.transform().double().eval(), case.rows(n), case.contexts(n)
    if step == "inverse":
        x = transform(x, context)[0].detach()
    return Step(transform, step), (x,) if context is None else (x, context)


@PARAMETERS
def test_derivatives(case: Case) -> None:
    """First and second, of z and log_det by x, context and every weight, along random directions."""
    for step in STEPS:
        module, given = start(case, step, 3)
        names, weights = [name for name, _ in module.named_parameters()], list(module.parameters())

        def outcome(*values: Tensor, module: Step = module, names: list = names, weights: list = weights) -> tuple:
            if not weights:
                return module(*values)
            parts = values[-1].split([w.numel() for w in weights])
            state = {name: v.view_as(w) for name, v, w in zip(names, parts, weights, strict=True)}
            return torch.func.functional_call(module, state, values[:-1])

        flat = [torch.cat([w.flatten() for w in weights])] if weights else []
        values = tuple(v.detach().clone().requires_grad_() for v in (*given, *flat))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            assert torch.autograd.gradcheck(outcome, values, eps=1e-6, atol=1e-5, rtol=1e-3, fast_mode=True)
            assert torch.autograd.gradgradcheck(outcome, values, eps=1e-6, atol=1e-4, rtol=1e-3, fast_mode=True)


@PARAMETERS
def test_vmap(case: Case) -> None:
    for step in STEPS:
        module, given = start(case, step)
        mapped = torch.func.vmap(lambda *row, m=module: tuple(v[0] for v in m(*(part[None] for part in row))))(*given)
        torch.testing.assert_close(mapped, module(*given), rtol=1e-5, atol=1e-5)


def check_programs(case: Case) -> None:
    for step in STEPS:
        module, given = start(case, step)
        expected = module(*given)
        torch._dynamo.reset()
        torch.testing.assert_close(torch.compile(module, backend="eager", fullgraph=True)(*given), expected)
        torch.testing.assert_close(torch.export.export(module, given).module()(*given), expected)


@pytest.mark.parametrize("case", [case for case in CASES if case.name in QUICK], ids=lambda case: case.name)
def test_compile_and_export(case: Case) -> None:
    """In one graph; without a compiler, as `backend="eager"` needs none."""
    check_programs(case)


@pytest.mark.slow
@PARAMETERS
def test_all_compile_and_export(case: Case) -> None:
    check_programs(case)


def test_a_compiled_layer_trains() -> None:
    """Gradients through ahead-of-time autograd are the plain ones."""
    case = next(case for case in CASES if case.name == "spline coupling")
    module, given = start(case, "forward")
    torch._dynamo.reset()
    slopes = []
    for run in (module, torch.compile(module, backend="aot_eager", fullgraph=True)):
        z, log_det = run(*given)
        slopes.append(torch.autograd.grad(z.sum() + log_det.sum(), list(module.parameters())))
    torch.testing.assert_close(slopes[1], slopes[0])


@PARAMETERS
def test_threads_share_it(case: Case) -> None:
    """Eight threads at a time, each with rows of its own, bit for bit as one after another."""
    module, given = start(case, "forward")
    pieces = [tuple(part.roll(i, 0) for part in given) for i in range(16)]

    def work(piece: tuple[Tensor, ...]) -> list[Tensor]:
        with torch.no_grad():
            z, log_det = module(*piece)
            return [z, log_det, *module.transform.inverse(z, *piece[1:])]

    expected = [work(piece) for piece in pieces]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, pieces * 2))
    for got, wanted in zip(found, expected * 2, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
