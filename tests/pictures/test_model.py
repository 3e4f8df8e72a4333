"""Models of pictures: fitted, saved and loaded bit for bit, interrupted and gone on with, given labels."""

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import diffeo
from diffeo.config import PictureConfig
from diffeo.data.pictures import Pictures, read_pictures
from diffeo.errors import DataError, ModelError
from diffeo.pictures.model import PictureModel
from diffeo.quantized import cell_noise
from diffeo.training import Interrupted

TINY: dict[str, Any] = {"layers": 1, "hidden": 8, "threads": 1}


def digits() -> Pictures:
    return read_pictures("digits8", labelled=True).take(slice(0, 300))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "model"
    PictureModel.fit(digits(), config=PictureConfig(epochs=3, budget=None, **TINY), out=folder)
    return folder


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> PictureModel:
    return PictureModel.fit(digits(), config=PictureConfig(epochs=12, budget=None, label=True, batch_size=16, **TINY))


def test_a_loaded_model_is_the_saved_one(saved: Path) -> None:
    one, other = PictureModel.load(saved), diffeo.load(saved)
    assert isinstance(other, PictureModel)
    x = digits()
    assert np.array_equal(one.log_prob(x), other.log_prob(x))
    assert np.array_equal(one.sample(36, seed=3), other.sample(36, seed=3))
    assert one.sample(36).shape == (36, 1, 8, 8)
    assert one.sample(2).dtype == np.uint8
    np.testing.assert_allclose(one.bits_per_dim(x), -one.log_prob(x) / (64 * math.log(2)))
    assert "glow-small fitted on digits8" in repr(one)
    with pytest.raises(ModelError, match=r"holds a model of pictures; load it by diffeo\.load"):
        diffeo.Model.load(saved)


def test_what_a_fit_leaves_behind(saved: Path) -> None:
    names = {path.name for path in saved.iterdir()}
    assert {"model.json", "findings.json", "history.jsonl", "samples"} <= names
    assert len(list((saved / "samples").glob("step_*.png"))) > 1
    history = [json.loads(line) for line in (saved / "history.jsonl").read_text().splitlines()]
    assert history[-1]["step"] > history[0]["step"] == 0
    card = PictureModel.load(saved).card
    assert card.rows == 300
    assert card.rows_train + card.rows_valid == 300
    assert card.skipped == 0
    assert card.valid_bits is not None
    assert card.valid_bits < math.log2(17) < 4.1
    assert (saved.parent / "page").mkdir() is None
    assert PictureModel.load(saved).report(folder=saved.parent / "page").read_text().startswith("<!DOCTYPE html>")


def test_scores_are_those_of_a_bound(saved: Path) -> None:
    """By hand: one draw of the fixed noise through the flow."""
    model, x = PictureModel.load(saved), torch.from_numpy(digits().pixels[:5])
    u = cell_noise(x.float())
    with torch.no_grad():
        by_hand = model.density.flow.log_prob((x + u) / 17) - 64 * math.log(17)
    np.testing.assert_allclose(model.log_prob(x.numpy(), points=1), by_hand.numpy(), rtol=1e-5)
    assert model.log_prob(digits(), points=8).mean() > model.log_prob(digits(), points=1).mean()


def test_the_same_options_give_the_same_model(saved: Path, tmp_path: Path) -> None:
    again = PictureModel.fit(digits(), config=PictureConfig(epochs=3, budget=None, **TINY), out=tmp_path / "again")
    assert np.array_equal(again.log_prob(digits()), PictureModel.load(saved).log_prob(digits()))


def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path: Path) -> None:
    config = PictureConfig(epochs=4, budget=None, batch_size=16, **TINY)  # 4 rounds
    expected = PictureModel.fit(digits(), config=config)

    def stop_once(record: dict[str, Any]) -> None:
        if record.get("stage") == "training" and record["step"] > 0:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        PictureModel.fit(digits(), config=config, out=tmp_path / "m", progress=stop_once)
    assert (tmp_path / "m" / "resume.json").exists()
    other = config.model_copy(update={"hidden": 16})
    with pytest.raises(ModelError, match="hidden"):
        PictureModel.fit(digits(), config=other, out=tmp_path / "m", resume=True)
    model = PictureModel.fit(digits(), config=config, out=tmp_path / "m", resume=True)
    assert np.array_equal(model.log_prob(digits()), expected.log_prob(digits()))
    assert not (tmp_path / "m" / "resume.json").exists()


