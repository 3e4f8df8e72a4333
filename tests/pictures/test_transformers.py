"""The recipes by transformers: as large as they are said to be, the identity at first, inverted exactly, learning."""

import pytest
import torch
from torch import Tensor

from diffeo import bases
from diffeo.errors import ShapeError
from diffeo.flow import Flow
from diffeo.pictures.jet import jet
from diffeo.pictures.plan import PicturePlan
from diffeo.pictures.tarflow import tarflow
from diffeo.transforms import Transform

RECIPES = pytest.mark.parametrize("recipe", [tarflow, jet])
SMALL = {"recipe": "small", "event": (2, 4, 6), "patch": 2, "steps": 5, "depth": 1, "width": 16, "heads": 2}


def built(recipe, **more) -> Transform:  # type: ignore[no-untyped-def]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return recipe(PicturePlan(**(SMALL | more)))


def pictures(n: int, classes: int = 0) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 2, 4, 6, generator=generator)
    return x, torch.eye(classes)[torch.randint(0, classes, (n,), generator=generator)] if classes else None


@pytest.mark.parametrize(
    ("recipe", "choices", "millions"),
    [
        (tarflow, {"event": (1, 28, 28), "patch": 4, "width": 128, "steps": 4, "depth": 4}, 3.2),
        (jet, {"event": (3, 32, 32), "patch": 4, "width": 256, "steps": 32, "depth": 2}, 51.7),
    ],
)
def test_sizes(recipe, choices: dict, millions: float) -> None:  # type: ignore[no-untyped-def]
    assert round(sum(p.numel() for p in built(recipe, **choices).parameters()) / 1e6, 1) == millions


@RECIPES
@pytest.mark.parametrize("classes", [0, 3])
def test_starts_as_the_identity(recipe, classes: int) -> None:  # type: ignore[no-untyped-def]
    transform, (x, context) = built(recipe, classes=classes), pictures(3, classes)
    z, log_det = transform(x, context)
    assert torch.equal(z, transform[0](x)[0])  # type: ignore[index]
    assert not log_det.any()


@RECIPES
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("memory", ["store", "checkpoint", "invert"])
def test_learns_and_is_inverted(recipe, classes: int, memory: str) -> None:  # type: ignore[no-untyped-def]
    """Twenty steps towards narrow, correlated pixels gain over a nat each ten pixels; then x comes back from z."""
    transform = built(recipe, classes=classes, memory=memory)
    flow = Flow(transform, bases.StandardNormal(transform.event_after((2, 4, 6))), event_shape=(2, 4, 6))
    x, context = pictures(64, classes)
    x = 0.3 * x + x[:, :1, :1, :1]
    optimizer = torch.optim.AdamW(flow.parameters(), 3e-3)
    losses = []
    for _ in range(20):
        loss = -flow(x, context).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 4.8
    assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.parameters())
    with torch.no_grad():
        z, log_det = transform(x, context)
        back, log_back = transform.inverse(z, context)
    torch.testing.assert_close(back, x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_back, -log_det, rtol=1e-4, atol=1e-4)


@RECIPES
def test_log_det_is_autograds(recipe) -> None:  # type: ignore[no-untyped-def]
    transform, (x, context) = awake(built(recipe, classes=3)), pictures(2, 3)
    x, context = x.double(), context.double()  # type: ignore[union-attr]
    for i in range(2):
        row, given = x[i : i + 1], context[i : i + 1]
        slopes = torch.autograd.functional.jacobian(lambda v, c=given: transform(v, c)[0].flatten(), row)
        torch.testing.assert_close(transform(row, given)[1][0], torch.linalg.slogdet(slopes.view(48, 48))[1])


def awake(transform: Transform) -> Transform:
    with torch.no_grad():
        for i, parameter in enumerate(transform.parameters()):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    return transform.double()


def test_both_directions_tell_every_pixel() -> None:
    """Of one direction the first patch hears of nothing but itself; of two, every number of every other."""
    for steps, everywhere in ((1, False), (2, True)):
        transform = awake(built(tarflow, steps=steps))
        slopes = torch.autograd.functional.jacobian(lambda x, t=transform: t(x)[0], pictures(1)[0].double())
        assert bool((slopes[0, 0] != 0).flatten(1).all()) == everywhere


@RECIPES
def test_what_does_not_fit_is_refused(recipe) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ShapeError, match=r"event: expected \(C, H, W\) with H and W multiples of 3"):
        built(recipe, patch=3)
    with pytest.raises(ShapeError, match="heads: expected a number that divides the width, 16, got 3"):
        built(recipe, heads=3)
