"""Every recipe of pictures: built small, inverted exactly, trained for a few steps, given classes."""

import math

import pytest
import torch

from diffeo.errors import ModelError
from diffeo.pictures.recipes import RECIPES, build, planned
from diffeo.quantized import Quantized, cell_noise
from diffeo.training import Problem, Settings, State, train

SMALL = {
    "glow": {"steps": 2, "width": 8},
    "realnvp": {"width": 8, "depth": 1},
    "uva": {"width": 8, "depth": 1},
    "tarflow": {"patch": 2, "steps": 2, "depth": 1, "width": 16, "heads": 2},
    "jet": {"patch": 2, "steps": 5, "depth": 1, "width": 16, "heads": 2},
}


def small(name: str, classes: int = 0) -> Quantized:
    family = RECIPES[name].transform.__name__
    with torch.random.fork_rng():
        torch.manual_seed(0)
        side = 8 if name != "glow-32" else 16
        return build(planned(name, (3 if name.endswith("32") else 1, side, side), classes=classes, **SMALL[family]))


def strokes(density: Quantized, n: int = 120) -> torch.Tensor:
    """Dark pictures with one bright stroke each, and a little noise."""
    generator = torch.Generator().manual_seed(1)
    c, height, width = density.event_shape
    x = torch.randint(0, 12, (n, c, height, width), generator=generator, dtype=torch.uint8)
    for i, column in enumerate(torch.randint(1, width - 1, (n,), generator=generator).tolist()):
        x[i, :, :, column] += 200
    return x


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_learns_and_comes_back(name: str) -> None:
    density = small(name)
    x = strokes(density)
    density.flow.transform.settle((x[:64].float() + cell_noise(x[:64].float())) / 256)
    assert torch.equal(density.eval().from_latent(density.to_latent(x[:20])), x[:20])
    settings = Settings(**{**RECIPES[name].training, "batch_size": 30, "epochs": 6, "warmup": 3, "learning_rate": 2e-3})
    problem = Problem(
        [("pictures", density, 1.0)],
        lambda i: density.objective(x[i])[:, None],
        lambda: density.log_prob(x[:20]).detach().double().mean()[None],
        torch.ones(len(x)),
        str,
    )
    state = State()
    records = list(train(problem, settings, state))
    assert state.skipped == 0
    assert records[-1]["best"] > records[0]["valid"] + 1
    assert torch.equal(density.eval().from_latent(density.to_latent(x[:20])), x[:20])
    assert density.sample(3).shape == (3, *density.event_shape)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_takes_classes(name: str) -> None:
    density = small(name, classes=3)
    with torch.no_grad():
        for p in density.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    x = strokes(density, 2)
    with torch.no_grad():
        scores = torch.stack([density.log_prob(x, torch.eye(3)[[k, k]]) for k in range(3)])
    assert scores.isfinite().all()
    assert len({round(float(score), 3) for score in scores[:, 0]}) == 3
    context = torch.eye(3)[[0, 2]]
    assert torch.equal(density.from_latent(density.to_latent(x, context), context), x)


@pytest.mark.parametrize(
    ("name", "event", "parameters"),
    [
        ("glow-small", (1, 28, 28), 161_732),
        ("glow-28", (1, 28, 28), 904_964),
        ("realnvp-32", (3, 32, 32), 4_542_120),
    ],
)
def test_sizes(name: str, event: tuple[int, int, int], parameters: int) -> None:
    with torch.random.fork_rng():
        assert sum(p.numel() for p in build(planned(name, event)).parameters()) == parameters


def test_starts_are_normal_noise_s_density() -> None:
    """Before training, couplings are the identity: log p is that of the logit's Jacobian and a rotation alone."""
    density = small("glow-small")
    x = strokes(density, 3)
    v = (x + 0.5) / 256
    a = density.flow.transform[0].forward(v)[0]
    with torch.no_grad():
        z = density.to_latent(x)
    torch.testing.assert_close(z.square().sum(1), a.flatten(1).square().sum(1), rtol=1e-4, atol=1e-3)
    assert math.isfinite(float(z.sum()))


def test_wrong_recipes_and_sizes() -> None:
    with pytest.raises(ModelError, match="recipe: expected one of glow-small"):
        planned("glow", (1, 28, 28))
    for name, size, divisor in (
        ("glow-small", (27, 28), 4),
        ("tarflow-28", (30, 30), 4),
        ("jet-32", (15, 15), 4),
        ("realnvp-32", (31, 32), 2),
        ("realnvp-32-packed", (30, 30), 4),
        ("uva-multiscale", (30, 30), 4),
    ):
        said = f"{name} takes height and width divisible by {divisor}, got {size[0]} x {size[1]}; choose another --size"
        with pytest.raises(ModelError, match=said):
            build(planned(name, (1, *size)))
    with pytest.raises(ModelError, match="divisible by 4, got 6 x 6"):
        build(planned("realnvp-32", (1, 6, 6), levels=3, noise="variational"))
    with pytest.raises(ModelError, match="hidden: tarflow-32 takes a multiple of 6, got 256"):
        build(planned("tarflow-32", (3, 32, 32), width=256))
