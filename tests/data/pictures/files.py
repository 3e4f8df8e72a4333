"""Small files of every real format, bytes put together from the format's definition."""

import gzip
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def levels(count: int, channels: int = 3, height: int = 5, width: int = 4, seed: int = 0) -> np.ndarray:
    """Pictures of noise, uint8 [n, C, H, W]."""
    return np.random.default_rng(seed).integers(0, 256, (count, channels, height, width), dtype=np.uint8)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(picture: np.ndarray, depth: int = 8) -> bytes:
    """A PNG file by the W3C's definition, rows unfiltered, of [C, H, W] with C 1, 2 (alpha), 3 or 4 (alpha)."""
    channels, height, width = picture.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    cells = picture.transpose(1, 2, 0).astype(">u2" if depth == 16 else np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in cells)
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def bmp(picture: np.ndarray) -> bytes:
    """A BMP file of 24 bits: rows from the bottom, blue first, each filled up to four bytes."""
    _, height, width = picture.shape
    rows = [row.tobytes() for row in picture[::-1, ::-1].transpose(1, 2, 0)]
    data = b"".join(row + bytes(-len(row) % 4) for row in rows)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(data), 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + info + data


def idx(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    return bytes((0, 0, 8, array.ndim)) + b"".join(struct.pack(">I", size) for size in array.shape) + array.tobytes()


def mnist_folder(folder: Path, pixels: np.ndarray, labels: np.ndarray, packed: bool = False) -> None:
    """The four files of MNIST from pixels [n, H, W]; the test part is its last third."""
    cut = 2 * len(pixels) // 3
    for stem, rows in (("train", slice(cut)), ("t10k", slice(cut, None))):
        for name, array in ((f"{stem}-images-idx3-ubyte", pixels[rows]), (f"{stem}-labels-idx1-ubyte", labels[rows])):
            data = idx(array)
            (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)


def cifar10(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """A binary batch of CIFAR-10."""
    return b"".join(bytes([label]) + picture.tobytes() for label, picture in zip(labels, pixels, strict=True))


def parquet(path: Path, pixels: np.ndarray, labels: list[int] | None, names: list[str] | None = None) -> None:
    """A Parquet file in the hub's layout."""
    cells = [{"bytes": png(picture), "path": f"{n}.png"} for n, picture in enumerate(pixels)]
    columns = {"image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    features: dict = {"image": {"_type": "Image"}}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int64())
        features["label"] = {"names": names, "_type": "ClassLabel"} if names else {"dtype": "int64", "_type": "Value"}
    table = pa.table(columns)
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def npy(shape: str, descr: str = "|u1", body: bytes = b"") -> bytes:
    """An .npy file whose header says what it likes."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def npz(members: dict[str, bytes]) -> bytes:
    """An .npz file of these members."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return sink.getvalue()
