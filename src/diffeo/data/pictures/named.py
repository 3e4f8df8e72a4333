"""Sets of pictures that go by a name: what they are, and where on this machine they are looked for."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffeo.data.pictures.arrays import read_npz
from diffeo.errors import DataError

__all__ = ["NAMED", "Named", "digits", "place_of"]

_DIGITS_LEARNED = 1500  # of 1,797


class Named(NamedTuple):
    """A known set: its title, folders that may hold it below `where`, where it lies unasked, where it is to be had."""

    title: str
    folders: tuple[str, ...]
    installed: str | None
    origin: str
    classes: tuple[str, ...] = ()


_DIGITS = tuple("0123456789")
_DIGITS_FROM = (
    "Optical Recognition of Handwritten Digits, its test set, E. Alpaydin and C. Kaynak, 1998, UCI Machine Learning "
    "Repository (CC BY 4.0), as scikit-learn has it"
)

NAMED = {
    "digits8": Named("1,797 handwritten digits of 8x8 pixels in 17 grey levels", (), None, _DIGITS_FROM, _DIGITS),
    "fashion-mnist": Named(
        "70,000 pieces of clothing of 28x28 pixels",
        ("fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
        "/usr/share/datasets/fashion-mnist",
        "Debian's package dataset-fashion-mnist (apt-get install), or IDX files of github.com/zalandoresearch",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "mnist": Named(
        "70,000 handwritten digits of 28x28 pixels",
        ("mnist", "MNIST/raw", "MNIST"),
        None,
        "IDX files of MNIST",
        _DIGITS,
    ),
    "cifar10": Named(
        "60,000 photographs of 32x32 pixels",
        ("cifar-10-batches-bin", "cifar10", "cifar-10", "CIFAR10"),
        None,
        "cifar-10-binary.tar.gz of cs.toronto.edu/~kriz, unpacked",
    ),
    "celeba": Named(
        "202,599 faces of 178x218 pixels",
        ("img_align_celeba", "celeba", "CelebA"),
        None,
        "img_align_celeba.zip of mmlab.ie.cuhk.edu.hk, unpacked",
    ),
}


def place_of(name: str, where: str | Path | None) -> Path:
    """The folder of a named set: below `where` or `where` itself; else a folder of this name, or where it is installed.

    Raises DataError, which says where the set is to be had, where none of these exists.
    """
    known = NAMED[name]
    if where is not None:
        top = Path(where)
        if not top.is_dir():
            raise DataError(f"{name}: is looked for in {top}, which is no folder; name one that holds it with --data")
        return next((top / folder for folder in known.folders if (top / folder).is_dir()), top)
    if Path(name).is_dir():
        return Path(name)
    if known.installed is not None and Path(known.installed).is_dir():
        return Path(known.installed)
    looked = f" (not found in {known.installed})" if known.installed else ""
    raise DataError(
        f"{name}: is not on this machine{looked}; get {known.origin}, and name its folder with --data, or as DATA"
    )


def digits(part: str | None) -> tuple[np.ndarray, np.ndarray]:
    """(pixels uint8 [n, 1, 8, 8] in 0..16, labels [n]) of the embedded digits, in their file's order: the first 1,500
    to learn from (`train`, also None), the other 297 (`test`).

    >>> digits("test")[0].shape
    (297, 1, 8, 8)
    """
    if part not in (None, "train", "test"):
        raise DataError(f"digits8: has the parts train and test, but not {part!r}")
    pixels, labels = read_npz(Path(__file__).with_name("digits8.npz"), "pixels", labelled=True)
    assert labels is not None
    rows = slice(_DIGITS_LEARNED, None) if part == "test" else slice(_DIGITS_LEARNED)
    return pixels[rows], labels[rows]
