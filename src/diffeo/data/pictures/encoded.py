"""Many pictures in files or in their bytes -> one array: heads first, so that what does not fit is said at once."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from diffeo.data.pictures.decode import Head, Wanted, decode, head, quiet
from diffeo.errors import DataError

__all__ = ["Items", "Read", "read_encoded"]

Items = Callable[[], Iterator[tuple[str, Path | bytes]]]  # names and files; called twice, the same both times
_TOGETHER = 32  # pictures a thread takes at a time
_THREADS = 2

Answer = TypeVar("Answer")


class Read(NamedTuple):
    """Pixels uint8 [n, C, H, W], the places of the pictures among all items, their names, and what was left out."""

    pixels: np.ndarray
    kept: np.ndarray
    names: tuple[str, ...]
    skipped: tuple[str, ...]


def read_encoded(
    items: Items, wanted: Wanted, where: str, *, skip_bad: bool, like: tuple[int, int, int] | None
) -> Read:
    """All pictures of `items`: of one channel where all are grey, else of three.

    Raises DataError, one line that names the file: for one that cannot be read (with `skip_bad` it is left out), for
    the first whose size differs from the others' or from `like` (C, H, W), and where nothing is left.
    """
    with quiet():
        heads = list(_each(items(), lambda name, data: head(name, data, wanted), skip_bad))
        sound = [(name, answer) for name, answer in heads if isinstance(answer, Head)]
        if not sound:
            raise _nothing(where, [answer for _, answer in heads if isinstance(answer, DataError)])
        channels = max(found.channels for _, found in sound)
        height, width = sound[0][1][1:] if like is None else like[1:]
        _check_sizes(sound, (height, width), like)
        if like is not None and channels != like[0]:
            raise _channels(sound, channels, like)
        shape = (len(sound), channels, height, width)
        _check_memory(shape, where)
        pixels = np.empty(shape, np.uint8)
        kept, names, skipped = _fill(pixels, items, heads, wanted, skip_bad)
    if not kept:
        raise DataError(f"{where}: none of its {len(heads)} pictures can be read; the first: {skipped[0]}")
    return Read(pixels[: len(kept)], np.array(kept), tuple(names), tuple(skipped))


def _fill(
    pixels: np.ndarray,
    items: Items,
    heads: list[tuple[str, Head | DataError]],
    wanted: Wanted,
    skip_bad: bool,
) -> tuple[list[int], list[str], list[str]]:
    """Decode into `pixels`, in order; (places kept, names, lines about what was left out)."""
    kept: list[int] = []
    names: list[str] = []
    skipped: list[str] = []
    sound = (item for item, (_, answer) in zip(items(), heads, strict=True) if isinstance(answer, Head))
    decoded = _each(sound, lambda name, data: decode(name, data, pixels.shape[1], wanted), skip_bad)
    for place, (name, answer) in enumerate(heads):
        picture = answer if isinstance(answer, DataError) else next(decoded)[1]
        if isinstance(picture, DataError):
            skipped.append(str(picture))
            continue
        if picture.shape != pixels.shape[1:]:
            raise DataError(f"{name}: is not of the size that its head says; it is damaged or was changed meanwhile")
        pixels[len(kept)] = picture
        kept.append(place)
        names.append(name)
    return kept, names, skipped


def _each(
    items: Iterator[tuple[str, Path | bytes]], act: Callable[[str, Path | bytes], Answer], skip_bad: bool
) -> Iterator[tuple[str, Answer | DataError]]:
    """(name, answer) of every item in order, by a few threads a little ahead; a fault is raised, or is the answer."""

    def some(part: list[tuple[str, Path | bytes]]) -> list[tuple[str, Answer | DataError]]:
        done: list[tuple[str, Answer | DataError]] = []
        for name, data in part:
            try:
                done.append((name, act(name, data)))
            except DataError as fault:
                done.append((name, fault))
        return done

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        waiting: deque = deque()
        while True:
            while len(waiting) < 2 * _THREADS and (part := list(islice(items, _TOGETHER))):
                waiting.append(pool.submit(some, part))
            if not waiting:
                return
            for name, answer in waiting.popleft().result():
                if isinstance(answer, DataError) and not skip_bad:
                    raise answer
                yield name, answer


def _check_sizes(sound: list[tuple[str, Head]], size: tuple[int, int], like: tuple[int, int, int] | None) -> None:
    first = sound[0][0]
    for name, found in sound:
        if (found.height, found.width) != size:
            if like is not None:
                raise DataError(f"{name}: is {found.width}x{found.height} pixels, {_expected(like)}")
            raise DataError(
                f"{name}: is {found.width}x{found.height} pixels, but {first} is {size[1]}x{size[0]}; say --size to "
                "bring all to one size"
            )


def _check_memory(shape: tuple[int, ...], where: str) -> None:
    """Refuse what would fill this machine's memory, before it does."""
    bytes_wanted = math.prod(shape)
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return
    if bytes_wanted > there // 2:
        raise DataError(
            f"{where}: {shape[0]} pictures of {shape[3]}x{shape[2]} take {bytes_wanted / 2**30:.0f} GiB, more than "
            "half of this machine's memory; say --size to make them smaller"
        )


def _channels(sound: list[tuple[str, Head]], channels: int, like: tuple[int, int, int]) -> DataError:
    name = next(name for name, found in sound if found.channels == channels)
    if channels == 3:
        return DataError(f"{name}: is in colour, {_expected(like)}; say --gray to make it grey")
    return DataError(f"{name}: is grey, {_expected(like)}; save it in colour")


def _expected(like: tuple[int, int, int]) -> str:
    return f"but this model takes {'grey' if like[0] == 1 else 'colour'} pictures of {like[2]}x{like[1]}"


def _nothing(where: str, faults: list[DataError]) -> DataError:
    if not faults:
        return DataError(f"{where}: has no pictures")
    return DataError(f"{where}: none of its {len(faults)} pictures can be read; the first: {faults[0]}")
