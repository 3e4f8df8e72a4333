"""Pictures as files in a folder, sorted by name, classes by sub-folder; and the aligned CelebA folder, by parts."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from diffeo.data.pictures.decode import SUFFIXES, Wanted
from diffeo.data.source import faults
from diffeo.errors import DataError

__all__ = ["CELEBA", "GRID", "Folder", "celeba", "has_files", "of_folder"]

GRID = "grid.png"  # of all samples, beside them
_SAMPLE = re.compile(r"sample-0*1\.png")
CELEBA = Wanted(size=32, crop=148)  # the middle of 178x218 pixels, as the papers cut it
_PARTS = {"train": "0", "valid": "1", "val": "1", "test": "2"}
_NAMED_PARTS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})


class Folder(NamedTuple):
    """Files of pictures, what each is called, and its class where classes were asked for."""

    files: list[Path]
    names: list[str]
    classes: list[str] | None


def has_files(folder: Path) -> bool:
    """Whether there is a picture's file anywhere below the folder."""
    return next(_walk(folder, []), None) is not None


def _walk(folder: Path, others: list[str]) -> Iterator[Path]:
    """The files of pictures below a folder in the order of their names; what else there is goes into `others`."""
    for root, below, files in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith((".", "__MACOSX")))
        for name in sorted(files):
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() in SUFFIXES and not (name == GRID and any(map(_SAMPLE.fullmatch, files))):
                yield Path(root, name)
            else:
                others.append(str(Path(root, name).relative_to(folder)))


def of_folder(folder: Path, part: str | None, labelled: bool, say: Callable[[str], None]) -> Folder:
    """The pictures below a folder, or below its sub-folder `part`; without a part, below `train` where it has parts.

    With `labelled` the class of a picture is the first folder on its way. Hidden files are passed over, and so are
    files whose names are not those of pictures and the grid beside samples, of which `say` is told. Raises DataError
    where there are no pictures, no such part, or with `labelled` a picture in no sub-folder.
    """
    with faults(str(folder)):
        below = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
        if part is not None and part not in below:
            listed = ", ".join(sorted(below)) or "none"
            raise DataError(f"{folder}: has no sub-folder {part!r}; it has {listed}")
        if part is None and "train" in below and below <= _NAMED_PARTS:
            part = "train"
            say(f"{folder}: has parts; taking {part!r} (name another with {folder}:PART)")
        top = folder / part if part else folder
        others: list[str] = []
        files = sorted(_walk(top, others), key=lambda path: path.relative_to(top).parts)
    if not files:
        found = f"; it has {len(others)} other files, such as {others[0]}" if others else ", it is empty"
        raise DataError(f"{top}: has no pictures ({', '.join(sorted(SUFFIXES))}){found}")
    if others:
        say(f"{top}: passed over {len(others)} files that are no pictures by their names, such as {others[0]}")
    return Folder(files, [str(path) for path in files], _classes(top, files) if labelled else None)


def _classes(top: Path, files: list[Path]) -> list[str]:
    ways = [path.relative_to(top).parts for path in files]
    for path, way in zip(files, ways, strict=True):
        if len(way) < 2:
            raise DataError(f"{path}: has no class; with labels, every picture lies in a sub-folder named as its class")
    return [way[0] for way in ways]


def celeba(folder: Path, part: str | None, labelled: bool) -> Folder | None:
    """The aligned faces of CelebA: the folder img_align_celeba, or one that has it. None where it is no such folder.

    With `list_eval_partition.txt` (or .csv) beside it, the parts are train (also None), valid and test; without it
    there are no parts. Raises DataError for other parts, and with `labelled`: faces have attributes, not classes.
    """
    place = next((one for one in (folder, folder / "img_align_celeba") if one.name == "img_align_celeba"), None)
    if place is None or not place.is_dir():
        return None
    if (place / "img_align_celeba").is_dir():
        place = place / "img_align_celeba"
    if labelled:
        raise DataError(f"{place}: faces have 40 attributes but no classes; put them into a sub-folder a class")
    with faults(str(place)):
        files = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
    split = _partition(place, part)
    if split is not None:
        wanted = _PARTS[part or "train"]
        files = [path for path in files if split.get(path.name) == wanted]
    if not files:
        raise DataError(f"{place}: has no pictures{f' of the part {part!r}' if part else ''}; unpack the whole archive")
    return Folder(files, [str(path) for path in files], None)


def _partition(place: Path, part: str | None) -> dict[str, str] | None:
    """Which part each file is of (0, 1, 2), from the list beside the pictures."""
    for parent in (place.parent, place.parent.parent, place):
        for suffix in (".txt", ".csv"):
            path = parent / f"list_eval_partition{suffix}"
            if path.is_file():
                if part not in (None, *_PARTS):
                    raise DataError(f"{place}: has the parts train, valid and test, but not {part!r}")
                return _listed(path)
    if part is not None:
        raise DataError(f"{place}: which pictures are {part!r} says list_eval_partition.txt, which is not beside it")
    return None


def _listed(path: Path) -> dict[str, str]:
    with faults(str(path)):
        lines = path.read_text("utf-8").splitlines()
    pairs = [re.split(r"[\s,]+", line.strip()) for line in lines if line.strip()]
    if pairs and pairs[0][0] == "image_id":
        pairs = pairs[1:]
    for number, pair in enumerate(pairs, 1):
        if len(pair) != 2 or pair[1] not in _PARTS.values():
            raise DataError(f"{path}: entry {number} is no file name and 0, 1 or 2; fetch it again")
    return {pair[0]: pair[1] for pair in pairs}
