"""Pictures that cannot be read: each is one line that names the file and the remedy, and nothing else escapes."""

import contextlib
import gzip
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffeo.data import source
from diffeo.data.pictures import are_pictures, decode, encoded, read_pictures
from diffeo.errors import DataError

from . import files

PIXELS = files.levels(4)


def _refused(place: object, match: str, **options: Any) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read_pictures(place, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of four sound pictures of 4x5 pixels."""
    for number, picture in enumerate(PIXELS):
        (tmp_path / f"{number}.png").write_bytes(files.png(picture))
    return tmp_path


def test_mixed_sizes(folder: Path) -> None:
    (folder / "2.png").write_bytes(files.png(files.levels(1, 3, 9, 8)[0]))
    _refused(folder, r"2\.png: is 8x9 pixels, but .*0\.png is 4x5; say --size")
    assert read_pictures(folder, size=4).event == (3, 4, 4)
    _refused(folder, r"0\.png: is 4x5 pixels, too small to cut 6x6", crop=6)


CORRUPT = {
    "empty": b"",
    "text": b"hello",
    "cut": files.png(PIXELS[0])[:60],
    "cut in the head": files.png(PIXELS[0])[:20],
    "wrong sum": files.png(PIXELS[0])[:-20] + b"\0" * 20,
    "cut bmp": files.bmp(PIXELS[0])[:-30],
    "no rows": files.png(np.zeros((3, 0, 4), np.uint8)),
    "bomb": files.png(np.zeros((1, 1, 1), np.uint8)).replace(b"\0\0\0\1\0\0\0\1\10", b"\0\1\0\0\0\1\0\0\10"),
    "sixteen bits": files.png(PIXELS[0][:1], depth=16),
    "sixteen bits in colour": files.png(PIXELS[0], depth=16),
}


@pytest.mark.parametrize("kind", CORRUPT)
def test_corrupt_files_are_named_and_left_out_only_when_told(folder: Path, kind: str) -> None:
    (folder / "1.png").write_bytes(CORRUPT[kind])
    _refused(folder, r"/1\.png: ")
    said: list[str] = []
    found = read_pictures(folder, skip_bad=True, report=said.append)
    np.testing.assert_array_equal(found.pixels, PIXELS[[0, 2, 3]])
    assert [Path(name).name for name in found.names or ()] == ["0.png", "2.png", "3.png"]
    assert len(found.skipped) == 1
    assert found.skipped[0].startswith(f"{folder / '1.png'}: ")
    assert said == [f"left out: {found.skipped[0]}"]


def test_labels_stay_with_their_pictures_when_some_are_left_out(tmp_path: Path) -> None:
    for name, data in (("a/0", files.png(PIXELS[0])), ("b/1", b"no"), ("c/2", files.png(PIXELS[2]))):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.png").write_bytes(data)
    found = read_pictures(tmp_path, labelled=True, skip_bad=True)
    assert found.labels is not None
    assert [found.classes[label] for label in found.labels] == ["a", "c"]


def test_one_among_thousands(tmp_path: Path) -> None:
    data = files.png(PIXELS[0])
    for number in range(1500):
        (tmp_path / f"{number:04d}.png").write_bytes(data if number != 1234 else data[:-25])
    _refused(tmp_path, "1234.png: cannot be read as a picture")
    assert len(read_pictures(tmp_path, skip_bad=True)) == 1499


def test_nothing_there(tmp_path: Path) -> None:
    _refused(tmp_path, "has no pictures .*it is empty")
    (tmp_path / "notes.txt").write_text("a")
    _refused(tmp_path, r"has no pictures .*1 other files, such as notes\.txt")
    (tmp_path / "a.png").write_bytes(b"no")
    _refused(tmp_path, r"none of its 1 pictures can be read; the first: .*a\.png", skip_bad=True)
    _refused(tmp_path / "b.png", "there is no such file; did you mean .*a.png")
    _refused(tmp_path / "nowhere", "there is no such file")
    _refused(tmp_path / "nowhere.npz:train", "there is no such file")
    _refused(f"{tmp_path}:test", "has no sub-folder 'test'")
    _refused(f"{tmp_path / 'a.png'}:test", "is one file without parts")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"like": (3, 5, 5)}, r"0\.png: is 4x5 pixels, but this model takes colour pictures of 5x5"),
        ({"like": (1, 5, 4)}, r"0\.png: is in colour, but this model takes grey pictures of 4x5; say --gray"),
        ({"like": (3, 5, 4), "gray": True}, r"0\.png: is grey, but this model takes colour"),
        ({"labelled": True}, r"0\.png: has no class"),
        ({"size": 0}, "size: expected a side in pixels"),
        ({"crop": 2.5}, "crop: expected a side in pixels"),
    ],
)
def test_what_does_not_fit(folder: Path, options: dict[str, Any], match: str) -> None:
    _refused(folder, match, **options)


def test_arrays_that_do_not_fit_a_model(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PIXELS)
    _refused(tmp_path / "a.npy", r"a\.npy: picture 1: is a colour picture of 4x5 .* takes grey .* 8x8", like=(1, 8, 8))
    assert len(read_pictures(tmp_path / "a.npy", like=(3, 5, 4))) == 4


ARRAYS = {
    "fractions": (np.zeros((2, 4, 4), np.float32), r"whole numbers 0 to 255, got float32; .*round\(\)\.astype"),
    "too much": (np.array([[[0]], [[256]]]), r"those of picture 2 are 256 to 256"),
    "too little": (np.array([[[-1]]]), r"picture 1 are -1 to -1"),
    "true": (np.zeros((2, 4, 4), bool), r"got bool"),
    "four channels": (np.zeros((2, 8, 8, 4), np.uint8), r"C 1 or 3, got \[2, 8, 8, 4\]"),
    "five": (np.zeros((2, 1, 8, 8, 3), np.uint8), r"got \[2, 1, 8, 8, 3\]"),
    "none": (np.zeros((0, 4, 4), np.uint8), r"has no pictures"),
    "a table": (np.zeros((2, 4), np.uint8), r"got \[2, 4\]"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_bad_arrays(tmp_path: Path, kind: str) -> None:
    array, match = ARRAYS[kind]
    np.save(tmp_path / "a.npy", array)
    _refused(tmp_path / "a.npy", match)
    _refused(array, match)


def test_bad_array_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lie.npy").write_bytes(files.npy("(99999999, 999, 999)"))
    (tmp_path / "lie.npz").write_bytes(files.npz({"a": files.npy("(99999999, 999, 999)")}))
    (tmp_path / "object.npy").write_bytes(files.npy("(1, 1, 1)", "|O", b"cos\nsystem\n."))
    (tmp_path / "minus.npy").write_bytes(files.npy("(-1, 3, 3)"))
    (tmp_path / "text.npz").write_bytes(b"text")
    np.savez(tmp_path / "two.npz", a=PIXELS, b=PIXELS)
    np.savez(tmp_path / "one.npz", a=PIXELS, labels=np.zeros(3, int))
    tracemalloc.start()
    _refused(tmp_path / "lie.npy", r"lie\.npy: its header claims an array of shape .* but only")
    _refused(tmp_path / "lie.npz", r"lie\.npz:a: its header claims")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    _refused(tmp_path / "object.npy", "Python objects, which can run code")
    _refused(tmp_path / "minus.npy", "is damaged")
    _refused(tmp_path / "text.npz", "is no NumPy archive")
    _refused(tmp_path / "two.npz", r"has 2 arrays of pictures; name one of them: .*two\.npz:a, .*two\.npz:b")
    _refused(f"{tmp_path / 'two.npz'}:c", r"has no array 'c'; of pictures it has a, b")
    _refused(tmp_path / "one.npz", "3 labels for 4 pictures", labelled=True)
    _refused(f"{tmp_path / 'two.npz'}:a", "its labels are wanted, but there is no array a_labels", labelled=True)
    monkeypatch.setattr(source, "ALWAYS_ALLOWED", 1 << 16)
    (tmp_path / "bomb.npz").write_bytes(files.npz({"a": files.npy("(1000, 1000, 4)", body=bytes(4_000_000))}))
    _refused(tmp_path / "bomb.npz", "unpacks to more than 200 times its size")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(files.idx(np.zeros((99, 300, 99), np.uint8))))
    _refused(tmp_path / "train-images-idx3-ubyte.gz", "unpacks to more than 200 times its size")


def test_bad_idx_files(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    data = files.idx(PIXELS[:, 0])
    for wrong, match in (
        (data[:-1], r"is cut short: its head says 4x5x4 bytes"),
        (data + b"\0", r"is damaged: more follows than the 80 bytes"),
        (b"\0\0\x08\x01" + data[4:], r"must begin with 00 00 08 03, but does with 00 00 08 01"),
        (b"\0\0\x0d\x03" + data[4:], r"must begin with 00 00 08 03"),
        (data[:7], r"is no IDX file"),
        (b"", r"is no IDX file|empty"),
        (gzip.compress(data)[:-9], r"damaged or cut short"),
        (files.idx(np.zeros((0, 5, 4), np.uint8)), r"has no pictures"),
    ):
        path.write_bytes(wrong)
        _refused(path, re.escape(str(path)) + ".*(" + match + ")")
        _refused(tmp_path, re.escape(str(path)))
    path.write_bytes(data)
    _refused(path, "there is no train-labels-idx1-ubyte", labelled=True)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(files.idx(np.zeros(3, np.uint8)))
    _refused(path, "3 labels for 4 pictures", labelled=True)
    _refused(f"{tmp_path}:test", r"0 of its IDX files are 'test'; it has train-images-idx3-ubyte")


def test_bad_cifar_files(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1.bin"
    data = files.cifar10(files.levels(2, 3, 32, 32), np.array([1, 9]))
    for wrong, match in ((data[:-5], "cut short"), (b"", "cut short|empty"), (b"\x0a" + data[1:], "it has a label 10")):
        path.write_bytes(wrong)
        _refused(path, re.escape(str(path)) + ".*(" + match + ")")
    path.write_bytes(data)
    _refused(tmp_path, r"data_batch_2\.bin is missing")
    _refused(f"{tmp_path}:valid", "has the parts train and test")
    path.unlink()
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x04")
    assert are_pictures(tmp_path / "data_batch_1")
    for place in (tmp_path, tmp_path / "data_batch_1"):
        _refused(place, r"is the Python version .* never read; fetch the binary version")


def test_bad_parquet_files(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00002.parquet"
    files.parquet(path, PIXELS, [0, 1, 2, 3], ["a", "b"])
    _refused(tmp_path, r"has 1 of the 2 files of the part 'train'")
    _refused(path, "labels must be whole numbers below 2", labelled=True)
    _refused(f"{tmp_path}:test", r"has the parts train; name one")
    files.parquet(path, PIXELS, None)
    _refused(path, "labels are wanted, but it has no column", labelled=True)
    path.write_bytes(path.read_bytes()[:-20])
    assert not are_pictures(path)
    _refused(path, "is no Parquet file, or a damaged one")
    pq.write_table(pa.table({"a": [1.0]}), path)
    assert not are_pictures(path)
    _refused(path, "has no column of pictures .* it has a")


def test_a_picture_in_a_row_is_named(tmp_path: Path) -> None:
    def write(cells: list) -> Path:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        pq.write_table(pa.table({"image": pa.array(cells, kind)}), tmp_path / "a.parquet")
        return tmp_path / "a.parquet"

    sound = {"bytes": files.png(PIXELS[0]), "path": None}
    _refused(write([sound, None]), r"a\.parquet: row 2: cannot be read")
    _refused(write([sound, {"bytes": None, "path": "x.png"}]), r"row 2 only names a file \(x\.png\)")
    assert len(read_pictures(write([sound, {"bytes": b"no", "path": None}, sound]), skip_bad=True)) == 2


def test_named_sets_that_are_not_here(tmp_path: Path) -> None:
    _refused("cifar10", r"is not on this machine; get cifar-10-binary\.tar\.gz .* with --data")
    _refused("mnist", "nowhere, which is no folder", where=tmp_path / "nowhere")
    _refused("celeba", "has no folder img_align_celeba", where=tmp_path)
    _refused("digits8:valid", "has the parts train and test")
    (tmp_path / "img_align_celeba").mkdir()
    Image.fromarray(np.zeros((218, 178, 3), np.uint8)).save(tmp_path / "img_align_celeba" / "000001.jpg")
    _refused("celeba:test", "list_eval_partition.txt, which is not beside it", where=tmp_path)
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 7\n")
    _refused("celeba", "entry 1 is no file name and 0, 1 or 2", where=tmp_path)


def test_memory_is_not_filled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded.os, "sysconf", lambda name: 10)
    _refused(folder, "4 pictures of 4x5 take 0 GiB, more than half of this machine's memory; say --size")
    monkeypatch.undo()
    monkeypatch.setattr(decode, "MOST_PIXELS", 19)
    _refused(folder, r"0\.png: unpacks to 20 pixels, more than 19")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.npz", "a.parquet", "train-images-idx3-ubyte.gz"])
def test_flipped_bytes_never_escape(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".npz"):
        np.savez_compressed(path, a=PIXELS)
    elif name.endswith(".parquet"):
        files.parquet(path, PIXELS, [0, 1, 0, 1], ["a", "b"])
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(files.idx(PIXELS[:, 0])))
    else:
        Image.fromarray(PIXELS[0].transpose(1, 2, 0)).save(path)
    sound = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(150):
        data = bytearray(sound)
        for place in rng.integers(0, len(data), size=3):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data[: rng.integers(len(data) // 2, len(data) + 1)])
        are_pictures(path)
        with contextlib.suppress(DataError):
            read_pictures(path, skip_bad=True)
