"""A place that holds pictures -> Pictures: which kind of place it is, and one way to read each."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffeo.data.pictures import arrays, cifar, folders, idx, parquet
from diffeo.data.pictures.decode import SUFFIXES, Wanted, refit
from diffeo.data.pictures.encoded import Items, read_encoded
from diffeo.data.pictures.hub import open_hub
from diffeo.data.pictures.named import NAMED, digits, place_of
from diffeo.data.pictures.record import Pictures, numbered
from diffeo.data.source import faults, locate
from diffeo.errors import DataError

__all__ = ["are_pictures", "read_pictures"]

_PART = re.compile(r"(.+\.npz):([^/\\:]+)|(.+):([\w.-]{2,})", re.IGNORECASE)
_HUB = "hub:"


class _Asked(NamedTuple):
    """What is wanted of the pictures at a place."""

    source: str
    part: str | None
    wanted: Wanted
    skip_bad: bool
    labelled: bool
    like: tuple[int, int, int] | None
    say: Callable[[str], None]


def _divided(place: str | Path) -> tuple[str, str | None]:
    """(place, part) of `place:part`; what exists under the whole name has no part.

    >>> _divided("fashion-mnist:test"), _divided("hub:ylecun/mnist"), _divided("a.npz:train")
    (('fashion-mnist', 'test'), ('hub:ylecun/mnist', None), ('a.npz', 'train'))
    """
    text = os.fspath(place)
    start = len(_HUB) if text.startswith(_HUB) else 0
    match = _PART.fullmatch(text[start:])
    if match is None or Path(text).exists():
        return text, None
    before, part = match[1] or match[3], match[2] or match[4]
    return text[:start] + before, part


def are_pictures(place: object) -> bool:
    """Whether DATA are pictures rather than a table, by its name or the head of the file: a folder, a name such as
    `fashion-mnist:test` or `hub:NAME`, a picture's file, IDX and CIFAR files, an .npy or .npz with three dimensions or
    more, a Parquet file with encoded pictures, an array of three dimensions or more. Nothing is raised.

    >>> are_pictures("digits8"), are_pictures("table.csv"), are_pictures(np.zeros((2, 8, 8), np.uint8))
    (True, False, True)
    """
    if isinstance(place, Pictures):
        return True
    if arrays.is_listed(place):
        return True
    place = arrays.in_memory(place)
    if isinstance(place, np.ndarray):
        return place.ndim >= 3
    if not isinstance(place, (str, Path)):
        return False
    text, part = _divided(place)
    if text.startswith(_HUB) or (text in NAMED and not Path(text).is_file()):
        return True
    try:
        path = Path(text)
        if path.is_dir() or not path.is_file():
            return path.is_dir()
    except (OSError, ValueError):
        return False
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        return arrays.has_pictures(path, part)
    if suffix in (".parquet", ".pq"):
        return parquet.has_pictures(path)
    return suffix in SUFFIXES or idx.is_idx(path) or cifar.is_cifar(path)


def read_pictures(
    place: Any,
    *,
    size: int | None = None,
    crop: int | None = None,
    gray: bool = False,
    skip_bad: bool = False,
    labelled: bool = False,
    where: str | Path | None = None,
    like: tuple[int, int, int] | None = None,
    report: Callable[[str], None] | None = None,
) -> Pictures:
    """The pictures at a place, uint8 [n, C, H, W].

    `place`: a folder of pictures (labels: its sub-folders), one picture, an .npy, `FILE.npz[:KEY]`, an IDX file, the
    binary files of CIFAR, Parquet files with encoded pictures, a folder of one of these, the aligned CelebA folder (cut
    to its middle 148 pixels and made 32 where nothing else is asked), `digits8`, `fashion-mnist`, `mnist`, `cifar10`,
    `celeba` (found below `where`), or `hub:NAME`; `:PART` after it is `train` where nothing is said. Also an array or a
    tensor of whole numbers [n, H, W], [n, H, W, C] or [n, C, H, W], or a list of pictures: arrays, or pillow's.

    `crop`: cut the middle square of that side; `size`: then make the middle square so large, by a bicubic filter that
    averages where it makes smaller; `gray`: one channel, by luma. `labelled`: read labels too. `skip_bad`: leave out
    files that cannot be read and list them in `skipped`. `like` (C, H, W): what every picture must be. `report` is
    told, a line at a time, what was chosen or left out.

    Raises DataError, one line that names the file: a place that is none of these or is empty, a picture that is
    damaged, of another size than the others or than `like`, of another number of channels than `like`, labels missing;
    MissingExtraError for `hub:` without its library.

    >>> some = read_pictures("digits8:test", labelled=True)
    >>> some.event, some.grays, some.labels[:4].tolist()
    ((1, 8, 8), 17, [1, 7, 4, 6])
    """
    wanted = Wanted(size, crop, gray).checked()
    say = report or (lambda line: None)
    if isinstance(place, Pictures):
        return _finished(place, wanted, like)
    place = arrays.in_memory(place)
    if isinstance(place, np.ndarray):
        return _finished(Pictures(arrays.of_array(place, "the array"), source="the array"), wanted, like)
    if not isinstance(place, str | Path):
        what = "name a folder or a file, or pass an array [n, H, W], a tensor, or a list of pictures"
        raise DataError(f"pictures: cannot be read from a {type(place).__name__}; {what}")
    text, part = _divided(place)
    asked = _Asked(os.fspath(place), part, wanted, skip_bad, labelled, like, say)
    if text.startswith(_HUB):
        data = open_hub(text.removeprefix(_HUB), part)
        return _encoded(data.items, asked, data.labels if labelled else None, data.classes)
    if text in NAMED and not Path(text).is_file():
        return _named(text, where, asked)
    path = Path(text)
    with faults(text):
        if path.is_dir():
            return _folder(path, asked)
        own = path.suffix.lower() in SUFFIXES or idx.is_idx(path) or cifar.is_cifar(path)
        if not own or not path.exists():
            locate(text)
        if part is not None and path.suffix.lower() != ".npz":
            raise DataError(f"{text}: is one file without parts; leave out ':{part}'")
        return _file(path, asked)


def _named(name: str, where: str | Path | None, asked: _Asked) -> Pictures:
    if name == "digits8":
        pixels, labels = digits(asked.part)
        if asked.wanted.size is not None:
            raise DataError("digits8: its 17 grey levels would not survive a change of size; leave out --size")
        return _plain(pixels, asked, labels if asked.labelled else None, NAMED[name].classes, grays=17)
    place = place_of(name, where)
    asked.say(f"{name}: found in {place}")
    found = _folder(place, asked, faces=name == "celeba")
    classes = NAMED[name].classes
    if found.labels is None or not classes or len(found.classes) > len(classes):
        return found
    return _plain(found.pixels, asked._replace(wanted=Wanted(), like=None), found.labels, classes)


def _folder(path: Path, asked: _Asked, faces: bool = False) -> Pictures:
    """A folder is what it holds: IDX files, CIFAR batches, CelebA, Parquet shards, pictures, or one .npz."""
    images = idx.find(path, asked.part)
    if images is not None:
        return _file(images, asked)
    batches = cifar.files_of(path, asked.part)
    if batches is not None:
        return _plain(*_cifar(batches, asked))
    found = folders.celeba(path, asked.part, asked.labelled)
    if found is not None:
        wanted = asked.wanted
        if wanted.size is not None or wanted.crop is not None:
            return _encoded(_pairs(found), asked)
        wanted = wanted._replace(size=folders.CELEBA.size, crop=folders.CELEBA.crop)
        asked.say(f"{asked.source}: faces are cut to their middle {wanted.crop} pixels and made {wanted.size}")
        read = _encoded(_pairs(found), asked._replace(wanted=wanted))
        return replace(read, size=wanted.size, crop=wanted.crop)
    if faces:
        raise DataError(f"{path}: has no folder img_align_celeba; get {NAMED['celeba'].origin}")
    if not folders.has_files(path):
        shards = parquet.shards_of(path, asked.part)
        if shards is not None:
            return _parquet(shards, asked)
        archives = sorted(path.glob("*.npz"))
        if len(archives) == 1:
            return _file(archives[0], asked)
    found = folders.of_folder(path, asked.part, asked.labelled, asked.say)
    labels = found.classes
    return _encoded(_pairs(found), asked, None if labels is None else lambda: np.array(labels))


def _pairs(found: folders.Folder) -> Items:
    return lambda: iter(zip(found.names, found.files, strict=True))


def _cifar(files: list[Path], asked: _Asked) -> tuple[np.ndarray, _Asked, np.ndarray | None, tuple[str, ...]]:
    pixels, labels, classes = cifar.read_records(files)
    return pixels, asked, labels if asked.labelled else None, classes


def _file(path: Path, asked: _Asked) -> Pictures:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        pixels, labels = arrays.read_npz(path, asked.part, asked.labelled)
        return _plain(pixels, asked, labels)
    if idx.is_idx(path):
        return _plain(idx.read_pixels(path), asked, idx.read_labels(path) if asked.labelled else None)
    if cifar.is_cifar(path):
        return _plain(*_cifar(cifar.files_of(path, None) or [], asked))
    if suffix in (".parquet", ".pq"):
        return _parquet([path], asked)
    if asked.labelled:
        raise DataError(f"{path}: labels are wanted, but this file has none; use FILE.npz:KEY with an array of labels")
    if suffix == ".npy":
        return _plain(arrays.read_npy(path), asked)
    if suffix in SUFFIXES:
        return _encoded(lambda: iter([(str(path), path)]), asked)
    raise DataError(
        f"{path}: is no file of pictures; such are {', '.join(sorted(SUFFIXES))}, .npy, .npz, .parquet, IDX, CIFAR's"
    )


def _parquet(files: list[Path], asked: _Asked) -> Pictures:
    shards = parquet.open_shards(files)
    return _encoded(shards.items, asked, shards.labels if asked.labelled else None, shards.classes)


def _encoded(
    items: Items,
    asked: _Asked,
    labels: Callable[[], np.ndarray] | None = None,
    classes: tuple[str, ...] | None = None,
) -> Pictures:
    """Pictures of encoded files; `labels` gives one for every item, also for those that are left out."""
    values = None if labels is None else labels()
    read = read_encoded(items, asked.wanted, asked.source, skip_bad=asked.skip_bad, like=asked.like)
    for line in read.skipped:
        asked.say(f"left out: {line}")
    whole, names = (None, ()) if values is None else _labels(values, classes, asked.source)
    kept = None if whole is None else whole[read.kept]
    return Pictures(read.pixels, kept, names, asked.source, read.names, read.skipped)


def _plain(
    pixels: np.ndarray,
    asked: _Asked,
    labels: np.ndarray | None = None,
    classes: tuple[str, ...] | None = None,
    grays: int = 256,
) -> Pictures:
    """Pictures that are numbers already."""
    if labels is not None and len(labels) != len(pixels):
        raise DataError(f"{asked.source}: {len(labels)} labels for {len(pixels)} pictures; each needs one")
    numbers, names = (None, ()) if labels is None else _labels(labels, classes, asked.source)
    return _finished(Pictures(pixels, numbers, names, asked.source, grays=grays), asked.wanted, asked.like)


def _labels(values: np.ndarray, classes: tuple[str, ...] | None, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if not classes:
        return numbered(values, where)
    labels = np.asarray(values)
    if labels.dtype.kind not in "iu" or int(labels.min()) < 0 or int(labels.max()) >= len(classes):
        raise DataError(f"{where}: labels must be whole numbers below {len(classes)}, the number of its classes")
    return labels.astype(np.int64), classes


def _finished(found: Pictures, wanted: Wanted, like: tuple[int, int, int] | None) -> Pictures:
    """The same, cropped, resized and made grey as wanted, and held against what a model takes."""
    if wanted.alters:
        pixels = refit(found.pixels, wanted, found.name(0))
        found = Pictures(pixels, found.labels, found.classes, found.source, found.names, found.skipped, found.grays)
    if like is not None and found.event != tuple(like):
        (channels, height, width), kinds = found.event, {1: "grey", 3: "colour"}
        raise DataError(
            f"{found.name(0)}: is a {kinds[channels]} picture of {width}x{height} pixels, but this model takes "
            f"{kinds[like[0]]} pictures of {like[2]}x{like[1]}; bring it to that, or fit with --size, --crop or --gray"
        )
    return found
