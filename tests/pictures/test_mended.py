"""Defects that were found once, each by the smallest thing that shows it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import diffeo
from diffeo import artefact
from diffeo.attention import attend
from diffeo.bases import StandardNormal
from diffeo.cli import main
from diffeo.config import PictureConfig
from diffeo.data.pictures import Pictures, read_pictures
from diffeo.dequantization import VariationalNoise
from diffeo.errors import DataError, ModelError, ShapeError
from diffeo.flow import Flow
from diffeo.pictures.listing import asking, score_tables
from diffeo.pictures.model import PictureModel
from diffeo.pictures.recipes import build, planned
from diffeo.quantized import Quantized
from diffeo.transforms import Chain, Logit

TINY: dict[str, Any] = {"layers": 1, "hidden": 8, "threads": 1, "epochs": 1, "budget": None}


def digits(n: int = 200) -> Pictures:
    return read_pictures("digits8").take(slice(0, n))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PictureModel:
    return PictureModel.fit(digits(), config=PictureConfig(**TINY), out=tmp_path_factory.mktemp("mended") / "m")


def test_attention_of_parts_that_lie_otherwise() -> None:
    q, k, v = (torch.randn(2, 2, 8, 6, requires_grad=True).mT for _ in range(3))
    dense = [part.detach().contiguous().requires_grad_() for part in (q, k, v)]
    torch.testing.assert_close(attend(q, k, v, True), attend(*dense, True))


def test_noise_stays_in_its_cell_in_half_precision() -> None:
    """The mass of three neighbours under a density of one cell alone: no more than 1."""

    class Cell(StandardNormal):
        def log_prob(self, z: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
            inside = (z * 256).floor() == 200
            return torch.where(inside, math.log(256), -math.inf)[:, 0]

    density = Quantized(Flow(Chain(), Cell(1))).bfloat16()
    x = torch.arange(199, 202)[:, None].repeat(200, 1)
    assert torch.equal(density.objective(x).exp().view(200, 3).mean(0), torch.tensor([0.0, 1.0, 0.0]))


def test_black_pixels_are_not_at_the_end_of_a_logarithm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)
    density = Quantized(Flow(Logit(), StandardNormal(4)))
    assert density.objective(torch.zeros(2, 4)).isfinite().all()


def test_noise_hears_the_context_and_fits_the_flow() -> None:
    flow = build(planned("glow-small", (1, 8, 8), steps=1, width=8)).flow
    density = Quantized(flow, noise=VariationalNoise((1, 8, 8), width=8, context=3))
    assert density.context_features == 3
    assert density.log_prob(torch.zeros(2, 1, 8, 8), torch.eye(2, 3)).shape == (2,)
    with pytest.raises(ShapeError, match=r"noise: expected noise of events of the flow, \[1, 8, 8\]"):
        Quantized(flow, noise=VariationalNoise((1, 4, 4), width=8))


def test_what_is_drawn_by_damaged_weights_is_no_grey_picture() -> None:
    density = build(planned("glow-small", (1, 8, 8), steps=1, width=8))
    with torch.no_grad():
        next(density.parameters()).fill_(math.nan)
    with pytest.raises(ModelError, match="a picture that was drawn is not a number"):
        density.sample(2)


@pytest.mark.parametrize("draws", [None, 16])
def test_training_pictures_rank_evenly_however_many_draws(model: PictureModel, draws: int | None) -> None:
    """Their mean percentile is 50, within 4 standard errors of even ranks."""
    tables = list(score_tables(model, model.read(digits()), draws))
    percentile = np.concatenate([table["percentile"].to_numpy() for table in tables])
    assert abs(percentile.mean() - 50) < 4 * 100 / math.sqrt(12 * len(percentile))


def test_faces_are_cut_at_score_as_at_fit(tmp_path: Path) -> None:
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(6):
        pixels = generator.integers(0, 256, (218, 178, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i + 1:06d}.jpg")
    fitted = PictureModel.fit(folder.parent, config=PictureConfig(**{**TINY, "layers": 1}))
    assert (fitted.card.config.size, fitted.card.config.crop) == (32, 148)
    assert fitted.log_prob(folder / "000001.jpg").shape == (1,)


def test_scales_of_grey_are_not_mixed(tmp_path: Path) -> None:
    bright = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    with pytest.raises(DataError, match="has 17 grey levels, but this model takes 256"):
        PictureModel.fit(bright, valid="digits8:test", config=PictureConfig(**TINY))


def test_palettes_are_colours() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).quantize(16)
    assert np.array_equal(read_pictures([picture]).pixels[0], np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        read_pictures([Image.fromarray(np.zeros((4, 4), np.int32))])


def test_bad_files_are_left_out_only_where_it_is_asked(tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for i, picture in enumerate(digits(40).pixels):
        Image.fromarray(picture[0] * 15).save(folder / f"{i:02d}.png")
    (folder / "99.png").write_bytes(b"no picture")
    fitted = PictureModel.fit(folder, config=PictureConfig(**TINY, skip_bad=True))
    with pytest.raises(DataError, match=r"99\.png"):
        fitted.log_prob(folder)
    assert len(asking(fitted, skip_bad=True).read(folder).skipped) == 1


def test_overwriting_takes_the_old_report_but_no_samples_too_soon(tmp_path: Path) -> None:
    place = tmp_path / "m"
    first = PictureModel.fit(digits(), config=PictureConfig(**TINY), out=place)
    first.report()
    grids = {path.name for path in (place / "samples").iterdir()}
    with pytest.raises(ModelError, match="recipe: expected one of"):
        PictureModel.fit(digits(), config=PictureConfig(**TINY, recipe="nope"), out=place, overwrite=True)
    assert {path.name for path in (place / "samples").iterdir()} == grids
    assert (place / "report.html").exists()
    PictureModel.fit(digits(100), config=PictureConfig(**TINY), out=place, overwrite=True)
    assert not (place / "report.html").exists()
    assert not (place / "report.json").exists()


def test_resume_is_refused_where_it_means_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing holds no interrupted run"):
        PictureModel.fit(digits(), config=PictureConfig(**TINY), resume=True)
    with pytest.raises(ModelError, match="keeps its schedule"):
        PictureModel.fit(digits(), config=PictureConfig(**TINY), out=tmp_path / "m", resume=True, schedule=tmp_path)


def test_odd_things_are_one_line(model: PictureModel) -> None:
    x = digits(3).pixels
    tensors = [torch.from_numpy(picture) for picture in x]
    assert model.log_prob(tensors).shape == (3,)
    assert model.log_prob(Image.fromarray(x[0, 0])).shape == (1,)
    for odd in ([], None, {"a": 1}, 7, [[1, 2], [3, 4]]):
        with pytest.raises(DataError, match="pictures: cannot be read from a"):
            model.log_prob(odd)
    with pytest.raises(DataError, match=r"expected whole numbers, got torch\.bfloat16"):
        model.log_prob(torch.zeros(2, 8, 8, dtype=torch.bfloat16))
    with pytest.raises(DataError, match=r"z: expected noise \[n, 64\], got \[2, 5\]"):
        model.from_latent(np.zeros((2, 5)))
    for seed in (-1, "a"):
        with pytest.raises(ShapeError, match="seed: expected a whole number"):
            model.sample(1, seed=seed)  # type: ignore[arg-type]
    assert model.sample(np.int64(3)).shape == (3, 1, 8, 8)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="temperature: expected a number, 0 or more, got nan"):
        model.sample(1, temperature=math.nan)


def test_a_name_that_is_too_long_is_one_line(model: PictureModel) -> None:
    done = CliRunner().invoke(main, ["sample", str(model.folder), "-n", "1", "-o", "x" * 300])
    assert done.exit_code == 2
    assert "cannot be written to" in done.output


def test_classes_that_are_not_known_count_as_none() -> None:
    some = read_pictures("digits8", labelled=True).take(slice(0, 100))
    fitted = PictureModel.fit(some, config=PictureConfig(**TINY, label=True))
    other = Pictures(some.pixels, some.labels, tuple("abcdefghij"), grays=17)
    np.testing.assert_allclose(fitted.log_prob(other), fitted.log_prob(some.pixels))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (("plan", "recipe"), "nope", "recipe: expected one of"),
        (("plan", "width"), 4096, "the plan asks for"),
        (("plan", "classes"), 3, "do not belong together"),
        (("percentiles",), [], "do not belong together"),
        (("class_shares",), [0.5], "do not belong together"),
    ],
)
def test_a_record_that_was_sealed_again(
    model: PictureModel, tmp_path: Path, field: tuple[str, ...], value: Any, words: str
) -> None:
    place = PictureModel.load(str(model.folder)).save(tmp_path / "m")
    record = json.loads((place / "model.json").read_text())
    inner = record
    for name in field[:-1]:
        inner = inner[name]
    inner[field[-1]] = value
    record.pop("sha256")
    (place / "model.json").write_bytes(artefact._sealed(record))
    with pytest.raises(ModelError, match=words):
        diffeo.load(place)


def test_one_impossible_picture_makes_the_mean_infinite(model: PictureModel, monkeypatch: pytest.MonkeyPatch) -> None:
    before = PictureModel.log_prob

    def some(self: PictureModel, data: Any, *, points: int | None = None) -> np.ndarray:
        found = before(self, data, points=points)
        found[0] = -math.inf
        return found

    monkeypatch.setattr(PictureModel, "log_prob", some)
    done = CliRunner().invoke(main, ["score", str(model.folder), "digits8:test", "--json"])
    told = json.loads(done.stdout)
    assert told["minus_infinite"] == 1
    assert told["bits_per_dim"] is None
