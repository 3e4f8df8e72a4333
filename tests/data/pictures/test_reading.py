"""Pictures from every kind of place: what stands in the bytes is what is read, every level exactly."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffeo.data.pictures import Pictures, are_pictures, as_table, read_pictures

from . import files

COLOUR = files.levels(6)
GREY = files.levels(6, 1)
LABELS = np.array([2, 0, 1, 1, 2, 0])


def _written(folder: Path, pixels: np.ndarray, form: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pixels):
        (folder / f"{number}.{form}").write_bytes(files.bmp(picture) if form == "bmp" else files.png(picture))


@pytest.mark.parametrize(("pixels", "form"), [(COLOUR, "png"), (COLOUR, "bmp"), (GREY, "png")])
def test_a_folder_is_read_as_it_is(tmp_path: Path, pixels: np.ndarray, form: str) -> None:
    _written(tmp_path, pixels, form)
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no picture")
    said: list[str] = []
    found = read_pictures(tmp_path, report=said.append)
    np.testing.assert_array_equal(found.pixels, pixels)
    assert found.pixels.flags.c_contiguous
    assert found.labels is None
    assert found.name(2) == str(tmp_path / f"2.{form}")
    assert said == [f"{tmp_path}: passed over 1 files that are no pictures by their names, such as notes.txt"]
    assert are_pictures(tmp_path)


def test_every_grey_level_survives(tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    _written(tmp_path, every)
    np.testing.assert_array_equal(read_pictures(tmp_path).pixels, every)
    np.save(tmp_path / "a.npy", every.astype(np.int64))
    np.testing.assert_array_equal(read_pictures(tmp_path / "a.npy").pixels, every)


def test_lossy_and_paletted_files_are_what_pillow_says(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(16), 2 * np.arange(16)).astype(np.uint8)[..., None] * np.array([1, 2, 3], np.uint8)
    for suffix in ("jpg", "gif", "webp", "tif"):
        Image.fromarray(smooth).save(tmp_path / f"a.{suffix}")
        with Image.open(tmp_path / f"a.{suffix}") as image:
            wanted = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        found = read_pictures(tmp_path / f"a.{suffix}")
        assert are_pictures(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(found.pixels[0], wanted)
    frames = [Image.fromarray(np.full((4, 4), level, np.uint8)) for level in (7, 200)]
    frames[0].save(tmp_path / "move.gif", save_all=True, append_images=frames[1:])
    assert set(read_pictures(tmp_path / "move.gif").pixels.flat) == {7}


def test_transparent_parts_lie_on_white_and_cameras_are_turned(tmp_path: Path) -> None:
    picture = np.zeros((4, 1, 3), np.uint8)
    picture[3] = [0, 255, 128]
    (tmp_path / "a.png").write_bytes(files.png(picture))
    np.testing.assert_array_equal(read_pictures(tmp_path / "a.png").pixels[0, 0, 0], [255, 0, 127])
    (tmp_path / "g.png").write_bytes(files.png(picture[2:]))
    assert read_pictures(tmp_path / "g.png").pixels.tolist() == [[[[255, 0, 127]]]]
    exif = Image.Exif()
    exif[274] = 6  # the camera lay on its side: to be turned a quarter clockwise
    lying = np.zeros((16, 32), np.uint8)
    lying[:, :16] = 255
    Image.fromarray(lying).save(tmp_path / "turned.jpg", exif=exif)
    turned = read_pictures(tmp_path / "turned.jpg").pixels[0, 0]
    assert turned.shape == (32, 16)
    assert turned[:12].min() > 200
    assert turned[20:].max() < 50


def test_grey_and_coloured_files_together_are_coloured(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(files.png(GREY[0]))
    (tmp_path / "b.png").write_bytes(files.png(COLOUR[0]))
    found = read_pictures(tmp_path)
    np.testing.assert_array_equal(found.pixels[0], np.repeat(GREY[0], 3, 0))
    np.testing.assert_array_equal(found.pixels[1], COLOUR[0])
    luma = read_pictures(tmp_path, gray=True)
    assert luma.event == (1, 5, 4)
    exact = np.tensordot([0.299, 0.587, 0.114], COLOUR[0].astype(float), 1)
    assert np.abs(luma.pixels[1, 0] - exact).max() <= 1


def test_crop_and_size(tmp_path: Path) -> None:
    pixels = files.levels(2, 3, 10, 7)
    _written(tmp_path, pixels)
    np.testing.assert_array_equal(read_pictures(tmp_path, crop=3).pixels, pixels[:, :, 3:6, 2:5])
    np.testing.assert_array_equal(read_pictures(tmp_path, size=7).pixels, pixels[:, :, 1:8])
    (tmp_path / "2.png").write_bytes(files.png(files.levels(1, 3, 40, 60)[0]))
    assert read_pictures(tmp_path, size=4).pixels.shape == (3, 3, 4, 4)
    assert read_pictures(tmp_path, size=64).pixels.shape == (3, 3, 64, 64)
    np.save(tmp_path / "a.npy", pixels)
    np.testing.assert_array_equal(
        read_pictures(tmp_path / "a.npy", crop=6, size=4).pixels, read_pictures(tmp_path, crop=6, size=4).pixels[:2]
    )


def test_making_smaller_averages(tmp_path: Path) -> None:
    """A checkerboard of single pixels becomes grey, not black or white."""
    board = (255 * (np.indices((64, 64)).sum(0) % 2)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(files.png(board[None]))
    small = read_pictures(tmp_path / "a.png", size=8).pixels
    assert abs(small.astype(int) - 127).max() <= 3


def test_labels_are_the_names_of_folders(tmp_path: Path) -> None:
    _written(tmp_path / "train" / "dog", COLOUR[:2])
    _written(tmp_path / "train" / "cat" / "more", COLOUR[2:3])
    _written(tmp_path / "test" / "dog", COLOUR[3:])
    said: list[str] = []
    found = read_pictures(tmp_path, labelled=True, report=said.append)
    assert (found.classes, found.labels.tolist()) == (("cat", "dog"), [0, 1, 1])
    assert "taking 'train'" in said[0]
    np.testing.assert_array_equal(found.pixels, COLOUR[[2, 0, 1]])
    test = read_pictures(f"{tmp_path}:test", labelled=True)
    assert (test.classes, test.labels.tolist()) == (("dog",), [0, 0, 0])
    assert test.labels_of(found.classes).tolist() == [1, 1, 1]


@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 4, 1), (6, 1, 5, 4), (6, 5, 4, 3), (6, 3, 5, 4)])
@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.uint16])
def test_arrays_of_every_layout(tmp_path: Path, shape: tuple[int, ...], kind: type) -> None:
    pixels = COLOUR if 3 in shape[1:] else GREY
    laid = pixels.transpose(0, 2, 3, 1) if len(shape) == 4 and shape[3] < 4 else pixels
    array = laid.reshape(shape).astype(kind)
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", some=array, labels=LABELS)
    for found in (read_pictures(tmp_path / "a.npy"), read_pictures(array), read_pictures(tmp_path / "a.npz")):
        np.testing.assert_array_equal(found.pixels, pixels)
    assert are_pictures(tmp_path / "a.npy")
    assert are_pictures(tmp_path / "a.npz")
    assert are_pictures(f"{tmp_path / 'a.npz'}:some")
    assert not are_pictures(f"{tmp_path / 'a.npz'}:labels")


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (("train", "train_labels", "test", "test_labels"), "test"),
        (("x_train", "y_train", "x_test", "y_test"), "test"),
        (("train_images", "train_labels", "test_images", "test_labels"), "test"),
    ],
)
def test_archives_with_parts(tmp_path: Path, names: tuple[str, ...], part: str) -> None:
    arrays = (GREY[:4, 0], LABELS[:4, None], GREY[4:, 0], LABELS[4:, None])
    np.savez(tmp_path / "a.npz", **dict(zip(names, arrays, strict=True)))
    first = read_pictures(tmp_path / "a.npz", labelled=True)
    np.testing.assert_array_equal(first.pixels, GREY[:4])
    assert first.labels.tolist() == [2, 0, 1, 1]
    second = read_pictures(f"{tmp_path / 'a.npz'}:{part}", labelled=True)
    np.testing.assert_array_equal(second.pixels, GREY[4:])
    assert second.labels.tolist() == [2, 0]
    np.testing.assert_array_equal(read_pictures(f"{tmp_path}:test").pixels, GREY[4:])


@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path: Path, packed: bool) -> None:
    files.mnist_folder(tmp_path, GREY[:, 0], LABELS.astype(np.uint8), packed)
    train, test = read_pictures(tmp_path, labelled=True), read_pictures(f"{tmp_path}:test", labelled=True)
    np.testing.assert_array_equal(train.pixels, GREY[:4])
    np.testing.assert_array_equal(test.pixels, GREY[4:])
    assert (train.labels.tolist(), test.labels.tolist()) == ([2, 0, 1, 1], [2, 0])
    one = tmp_path / ("t10k-images-idx3-ubyte" + ".gz" * packed)
    np.testing.assert_array_equal(read_pictures(one).pixels, GREY[4:])
    assert are_pictures(one)
    named = read_pictures("mnist:test", labelled=True, where=tmp_path)
    assert named.classes == tuple("0123456789")
    assert read_pictures("fashion-mnist", labelled=True, where=tmp_path).classes[2] == "Pullover"


def test_cifar(tmp_path: Path) -> None:
    pixels = files.levels(6, 3, 32, 32)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number in range(5):
        rows = slice(number, number + 1)
        (folder / f"data_batch_{number + 1}.bin").write_bytes(files.cifar10(pixels[rows], LABELS[rows]))
    (folder / "test_batch.bin").write_bytes(files.cifar10(pixels[5:], LABELS[5:]))
    (folder / "batches.meta.txt").write_text("\n".join(f"kind{k}" for k in range(10)) + "\n\n")
    for place in (tmp_path, folder):
        found = read_pictures(place, labelled=True)
        np.testing.assert_array_equal(found.pixels, pixels[:5])
        assert (found.labels.tolist(), found.classes[3]) == (LABELS[:5].tolist(), "kind3")
    np.testing.assert_array_equal(read_pictures("cifar10:test", where=tmp_path).pixels, pixels[5:])
    np.testing.assert_array_equal(read_pictures(folder / "data_batch_3.bin").pixels, pixels[2:3])
    assert are_pictures(folder / "data_batch_3.bin")


def test_cifar_100(tmp_path: Path) -> None:
    pixels = files.levels(2, 3, 32, 32)
    (tmp_path / "train.bin").write_bytes(b"".join(bytes((19, 99 - n)) + pixels[n].tobytes() for n in range(2)))
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"kind{k}" for k in range(100)))
    found = read_pictures(tmp_path, labelled=True)
    np.testing.assert_array_equal(found.pixels, pixels)
    assert (found.labels.tolist(), found.classes[98]) == ([99, 98], "kind98")


def test_parquet(tmp_path: Path) -> None:
    for shard, rows in enumerate((slice(0, 2), slice(2, 5))):
        path = tmp_path / f"train-{shard:05d}-of-00002.parquet"
        files.parquet(path, COLOUR[rows], LABELS[rows].tolist(), ["cat", "dog", "emu"])
    files.parquet(tmp_path / "test-00000-of-00001.parquet", COLOUR[5:], [0], ["cat", "dog", "emu"])
    found = read_pictures(tmp_path, labelled=True)
    np.testing.assert_array_equal(found.pixels, COLOUR[:5])
    assert (found.labels.tolist(), found.classes) == (LABELS[:5].tolist(), ("cat", "dog", "emu"))
    assert found.name(3) == f"{tmp_path}/train-00001-of-00002.parquet: row 2"
    test = tmp_path / "test-00000-of-00001.parquet"
    np.testing.assert_array_equal(read_pictures(f"{tmp_path}:test").pixels, COLOUR[5:])
    np.testing.assert_array_equal(read_pictures(test).pixels, COLOUR[5:])
    assert are_pictures(test)


def test_celeba(tmp_path: Path) -> None:
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    faces = np.full((3, 218, 178, 3), 255, np.uint8)
    for number, face in enumerate(faces):
        face[35:183, 15:163] = 40 * number  # the middle 148; around it white
        Image.fromarray(face).save(folder / f"{number + 1:06d}.jpg", quality=100)
    said: list[str] = []
    found = read_pictures(tmp_path / "celeba", report=said.append)
    assert found.pixels.shape == (3, 3, 32, 32)
    inner = found.pixels[:, :, 2:-2, 2:-2].astype(int)
    assert np.abs(inner - np.array([0, 40, 80])[:, None, None, None]).max() <= 2
    assert "faces are cut to their middle 148 pixels and made 32" in said[0]
    parts = "000001.jpg 0\n000002.jpg 2\n000003.jpg 1\n"
    (tmp_path / "celeba" / "list_eval_partition.txt").write_text(parts)
    assert [name[-10:] for name in read_pictures(folder).names or ()] == ["000001.jpg"]
    test = read_pictures("celeba:test", where=tmp_path, size=16)
    assert (len(test), test.event, Path(test.name(0)).name) == (1, (3, 16, 16), "000002.jpg")


def test_embedded_digits() -> None:
    from sklearn.datasets import load_digits

    known = load_digits()
    train, test = read_pictures("digits8", labelled=True), read_pictures("digits8:test", labelled=True)
    assert (train.pixels.shape, test.pixels.shape) == ((1500, 1, 8, 8), (297, 1, 8, 8))
    assert (train.grays, train.pixels.max(), test.labels_of(train.classes).max()) == (17, 16, 9)
    np.testing.assert_array_equal(np.concatenate([train.pixels, test.pixels])[:, 0], known.images)
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), known.target)
    table = as_table(test)
    assert table.column_names[-1] == "label"
    assert [table[f"p{place}"][3].as_py() for place in range(64)] == test.pixels[3].ravel().tolist()


def test_shared_and_installed_sets() -> None:
    if Path("/usr/share/datasets/fashion-mnist").is_dir():
        found = read_pictures("fashion-mnist:test", labelled=True)
        assert (found.pixels.shape, np.bincount(found.labels).tolist()) == ((10_000, 1, 28, 28), [1000] * 10)
    shared = Path(os.environ.get("DIFFEO_DATA", "nowhere"), "mnist", "mnist_10k.npz")
    if shared.is_file():
        assert len(read_pictures(f"{shared}:train", labelled=True)) == 9000
        assert read_pictures("mnist:test", labelled=True, where=shared.parent.parent).labels.shape == (1000,)


def test_what_are_pictures_and_what_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    np.save(tmp_path / "flat.npy", np.zeros((3, 4), np.uint8))
    for place in ("stars", "-", tmp_path / "a.csv", tmp_path / "flat.npy", tmp_path / "none.png", "a\0b", None, 3):
        assert not are_pictures(place), place
    for place in ("digits8:test", "hub:some/thing", "cifar10", GREY, Pictures(GREY), tmp_path):
        assert are_pictures(place), place


def test_taking_some() -> None:
    some = Pictures(GREY, LABELS, ("a", "b", "c"))
    part = some.take(slice(4, None))
    np.testing.assert_array_equal(part.pixels, GREY[4:])
    assert part.labels is not None
    assert part.labels.tolist() == [2, 0]
