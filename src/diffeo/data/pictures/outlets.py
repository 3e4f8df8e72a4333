"""Where many pictures go, by the name of the place: a folder of PNG files, one PNG with a grid, or a NumPy array."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from diffeo.data.arrow import one_line
from diffeo.data.pictures.folders import GRID
from diffeo.data.pictures.sinks import grid, write_bytes, write_folder, write_png
from diffeo.errors import DataError

__all__ = ["Outlet", "outlet", "write_pictures"]

Outlet = Literal["folder", "grid", "array"]


def outlet(place: str | Path, overwrite: bool = False) -> Outlet:
    """What a place takes: a name that ends in .png one grid, in .npy an array, one without an ending a folder.

    Raises DataError, before anything is computed, for standard output, for other endings, and for what exists without
    `overwrite`.

    >>> outlet("new-pictures"), outlet("new.png")
    ('folder', 'grid')
    """
    path = Path(place)
    if str(place) == "-":
        raise DataError("pictures cannot be written to standard output; name a folder, a .png or an .npy with -o")
    kinds: dict[str, Outlet] = {".png": "grid", ".npy": "array", "": "folder"}
    try:
        kind = "folder" if path.is_dir() else kinds.get(path.suffix.lower())
        there = any(path.iterdir()) if kind == "folder" and path.is_dir() else path.exists()
    except (OSError, ValueError) as fault:
        raise DataError(f"{str(place)[:80]}: cannot be written to ({one_line(fault)}); name another place") from None
    if kind is None:
        raise DataError(
            f"{place}: pictures go into a folder, one .png with a grid of them, or an .npy; name one of these"
        )
    if there and not overwrite:
        raise DataError(f"{place}: exists already; name another place, or say --overwrite")
    if not path.absolute().parent.is_dir():
        raise DataError(f"{place}: there is no folder {str(path.parent)!r}; make it first")
    return kind


def write_pictures(
    place: str | Path,
    pixels: np.ndarray | Sequence[np.ndarray],
    *,
    columns: int | None = None,
    grays: int = 256,
    overwrite: bool = False,
) -> None:
    """Write pictures uint8 [n, C, H, W] where `outlet` says: into a folder as sample-001.png, ... beside grid.png, as
    one grid of so many columns, or as an array [n, C, H, W]. In PNG files, levels 0..grays-1 are black to white.

    Raises DataError where `outlet` does, and where nothing can be written.
    """
    kind, pixels = outlet(place, overwrite), np.asarray(pixels)
    if kind == "array":
        file = io.BytesIO()
        np.save(file, pixels)
        write_bytes(place, file.getvalue())
        return
    sheet = grid(pixels, columns, grays=grays)
    if kind == "folder":
        write_folder(place, pixels, grays=grays, overwrite=overwrite)
        place = Path(place, GRID)
    write_png(place, sheet, overwrite=overwrite)
