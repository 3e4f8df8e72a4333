"""A model on disk: a folder of JSON and safetensors. Nothing in it is code, or trusted unchecked.

`model.json` names the weights file by its sha256; it is written last, and renaming it into place is the commit. A
process that is killed at any moment leaves the old model or the new one, never a mixture.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from diffeo.errors import ModelError

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "MODEL",
    "RESUME",
    "clear_resume",
    "fill",
    "open_folder",
    "read_json",
    "read_tensors",
    "write_json",
    "write_set",
    "write_text",
]

FORMAT, FORMAT_VERSION = "diffeo-model", 1
MODEL, RESUME = "model.json", "resume.json"
LARGEST_JSON = 64 * 2**20
LARGEST_WEIGHTS = 8 * 2**30


def open_folder(path: str | os.PathLike[str], overwrite: bool, resume: bool) -> Path:
    """The folder for a new model, made if need be. Raises ModelError where there is one, or it cannot be written."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ModelError(f"{folder} is a file, and a model is a folder; choose another name")
    if (folder / MODEL).exists() and not (overwrite or resume):
        raise ModelError(f"{folder} holds a model; choose another name, or replace it with --overwrite")
    if folder.exists() and not (folder / MODEL).exists() and not (folder / RESUME).exists() and any(folder.iterdir()):
        raise ModelError(f"{folder} is a folder with other things in it; choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as fault:
        raise ModelError(f"cannot write in {folder}: {fault.strerror or fault}") from None
    return folder


def write_set(folder: Path, name: str, record: dict[str, Any], tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Write tensors to `prefix`-<sha256>.safetensors, then the record that names them to `name`; then remove what the
    record before it named. Raises ModelError where that fails, with the old set intact."""
    data = save_tensors({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    weights = f"{prefix}-{digest}.safetensors"
    _write(folder / weights, data)
    write_json(folder / name, {**record, "weights": weights, "weights_bytes": len(data)})
    for other in folder.glob(f"{prefix}-*.safetensors"):
        if other.name != weights:
            other.unlink(missing_ok=True)


def write_json(path: Path, record: Any) -> None:
    """Write strict JSON (no NaN) at once: a reader sees the old file or the new."""
    _write(path, (json.dumps(record, allow_nan=False, indent=1) + "\n").encode())


def write_text(path: Path, text: str) -> None:
    """Write text at once: a reader sees the old file or the new."""
    _write(path, text.encode())


def _write(path: Path, data: bytes) -> None:
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:40]}.", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o644)
                os.replace(file.name, path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as fault:
        needed = f"{len(data):,} bytes"
        reason = fault.strerror or str(fault)
        raise ModelError(f"cannot write {path} ({needed}): {reason}; what was there is intact") from None


def read_json(folder: Path, name: str = MODEL) -> dict[str, Any]:
    """The record of a folder, its format checked. Raises ModelError where it is missing, foreign, newer or damaged."""
    path = folder / name
    if not path.is_file():
        what = "no such folder" if not folder.exists() else "it is a file" if folder.is_file() else f"it has no {name}"
        raise ModelError(f"{folder} is not a diffeo model ({what}); make one with: diffeo fit DATA -o {folder}")
    if path.stat().st_size > LARGEST_JSON:
        raise ModelError(f"{path} has {path.stat().st_size:,} bytes, more than a model's record can have")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        raise ModelError(f"{path} cannot be read as JSON: {str(fault)[:100]}; restore it from a copy") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ModelError(f"{path} was not written by diffeo")
    version = record.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ModelError(f"{path} names no format version; it is damaged")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{path} is of format {version}, newer than {FORMAT_VERSION}, which this diffeo reads; update it"
        )
    return record


def read_tensors(folder: Path, record: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    """The tensors that a record names, their sha256 checked. Raises ModelError where they are missing or altered."""
    name = record.get("weights")
    digest = name[len(prefix) + 1 : -len(".safetensors")] if isinstance(name, str) else ""
    if name != f"{prefix}-{digest}.safetensors" or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise ModelError(f"{folder}: the record names no weights file as diffeo writes it; it is damaged")
    path = folder / f"{prefix}-{digest}.safetensors"
    if path.is_symlink() or not path.is_file():
        raise ModelError(f"{folder}: the weights file {path.name} is missing")
    if path.stat().st_size != record.get("weights_bytes") or path.stat().st_size > LARGEST_WEIGHTS:
        raise ModelError(f"{path} does not have the size that the record says; it is damaged or was altered")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ModelError(f"{path} is not what was saved (its sha256 differs); restore it from a copy")
    try:
        return load_tensors(data)
    except (SafetensorError, ValueError, RuntimeError) as fault:
        raise ModelError(f"{path} is no safetensors file: {str(fault)[:100]}") from None


def clear_resume(folder: Path) -> None:
    """Remove the state of an interrupted run, once the model is saved."""
    (folder / RESUME).unlink(missing_ok=True)
    for path in folder.glob("resume-*.safetensors"):
        path.unlink(missing_ok=True)


def fill(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy tensors into a module of exactly those names and shapes. Raises ModelError naming the first that differs."""
    own = module.state_dict()
    for name in sorted({*own, *tensors}):
        if name not in tensors or name not in own:
            raise ModelError(
                f"{where}: the tensor {name!r} is {'missing' if name in own else 'not part of this model'}"
            )
        if own[name].shape != tensors[name].shape or own[name].dtype != tensors[name].dtype:
            expected = f"{own[name].dtype} {list(own[name].shape)}"
            raise ModelError(
                f"{where}: {name!r} should be {expected}, is {tensors[name].dtype} {list(tensors[name].shape)}"
            )
        if tensors[name].is_floating_point() and not bool(tensors[name].isfinite().all()):
            raise ModelError(f"{where}: the tensor {name!r} has values that are not finite")
    module.load_state_dict(dict(tensors))
