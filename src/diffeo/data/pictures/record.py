"""Pictures in memory: grey levels in whole numbers, labels with the names of their classes, where they came from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from diffeo.errors import DataError

CHANNELS = (1, 3)


@dataclass(frozen=True, eq=False)
class Pictures:
    """n pictures of one size.

    `pixels` uint8 [n, C, H, W] (C 1: grey, 3: red, green and blue; contiguous) in 0..grays-1; `labels` int64 [n],
    numbers of `classes`, or None; `source`: what people call it; `names`: one a picture where they were files, else
    None, and a picture goes by its number, from 1; `skipped`: a line for each file that was left out;
    `size` and `crop`: what they were made where nothing was asked.

    Raises DataError where these do not fit together.

    >>> some = Pictures(np.zeros((2, 1, 4, 4), np.uint8), source="zeros")
    >>> len(some), some.event, some.name(1)
    (2, (1, 4, 4), 'zeros: picture 2')
    """

    pixels: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    source: str = "the pictures"
    names: tuple[str, ...] | None = None
    skipped: tuple[str, ...] = ()
    grays: int = 256
    size: int | None = None
    crop: int | None = None

    def __post_init__(self) -> None:
        shape, where = self.pixels.shape, self.source
        if self.pixels.dtype != np.uint8 or len(shape) != 4 or shape[1] not in CHANNELS:
            raise DataError(
                f"{where}: expected pixels uint8 [n, C, H, W] with C 1 or 3, got {self.pixels.dtype} {list(shape)}"
            )
        if 0 in shape:
            raise DataError(f"{where}: has no pictures (an array of shape {list(shape)})")
        if self.labels is not None and self.labels.shape != shape[:1]:
            raise DataError(f"{where}: {self.labels.shape} labels for {shape[0]} pictures; each needs one")
        if not 2 <= self.grays <= 256:
            raise DataError(f"{where}: grays must be 2 to 256, got {self.grays}")
        if self.grays < 256 and int(self.pixels.max()) >= self.grays:
            raise DataError(f"{where}: a grey level of {self.pixels.max()}, but they are said to be below {self.grays}")
        object.__setattr__(self, "pixels", np.require(self.pixels, requirements=["C", "W"]))

    def __len__(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def event(self) -> tuple[int, int, int]:
        """(C, H, W) of each picture."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def name(self, number: int) -> str:
        """What a message calls the picture at this place (from 0)."""
        return self.names[number] if self.names is not None else f"{self.source}: picture {number + 1}"

    def take(self, rows: Sequence[int] | np.ndarray | slice) -> "Pictures":
        """Some of the pictures, with their labels and names.

        >>> Pictures(np.zeros((3, 1, 2, 2), np.uint8), names=("a", "b", "c")).take([2, 0]).names
        ('c', 'a')
        """
        places = np.arange(len(self))[rows]
        return replace(
            self,
            pixels=self.pixels[places],
            labels=None if self.labels is None else self.labels[places],
            names=None if self.names is None else tuple(self.names[place] for place in places),
        )

    def labels_of(self, classes: Sequence[str]) -> np.ndarray:
        """The labels as numbers of other classes, int64 [n], by their names: those of a model that was fitted before.

        Raises DataError where there are none, or where a picture is of a class that is not among them.

        >>> some = Pictures(np.zeros((2, 1, 2, 2), np.uint8), np.array([0, 1]), ("cat", "dog"))
        >>> some.labels_of(["bird", "dog", "cat"])
        array([2, 1])
        """
        if self.labels is None:
            raise DataError(f"{self.source}: has no labels, but classes were asked for; say --label to read them")
        place = {name: number for number, name in enumerate(classes)}
        known = np.array([place.get(name, -1) for name in self.classes], np.int64)
        labels = known[self.labels]
        if (labels < 0).any():
            first = int((labels < 0).argmax())
            raise DataError(
                f"{self.name(first)}: its class is {self.classes[self.labels[first]]!r}, which is none of "
                f"{', '.join(classes)}"
            )
        return labels


def numbered(values: np.ndarray, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(labels int64 [n], names of the classes) of whole numbers or words [n]. Numbers 0..k-1 keep their places.

    Raises DataError for other types and for an array that is not flat.

    >>> numbered(np.array([2, 0]), "x"), numbered(np.array(["b", "a"]), "x")
    ((array([2, 0]), ('0', '1', '2')), (array([1, 0]), ('a', 'b')))
    """
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iuUSb":
        raise DataError(f"{where}: labels must be whole numbers or words [n], got {values.dtype} {list(values.shape)}")
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind in "iu" and values.size and int(values.min()) >= 0 and int(values.max()) < 1000:
        return values.astype(np.int64), tuple(str(number) for number in range(int(values.max()) + 1))
    found, labels = np.unique(values, return_inverse=True)
    return labels.astype(np.int64), tuple(str(value) for value in found)


def as_table(pictures: Pictures) -> pa.Table:
    """A table of pictures, a row each: columns p0, p1, ... of levels (channels, then rows, then columns), and `label`.

    >>> as_table(Pictures(np.zeros((2, 1, 1, 2), np.uint8), np.array([1, 0]), ("cat", "dog"))).to_pylist()[0]
    {'p0': 0, 'p1': 0, 'label': 'dog'}
    """
    rows = pictures.pixels.reshape(len(pictures), -1)
    columns = {f"p{place}": np.ascontiguousarray(column) for place, column in enumerate(rows.T)}
    table = pa.table(columns)
    if pictures.labels is None:
        return table
    return table.append_column("label", pa.array([pictures.classes[label] for label in pictures.labels], pa.string()))
