"""The report on a density of pictures: its numbers against direct computation, its verdict, its page."""

import base64
import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffeo.baselines.pictures import PixelGaussian, PixelHistogram, zlib_bits
from diffeo.bases import Uniform
from diffeo.data.pictures import Pictures
from diffeo.errors import ModelError
from diffeo.flow import Flow
from diffeo.pictures import evidence
from diffeo.pictures.drawn import copies_of
from diffeo.pictures.evidence import findings_of, of_other_pictures
from diffeo.pictures.findings import Anchor, Bits, Copies, PictureFindings, Spread
from diffeo.pictures.judging import judged
from diffeo.pictures.latents import level_of, parts_of, round_trip
from diffeo.pictures.page import render, write_report
from diffeo.pictures.recipes import build, planned
from diffeo.pictures.scores import bits_each
from diffeo.pictures.showing import great_circle
from diffeo.quantized import Quantized
from diffeo.transforms import Multiscale, Squeeze

GRAYS = 17
CLASSES = ("bars <b>", "dots")
HISTORY = [
    {"step": 0, "epoch": 0.0, "seconds": 0.0, "train": None, "valid": -300.0, "best": -300.0, "skipped": 0},
    {"step": 5, "epoch": 1.0, "seconds": 2.0, "train": -250.0, "valid": math.nan, "best": -240.0, "skipped": 1},
]
CARD = {
    "source": "/some/where/shapes & <i>",
    "recipe": "glow-small",
    "plan": {"steps": 1},
    "training": {"learning_rate": 0.002},
    "parameters": 123,
    "epochs": 1.0,
    "steps": 500,
    "skipped": 1,
    "returns": 0,
    "seconds": 2.5,
    "seed": 3,
    "version": "0.0",
    "torch": "2",
}


