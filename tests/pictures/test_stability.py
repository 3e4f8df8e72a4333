"""Many seeds, no step that is not finite. Slow."""

import numpy as np
import pytest
import torch

from diffeo.config import PictureConfig
from diffeo.data.pictures import Pictures, read_pictures
from diffeo.errors import DataError
from diffeo.pictures.fitting import fit_pictures
from diffeo.pictures.material import Material

STEPS, SEEDS = 500, 20


def clothes() -> Pictures:
    """Fashion-MNIST where there is one, else strokes on black."""
    try:
        return read_pictures("fashion-mnist").take(slice(0, 16_100))
    except DataError:
        generator = np.random.default_rng(0)
        pixels = generator.integers(0, 3, (16_100, 1, 28, 28), dtype=np.uint8)
        for i, place in enumerate(generator.integers(3, 24, 16_100)):
            pixels[i, 0, :, place : place + 3] += 200
        return Pictures(pixels, source="strokes")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_step_fails(seed: int) -> None:
    pixels = torch.from_numpy(clothes().pixels)
    data = Material(pixels[:16_000], pixels[16_000:], None, None, 256, 0)
    config = PictureConfig(recipe="glow-small", epochs=1, budget=None, batch_size=32, seed=seed, threads=1)
    fitted = fit_pictures(data, config, lambda: None, lambda record: None, lambda: False)
    assert fitted.state.step == STEPS
    assert fitted.state.skipped == 0
    assert fitted.state.history[-1]["best"] > fitted.state.history[0]["valid"] + 500
