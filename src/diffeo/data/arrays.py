"""NumPy files (.npy, .npz) -> tables: headers are read by hand, held against the real size, objects never loaded."""

import ast
import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

from diffeo.data.arrow import one_line
from diffeo.data.source import Source, expansion_limit, too_large
from diffeo.errors import DataError

_MOST_HEADER = 1 << 16
_UNREADABLE = (ValueError, SyntaxError, MemoryError, RecursionError, KeyError, TypeError, AttributeError, OverflowError)
_KINDS = "biufUSM"  # booleans, numbers, text, dates


def array_table(array: np.ndarray, names: list[str] | None = None, where: str = "the array") -> pa.Table:
    """A table of an array [n, d] (columns x0..), [n] (one column x0), or [n] of records (a column a field).

    >>> array_table(np.zeros((2, 3))).column_names
    ['x0', 'x1', 'x2']
    """
    if array.dtype.names and array.ndim == 1:
        columns, names = [array[field] for field in array.dtype.names], list(array.dtype.names)
    elif array.ndim in (1, 2):
        square = array[:, None] if array.ndim == 1 else array
        columns = [square[:, place] for place in range(square.shape[1])]
    else:
        raise DataError(f"{where}: expected an array of shape [rows] or [rows, columns], got {list(array.shape)}")
    if names is not None and len(names) != len(columns):
        raise DataError(f"{where}: {len(names)} column names for {len(columns)} columns")
    keys = names or [f"x{place}" for place in range(len(columns))]
    return pa.table([_cells(column, where) for column in columns], names=keys)


def _cells(column: np.ndarray, where: str) -> pa.Array:
    kind = column.dtype.kind
    if kind == "c":
        raise DataError(f"{where}: complex numbers have no density here; give real and imaginary parts as two columns")
    if kind not in _KINDS:
        raise DataError(f"{where}: an array of type {column.dtype} is not read; numbers, text and dates are")
    if kind == "S":
        column = np.char.decode(column, "utf-8")
    if kind == "f" and column.dtype.itemsize not in (4, 8):
        column = column.astype(np.float32 if column.dtype.itemsize == 2 else np.float64)
    native = column.astype(column.dtype.newbyteorder("="), copy=False)
    return (
        pa.array(native.tolist(), pa.string()) if native.dtype.kind == "U" else pa.array(np.ascontiguousarray(native))
    )


class _Header(NamedTuple):
    """What an array file says of itself; `together`: the cells of a column follow each other (Fortran's order)."""

    shape: tuple[int, ...]
    together: bool
    dtype: np.dtype


def _header_text(stream: BinaryIO) -> str:
    """The header between the magic bytes and the cells (the .npy format, versions 1 to 3)."""
    start = stream.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise ValueError("it does not begin as one")
    length = int.from_bytes(stream.read(2 if start[6] == 1 else 4), "little")
    if length > _MOST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    return stream.read(length).decode("utf-8" if start[6] == 3 else "latin-1")


def _header(stream: BinaryIO, where: str) -> _Header:
    try:
        said = ast.literal_eval(_header_text(stream))
        shape, together = tuple(said["shape"]), bool(said["fortran_order"])
        dtype = np.lib.format.descr_to_dtype(said["descr"])
        if not all(type(length) is int for length in shape):
            raise ValueError(f"a shape of {shape}")
    except _UNREADABLE as fault:
        raise DataError(f"{where}: is no NumPy array file, or a damaged one ({one_line(fault)})") from fault
    if dtype.hasobject:
        raise DataError(f"{where}: holds Python objects, which can run code when loaded; save numbers or text")
    if len(shape) not in (1, 2) or any(length < 0 for length in shape):
        raise DataError(f"{where}: expected an array of shape [rows] or [rows, columns], got {list(shape)}")
    return _Header(shape, together, dtype)


def _check_size(header: _Header, room: int, where: str) -> int:
    """The bytes of the array that the header claims; DataError where the file does not hold so many."""
    shape, _, dtype = header
    claimed = int(dtype.itemsize)
    for length in shape:
        claimed *= length
    if claimed > room:
        raise DataError(
            f"{where}: its header claims an array of shape {list(shape)}, {claimed} bytes, but only {room} follow; "
            "it is damaged or cut short"
        )
    return claimed