def _pictures(n: int, seed: int, source: str = "shapes") -> Pictures:
    """Bright bars or dots on a dark ground, 8 x 8, of 17 grey levels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    pixels = rng.integers(0, 6, (n, 1, 8, 8))
    for picture, label, place in zip(pixels, labels, rng.integers(0, 7, n), strict=True):
        if label:
            picture[0, place, place] = 16
        else:
            picture[0, :, place] += 10
    return Pictures(pixels.astype(np.uint8), labels.astype(np.int64), CLASSES, source, grays=GRAYS)


def _density(classes: int = 0) -> Quantized:
    torch.manual_seed(1)
    density = build(planned("glow-small", (1, 8, 8), grays=GRAYS, classes=classes, steps=1, width=8))
    x = torch.tensor(_pictures(200, 5).pixels).float()
    context = torch.eye(classes)[torch.zeros(200, dtype=torch.int64)] if classes else None
    density.flow.transform.settle((x + torch.rand_like(x)) / GRAYS, context)
    if classes:
        with torch.no_grad():
            for parameter in density.parameters():
                parameter += 0.01 * torch.randn_like(parameter)
    return density.eval()


def _bits(density: Quantized, x: np.ndarray, points: int, context: torch.Tensor | None = None) -> np.ndarray:
    with torch.no_grad():
        return -density.log_prob(torch.tensor(x), context, points).double().numpy() / (64 * math.log(2))


@pytest.fixture(scope="module")
def plain() -> tuple[Quantized, PictureFindings, Pictures, Pictures]:
    density, train, valid = _density(), _pictures(300, 0), _pictures(150, 1)
    found = findings_of(density, CARD, train, valid, HISTORY, points=3, seed=3, budget=None)
    return density, found, train, valid


Plain = tuple[Quantized, PictureFindings, Pictures, Pictures]


@pytest.fixture(scope="module")
def given() -> tuple[Quantized, PictureFindings]:
    density = _density(classes=2)
    found = findings_of(density, CARD, _pictures(60, 0), _pictures(40, 1), [], points=2, seed=3, budget=None)
    return density, found


# Numbers -------------------------------------------------------------------------------------------------------------


def test_bits_are_those_of_the_density(plain: Plain) -> None:
    density, found, _, valid = plain
    bits = _bits(density, valid.pixels, 3)
    assert found.bits == pytest.approx(bits.mean(), abs=1e-9)
    assert found.standard_error == pytest.approx(bits.std(ddof=1) / math.sqrt(150), abs=1e-9)
    assert found.one_draw.mean == pytest.approx(_bits(density, valid.pixels, 1).mean(), abs=1e-9)
    assert found.bits < found.one_draw.mean  # type: ignore[operator]  # more draws, a tighter bound, here by far
    assert found.train.n == 150
    for place, one in enumerate(found.by_class):
        mine = bits[valid.labels == place]
        assert (one.name, one.bits.n) == (CLASSES[place], len(mine))
        assert one.bits.mean == pytest.approx(mine.mean(), abs=1e-9)


def test_even_noise_takes_eight_bits_each() -> None:
    flat = Multiscale(Squeeze(), event=(1, 4, 4))
    even = Quantized(Flow(flat, Uniform(0.0, 1.0, 16), event_shape=(1, 4, 4)), levels=256)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 1, 4, 4), dtype=np.uint8)
    assert bits_each(even, Pictures(pixels), 2, (), ()) == pytest.approx(8.0, abs=1e-5)


def test_anchors_are_paired_with_the_density_on_the_same_pictures(plain: Plain) -> None:
    density, found, train, valid = plain
    bits = _bits(density, valid.pixels, 3)
    each = {
        "zlib": zlib_bits(valid.pixels),
        "histogram": PixelHistogram.fit(train.pixels, GRAYS).bits_per_dim(valid.pixels),
        "Gaussian": PixelGaussian.fit(train.pixels, GRAYS).bits_per_dim(valid.pixels),
        "Gaussian of logits": PixelGaussian.fit(train.pixels, GRAYS, logit=True).bits_per_dim(valid.pixels),
    }
    assert [anchor.name for anchor in found.anchors] == list(each)
    for anchor in found.anchors:
        assert anchor.bits.mean == pytest.approx(each[anchor.name].mean())
        assert anchor.ahead.mean == pytest.approx((each[anchor.name] - bits).mean())
        assert anchor.ahead.error == pytest.approx((each[anchor.name] - bits).std(ddof=1) / math.sqrt(150))


def test_others_are_scored_and_anchors_crossed(plain: Plain) -> None:
    density, found, _, _ = plain
    others = _pictures(60, 9, "elsewhere/others")
    told = of_other_pictures(found, density, others)
    assert not told.held_out
    assert told.scored_source == "others"
    assert told.bits == pytest.approx(_bits(density, others.pixels, 3).mean(), abs=1e-9)
    halves = np.zeros(60)
    for mine in (slice(0, None, 2), slice(1, None, 2)):
        other = slice(1 - (mine.start or 0), None, 2)
        halves[mine] = PixelHistogram.fit(others.pixels[other], GRAYS).bits_per_dim(others.pixels[mine])
    anchor = told.anchor("histogram")
    assert anchor is not None
    assert anchor.bits.mean == pytest.approx(halves.mean())
    assert "themselves" in told.anchors_from
    assert told.copies == found.copies
    assert told.history == found.history
    assert told.sheet("samples") == found.sheet("samples")
    assert told.sheet("extremes") != found.sheet("extremes")


def test_a_single_other_picture_has_a_report(plain: Plain, tmp_path: Path) -> None:
    density, found, _, _ = plain
    told = of_other_pictures(found, density, _pictures(1, 4))
    assert (told.model.n, told.standard_error) == (1, None)
    assert [anchor.name for anchor in told.anchors] == ["zlib"]
    assert "too few to tell" in " ".join(told.verdict.reasons)  # type: ignore[union-attr]
    assert write_report(told, tmp_path).exists()


def test_classes_are_conditioned_on_and_averaged_over_without_labels(given: tuple[Quantized, PictureFindings]) -> None:
    density, found = given
    valid, train = _pictures(40, 1), _pictures(60, 0)
    assert valid.labels is not None
    assert train.labels is not None
    context = torch.eye(2)[torch.tensor(valid.labels)]
    assert found.bits == pytest.approx(_bits(density, valid.pixels, 2, context).mean(), abs=1e-9)
    assert found.conditional
    assert found.class_shares == pytest.approx(np.bincount(train.labels) / 60, abs=1e-4)
    told = of_other_pictures(found, density, Pictures(valid.pixels, grays=GRAYS))
    each = [np.exp2(-64 * _bits(density, valid.pixels, 2, torch.eye(2)[[c] * 40])) for c in (0, 1)]
    mixed = -np.log2(sum(p * share for p, share in zip(each, found.class_shares, strict=True))) / 64
    assert told.bits == pytest.approx(mixed.mean(), abs=1e-6)


def test_the_same_seed_gives_the_same_findings(plain: Plain) -> None:
    density, found, train, valid = plain
    again = findings_of(density, CARD, train, valid, HISTORY, points=3, seed=3, budget=None)
    other = findings_of(density, CARD, train, valid, HISTORY, points=3, seed=4, budget=None)
    assert again == found
    assert other.sheet("samples") != found.sheet("samples")


def test_a_slow_density_is_looked_at_less(plain: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    density, _, train, valid = plain
    monkeypatch.setattr(evidence, "_pace", lambda *_: (10.0, 10.0))
    found = findings_of(density, CARD, train, valid, [], points=3, seed=3, budget=5.0)
    assert (found.model.n, found.samples_drawn, found.round_trip.pictures) == (64, 16, 8)
    assert all(level.pictures == 64 for level in found.latents)


@pytest.mark.parametrize("budget", [None, 5.0])
def test_a_score_that_is_no_number_is_never_left_out(plain: Plain, budget: float | None) -> None:
    density, _, train, valid = plain
    broken = build(planned("glow-small", (1, 8, 8), grays=GRAYS, steps=1, width=8))
    broken.load_state_dict(density.state_dict())
    with torch.no_grad():
        next(broken.parameters()).fill_(math.nan)
    with pytest.raises(ModelError, match=r"picture .* is not a number"):
        findings_of(broken, CARD, train, valid, [], points=1, seed=3, budget=budget)


# The noise, and the way back -----------------------------------------------------------------------------------------


def test_normal_noise_is_fine() -> None:
    """By chance a word is said once in 3,000 levels: five figures, four standard errors each."""
    level = level_of("", np.random.default_rng(0).normal(size=(100, 3, 8, 8)))
    assert level.words == ()
    found = (level.mean, level.spread - 1, level.kurtosis, level.length - 1, level.neighbours)
    assert all(abs(value) < 4 * error for value, error in zip(found, level.errors, strict=True))
    assert level.length_spread == pytest.approx(1, abs=0.3)  # its standard error is 0.07


def test_errors_are_those_of_chance() -> None:
    """Over 300 repetitions the spread of each figure is the error named, within 4 of its own standard errors (1/24)."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(300):
        level = level_of("", rng.normal(size=(20, 2, 6, 6)))
        found.append((level.mean, level.spread, level.kurtosis, level.length, level.neighbours))
    assert np.std(found, axis=0) / np.array(level.errors) == pytest.approx(1, abs=4 / 24)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda z: z + 0.3, "shifted up"),
        (lambda z: 1.4 * z, "too much spread"),
        (lambda z: 0.7 * z, "too little spread"),
        (lambda z: z**3 / math.sqrt(15), "heavy tails"),
        (lambda z: (z + np.roll(z, 1, 3)) / math.sqrt(2), "neighbours alike"),
    ],
)
def test_noise_that_is_not_normal_is_named(change: Any, word: str) -> None:
    assert level_of("", change(np.random.default_rng(0).normal(size=(100, 2, 8, 8)))).words == (word,)


