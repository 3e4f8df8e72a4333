"""Pictures by commands: digits fitted, scored, drawn, interpolated, reported, checked; what does not fit is named."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import diffeo
from diffeo.cli import main
from diffeo.data import files
from diffeo.data.pictures import read_pictures, write_png
from diffeo.quantized import Quantized

Run = Callable[..., Any]
SMALL = ["--epochs", "1", "--layers", "1", "--hidden", "8", "--threads", "1"]


def done_by(*words: Any, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False, env=env)


def refused(*words: Any, env: dict[str, str] | None = None) -> str:
    """The one line on stderr of a command that must end with exit code 2, and writes nothing else."""
    done = done_by(*words, env=env)
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    lines: list[str] = done.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("diffeo: ")
    return lines[0]


def seen(path: Path) -> np.ndarray:
    """Grey levels [H, W] of a PNG file."""
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    """(a model of digits given their classes, what fit said on stderr, its JSON)."""
    place = tmp_path_factory.mktemp("pictures") / "model"
    done = done_by("fit", "digits8", "-o", place, "--label", "--json", *SMALL)
    assert done.exit_code == 0, done.stderr
    return place, done.stderr, json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve grey pictures of 8 x 8."""
    place = tmp_path_factory.mktemp("folder") / "digits"
    place.mkdir()
    for number, picture in enumerate(read_pictures("digits8:test").pixels[:12]):
        write_png(place / f"{number:02d}.png", picture)
    return place


def test_fit_says_bits_and_where_the_samples_are(model: Any) -> None:
    place, said, figures = model
    assert (figures["path"], figures["recipe"], figures["rows"]) == (str(place), "glow-small", 1500)
    assert 0 < figures["valid_bits"] < 5
    assert figures["valid_bits_error"] > 0
    assert figures["valid_log_prob"] == pytest.approx(-figures["valid_bits"] * 64 * np.log(2))
    assert "bits/dim" in said
    assert said.count(f"{place}/samples/step_*.png") == 1
    assert sorted((place / "samples").glob("step_*.png"))
    info = done_by("info", place)
    assert "8 x 8" in info.stdout
    assert json.loads(done_by("info", place, "--json").stdout)["card"]["plan"]["grays"] == 17


def test_fit_ends_with_one_line(folder: Path, tmp_path: Path) -> None:
    done = done_by("fit", folder, "-o", tmp_path / "model", "--quiet", *SMALL)
    assert (done.exit_code, done.stderr) == (0, "")
    words = rf"{tmp_path}/model: glow-small, [\d.]+ bits per dimension of held-out pictures( \(standard error .*\))?\n"
    assert re.fullmatch(words, done.stdout)


def test_score_writes_a_line_a_picture(model: Any, folder: Path, tmp_path: Path) -> None:
    lines = done_by("score", model[0], "digits8:test").stdout.splitlines()
    assert lines[0] == "picture,log_prob,bits_per_dim,percentile,reason"
    assert len(lines) == 298
    number, log_prob, bits, percentile, reason = lines[2].split(",")
    assert (number, reason) == ("2", "")
    assert float(bits) == pytest.approx(-float(log_prob) / 64 / np.log(2))
    loaded = diffeo.load(model[0])
    assert float(log_prob) == pytest.approx(loaded.log_prob("digits8:test")[1])
    assert 0 <= float(percentile) <= 100
    place = tmp_path / "scores.parquet"
    one = done_by("score", model[0], "digits8:test", "--json", "--draws", "1", "-o", place)
    said = json.loads(one.stdout)
    assert (said["rows"], said["scored"], said["unscored"]) == (297, 297, {})
    found = files.read(place)
    bits_each = np.array(found["bits_per_dim"].to_pylist())
    assert said["bits_per_dim"] == pytest.approx(bits_each.mean())
    assert said["bits_per_dim_error"] == pytest.approx(bits_each.std(ddof=1) / 297**0.5)
    assert said["bits_per_dim"] != pytest.approx(-float(log_prob) / 64 / np.log(2))
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found["log_prob"].to_pylist(), loaded.log_prob("digits8:test"))


def test_scores_name_files_and_those_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    fitted = tmp_path / "model"
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    try:
        assert "broken.png" in refused("fit", folder, "-o", fitted, "-q", *SMALL)
        done = done_by("fit", folder, "-o", fitted, "--skip-bad", *SMALL)
        assert done.exit_code == 0
        assert "broken.png" in done.stderr
        assert "broken.png" in refused("score", fitted, folder)  # also where the fit was told to leave it out
        done = done_by("score", fitted, folder, "--skip-bad")
        assert (done.exit_code, done.stderr) == (0, "1 of 13 files left out\n")
        rows = done.stdout.splitlines()
        assert len(rows) == 14
        assert rows[1].startswith(f"{folder / '00.png'},-")
        assert rows[-1].startswith(f"{folder / 'broken.png'},,,,")
        assert rows[-1].split(",,,,")[1]
        said = json.loads(done_by("score", fitted, folder, "--skip-bad", "--json").stdout)
        assert (said["rows"], said["scored"], sum(said["unscored"].values())) == (13, 12, 1)
    finally:
        (folder / "broken.png").unlink()