def test_a_run_by_the_clock_is_repeated(tmp_path: Path) -> None:
    config = PictureConfig(budget=4.0, **TINY)
    one = PictureModel.fit(digits(), config=config, out=tmp_path / "one")
    two = PictureModel.fit(digits(), config=config, schedule=tmp_path / "one")
    assert np.array_equal(one.log_prob(digits()), two.log_prob(digits()))
    assert one.card.schedule == two.card.schedule


def test_labels_condition_and_classify(given: PictureModel) -> None:
    x = digits()
    assert given.card.classes == tuple("0123456789")
    assert sum(given.card.class_shares) == pytest.approx(1)
    labelled = given.log_prob(x)
    bare = given.log_prob(x.pixels)
    shares = given.class_probabilities(x.pixels)
    assert shares.shape == (300, 10)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    known = shares[np.arange(300), np.asarray(x.labels)]
    prior = np.asarray(given.card.class_shares)[np.asarray(x.labels)]
    np.testing.assert_allclose(bare, labelled + np.log(prior) - np.log(known), rtol=1e-3, atol=1e-2)
    assert np.mean(shares.argmax(1) == x.labels) > 0.3  # one in ten by chance
    assert given.sample(4, label="7", seed=0).shape == (4, 1, 8, 8)
    assert not np.array_equal(given.sample(4, label="7", seed=0), given.sample(4, label=1, seed=0))
    with pytest.raises(ModelError, match="label: expected one of 0, 1, 2"):
        given.sample(1, label="cat")


def test_tensors_and_lists_are_pictures_too(saved: Path) -> None:
    model, x = PictureModel.load(saved), digits().pixels
    listed = [Image.fromarray(picture[0]) for picture in x[:3]]
    for given in (torch.from_numpy(x[:3]), list(x[:3, 0]), listed):
        assert np.array_equal(model.log_prob(given), model.log_prob(x[:3]))
    fitted = diffeo.fit(torch.from_numpy(x), epochs=1, **TINY)
    assert isinstance(fitted, PictureModel)
    with pytest.raises(DataError, match=r"the list: picture 2: expected \[8, 8\] as the first, got \[4, 8\]"):
        diffeo.fit([x[0, 0], x[1, 0, :4]])
    assert 'src="data:image/png;base64,' in model._repr_html_()


def test_from_one_picture_to_another(saved: Path) -> None:
    model, x = PictureModel.load(saved), digits()
    a, b = x.take([0]), x.take([1])
    road = model.interpolate(a, b, steps=5)
    assert road.shape == (5, 1, 8, 8)
    assert np.array_equal(road[0], a.pixels[0])
    assert np.array_equal(road[-1], b.pixels[0])
    assert np.array_equal(model.interpolate(b, a, steps=5)[1:-1], road[::-1][1:-1])
    lengths = np.linalg.norm(model.to_latent(road), axis=1)
    assert np.all(lengths > 0.7 * min(lengths[0], lengths[-1]))  # a straight line would pass nearer to zero
    with pytest.raises(DataError, match="a: expected one picture, got 300"):
        model.interpolate(x, b)


def test_bad_input_is_one_line(saved: Path) -> None:
    model = PictureModel.load(saved)
    with pytest.raises(DataError, match="9x9 pixels, but this model takes grey pictures of 8x8") as fault:
        model.log_prob(np.zeros((2, 9, 9), np.uint8))
    assert "\n" not in str(fault.value)
    with pytest.raises(DataError, match="n: expected a number of pictures"):
        model.sample(0)
    with pytest.raises(DataError, match=r"grey levels 0\.\.16"):
        model.log_prob(np.full((2, 8, 8), 40, np.uint8))
    with pytest.raises(DataError, match="two pictures or more"):
        PictureModel.fit(digits().take([0]))
    with pytest.raises(DataError, match="label"):
        PictureModel.fit(digits().pixels, config=PictureConfig(label=True))
    with pytest.raises(ModelError, match="config: expected a PictureConfig"):
        PictureModel.fit(digits(), config="fast")  # type: ignore[arg-type]


def test_a_spoiled_model_does_not_score(saved: Path) -> None:
    model = PictureModel.load(saved)
    with torch.no_grad():
        next(model.density.parameters()).fill_(math.nan)
    with pytest.raises(ModelError, match="is not a number; the model is damaged"):
        model.log_prob(digits())
