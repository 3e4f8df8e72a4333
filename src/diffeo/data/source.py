"""Where data comes from: a named file or standard input, its format found from name or first bytes, sizes bounded."""

import contextlib
import difflib
import errno
import gzip
import io
import os
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from diffeo.data.arrow import one_line
from diffeo.errors import DataError

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".npy": "npy",
    ".npz": "npz",
}
TEXT_FORMATS = frozenset({"csv", "tsv", "jsonl"})
_CODE_FORMATS = frozenset({".pkl", ".pickle", ".pt", ".pth", ".joblib", ".rds", ".rdata"})
_MAGIC = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),
    (b"\x93NUMPY", "npy"),
    (b"PK\x03\x04", "npz"),
)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
HEAD = 1 << 20  # bytes looked at before parsing
MOST_EXPANSION = 200  # compressed data may unpack to so many times its size
ALWAYS_ALLOWED = 256 << 20  # and to so many bytes in any case


class Source(NamedTuple):
    """A place to read from: its `name` in messages, `path` (None: standard input), format, gzip, and key of an npz."""

    name: str
    path: Path | None
    format: str
    gz: bool = False
    key: str | None = None

    @property
    def seekable(self) -> bool:
        """Whether this is a regular file, which can be mapped and read out of order."""
        return self.path is not None and self.path.is_file()


def known_formats() -> str:
    """The extensions that are read, for messages.

    >>> known_formats().startswith(".csv, .tsv")
    True
    """
    return ", ".join(FORMATS) + "; .gz after .csv, .tsv, .jsonl"


def format_of(name: str, where: str) -> tuple[str, bool]:
    """(format, gzipped) by the extension of a file's name; DataError for one that is not known.

    >>> format_of("a.csv.gz", "a.csv.gz")
    ('csv', True)
    """
    path = Path(name.lower())
    gz = path.suffix == ".gz"
    suffix = Path(path.stem).suffix if gz else path.suffix
    if suffix in _CODE_FORMATS:
        raise DataError(
            f"{where}: {suffix} files can run code when loaded and are never read; save the data as .parquet"
        )
    if suffix not in FORMATS or (gz and FORMATS[suffix] not in TEXT_FORMATS):
        shown = "".join(Path(name).suffixes[-2:]) or "none"
        raise DataError(f"{where}: unknown file extension ({shown}); known: {known_formats()}")
    return FORMATS[suffix], gz


def locate(source: str | Path) -> Source:
    """The source that a user names: a path, `FILE.npz:KEY`, or `-`.

    Raises DataError for a missing file, a folder, an empty file, one that may not be read, an unknown extension.
    """
    text = os.fspath(source)
    if text == "-":
        return Source("standard input", None, "")
    match = re.fullmatch(r"(.+\.npz):([^/\\:]+)", text, flags=re.IGNORECASE)
    text, key = (match[1], match[2]) if match and not Path(text).exists() else (text, None)
    path = Path(text)
    try:
        if path.is_dir():
            raise DataError(f"{text}: this is a folder; name a file in it")
        if not path.exists():
            raise DataError(f"{text}: there is no such file{_neighbour(path)}")
        if not path.is_file():
            return Source(text, path, "")  # a pipe: known by its first bytes
        if path.stat().st_size == 0:
            raise DataError(f"{text}: the file is empty")
    except (OSError, ValueError) as fault:
        if isinstance(fault, DataError):
            raise
        raise DataError(f"{text!r}: cannot be opened ({one_line(fault)})") from fault
    kind, gz = format_of(path.name, text)
    return Source(text, path, kind, gz, key)


def _neighbour(path: Path) -> str:
    try:
        names = os.listdir(path.parent)
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f"; did you mean {str(path.parent / close[0])!r}?" if close else ""