def test_sample_writes_a_folder_a_grid_or_an_array(model: Any, tmp_path: Path) -> None:
    assert done_by("sample", model[0], "-n", "4", "-o", tmp_path / "new").exit_code == 0
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["grid.png", "sample-001.png", "sample-002.png", "sample-003.png", "sample-004.png"]
    assert done_by("sample", model[0], "-n", "4", "-o", tmp_path / "new.npy").exit_code == 0
    drawn = np.load(tmp_path / "new.npy")
    np.testing.assert_array_equal(drawn, diffeo.load(model[0]).sample(4, seed=0))
    shades = (np.arange(17) * 255 / 16).round().astype(np.uint8)
    np.testing.assert_array_equal(seen(tmp_path / "new" / "sample-002.png"), shades[drawn[1, 0]])
    assert done_by("sample", model[0], "-o", tmp_path / "grid.png").exit_code == 0
    assert seen(tmp_path / "grid.png").shape == (62, 62)  # 6 x 6 pictures, gaps of 2
    done_by("sample", model[0], "-n", "3", "-o", tmp_path / "new", "--overwrite")
    assert len(list((tmp_path / "new").iterdir())) == 4


def test_temperatures_and_labels_of_samples(model: Any, tmp_path: Path) -> None:
    for words in (
        ["--sheet", "-n", "3"],
        ["--temperature", "0.5", "-n", "3"],
        ["--label", "7", "-n", "3"],
        ["-n", "3"],
    ):
        assert done_by("sample", model[0], "-o", tmp_path / f"{words[0]}.npy", *words).exit_code == 0
    sheet, half, seven, plain = (
        np.load(tmp_path / f"{name}.npy") for name in ("--sheet", "--temperature", "--label", "-n")
    )
    assert sheet.shape == (24, 1, 8, 8)
    np.testing.assert_array_equal(sheet[6:9], half)
    np.testing.assert_array_equal(sheet[21:], plain)
    np.testing.assert_array_equal(seven, diffeo.load(model[0]).sample(3, seed=0, label="7"))
    done_by("sample", model[0], "--sheet", "-o", tmp_path / "sheet.png")
    assert seen(tmp_path / "sheet.png").shape == (82, 92)  # 9 x 8 pictures


def test_interpolate_goes_from_one_to_the_other(model: Any, folder: Path, tmp_path: Path) -> None:
    done = done_by(
        "interpolate", model[0], "digits8:test@3", "digits8:test@5", "-o", tmp_path / "s.npy", "--steps", "5"
    )
    assert done.exit_code == 0, done.stderr
    strip, digits = np.load(tmp_path / "s.npy"), read_pictures("digits8:test").pixels
    assert strip.shape == (5, 1, 8, 8)
    np.testing.assert_array_equal(strip[[0, -1]], digits[[2, 4]])
    one = folder / "00.png"
    done = done_by("interpolate", model[0], one, f"{folder}@2", "-o", tmp_path / "strip.png")
    assert done.exit_code == 0, done.stderr
    assert seen(tmp_path / "strip.png").shape == (12, 92)


def test_one_of_many_files_is_cut_once(tmp_path: Path) -> None:
    place = tmp_path / "large"
    place.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        write_png(place / f"{number}.png", rng.integers(0, 256, (3, 16, 20), dtype=np.uint8))
    fitted, strip = tmp_path / "model", tmp_path / "strip.npy"
    assert done_by("fit", place, "-o", fitted, "-q", "--crop", "12", "--size", "8", "--gray", *SMALL).exit_code == 0
    assert done_by("interpolate", fitted, f"{place}@2", place / "4.png", "-o", strip).exit_code == 0
    expected = read_pictures(place, crop=12, size=8, gray=True).pixels
    np.testing.assert_array_equal(np.load(strip)[[0, -1]], expected[[1, 4]])
    assert len(done_by("score", fitted, place).stdout.splitlines()) == 7


