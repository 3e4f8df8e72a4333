"""IDX files, as MNIST and its family come: big-endian sizes, then bytes; gzip or not; labels in a file of their own.

0x00 0x00 0x08 (unsigned bytes) dimensions | size of each, 4 bytes | the numbers
"""

import gzip
import math
import re
from pathlib import Path

import numpy as np

from diffeo.data.source import expansion_limit, faults, too_large
from diffeo.errors import DataError

__all__ = ["find", "is_idx", "read_labels", "read_pixels"]

_NAME = re.compile(r"images?[-._]idx3[-._]ubyte(\.gz)?$", re.IGNORECASE)
_TEST = ("t10k", "test")


def is_idx(path: Path) -> bool:
    """Whether the name is that of an IDX file of pictures.

    >>> is_idx(Path("t10k-images-idx3-ubyte.gz")), is_idx(Path("train-labels-idx1-ubyte"))
    (True, False)
    """
    return _NAME.search(path.name) is not None


def find(folder: Path, part: str | None) -> Path | None:
    """The IDX file of pictures in a folder for the part `train` (also None) or `test`; None where it has no IDX files.

    Raises DataError where it has some, but none or several of this part.
    """
    found = sorted(path for path in folder.iterdir() if is_idx(path) and not path.name.startswith("."))
    plain = {path.name for path in found if path.suffix != ".gz"}
    found = [path for path in found if path.name.removesuffix(".gz") not in plain or path.name in plain]
    if not found:
        return None
    wanted = _TEST if part == "test" else (part or "train",)
    fitting = [path for path in found if any(word in path.name.lower() for word in wanted)]
    if len(fitting) != 1:
        listed = ", ".join(path.name for path in found)
        raise DataError(f"{folder}: {len(fitting)} of its IDX files are {part or 'train'!r}; it has {listed}; name one")
    return fitting[0]


def read_pixels(path: Path) -> np.ndarray:
    """The pictures of an IDX file, uint8 [n, 1, H, W]. Raises DataError for a damaged or foreign one."""
    return _read(path, 3)[:, None]


def read_labels(images: Path) -> np.ndarray:
    """The labels that belong to an IDX file of pictures, uint8 [n]: in the file whose name says labels and idx1.

    Raises DataError where there is no such file.
    """
    name = re.sub("idx3", "idx1", re.sub("image(s?)", r"label\1", images.name, flags=re.IGNORECASE))
    bare = images.with_name(name.removesuffix(".gz"))
    for path in (bare, bare.with_name(bare.name + ".gz")):
        if path.is_file():
            return _read(path, 1)
    raise DataError(f"{images}: its labels are wanted, but there is no {bare.name} (or .gz) beside it")


def _read(path: Path, dimensions: int) -> np.ndarray:
    with faults(str(path)):
        size = path.stat().st_size
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        limit = expansion_limit(size) if packed else size
        with gzip.open(path, "rb") if packed else open(path, "rb") as file:
            start = file.read(4 + 4 * dimensions)
            shape = _shape(start, dimensions, path)
            count = math.prod(shape)
            if packed and count > limit:
                raise too_large(str(path))
            data = file.read(count) if count <= limit else b""
            if len(data) < count:
                raise DataError(
                    f"{path}: is cut short: its head says {'x'.join(map(str, shape))} bytes, but fewer follow; fetch "
                    "it again"
                )
            if file.read(1):
                raise DataError(f"{path}: is damaged: more follows than the {count} bytes that its head says")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _shape(start: bytes, dimensions: int, path: Path) -> list[int]:
    magic = bytes((0, 0, 8, dimensions))
    if len(start) < 4 + 4 * dimensions or start[:4] != magic:
        kind = "pictures" if dimensions == 3 else "labels"
        raise DataError(
            f"{path}: is no IDX file of {kind}: it must begin with {magic.hex(' ')}, but does with "
            f"{start[:4].hex(' ') or 'nothing'}"
        )
    shape = [int.from_bytes(start[place : place + 4], "big") for place in range(4, len(start), 4)]
    if 0 in shape:
        raise DataError(f"{path}: has no {'pictures' if dimensions == 3 else 'labels'} (its head says {shape})")
    return shape
