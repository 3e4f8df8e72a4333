"""Pictures into files: PNG, each written beside its name and renamed when complete; many laid out as one grid."""

import io
import math
import os
import re
import secrets
import shutil
from pathlib import Path

import numpy as np

from diffeo.data.arrow import one_line
from diffeo.data.pictures.record import CHANNELS
from diffeo.errors import DataError, whole

__all__ = ["grid", "png_bytes", "write_bytes", "write_folder", "write_png"]

_PAPER = 255  # between the pictures of a grid


def _shades(pixels: np.ndarray, grays: int) -> np.ndarray:
    """Levels 0..grays-1 spread over 0..255."""
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8:
        raise DataError(f"pixels: expected uint8, got {pixels.dtype}; decode them first")
    if grays == 256:
        return pixels
    levels = np.minimum(np.arange(256) * 255.0 / (grays - 1), 255).round().astype(np.uint8)
    return levels[pixels]


def grid(pixels: np.ndarray, columns: int | None = None, gap: int = 2, grays: int = 256) -> np.ndarray:
    """Pictures uint8 [n, C, H, W] side by side on white, row by row -> one, uint8 [H', W', C].

    `columns`: as many in a row (else so that rows and columns are about as many); `gap`: pixels between them and
    around; `grays`: levels 0..grays-1 are spread over black to white. Raises DataError for other arrays.

    >>> grid(np.zeros((5, 1, 4, 4), np.uint8), columns=3, gap=1).shape
    (11, 16, 1)
    """
    pixels = _shades(pixels, grays)
    if pixels.ndim != 4 or pixels.shape[1] not in CHANNELS or not len(pixels):
        raise DataError(f"pixels: expected [n, C, H, W] with C 1 or 3, got {list(pixels.shape)}")
    count, channels, height, width = pixels.shape
    columns = min(count, math.ceil(math.sqrt(count)) if columns is None else whole("columns", columns))
    gap = whole("gap", gap, least=0)
    rows = -(-count // columns)
    sheet = np.full((gap + rows * (height + gap), gap + columns * (width + gap), channels), _PAPER, np.uint8)
    for number, picture in enumerate(pixels):
        row, column = divmod(number, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        sheet[top : top + height, left : left + width] = picture.transpose(1, 2, 0)
    return sheet


def png_bytes(pixels: np.ndarray, grays: int = 256) -> bytes:
    """The PNG file of one picture, uint8 [C, H, W], or of a grid [H, W, C] (where it could be either, of a picture).

    >>> png_bytes(np.zeros((1, 2, 2), np.uint8))[:4]
    b'\\x89PNG'
    """
    from PIL import Image

    pixels = _shades(pixels, grays)
    if pixels.ndim == 3 and pixels.shape[0] in CHANNELS:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim != 3 or pixels.shape[2] not in CHANNELS or 0 in pixels.shape:
        raise DataError(f"pixels: expected one picture [C, H, W] with C 1 or 3, got {list(pixels.shape)}")
    sink = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)).save(sink, "PNG")
    return sink.getvalue()


def write_png(path: str | Path, pixels: np.ndarray, *, grays: int = 256, overwrite: bool = False) -> None:
    """Write one picture, uint8 [C, H, W], or a grid [H, W, C], as a PNG file: whole or not at all.

    Raises DataError where the file exists (without `overwrite`), its folder does not, or it cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise DataError(f"{path}: pictures are written as PNG; name a file that ends in .png")
    data = png_bytes(pixels, grays)
    if path.is_dir() or (not overwrite and (path.exists() or path.is_symlink())):
        raise DataError(f"{path}: exists already; name another file, or say --overwrite")
    if not path.parent.is_dir():
        raise DataError(f"{path}: there is no folder {str(path.parent)!r}; make it first")
    write_bytes(path, data)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file beside its name and rename it when it is complete; DataError where that cannot be done."""
    path = Path(path)
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        try:
            part.write_bytes(data)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as fault:
        raise _unwritten(path, fault) from fault


def _unwritten(path: Path, fault: OSError) -> DataError:
    return DataError(f"{path}: cannot be written ({one_line(fault.strerror or fault)}); nothing was left behind")


def write_folder(
    folder: str | Path, pixels: np.ndarray, stem: str = "sample", *, grays: int = 256, overwrite: bool = False
) -> list[Path]:
    """Write pictures uint8 [n, C, H, W] as `stem-001.png`, ... into a folder; their paths.

    A folder that is not there, or is empty, appears when all is written. In one that has something, only
    `overwrite` writes: numbered files of this stem are replaced, everything else stays. Raises DataError otherwise.
    """
    folder, pixels = Path(folder), np.asarray(pixels)
    if pixels.ndim != 4 or not len(pixels):
        raise DataError(f"pixels: expected [n, C, H, W], got {list(pixels.shape)}")
    digits = max(3, len(str(len(pixels))))
    names = [f"{stem}-{number:0{digits}d}.png" for number in range(1, len(pixels) + 1)]
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise DataError(f"{folder}: has files already; name another folder, or say --overwrite")
        for name, picture in zip(names, pixels, strict=True):
            write_bytes(folder / name, png_bytes(picture, grays))
        for path in folder.iterdir():
            if re.fullmatch(re.escape(stem) + r"-\d+\.png", path.name) and path.name not in names:
                path.unlink()
        return [folder / name for name in names]
    _new_folder(folder, names, pixels, grays)
    return [folder / name for name in names]


def _new_folder(folder: Path, names: list[str], pixels: np.ndarray, grays: int) -> None:
    if not folder.absolute().parent.is_dir():
        raise DataError(f"{folder}: there is no folder {str(folder.parent)!r}; make it first")
    part = folder.absolute().with_name(f".{folder.absolute().name[:100]}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        try:
            for name, picture in zip(names, pixels, strict=True):
                (part / name).write_bytes(png_bytes(picture, grays))
            os.replace(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as fault:
        raise _unwritten(folder, fault) from fault