def test_check_of_pictures(model: Any) -> None:
    done = done_by("check", model[0], "digits8:test", "--json")
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["ok"]
    assert {line["outcome"] for line in said["properties"]} == {"ok"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sample", "MODEL"], "standard output"),
        (["sample", "MODEL", "-o", "x.jpg"], "x.jpg"),
        (["sample", "MODEL", "-o", "none/x.png"], "'none'"),
        (["sample", "MODEL", "-o", "FOLDER"], "--overwrite"),
        (["sample", "MODEL", "-o", "x.png", "--given", "a.csv"], "--given is for models of tables"),
        (["sample", "MODEL", "-o", "x.png", "--label", "ten"], "'ten'"),
        (["sample", "MODEL", "-o", "x.png", "--temperature", "-1"], "--temperature"),
        (["sample", "MODEL", "-o", "x.png", "--temperature", "nan"], "--temperature"),
        (["sample", "MODEL", "-o", "x.png", "--temperature", "0.5", "--sheet"], "--temperature"),
        (["score", "MODEL", "digits8", "--append"], "--append is for models of tables"),
        (["score", "MODEL", "stars"], "stars"),
        (["score", "MODEL", "mnist", "--data", "none"], "none"),
        (["report", "MODEL", "digits8", "--rows"], "--rows is for models of tables"),
        (["interpolate", "MODEL", "digits8@1", "digits8", "-o", "x.png"], "digits8: has 1500 pictures"),
        (["interpolate", "MODEL", "digits8@0", "digits8@1", "-o", "x.png"], "no picture 0"),
        (["interpolate", "MODEL", "none.png", "digits8@1", "-o", "x.png"], "none.png"),
    ],
)
def test_what_models_of_pictures_refuse(
    model: Any, folder: Path, words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"MODEL": model[0], "FOLDER": folder}
    assert said in refused(*(places.get(word, word) for word in words))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["score", "m", "TABLE", "--draws", "2"],
        ["score", "m", "TABLE", "--skip-bad"],
        ["sample", "m", "--label", "a"],
        ["sample", "m", "--sheet"],
        ["interpolate", "m", "a.png", "b.png", "-o", "x.png"],
    ],
)
def test_what_models_of_tables_refuse(fake: Any, table: Path, words: list[str]) -> None:
    said = refused(*(table if word == "TABLE" else word for word in words))
    assert "pictures" in said


@pytest.mark.parametrize(
    ("data", "words", "env", "said"),
    [
        ("digits8", ["--given", "a"], {}, "--given is for tables, but DATA (digits8) are pictures"),
        ("digits8", ["--kind", "a=unit"], {}, "--kind"),
        ("digits8", [], {"DIFFEO_FIT_BINS": "8"}, "DIFFEO_FIT_BINS in the environment"),
        ("digits8", ["--config", "members = 2"], {}, "members in the file of --config"),
        ("TABLE", ["--size", "8"], {}, "--size is for pictures, but DATA (TABLE) is a table"),
        ("TABLE", ["--gray"], {}, "--gray"),
        ("TABLE", ["--data", "somewhere"], {}, "--data"),
        ("TABLE", [], {"DIFFEO_FIT_LABEL": "1"}, "DIFFEO_FIT_LABEL"),
        ("TABLE", ["--config", "noise = 'uniform'"], {}, "noise in the file"),
    ],
)
def test_choices_for_the_other_kind_of_data(
    fake: Any, table: Path, tmp_path: Path, data: str, words: list[str], env: dict[str, str], said: str
) -> None:
    if words[:1] == ["--config"]:
        (tmp_path / "fit.toml").write_text(words[1])
        words = ["--config", str(tmp_path / "fit.toml")]
    line = refused("fit", table if data == "TABLE" else data, "-o", tmp_path / "model", *words, env=env)
    assert said.replace("TABLE", str(table)) in line


def test_choices_come_from_flag_environment_and_file(tmp_path: Path) -> None:
    (tmp_path / "fit.toml").write_text("gray = true\nseed = 5\nhidden = 8\nlayers = 2\nepochs = 1\n")
    words = ["fit", "digits8", "-o", tmp_path / "m", "--config", tmp_path / "fit.toml", "--layers", "1", "-q"]
    done = done_by(*words, env={"DIFFEO_FIT_SEED": "7"})
    assert done.exit_code == 0, done.stderr
    config = diffeo.load(tmp_path / "m").card.config
    assert (config.gray, config.seed, config.hidden, config.layers) == (True, 7, 8, 1)
    assert (config.epochs, config.budget) == (1, None)


