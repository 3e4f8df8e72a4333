"""One picture from the bytes of a file: decoded by Pillow, made upright, cropped, resized, or refused in one line."""

import functools
import importlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diffeo.data.arrow import one_line
from diffeo.errors import DataError, shown

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SUFFIXES", "Head", "Wanted", "decode", "head", "quiet", "refit"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
MOST_PIXELS = 1 << 26  # of one file; a larger one is taken for a decompression bomb
_FORMATS = ("Png", "Jpeg", "Bmp", "Gif", "WebP", "Tiff")
_TURNED = ("JPEG", "MPO", "WEBP", "TIFF")  # those whose orientation is known without decoding
_ORIENTATION = 274
_DEEP = ("L", "LA", "I", "RGB", "RGBA", "RGBX", "CMYK")  # with 16 bits each; "BGR;16" is 16 bits for all three
_GRAY = ("1", "L", "LA", "La")
_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
)


class Wanted(NamedTuple):
    """What every picture is brought to: cut to the middle `crop` x `crop`, then `size` x `size`, then grey."""

    size: int | None = None
    crop: int | None = None
    gray: bool = False

    def checked(self) -> "Wanted":
        """The same; DataError for a side that is no whole number of at least 1."""
        for name, side in (("size", self.size), ("crop", self.crop)):
            if side is not None and (not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= 8192):
                raise DataError(f"{name}: expected a side in pixels, 1 to 8192, got {shown(side)}")
        return self

    @property
    def alters(self) -> bool:
        """Whether it asks for anything."""
        return self.size is not None or self.crop is not None or self.gray


class Head(NamedTuple):
    """What the head of a file says: channels as it will be read, and the height and width of the result."""

    channels: int
    height: int
    width: int


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is said by Pillow's warnings meanwhile; what is too large is refused here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@functools.cache
def _formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read, no others being tried, as far as this build of it has them."""
    from PIL import Image

    for name in _FORMATS:
        importlib.import_module(f"PIL.{name}ImagePlugin")
    return tuple(name.upper() for name in _FORMATS if name.upper() in Image.OPEN)


@contextmanager
def _opened(name: str, data: Path | bytes) -> Iterator["Image"]:
    """The picture of a file or of its bytes; whatever goes wrong inside is a DataError that names it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=_formats()) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise _bomb(name, width * height)
            if not width * height:
                raise DataError(f"{name}: is an empty picture of {width}x{height} pixels")
            _refuse_deep(name, image)
            yield image
    except DataError:
        raise
    except Image.DecompressionBombError as fault:
        raise _bomb(name, None) from fault
    except FileNotFoundError as fault:
        raise DataError(f"{name}: there is no such file") from fault
    except PermissionError as fault:
        raise DataError(f"{name}: you may not read this file; change its permissions") from fault
    except _BROKEN as fault:
        said = "no known kind of picture" if isinstance(fault, Image.UnidentifiedImageError) else one_line(fault)
        raise DataError(
            f"{name}: cannot be read as a picture ({said}); mend or remove it, or say --skip-bad"
        ) from fault


def _bomb(name: str, pixels: int | None) -> DataError:
    many = "too many pixels" if pixels is None else f"{pixels:,} pixels"
    return DataError(
        f"{name}: unpacks to {many}, more than {MOST_PIXELS:,}, as a damaged or hostile file does; make it smaller, "
        "or say --skip-bad"
    )


def _refuse_deep(name: str, image: "Image") -> None:
    """Refuse more than 256 grey levels, also where Pillow would silently cut them down."""
    raw: list[Any] = [entry[3] for entry in getattr(image, "tile", [])]
    stored = [args if isinstance(args, str) else str(args[0] if args else "") for args in raw if args is not None]
    if image.mode.startswith(("I", "F")) or any(args.split(";16")[0] in _DEEP for args in stored if ";16" in args):
        raise DataError(
            f"{name}: has more than 8 bits a channel (mode {image.mode}); only 256 grey levels are read, convert it"
        )


def _turn(image: "Image") -> int:
    """The orientation that a camera noted, 1 (upright) to 8."""
    if image.format not in _TURNED:
        return 1
    found = image.getexif().get(_ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _target(name: str, height: int, width: int, wanted: Wanted) -> tuple[int, int]:
    """Height and width of the result; DataError where the crop is larger than the picture."""
    if wanted.crop is not None:
        if wanted.crop > min(height, width):
            raise DataError(
                f"{name}: is {width}x{height} pixels, too small to cut {wanted.crop}x{wanted.crop} out of its middle"
            )
        height = width = wanted.crop
    return (wanted.size, wanted.size) if wanted.size is not None else (height, width)


def head(name: str, data: Path | bytes, wanted: Wanted) -> Head:
    """Channels, height and width of the picture that `decode` will make, without decoding it (the width is first
    where people name sizes, as in 640x480). Raises DataError as `decode` does, as far as the head of the file tells."""
    with _opened(name, data) as image:
        width, height = image.size if _turn(image) < 5 else image.size[::-1]
        gray = wanted.gray or image.mode in _GRAY
        return Head(1 if gray else 3, *_target(name, height, width, wanted))


def decode(name: str, data: Path | bytes, channels: int, wanted: Wanted) -> np.ndarray:
    """The picture of a file, uint8 [C, H, W].

    Upright by its camera's note, transparent parts on white, grey by the luma of ITU-R BT.601, of an animation the
    first frame. Raises DataError, one line that names the file, where it is damaged, cut short, deeper than 8 bits,
    of more than 2^26 pixels, or smaller than the crop.
    """
    from PIL import Image, ImageOps

    with _opened(name, data) as image:
        image.load()
        upright: Image.Image = ImageOps.exif_transpose(image) if _turn(image) > 1 else image
        mode = "L" if channels == 1 else "RGB"
        if "A" in upright.mode or "a" in upright.mode or "transparency" in upright.info:
            layered = upright.convert("RGBA")
            white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
            upright = Image.alpha_composite(white, layered)
        return _fitted(name, upright.convert(mode), wanted)


def _fitted(name: str, image: "Image", wanted: Wanted) -> np.ndarray:
    """The picture cropped and resized, uint8 [C, H, W]: the middle square, by Pillow's bicubic filter, which averages
    where it makes smaller."""
    from PIL import Image

    width, height = image.size
    _target(name, height, width, wanted)
    if wanted.crop is not None or wanted.size is not None:
        side = wanted.crop or min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        if (width, height) != (side, side):
            image = image.crop((left, top, left + side, top + side))
        if wanted.size not in (None, side):
            image = image.resize((wanted.size, wanted.size), Image.Resampling.BICUBIC)
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def refit(pixels: np.ndarray, wanted: Wanted, where: str) -> np.ndarray:
    """Pictures that are already numbers, uint8 [n, C, H, W], cropped, resized and made grey as files are.

    >>> refit(np.full((1, 3, 6, 4), 7, np.uint8), Wanted(size=2, gray=True), "x").tolist()
    [[[[7, 7], [7, 7]]]]
    """
    from PIL import Image

    if not wanted.alters or not len(pixels):
        return pixels
    channels, height, width = pixels.shape[1:]
    _target(where, height, width, wanted)
    mode = "L" if wanted.gray or channels == 1 else "RGB"
    parts = []
    for picture in pixels:
        image = Image.fromarray(picture[0] if channels == 1 else np.ascontiguousarray(picture.transpose(1, 2, 0)))
        parts.append(_fitted(where, image.convert(mode), wanted))
    return np.stack(parts)