def _slices(stream: BinaryIO, header: _Header, rows: int, where: str) -> Iterator[np.ndarray]:
    """The array in parts of so many rows; one whose columns lie together is read whole."""
    shape, together, dtype = header
    width = shape[1] if len(shape) == 2 else 1
    if together and len(shape) == 2:
        yield np.frombuffer(_exactly(stream, shape[0] * width * dtype.itemsize, where), dtype).reshape(shape, order="F")
        return
    for start in range(0, shape[0], rows) or [0]:
        count = min(rows, shape[0] - start)
        part = np.frombuffer(_exactly(stream, count * width * dtype.itemsize, where), dtype)
        yield part.reshape((count, *shape[1:]))


def _exactly(stream: BinaryIO, count: int, where: str) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise DataError(f"{where}: is cut short; fetch or write it again")
    return data


def npy_blocks(source: Source, stream: BinaryIO, rows: int) -> Iterator[pa.Table]:
    """The rows of an .npy file, at most `rows` at a time."""
    if not source.seekable:
        data = stream.read()
        stream, size = io.BytesIO(data), len(data)
    else:
        assert source.path is not None
        size = source.path.stat().st_size
    header = _header(stream, source.name)
    _check_size(header, size - stream.tell() if not source.seekable else size, source.name)
    for part in _slices(stream, header, rows, source.name):
        yield array_table(part, where=source.name)


def npz_blocks(source: Source, stream: BinaryIO, rows: int) -> Iterator[pa.Table]:
    """The rows of one array of an .npz file, at most `rows` at a time; names from its array `columns`, if it fits."""
    where = source.name if source.key is None else f"{source.name}:{source.key}"
    with contextlib.ExitStack() as stack:
        try:
            inner = source.path if source.seekable else io.BytesIO(stream.read())
            archive = stack.enter_context(zipfile.ZipFile(inner))  # type: ignore[arg-type]
            member = _member(source, archive)
            _check_member(member, where)
            with archive.open(member) as file:
                header = _header(file, where)  # type: ignore[arg-type]
                _check_size(header, member.file_size, where)
                names = _names(archive, header.shape, where)
                for part in _slices(file, header, rows, where):  # type: ignore[arg-type]
                    yield array_table(part, names, where)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as fault:
            raise DataError(f"{where}: is no NumPy archive, or a damaged one ({one_line(fault)})") from fault


def _member(source: Source, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    keys = [key for key in members if key != "columns"]
    if source.key is not None:
        if source.key not in members:
            raise DataError(f"{source.name}: has no array {source.key!r}; it has {', '.join(keys) or 'none'}")
        return members[source.key]
    if len(keys) != 1:
        listed = ", ".join(f"{source.name}:{key}" for key in keys[:8]) or "none"
        raise DataError(f"{source.name}: has {len(keys)} arrays; name one of them: {listed}")
    return members[keys[0]]


def _check_member(member: zipfile.ZipInfo, where: str) -> None:
    if member.file_size > expansion_limit(member.compress_size):
        raise too_large(where)


def _names(archive: zipfile.ZipFile, shape: tuple[int, ...], where: str) -> list[str] | None:
    """The column names in the archive's array `columns`, where it has one for this width."""
    width = shape[1] if len(shape) == 2 else 1
    found = next((info for info in archive.infolist() if info.filename.removesuffix(".npy") == "columns"), None)
    if found is None:
        return None
    _check_member(found, where)
    with archive.open(found) as file:
        header = _header(file, f"{where} (its array 'columns')")  # type: ignore[arg-type]
        if header.dtype.kind not in "US" or header.shape != (width,):
            return None
        _check_size(header, found.file_size, where)
        names = np.frombuffer(_exactly(file, width * header.dtype.itemsize, where), header.dtype)  # type: ignore[arg-type]
    return [str(name) for name in (np.char.decode(names, "utf-8") if header.dtype.kind == "S" else names)]
