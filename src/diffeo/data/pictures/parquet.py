"""Pictures in Parquet files as the Hugging Face hub lays them out: a column of encoded pictures, one of labels.

The column is a struct of `bytes` and `path`, or plain binary. Names of classes stand in the schema's metadata, as the
JSON under `huggingface`. A folder holds shards, `train-00000-of-00002.parquet` or `train/0000.parquet`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffeo.data.arrow import is_text, one_line
from diffeo.data.source import faults
from diffeo.errors import DataError

__all__ = ["Shards", "has_pictures", "open_shards", "shards_of"]

_ROWS = 256  # at a time, as a row holds a whole picture
_LABELS = ("label", "labels", "fine_label")
_SHARD = re.compile(r"(?P<part>.+?)-(?P<number>\d{5})-of-(?P<count>\d{5})(-\w+)?\.parquet")


class Shards(NamedTuple):
    """Files of one layout, with the columns of pictures and labels, and the names of the classes."""

    files: list[Path]
    pictures: str
    label: str | None
    classes: tuple[str, ...] | None

    def items(self) -> Iterator[tuple[str, Path | bytes]]:
        """The name and the bytes of every picture; empty bytes where there are none."""
        for path, row, cell in self._cells(self.pictures):
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            if data is None and isinstance(cell, dict) and cell.get("path"):
                raise DataError(
                    f"{path}: row {row} only names a file ({cell['path']}), but its bytes are wanted; write the data "
                    "set with its pictures in it"
                )
            yield f"{path}: row {row}", data or b""

    def labels(self) -> np.ndarray:
        """The labels, whole numbers or words [n]. Raises DataError where one is missing or there are none."""
        if self.label is None:
            raise DataError(f"{self.files[0]}: labels are wanted, but it has no column {' or '.join(_LABELS)}")
        found = []
        for path, row, cell in self._cells(self.label):
            if cell is None:
                raise DataError(f"{path}: row {row} has no label")
            found.append(cell)
        return np.array(found)

    def _cells(self, column: str) -> Iterator[tuple[Path, int, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in self.files:
            row = 0
            with faults(str(path)):
                try:
                    with pq.ParquetFile(path) as file:
                        for batch in file.iter_batches(_ROWS, columns=[column]):
                            for cell in batch.column(0).to_pylist():
                                row += 1
                                yield path, row, cell
                except (pa.ArrowException, OSError) as fault:
                    raise _damaged(path, fault) from fault


def _damaged(path: Path, fault: Exception) -> DataError:
    return DataError(f"{path}: is no Parquet file, or a damaged one ({one_line(fault)}); fetch it again")


def shards_of(folder: Path, part: str | None) -> list[Path] | None:
    """The Parquet files of a part of a folder: `train` where no part is named and there is one. None where it has none.

    Raises DataError where there is no such part, or one of its shards is missing.
    """
    with faults(str(folder)):
        found = sorted(path for path in folder.rglob("*.parquet") if not _hidden(path.relative_to(folder)))
    if not found:
        return None
    by_part: dict[str, list[Path]] = {}
    for path in found:
        by_part.setdefault(_part_of(path, folder), []).append(path)
    name = part or ("train" if "train" in by_part else next(iter(by_part)) if len(by_part) == 1 else None)
    if name not in by_part:
        raise DataError(f"{folder}: has the parts {', '.join(sorted(by_part))}; name one, as in {folder}:PART")
    _check_complete(by_part[name])
    return by_part[name]


def _hidden(way: Path) -> bool:
    return any(part.startswith(".") for part in way.parts)


def _part_of(path: Path, folder: Path) -> str:
    match = _SHARD.fullmatch(path.name)
    if match:
        return match["part"]
    inside = path.parent != folder and path.stem.isdigit()
    return path.parent.name if inside else path.stem


def _check_complete(files: list[Path]) -> None:
    for path in files:
        match = _SHARD.fullmatch(path.name)
        if match and len(files) != int(match["count"]):
            raise DataError(
                f"{path.parent}: has {len(files)} of the {int(match['count'])} files of the part {match['part']!r}; "
                "fetch them all"
            )


def has_pictures(path: Path) -> bool:
    """Whether a Parquet file has a column of pictures, by its schema; False for no such file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _column(pq.read_schema(path)) is not None
    except (pa.ArrowException, OSError):
        return False


def open_shards(files: list[Path]) -> Shards:
    """What Parquet files hold, by the schema of the first. Raises DataError where that is no pictures."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with faults(str(files[0])):
        try:
            schema = pq.read_schema(files[0])
        except (pa.ArrowException, OSError) as fault:
            raise _damaged(files[0], fault) from fault
    column = _column(schema)
    if column is None:
        raise DataError(
            f"{files[0]}: has no column of pictures (a struct of bytes and path, or binary called image); it has "
            f"{', '.join(schema.names[:8])}"
        )
    label = next((name for name in _LABELS if name in schema.names), None)
    return Shards(files, column, label, _classes(schema, label))


def _column(schema: Any) -> str | None:
    """The name of the column of pictures: a struct with bytes, else binary called image or img."""
    import pyarrow as pa

    for field in schema:
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return str(field.name)
    for field in schema:
        if field.name in ("image", "img") and (pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)):
            return str(field.name)
    return None


def _classes(schema: Any, label: str | None) -> tuple[str, ...] | None:
    if label is None or is_text(schema.field(label).type):
        return None
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return tuple(str(name) for name in names) if isinstance(names, list) and names else None
