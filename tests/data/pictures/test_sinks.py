"""Pictures into files: what is written is read back, nothing is lost by accident, a grid shows every picture."""

import os
from pathlib import Path

import numpy as np
import pytest

from diffeo.data.pictures import grid, read_pictures, write_folder, write_png
from diffeo.errors import DataError, ShapeError

from . import files


@pytest.mark.parametrize("channels", [1, 3])
def test_written_pictures_are_read_back(tmp_path: Path, channels: int) -> None:
    pixels = files.levels(12, channels)
    paths = write_folder(tmp_path / "out", pixels)
    assert [path.name for path in paths[:2]] == ["sample-001.png", "sample-002.png"]
    np.testing.assert_array_equal(read_pictures(tmp_path / "out").pixels, pixels)
    write_png(tmp_path / "one.png", pixels[3])
    np.testing.assert_array_equal(read_pictures(tmp_path / "one.png").pixels[0], pixels[3])
    sheet = grid(pixels, 4)
    write_png(tmp_path / "grid.png", sheet)
    np.testing.assert_array_equal(read_pictures(tmp_path / "grid.png").pixels[0], sheet.transpose(2, 0, 1))
    assert sorted(os.listdir(tmp_path)) == ["grid.png", "one.png", "out"]


def test_a_grid_shows_every_picture_in_its_place() -> None:
    pixels = files.levels(7, 3, 5, 4)
    sheet = grid(pixels, columns=3, gap=2)
    assert sheet.shape == (3 * 7 + 2, 3 * 6 + 2, 3)
    for number, picture in enumerate(pixels):
        top, left = 2 + 7 * (number // 3), 2 + 6 * (number % 3)
        np.testing.assert_array_equal(sheet[top : top + 5, left : left + 4], picture.transpose(1, 2, 0))
    paper = np.ones(sheet.shape[:2], bool)
    for number in range(7):
        paper[2 + 7 * (number // 3) :, 2 + 6 * (number % 3) :][:5, :4] = False
    assert (sheet[paper] == 255).all()
    assert grid(pixels, gap=0).shape == (15, 12, 3)
    assert grid(pixels[:2], columns=9, gap=0).shape == (5, 8, 3)


def test_few_levels_go_from_black_to_white() -> None:
    sheet = grid(np.arange(17, dtype=np.uint8).reshape(17, 1, 1, 1), columns=17, gap=0, grays=17)[0, :, 0]
    assert (sheet[0], sheet[8], sheet[16]) == (0, 128, 255)
    assert np.ptp(np.diff(sheet.astype(int))) <= 1


def test_what_stands_there_stays(tmp_path: Path) -> None:
    pixels = files.levels(3, 1)
    write_png(tmp_path / "a.png", pixels[0])
    with pytest.raises(DataError, match=r"a\.png: exists already; .* --overwrite"):
        write_png(tmp_path / "a.png", pixels[1])
    write_png(tmp_path / "a.png", pixels[1], overwrite=True)
    np.testing.assert_array_equal(read_pictures(tmp_path / "a.png").pixels[0], pixels[1])
    write_folder(tmp_path / "b", pixels)
    (tmp_path / "b" / "mine.txt").write_text("kept")
    with pytest.raises(DataError, match=r"b: has files already; .* --overwrite"):
        write_folder(tmp_path / "b", pixels[:1])
    write_folder(tmp_path / "b", pixels[:1], overwrite=True)
    assert sorted(os.listdir(tmp_path / "b")) == ["mine.txt", "sample-001.png"]


def test_bad_targets_and_pixels(tmp_path: Path) -> None:
    picture = files.levels(1, 1)
    with pytest.raises(DataError, match=r"name a file that ends in \.png"):
        write_png(tmp_path / "a.jpg", picture[0])
    for act in (
        lambda: write_png(tmp_path / "no" / "a.png", picture[0]),
        lambda: write_folder(tmp_path / "no/b", picture),
    ):
        with pytest.raises(DataError, match="there is no folder"):
            act()
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file; name a folder"):
        write_folder(tmp_path / "file", picture)
    for wrong in (picture, picture[0].astype(float), np.zeros((2, 4, 4), np.uint8)):
        with pytest.raises(DataError, match="pixels: expected"):
            write_png(tmp_path / "a.png", wrong)
    with pytest.raises(DataError, match="pixels: expected"):
        grid(picture[0])
    with pytest.raises(ShapeError, match="columns: expected a whole number"):
        grid(picture, columns=0)
    assert os.listdir(tmp_path) == ["file"]


def test_a_fault_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*places: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    for act in (
        lambda: write_png(tmp_path / "a.png", files.levels(1)[0]),
        lambda: write_folder(tmp_path / "b", files.levels(2)),
    ):
        with pytest.raises(DataError, match="No space left on device"):
            act()
    assert os.listdir(tmp_path) == []