class Feed(io.RawIOBase):
    """Bytes from a head already read, then from a stream; refuses to unpack more than `limit` bytes."""

    def __init__(self, name: str, head: bytes, rest: BinaryIO, limit: int | None) -> None:
        super().__init__()
        self._name, self._head, self._rest, self._left = name, head, rest, limit

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Fill the buffer as far as there are bytes at hand."""
        if self._head:
            data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        else:
            data = self._rest.read(len(buffer)) or b""
        buffer[: len(data)] = data
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise too_large(self._name)
        return len(data)


def too_large(name: str) -> DataError:
    """The complaint about a file that unpacks to far more than its size."""
    return DataError(
        f"{name}: unpacks to more than {MOST_EXPANSION} times its size (and {ALWAYS_ALLOWED >> 20} MiB), as only a "
        "damaged or hostile file does; unpack it yourself if it is sound"
    )


def expansion_limit(size: int) -> int:
    """How many bytes a compressed file or member of this size may unpack to.

    >>> expansion_limit(1) >> 20
    256
    """
    return max(ALWAYS_ALLOWED, MOST_EXPANSION * size)


def guess_format(head: bytes) -> str:
    """The format of data without a name, by its first bytes.

    >>> guess_format(b"PAR1..."), guess_format(b'{"a": 1}'), guess_format(b"a,b")
    ('parquet', 'jsonl', 'csv')
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return "jsonl" if head.lstrip()[:1] == b"{" else "csv"


@contextlib.contextmanager
def opened(source: Source) -> Iterator[tuple[BinaryIO, str, bytes]]:
    """(stream, format, head): the unpacked bytes of a source from its start, its format, and its first bytes."""
    with contextlib.ExitStack() as stack, faults(source.name):
        raw: BinaryIO = sys.stdin.buffer if source.path is None else stack.enter_context(open(source.path, "rb"))
        head = _head(raw)
        size = os.stat(source.path).st_size if source.seekable and source.path else None
        limit = None
        if source.gz or head.startswith(b"\x1f\x8b"):
            if not head.startswith(b"\x1f\x8b"):
                raise DataError(f"{source.name}: is named .gz but is not gzip; rename it without .gz")
            limit = None if size is None else expansion_limit(size)
            raw = gzip.GzipFile(fileobj=io.BufferedReader(Feed(source.name, head, raw, None)))  # type: ignore[assignment]
            head = _head(raw)
        if not head:
            raise DataError(f"{source.name}: is empty")
        kind = source.format or guess_format(head)
        if kind in TEXT_FORMATS:
            _refuse_bytes(source.name, head, kind)
        yield io.BufferedReader(Feed(source.name, head, raw, limit), HEAD), kind, head


def _head(stream: BinaryIO) -> bytes:
    parts, length = [], 0
    while length < HEAD and (part := stream.read(HEAD - length)):
        parts.append(part)
        length += len(part)
    return b"".join(parts)


def _refuse_bytes(name: str, head: bytes, kind: str) -> None:
    """Refuse what is plainly no UTF-8 text, by name."""
    if head.startswith(_UTF16) or (head[:4].count(0) == 2 and head[:1] != b"\x00"):
        raise DataError(f"{name}: is UTF-16 text; save it as UTF-8")
    guess = guess_format(head)
    if guess not in TEXT_FORMATS:
        raise DataError(f"{name}: is not {kind} but {guess}; rename it to .{guess}")
    if b"\x00" in head:
        raise DataError(
            f"{name}: is no text (it has a zero byte at offset {head.index(0)}), but {kind} is; check its format"
        )


@contextlib.contextmanager
def faults(name: str) -> Iterator[None]:
    """Turn the operating system's and the unpackers' complaints into one line each."""
    try:
        yield
    except DataError:
        raise
    except (gzip.BadGzipFile, zlib.error, EOFError) as fault:
        raise DataError(f"{name}: is damaged or cut short ({one_line(fault)}); fetch or write it again") from fault
    except UnicodeDecodeError as fault:
        raise DataError(f"{name}: is no UTF-8 text (offset {fault.start}); save it as UTF-8") from fault
    except PermissionError as fault:
        raise DataError(f"{name}: you may not read this file; change its permissions") from fault
    except BrokenPipeError:
        raise
    except OSError as fault:
        if fault.errno == errno.ENOMEM:
            raise
        raise DataError(f"{name}: cannot be read ({one_line(fault.strerror or fault)})") from fault