def test_bad_pictures_are_named(model: Any, folder: Path, tmp_path: Path) -> None:
    """Each is one line that names the file, and the exit code is 2."""
    new, digit = tmp_path / "model", read_pictures("digits8").pixels[0]
    mixed, empty, other = tmp_path / "mixed", tmp_path / "empty", tmp_path / "other"
    for place in (mixed, empty, other):
        place.mkdir()
    write_png(mixed / "a.png", digit)
    write_png(mixed / "wide.png", np.zeros((1, 8, 12), np.uint8))
    (other / "notes.txt").write_text("no picture")
    np.save(tmp_path / "two.npy", np.zeros((5, 2, 8, 9), np.uint8))
    np.save(tmp_path / "fractions.npy", np.zeros((5, 8, 8)))
    write_png(tmp_path / "large.png", np.zeros((1, 9, 9), np.uint8))
    write_png(tmp_path / "colour.png", np.zeros((3, 8, 8), np.uint8))
    (tmp_path / "cut.png").write_bytes((folder / "00.png").read_bytes()[:60])
    assert "wide.png" in refused("fit", mixed, "-o", new, "-q")
    assert "empty" in refused("fit", empty, "-o", new, "-q")
    assert "other" in refused("fit", other, "-o", new, "-q")
    assert "two.npy" in refused("fit", tmp_path / "two.npy", "-o", new, "-q")
    assert "fractions.npy" in refused("fit", tmp_path / "fractions.npy", "-o", new, "-q")
    for name in ("large.png", "colour.png", "cut.png", "none.png"):
        assert name in refused("score", model[0], tmp_path / name)
    assert not new.exists()


def test_no_number_is_no_score(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture whose log-probability is NaN ends the command, and goes by its number in the whole."""
    whole = Quantized.log_prob

    def log_prob(self: Quantized, x: torch.Tensor, *more: Any) -> torch.Tensor:
        spoilt = torch.from_numpy(read_pictures("digits8").pixels[700])
        return torch.where((x == spoilt).flatten(1).all(1), torch.nan, whole(self, x, *more))

    monkeypatch.setattr(Quantized, "log_prob", log_prob)
    done = done_by("score", model[0], "digits8", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "digits8: picture 701 is not a number" in done.stderr


def test_report_prints_the_path(model: Any, tmp_path: Path) -> None:
    done = done_by("report", model[0])
    assert (done.exit_code, done.stdout) == (0, f"{model[0] / 'report.html'}\n"), done.stderr
    assert done_by("report", model[0], "digits8:test").exit_code == 0


def test_data_lists_and_writes_pictures(tmp_path: Path) -> None:
    assert "digits8: 1,797" in done_by("data").stdout
    assert json.loads(done_by("data", "--json").stdout)["pictures"]["digits8"]["embedded"]
    assert done_by("data", "digits8:test", "-o", tmp_path / "digits.npy").exit_code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "digits.npy"), read_pictures("digits8:test").pixels)
    lines = done_by("data", "digits8:test").stdout.splitlines()
    assert (len(lines), lines[0].count(","), lines[1].split(",")[-1]) == (298, 64, "1")
    assert done_by("data", "digits8:test", "-o", tmp_path / "folder").exit_code == 0
    assert len(read_pictures(tmp_path / "folder")) == 297  # without the grid


def test_the_founding_command_has_its_like_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """run.py --seed 0 --lr 3e-4 --epochs 50 --dataset CelebA, and sample(n=36); one epoch of a small net."""
    place = tmp_path / "data" / "img_align_celeba"
    place.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (218, 178, 3), dtype=np.uint8)).save(place / f"{number:06d}.jpg")
    monkeypatch.chdir(tmp_path)
    small = ["--layers", "1", "--hidden", "8", "--threads", "1"]
    words = ["fit", "celeba", "--data", "data", "--recipe", "realnvp-32", "--learning-rate", "3e-4", "--seed", "0"]
    done = done_by(*words, "--epochs", "1", "-o", "realnvp_CelebA", *small)
    assert done.exit_code == 0, done.stderr
    assert "made 32" in done.stderr
    assert done.stdout.startswith("realnvp_CelebA: realnvp-32, ")
    model = diffeo.load("realnvp_CelebA")
    drawn = model.sample(36)
    assert (drawn.shape, drawn.dtype) == ((36, 3, 32, 32), np.uint8)
    assert (model.card.training.learning_rate, model.card.plan.alpha, model.card.plan.packed) == (3e-4, 0.1, False)
    assert done_by("sample", "realnvp_CelebA", "-n", "36", "-o", "grid.png").exit_code == 0
    assert seen(tmp_path / "grid.png").shape == (206, 206, 3)  # 6 x 6
    assert done_by("score", "realnvp_CelebA", "data", "-o", "scores.csv").exit_code == 0
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 6
    (tmp_path / "data").rename(tmp_path / "moved")
    assert "data" in refused("score", "realnvp_CelebA", "celeba")
    assert len(done_by("score", "realnvp_CelebA", "celeba", "--data", "moved").stdout.splitlines()) == 6
    done = done_by("check", "realnvp_CelebA", "celeba", "--data", "moved")
    assert done.exit_code == 0, done.stdout
    assert "skipped  log-determinant against autograd" in done.stdout
    done = done_by("interpolate", "realnvp_CelebA", "celeba@1", "celeba@5", "--data", "moved", "-o", "strip.png")
    assert done.exit_code == 0, done.stderr
