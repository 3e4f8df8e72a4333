"""The fit's own decisions: threads by a trial, rounds that fit a budget, bfloat16 in training on a GPU alone."""

from typing import Any

import pytest
import torch

from diffeo.config import PictureConfig
from diffeo.pictures import fitting
from diffeo.pictures.fitting import fit_pictures
from diffeo.pictures.material import Material
from diffeo.pictures.recipes import build, planned


def material(n: int = 100) -> Material:
    x = torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Material(x[:-20], x[-20:], None, None, 256, 0)


@pytest.mark.parametrize(
    ("seconds", "asked", "most", "expected"),
    [
        ([1.0, 0.6], None, 2, (2, 0.6)),
        ([1.0, 0.9], None, 2, (1, 1.0)),
        ([1.0, 7.0], None, 2, (1, 1.0)),
        ([1.0], 2, 2, (None, 1.0)),
        ([1.0], None, 1, (None, 1.0)),
        ([1.0], None, None, (None, 1.0)),
    ],
)
def test_threads_are_as_many_as_were_faster(
    monkeypatch: pytest.MonkeyPatch,
    seconds: list[float],
    asked: int | None,
    most: int | None,
    expected: tuple[Any, Any],
) -> None:
    answers, before = iter(seconds), torch.get_num_threads()
    monkeypatch.setattr(fitting, "_step_seconds", lambda *given: next(answers))
    monkeypatch.setattr(fitting, "processors", lambda: most)
    try:
        assert fitting._pace(build(planned("glow-small", (1, 8, 8))), material(), 10, asked) == expected
    finally:
        torch.set_num_threads(before)


def test_rounds_fit_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty or so in a budget, from 5 to 400 steps each; the rate rises within a tenth of it."""
    density = build(planned("glow-small", (1, 8, 8)))
    for step, seconds, steps, warmup in ((0.1, 60.0, 20, 60), (10.0, 60.0, 5, 5), (0.001, 600.0, 400, 200)):
        monkeypatch.setattr(fitting, "_pace", lambda *given, step=step: (1, step))
        plan = planned("glow-small", (1, 8, 8))
        found = fitting._settings(density, plan, material(), PictureConfig(), seconds)
        assert (found.round_steps, found.warmup, found.threads) == (steps, warmup, 1)
    counted = fitting._settings(density, planned("glow-small", (1, 8, 8)), material(), PictureConfig(epochs=3), None)
    assert (counted.round_steps, counted.threads, counted.epochs) == (None, None, 3)


def test_bfloat16_is_for_training_on_a_gpu_alone() -> None:
    density = build(planned("glow-small", (1, 8, 8), steps=1, width=8))
    parts = [part for part in density.modules() if hasattr(part, "autocast")]
    assert len(parts) == 3  # a coupling in each level, and a prior
    fitting._hasten(density, True)
    assert all(part.autocast for part in parts)
    fitted = fit_pictures(
        material(),
        PictureConfig(epochs=1, layers=1, hidden=8, threads=1),
        lambda: None,
        lambda record: None,
        lambda: False,
    )
    assert not any(part.autocast for part in fitted.density.modules() if hasattr(part, "autocast"))


def test_grids_are_of_the_same_noise() -> None:
    """The first grid is that of the untrained density; the noise is not the run's own randomness."""
    taken: list[tuple[int, Any]] = []
    config = PictureConfig(epochs=30, layers=1, hidden=8, threads=1, batch_size=40)
    run = [lambda: None, lambda record: None, lambda: False]
    fitted = fit_pictures(material(), config, *run, shot=lambda step, pixels: taken.append((step, pixels)))  # type: ignore[arg-type]
    bare = fit_pictures(material(), config, *run)  # type: ignore[arg-type]
    assert taken[0][0] == 0
    assert [step for step, _ in taken] == sorted({step for step, _ in taken})
    assert taken[0][1].shape == (36, 1, 8, 8)
    for one, other in zip(fitted.density.parameters(), bare.density.parameters(), strict=True):
        assert torch.equal(one, other)
