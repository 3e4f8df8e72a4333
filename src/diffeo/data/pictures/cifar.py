"""The binary version of CIFAR-10 and CIFAR-100: records of a label (CIFAR-100: a coarse and a fine one), then 32x32
bytes of red, of green and of blue."""

import re
from pathlib import Path

import numpy as np

from diffeo.data.source import faults
from diffeo.errors import DataError

__all__ = ["files_of", "is_cifar", "read_records"]

SIDE = 32
_PIXELS = 3 * SIDE * SIDE
_BATCHES = 5
_TEN = re.compile(r"(data_batch_[1-5]|test_batch)\.bin")
_PICKLED = re.compile(r"data_batch_[1-5]|test_batch")
_FOLDERS = ("cifar-10-batches-bin", "cifar-100-binary")
_NAMES = {10: "batches.meta.txt", 100: "fine_label_names.txt"}


def is_cifar(path: Path) -> bool:
    """Whether the name is that of a file of CIFAR-10, be it the binary version or the pickled one.

    >>> is_cifar(Path("data_batch_1.bin")), is_cifar(Path("train.bin"))
    (True, False)
    """
    return bool(_TEN.fullmatch(path.name) or _PICKLED.fullmatch(path.name)) or _is_hundred(path)


def _is_hundred(path: Path) -> bool:
    return path.name in ("train.bin", "test.bin") and (path.parent / _NAMES[100]).is_file()


def files_of(place: Path, part: str | None) -> list[Path] | None:
    """The files of a part, `train` (also None) or `test`, of a folder or of one below it with the official name; a
    file is itself. None where these are no CIFAR files.

    Raises DataError for the pickled version and where a batch is missing.
    """
    if place.is_file():
        if _PICKLED.fullmatch(place.name):
            raise _pickled(place)
        return [place] if is_cifar(place) else None
    folder = next((place / name for name in _FOLDERS if (place / name).is_dir()), place)
    names = {path.name for path in folder.iterdir()}
    if any(_TEN.fullmatch(name) for name in names):
        wanted = ["test_batch.bin"] if part == "test" else [f"data_batch_{k}.bin" for k in range(1, _BATCHES + 1)]
    elif _NAMES[100] in names:
        wanted = ["test.bin"] if part == "test" else ["train.bin"]
    else:
        if {"batches.meta", "data_batch_1"} & names or (place / "cifar-10-batches-py").is_dir():
            raise _pickled(folder)
        return None
    _check_part(folder, part)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(f"{folder}: {missing[0]} is missing; unpack the whole archive, or name one file")
    return [folder / name for name in wanted]


def _check_part(folder: Path, part: str | None) -> None:
    if part not in (None, "train", "test"):
        raise DataError(f"{folder}: has the parts train and test, but not {part!r}")


def _pickled(place: Path) -> DataError:
    return DataError(
        f"{place}: is the Python version of CIFAR, pickled, which can run code when loaded and is never read; fetch "
        "the binary version (cifar-10-binary.tar.gz)"
    )


def read_records(files: list[Path]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """(pixels uint8 [n, 3, 32, 32], labels int64 [n], names of the classes) of binary files, one after the other.

    Raises DataError for a file that is no whole number of records, or has labels out of range.
    """
    hundred = _is_hundred(files[0])
    classes = 100 if hundred else 10
    parts = [_records(path, classes) for path in files]
    pixels = np.concatenate([part[:, -_PIXELS:] for part in parts]).reshape(-1, 3, SIDE, SIDE)
    labels = np.concatenate([part[:, -_PIXELS - 1] for part in parts]).astype(np.int64)
    return pixels, labels, _names(files[0].parent / _NAMES[classes], classes)


def _records(path: Path, classes: int) -> np.ndarray:
    width = _PIXELS + (2 if classes == 100 else 1)
    with faults(str(path)):
        data = np.fromfile(path, np.uint8)
    if not data.size or data.size % width:
        raise DataError(
            f"{path}: is cut short or no CIFAR-{classes} file: {data.size} bytes are no whole number of records of "
            f"{width}; fetch it again"
        )
    records = data.reshape(-1, width)
    most = records[:, : width - _PIXELS].max(0)
    if most[-1] >= classes or (classes == 100 and most[0] >= 20):
        raise DataError(f"{path}: is damaged or no CIFAR-{classes} file: it has a label {most.max()}")
    return records


def _names(path: Path, classes: int) -> tuple[str, ...]:
    """The names of the classes from the file that lists them, or their numbers where it is not there."""
    if path.is_file():
        with faults(str(path)):
            names = tuple(path.read_text("utf-8").split())
        if len(names) == classes:
            return names
    return tuple(str(number) for number in range(classes))
