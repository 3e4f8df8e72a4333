"""Pictures in NumPy files: whole numbers 0..255 of shape [n, H, W], [n, H, W, C] or [n, C, H, W], C 1 or 3.

Where both the second and the last length could be C, the last one is. An .npz names its array after a colon; without
one it is the only array of pictures, or the one that is called train.
"""

import contextlib
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from diffeo.data.arrow import one_line
from diffeo.data.pictures.record import CHANNELS
from diffeo.data.source import expansion_limit, faults, too_large
from diffeo.errors import DataError

__all__ = ["has_pictures", "of_array", "read_npy", "read_npz"]

_MOST_HEADER = 1 << 14
_UNREADABLE = (ValueError, SyntaxError, EOFError, KeyError, TypeError, OverflowError, RecursionError, MemoryError)
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype


def is_listed(data: object) -> bool:
    """Whether it is a list of pictures: arrays of two dimensions or more, or pillow's pictures.

    >>> is_listed([np.zeros((4, 4), np.uint8)]), is_listed([1, 2]), is_listed([[1, 2]])
    (True, False, False)
    """
    if not isinstance(data, list | tuple) or not data:
        return False
    first = data[0]
    return (hasattr(first, "mode") and hasattr(first, "convert")) or len(getattr(first, "shape", ())) >= 2


def in_memory(data: Any) -> Any:
    """A tensor, one of pillow's pictures or a list of pictures as an array; anything else as it is.

    Raises DataError where listed pictures are not of one size.

    >>> in_memory([np.zeros((4, 4), np.uint8)] * 3).shape
    (3, 4, 4)
    """
    if hasattr(data, "mode") and hasattr(data, "convert"):
        return _one(data, "the picture")[None]
    if is_listed(data):
        each = [_one(picture, f"the list: picture {i + 1}") for i, picture in enumerate(data)]
        for i, picture in enumerate(each):
            if picture.shape != each[0].shape:
                shapes = f"{list(each[0].shape)} as the first, got {list(picture.shape)}"
                raise DataError(f"the list: picture {i + 1}: expected {shapes}; make them of one size")
        return np.stack(each)
    if hasattr(data, "detach") and hasattr(data, "ndim") and data.ndim >= 3:
        return _one(data, "the tensor")
    return data


def _one(picture: Any, where: str) -> np.ndarray:
    """A picture of a list: an array, a tensor, or pillow's, of which what is neither grey nor RGB becomes RGB."""
    if hasattr(picture, "detach"):
        try:
            return np.asarray(picture.detach().cpu().numpy())
        except TypeError:
            raise DataError(f"{where}: expected whole numbers, got {picture.dtype}; round it to grey levels") from None
    if not hasattr(picture, "convert"):
        return np.asarray(picture)
    if picture.mode.startswith(("I", "F")):
        raise DataError(f"{where}: has more than 8 bits a channel (mode {picture.mode}); convert it to L or RGB")
    grey = picture.mode in ("1", "L", "LA")
    return np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("L" if grey else "RGB"))


def of_array(array: np.ndarray, where: str) -> np.ndarray:
    """Pixels uint8 [n, C, H, W] of an array of whole numbers.

    Raises DataError, one line, for fractions, for numbers outside 0..255 and for other shapes.

    >>> of_array(np.zeros((5, 28, 28, 3), np.int64), "x").shape
    (5, 3, 28, 28)
    """
    _check_kind(array.dtype, where)
    pixels = _channels_first(array, where)
    if pixels.dtype != np.uint8 and (int(pixels.min(initial=0)) < 0 or int(pixels.max(initial=0)) > 255):
        rows = pixels.reshape(len(pixels), -1)
        first = int(((rows > 255) | (rows < 0)).any(1).argmax())
        low, high = int(rows[first].min()), int(rows[first].max())
        raise DataError(f"{where}: grey levels must be 0 to 255, but those of picture {first + 1} are {low} to {high}")
    return np.ascontiguousarray(pixels, np.uint8)


def _check_kind(dtype: np.dtype, where: str) -> None:
    if dtype.kind == "f":
        raise DataError(
            f"{where}: grey levels must be whole numbers 0 to 255, got {dtype}; if they are fractions 0 to 1, save "
            "(255 * x).round().astype('uint8')"
        )
    if dtype.hasobject:
        raise DataError(f"{where}: holds Python objects, which can run code when loaded; save uint8 numbers")
    if dtype.kind not in "iu":
        raise DataError(f"{where}: grey levels must be whole numbers 0 to 255, got {dtype}; save them as uint8")


def _channels_first(array: np.ndarray, where: str) -> np.ndarray:
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4 and array.shape[3] in CHANNELS:
        return array.transpose(0, 3, 1, 2)
    if array.ndim == 4 and array.shape[1] in CHANNELS:
        return array
    raise DataError(
        f"{where}: expected pictures [n, H, W], [n, H, W, C] or [n, C, H, W] with C 1 or 3, got {list(array.shape)}"
    )