def test_neighbours_of_a_moving_average_correlate_by_one_half() -> None:
    """(z_i + z_{i+1}) / sqrt 2 along one axis of two: 1/2 along it, 0 along the other."""
    z = np.random.default_rng(0).normal(size=(400, 1, 8, 9))
    level = level_of("", (z[..., 1:] + z[..., :-1]) / math.sqrt(2))
    assert level.neighbours == pytest.approx(0.25, abs=0.02)
    flat = level_of("", ((z[..., 1:] + z[..., :-1]) / math.sqrt(2)).reshape(-1, 8))
    assert flat.neighbours == pytest.approx(0.5, abs=0.02)


def test_levels_are_those_of_the_flow(plain: Plain) -> None:
    density, found, _, valid = plain
    assert [level.shape for level in found.latents] == [(2, 4, 4), (8, 2, 2)]
    z = density.to_latent(torch.tensor(valid.pixels[:3]))
    assert torch.equal(torch.cat([part.flatten(1) for part in parts_of(density, z)], 1), z)


def test_what_does_not_come_back_is_counted(plain: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    density, found, _, valid = plain
    assert (found.round_trip.levels, found.round_trip.numbers) == (0, 32 * 64)
    assert found.round_trip.v_error is not None
    assert found.round_trip.v_error < 1e-4
    way = density.flow.from_latent

    def shifted(z: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        v = way(z, context)
        v[0, 0, 0, 0] += 1 / GRAYS
        return v

    monkeypatch.setattr(density.flow, "from_latent", shifted)
    trip = round_trip(density, torch.tensor(valid.pixels[:4]), None)
    assert trip.levels == 1
    assert trip.v_error == pytest.approx(1 / GRAYS, rel=1e-3)
    told = judged(found.model_copy(update={"round_trip": trip}))
    assert told.trust == "no"
    assert "1 of 256 grey levels do not come back" in told.sentence


def test_great_circle_meets_its_ends_and_keeps_its_length() -> None:
    a, b = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    road = great_circle(a, b * a.norm() / b.norm(), torch.linspace(0, 1, 7, dtype=torch.float64))
    assert torch.allclose(road[0], a)
    assert torch.allclose(road.flatten(1).norm(dim=1), a.norm())
    steps = (road[1:] - road[:-1]).flatten(1).norm(dim=1)
    assert torch.allclose(steps, steps[0])


# The verdict ---------------------------------------------------------------------------------------------------------


def test_copies_are_told_from_new_pictures() -> None:
    train, held, new = _pictures(300, 0), _pictures(100, 1), _pictures(64, 2)
    noise = np.random.default_rng(0).integers(0, 2, (64, 1, 8, 8), dtype=np.uint8)
    copied = Pictures(np.minimum(train.pixels[100:164] + noise, GRAYS - 1), grays=GRAYS)
    fresh, _ = copies_of(new, train, held, math.inf, GRAYS)
    same, sheet = copies_of(copied, train, held, math.inf, GRAYS)
    assert fresh is not None
    assert same is not None
    assert fresh.closer < 0.1
    assert same.closer == 1
    assert sheet.rows == ("sample", "nearest") * 2


def _healthy(found: PictureFindings) -> PictureFindings:
    """Findings with nothing to find fault with."""
    fine = Bits(n=1000, mean=2.0, error=0.01)
    spread = Spread(edges=(1.0, 3.0), pictures=(9,), samples=(9,), pictures_bits=fine, samples_bits=fine)
    copies = Copies(
        samples=64,
        held_out=200,
        among=300,
        median=21.0,
        held_out_median=20.0,
        quantile=10.0,
        limit=0.01,
        closer=0.02,
    )
    anchors = tuple(
        Anchor(name=name, bits=Bits(n=1000, mean=3.0, error=0.01), ahead=Bits(n=1000, mean=1.0, error=0.01))
        for name in ("zlib", "histogram")
    )
    said = {"model": fine, "one_draw": fine, "train": fine, "spread": spread, "copies": copies, "anchors": anchors}
    levels = tuple(level.model_copy(update={"words": ()}) for level in found.latents)
    return found.model_copy(update={**said, "latents": levels, "skipped": 0, "held_out": True})


def _behind(name: str, by: float) -> dict[str, Any]:
    ahead = Bits(n=1000, mean=-by, error=0.01)
    return {"anchors": (Anchor(name=name, bits=Bits(n=1000, mean=2.0 - by, error=0.01), ahead=ahead),)}


def test_a_healthy_density_is_trusted(plain: Plain) -> None:
    told = judged(_healthy(plain[1]))
    assert told.trust == "yes"
    assert told.sentence.startswith(
        "Trust it: this density explains 1,000 pictures held out of training in 2.000 ± 0.010 bits per dimension, "
        "1.00 below the best of 2 simple measures (zlib); "
    )


@pytest.mark.parametrize(
    ("change", "trust", "said"),
    [
        (_behind("histogram", 0.2), "no", "a histogram of each pixel alone explains them 0.20 bits better"),
        (_behind("histogram", 0.01), "with care", "it is not ahead of histogram (no different)"),
        (_behind("Gaussian", 0.2), "with care", "it is not ahead of Gaussian (0.20 bits better)"),
        ({"model": Bits(n=1000, impossible=2)}, "no", "2 pictures of 1,000 cannot happen under it"),
        ({"samples_broken": 3}, "no", "3 of 64 samples are not numbers"),
        ({"model": Bits(n=50, mean=2.0, error=0.1)}, "with care", "50 pictures are too few to tell"),
        ({"train": Bits(n=1000, mean=1.5, error=0.01)}, "with care", "explains training pictures 0.50 bits better"),
        ({"skipped": 1}, "yes", "1 training step of 500 gave no number and was skipped"),
        ({"skipped": 100}, "with care", "100 training steps of 500 gave no number and were skipped"),
        ({"returns": 2}, "with care", "training went back to earlier weights 2 times"),
    ],
)
def test_what_is_found_decides(plain: Plain, change: dict[str, Any], trust: str, said: str) -> None:
    told = judged(_healthy(plain[1]).model_copy(update=change))
    assert told.trust == trust
    assert said in " ".join(told.reasons)
    assert told.trust == "yes" or said in told.sentence


@pytest.mark.parametrize(
    ("part", "change", "trust", "said"),
    [
        ("copies", {"closer": 0.9}, "no", "90% of its samples lie nearer to a training picture than 99%"),
        ("copies", {"closer": 0.2}, "with care", "20% of its samples lie nearer"),
        ("copies", {"median": 36.0}, "with care", "its samples lie 1.8 times as far from training pictures"),
        ("spread", {"samples_bits": Bits(n=64, mean=2.9, error=0.05)}, "with care", "samples take 0.90 bits"),
    ],
)
def test_what_samples_show_decides(plain: Plain, part: str, change: dict[str, Any], trust: str, said: str) -> None:
    found = _healthy(plain[1])
    told = judged(found.model_copy(update={part: getattr(found, part).model_copy(update=change)}))
    assert told.trust == trust
    assert said in told.sentence


def test_noise_off_is_a_warning_that_names_the_level(plain: Plain) -> None:
    found = _healthy(plain[1])
    off = found.latents[0].model_copy(update={"words": ("heavy tails",)})
    told = judged(found.model_copy(update={"latents": (off, *found.latents[1:])}))
    assert told.trust == "with care"
    assert "not normal in level 1, the finest (heavy tails)" in told.sentence


# Written down --------------------------------------------------------------------------------------------------------


def test_findings_go_to_json_and_back(plain: Plain) -> None:
    found = plain[1]
    assert PictureFindings.from_json(found.to_json()) == found
    assert found.source == "shapes & <i>"  # of a path its last part
    assert found.history[1].valid is None  # a round that gave no number
    with pytest.raises(ModelError, match="damaged: they are no JSON"):
        PictureFindings.from_json("{")
    with pytest.raises(ModelError, match="damaged: points"):
        PictureFindings.from_json(found.to_json().replace('"points":3', '"points":0'))
    with pytest.raises(ModelError, match="newer than this diffeo"):
        PictureFindings.from_json('{"schema_version": 2}')


def test_sheets_hold_the_pictures(plain: Plain) -> None:
    """The first cells of `rebuilt` are the scored pictures and what comes back of them, grey levels spread evenly."""
    _, found, _, valid = plain
    sheet = found.sheet("rebuilt")
    assert sheet is not None
    with Image.open(io.BytesIO(base64.b64decode(sheet.png))) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (sheet.height, sheet.width)
    wanted = np.round(valid.pixels[0, 0] * (255 / (GRAYS - 1)))
    for top in (1, 10):
        assert np.abs(pixels[top : top + 8, 1:9] - wanted).max() <= 1


def test_the_page_is_self_contained_and_says_what_it_must(plain: Plain, tmp_path: Path) -> None:
    found = plain[1]
    path = write_report(found, tmp_path)
    page = path.read_text(encoding="utf-8")
    assert PictureFindings.from_json((tmp_path / "report.json").read_text()) == found
    assert not re.search(r"<(script|link|iframe|object|embed|form|a|base|svg)\b|https?://|url\(", page)
    assert "<i>" not in page
    assert "bars &lt;b&gt;" in page
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    for said in (
        "The density's figures are bounds",
        "3 draws",
        "own 1 × 8 × 8 numbers of 17 grey levels",
        "log-probability of a picture is not by itself a sign of whether it belongs",
        "all 2,048 grey levels came back exactly",
        "level 2, the coarsest",
        "a histogram of each pixel alone",
        "1 step gave no number and was skipped",
        "Copies would be far nearer",
    ):
        assert said in text, said
    pictures = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    assert len(pictures) == 3 + len(found.sheets)
    for png in pictures:
        with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
            picture.load()


def test_a_page_of_little(given: tuple[Quantized, PictureFindings]) -> None:
    """Without a history, samples' figures or anchors, and with impossible pictures."""
    none = {
        "spread": None,
        "copies": None,
        "sheets": (),
        "anchors": (),
        "latents": (),
        "model": Bits(n=4, impossible=1),
    }
    found = given[1].model_copy(update=none)
    page = render(found.model_copy(update={"verdict": judged(found)}))
    assert "∞ (1 impossible)" in page
    assert "Do not trust it" in page
    assert "given one of 2 classes" in page
