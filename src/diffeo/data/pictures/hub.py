"""Data sets by their names on the Hugging Face hub, through its own library: `hub:NAME` or `hub:NAME:PART`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffeo.data.arrow import one_line
from diffeo.errors import DataError, MissingExtraError

__all__ = ["HubSet", "open_hub"]

_LABELS = ("label", "labels", "fine_label")


class HubSet:
    """One part of a data set of the hub: its encoded pictures, labels and names of classes."""

    def __init__(self, name: str, rows: Any, column: str) -> None:
        self._name, self._rows, self._column = name, rows, column
        self._label = next((label for label in _LABELS if label in rows.features), None)

    def items(self) -> Iterator[tuple[str, Path | bytes]]:
        """The name and the bytes, or the downloaded file, of every picture."""
        for number, row in enumerate(self._rows, 1):
            cell = row[self._column] or {}
            data = cell.get("bytes")
            file = Path(cell["path"]) if data is None and cell.get("path") else None
            yield f"{self._name}: row {number}", file or data or b""

    def labels(self) -> np.ndarray:
        """The labels, whole numbers or words [n]; DataError where it has none."""
        if self._label is None:
            raise DataError(f"{self._name}: labels are wanted, but it has no feature {' or '.join(_LABELS)}")
        return np.array(self._rows[self._label])

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, where it has some."""
        names = getattr(self._rows.features.get(self._label), "names", None)
        return tuple(names) if names else None


def open_hub(name: str, part: str | None) -> HubSet:
    """The part (`train` where none is named) of a data set of the hub, fetched or found among what was fetched before.

    Raises MissingExtraError without the library `datasets`, DataError where the data set cannot be had or has no
    pictures.
    """
    try:
        import datasets
    except ImportError as fault:
        raise MissingExtraError(
            f"hub:{name}: data sets of the hub need the library datasets; pip install 'diffeo[hub]'"
        ) from fault
    try:
        rows = datasets.load_dataset(name, split=part or "train")
    except Exception as fault:  # whatever the network and other people's code may raise
        raise DataError(f"hub:{name}: cannot be had ({type(fault).__name__}: {one_line(fault)})") from fault
    column = next((key for key, kind in rows.features.items() if isinstance(kind, datasets.Image)), None)
    if column is None:
        raise DataError(f"hub:{name}: has no feature of pictures; it has {', '.join(list(rows.features)[:8])}")
    return HubSet(f"hub:{name}", rows.cast_column(column, datasets.Image(decode=False)), column)