def read_npy(path: Path) -> np.ndarray:
    """The pictures of an .npy file, uint8 [n, C, H, W]."""
    with faults(str(path)), open(path, "rb") as file:
        return of_array(_array(file, path.stat().st_size, str(path)), str(path))


def read_npz(path: Path, key: str | None, labelled: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """The pictures of an array of an .npz file, uint8 [n, C, H, W], and the labels in the array that goes with it.

    `train` also finds `x_train` and `train_images`; its labels are `train_labels` or `y_train`; those of any other
    array `labels` or `y`. Raises DataError where an array is missing, or cannot be chosen.
    """
    with _archive(path) as archive:
        members = _members(archive)
        name = _choose(archive, members, key, path)
        where = f"{path}:{name}"
        pixels = of_array(_member(archive, members[name], where), where)
        if not labelled:
            return pixels, None
        for candidate in _label_names(name):
            if candidate in members:
                return pixels, _member(archive, members[candidate], f"{path}:{candidate}")
    raise DataError(f"{where}: its labels are wanted, but there is no array {' or '.join(_label_names(name))}")


def has_pictures(path: Path, key: str | None) -> bool:
    """Whether an .npy or .npz file holds an array of three dimensions or more, by heads alone; False for others."""
    with contextlib.suppress(DataError, OSError):
        if path.suffix.lower() == ".npy":
            with open(path, "rb") as file:
                return len(_header(file, str(path)).shape) >= 3
        with _archive(path) as archive:
            members = _members(archive)
            name = _named(members, key)
            chosen = list(members) if key is None else [name] if name else []
            return any(_is_stack(archive, members[one]) for one in chosen)
    return False


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with faults(str(path)):
        try:
            with zipfile.ZipFile(path) as archive:
                yield archive
        except _DAMAGED as fault:
            raise DataError(f"{path}: is no NumPy archive, or a damaged one ({one_line(fault)})") from fault


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {info.filename.removesuffix(".npy"): info for info in archive.infolist()}


def _named(members: dict[str, zipfile.ZipInfo], key: str | None) -> str | None:
    for name in (key, f"x_{key}", f"{key}_images", f"{key}_x"):
        if name is not None and name in members:
            return name
    return None


def _choose(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], key: str | None, path: Path) -> str:
    """The name of the array that is meant."""
    stacks = [name for name, member in members.items() if _is_stack(archive, member)]
    if key is not None:
        name = _named(members, key)
        if name is None:
            raise DataError(f"{path}: has no array {key!r}; of pictures it has {', '.join(stacks) or 'none'}")
        return name
    default = stacks[0] if len(stacks) == 1 else _named(members, "train")
    if default is None:
        listed = ", ".join(f"{path}:{name}" for name in stacks[:8]) or "none"
        raise DataError(f"{path}: has {len(stacks)} arrays of pictures; name one of them: {listed}")
    return default


def _label_names(name: str) -> list[str]:
    pairs = (("x_", "y_"), ("_x", "_y"), ("images", "labels"), ("pixels", "labels"))
    own = [f"{name}_labels", *(name.replace(old, new) for old, new in pairs if old in name)]
    return [*own, "labels", "y"] if name not in ("train", "test") else [*own, f"y_{name}"]


def _is_stack(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    with contextlib.suppress(DataError), archive.open(member) as file:
        return len(_header(file, member.filename).shape) >= 3  # type: ignore[arg-type]
    return False


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> np.ndarray:
    if member.file_size > expansion_limit(member.compress_size):
        raise too_large(where)
    with archive.open(member) as file:
        return _array(file, member.file_size, where)  # type: ignore[arg-type]


def _header(file: BinaryIO, where: str) -> _Header:
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version}")
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(file, _MOST_HEADER)
    except _UNREADABLE as fault:
        raise DataError(f"{where}: is no NumPy array file, or a damaged one ({one_line(fault)})") from fault
    return _Header(shape, dtype)


def _array(file: BinaryIO, room: int, where: str) -> np.ndarray:
    """The array of an open file of at most `room` bytes; its header is held against that before anything is read."""
    header = _header(file, where)
    claimed = header.dtype.itemsize * math.prod(header.shape)
    if header.dtype.hasobject:
        _check_kind(header.dtype, where)
    if claimed > room or min(header.shape, default=0) < 0:
        raise DataError(
            f"{where}: its header claims an array of shape {list(header.shape)}, {claimed} bytes, but only {room} "
            "follow; it is damaged or cut short"
        )
    file.seek(0)
    try:
        return np.lib.format.read_array(file, allow_pickle=False, max_header_size=_MOST_HEADER)
    except _UNREADABLE as fault:
        raise DataError(f"{where}: is damaged or cut short ({one_line(fault)}); write it again") from fault
