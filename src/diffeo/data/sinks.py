"""Where tables go: a file written beside its name and renamed when complete, or standard output."""

import contextlib
import errno
import gzip
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa

from diffeo.data.arrow import one_line, plain
from diffeo.data.forms import form_of
from diffeo.data.source import FORMATS, format_of
from diffeo.errors import DataError


class Writer:
    """Takes tables of the same columns and writes them to one place; a context manager, complete when it is left.

    A named file appears only when everything has been written; after a fault nothing is left behind and what stood
    there before still does.
    """

    def __init__(self, target: str | Path, format: str | None, overwrite: bool) -> None:
        self._name, self._overwrite = os.fspath(target), overwrite
        self._path = None if self._name == "-" else Path(self._name)
        if self._path is not None and self._path.is_dir():
            raise DataError(f"{self._name}: this is a folder; name a file in it")
        kind, gz = ("csv", False) if self._path is None and format is None else _format(self._name, format)
        self._kind, self._gz = kind, gz
        if self._path is None:
            self._name = "standard output"
            if kind == "npy":
                raise DataError("an array cannot be written to standard output; name a file")
        elif _is_kept(self._path) and not overwrite:
            raise DataError(f"{self._name}: exists already; name another file, or say --overwrite")
        elif not self._path.parent.is_dir():
            raise DataError(f"{self._name}: there is no folder {str(self._path.parent)!r}; make it first")
        self._temporary: Path | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Writer":
        with _output_faults(self._name):
            self._file = self._begin()
            inner: Any = gzip.GzipFile("", "wb", fileobj=self._file, mtime=0) if self._gz else self._file
            self._inner = self._stack.enter_context(inner) if self._gz else inner
            self._form = form_of(self._kind, self._inner, self._name)
        return self

    def _begin(self) -> BinaryIO:
        if self._path is None:
            return sys.stdout.buffer
        if self._path.exists() and not _is_kept(self._path):
            return self._stack.enter_context(open(self._path, "wb"))  # a device or a pipe
        self._temporary = self._path.with_name(f".{self._path.name[:100]}.{secrets.token_hex(4)}.part")
        return self._stack.enter_context(open(self._temporary, "xb"))

    def write(self, table: pa.Table) -> None:
        """Append a table's rows."""
        with _output_faults(self._name):
            self._form.write(plain(table))

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with _output_faults(self._name):
                if kind is None:
                    self._finish()
        finally:
            with contextlib.suppress(OSError, pa.ArrowException, ValueError):
                self._stack.close()
            if self._temporary is not None:
                self._temporary.unlink(missing_ok=True)

    def _finish(self) -> None:
        self._form.close()
        if self._gz:
            self._inner.close()
        self._file.flush()
        if self._temporary is None or self._path is None:
            return
        os.fsync(self._file.fileno())
        self._stack.close()
        if _is_kept(self._path) and not self._overwrite:
            raise DataError(f"{self._name}: was made by another meanwhile; name another file, or say --overwrite")
        os.replace(self._temporary, self._path)


def _is_kept(path: Path) -> bool:
    """Whether something stands there that writing would destroy: anything but a device or a pipe."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            mode = path.stat().st_mode
    except OSError:
        return path.is_symlink()
    return not (stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))


def _format(name: str, format: str | None) -> tuple[str, bool]:
    if format is None:
        kind, gz = format_of(name, name)
    else:
        gz = format.endswith(".gz")
        kind = FORMATS.get("." + format.removesuffix(".gz").lstrip("."), "")
        if not kind:
            raise DataError(f"{format!r} is no format to write; known: csv, tsv, jsonl, parquet, arrow, feather, npy")
    if kind == "npz":
        raise DataError(f"{name}: .npz is read but not written; use .npy or .parquet")
    return kind, gz


@contextlib.contextmanager
def _output_faults(name: str) -> Iterator[None]:
    """Turn the operating system's complaints into one line; a closed pipe goes its own way."""
    try:
        yield
    except (DataError, BrokenPipeError):
        raise
    except (OSError, pa.ArrowException) as fault:
        code = getattr(fault, "errno", None)
        if code == errno.EPIPE:
            raise BrokenPipeError(errno.EPIPE, "closed") from fault
        if code == errno.ENOSPC or "No space left" in str(fault):
            raise DataError(f"{name}: cannot be written, the disk is full; nothing was left behind") from fault
        if code in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DataError(f"{name}: cannot be written, you have no permission there; name another place") from fault
        said = re.sub(r"^\[Errno \d+\] ", "", one_line(getattr(fault, "strerror", None) or fault))
        raise DataError(f"{name}: cannot be written ({said})") from fault


def writer(target: str | Path, *, format: str | None = None, overwrite: bool = False) -> Writer:
    """A context manager whose `write(table)` appends to a csv, tsv, jsonl (these also .gz), parquet, arrow or npy file.

    `-` is standard output, as CSV unless `format` says otherwise. Raises DataError where the target exists
    (without `overwrite`) or cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with writer(folder + "/a.csv") as out:
    ...         out.write(pa.table({"a": [0.1, None], "b": ["=1+1", "x,y"]}))
    ...     print(Path(folder, "a.csv").read_text().rstrip())
    a,b
    0.1,'=1+1
    ,"x,y"
    """
    return Writer(target, format, overwrite)


def write(table: pa.Table, target: str | Path, *, format: str | None = None, overwrite: bool = False) -> None:
    """Write one table: see `writer`."""
    with writer(target, format=format, overwrite=overwrite) as out:
        out.write(table)
