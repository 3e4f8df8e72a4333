"""A model on disk: a folder of JSON and safetensors. Nothing in it is code, or trusted unchecked.

`model.json` names every other file by its sha256 and holds its own; it is written last, and renaming it into place is
the commit. A process that is killed at any moment leaves the old model or the new one, never a mixture.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from diffeo.errors import ModelError, shown

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "MODEL",
    "RESUME",
    "clear_resume",
    "fields_of",
    "fill",
    "folder_of",
    "open_folder",
    "read_json",
    "read_tensors",
    "read_text",
    "write_set",
]

FORMAT, FORMAT_VERSION = "diffeo-model", 1
MODEL, RESUME = "model.json", "resume.json"
SAMPLES = "samples"  # pictures drawn while a density of pictures is learned
STALE = ("report.html", "report.json")
_SAMPLE = re.compile(r"step_\d{6,}\.png|\.step_\d{6,}\.png\.[0-9a-f]+\.part")
LARGEST_JSON = 64 * 2**20
LARGEST_WEIGHTS = 8 * 2**30
OWN = ("sha256", "weights", "weights_bytes", "beside")  # what a record says of the files, besides what it records
_UNSEALED = "0" * 64
_HELD = re.compile(r"(weights|resume|findings|history)-[0-9a-f]{64}\.(safetensors|json|jsonl)")  # named by content
_UNFINISHED = re.compile(
    r"\.((model|resume)\.json|(weights|resume|findings|history)-[0-9a-f]{8,})\..+|\.report\.(html|json)-[0-9a-f]+"
)


def folder_of(path: Any) -> Path:
    """The path of a folder as a person may give it. Raises ModelError for anything else."""
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise ModelError(f"expected the path of a model's folder, got {shown(path)}")
    return Path(path)


def open_folder(path: str | os.PathLike[str], overwrite: bool, resume: bool) -> Path:
    """The folder for a new model, which need not exist yet. Raises ModelError where there is a model already, or
    something else, or nothing can be written."""
    folder = folder_of(path)
    try:
        _refuse(folder, overwrite, resume)
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except ModelError:
        raise
    except (OSError, ValueError) as fault:
        raise ModelError(f"cannot write in {folder}: {_reason(fault)}; choose another place") from None
    return folder


def _refuse(folder: Path, overwrite: bool, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ModelError(f"{folder} is a file, and a model is a folder; choose another name")
    if (folder / MODEL).exists() and not (overwrite or resume):
        raise ModelError(f"{folder} holds a model; choose another name, or replace it with --overwrite")
    if (folder / RESUME).exists() and not (overwrite or resume):
        raise ModelError(f"{folder} holds an interrupted run; go on with --resume, or start again with --overwrite")
    known = not folder.exists() or (folder / MODEL).exists() or (folder / RESUME).exists()
    if not known and any(not _ours(other) for other in folder.iterdir()):
        raise ModelError(f"{folder} is a folder with other things in it; choose another name")


def _ours(place: Path) -> bool:
    """Whether this is left from a save that did not end, or from a fit that drew samples and has saved nothing yet."""
    if place.name == SAMPLES and place.is_dir():
        return all(_SAMPLE.fullmatch(other.name) for other in place.iterdir())
    return bool(_HELD.fullmatch(place.name) or _UNFINISHED.fullmatch(place.name))


def _reason(fault: Exception) -> str:
    return str(getattr(fault, "strerror", None) or fault)


# Writing ------------------------------------------------------------------------------------------------------------


def write_set(
    folder: Path,
    name: str,
    record: dict[str, Any],
    tensors: Mapping[str, Tensor],
    prefix: str,
    beside: Mapping[str, str] | None = None,
) -> None:
    """Write tensors to `prefix`-<sha256>.safetensors and the texts `beside` under names of their own, then the record
    that names them all to `name`; then remove what the record before it named.

    Raises ModelError where that fails, with the old set intact.
    """
    data = save_tensors({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    weights = f"{prefix}-{_sha256(data)}.safetensors"
    texts = {other: text.encode() for other, text in (beside or {}).items()}
    digests = {other: _sha256(text) for other, text in texts.items()}
    _write(folder / weights, data)
    for other, text in texts.items():
        _write(folder / _staged(other, digests[other]), text)
    _write(folder / name, _sealed({**record, "weights": weights, "weights_bytes": len(data), "beside": digests}))
    with suppress(OSError):  # the model is whole already; what is late is found under its other name
        for other, digest in digests.items():
            os.replace(folder / _staged(other, digest), folder / other)
        for page in STALE if prefix == "weights" else ():  # a report of what was there before
            (folder / page).unlink(missing_ok=True)
        _sweep(folder, prefix, {weights, *(_staged(other, digest) for other, digest in digests.items())})


def _staged(name: str, digest: str) -> str:
    """Under what name a text waits for the commit."""
    stem, suffix = name.split(".")
    return f"{stem}-{digest}.{suffix}"


def _sweep(folder: Path, prefix: str, kept: set[str]) -> None:
    """Remove what no record names any longer, and what is left from saves that did not end."""
    prefixes = (prefix,) if prefix == "resume" else (prefix, "findings", "history")
    for path in list(folder.iterdir()):
        past = _HELD.fullmatch(path.name) and path.name.startswith(prefixes) and path.name not in kept
        if past or _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _sealed(record: dict[str, Any]) -> bytes:
    """Strict JSON (no NaN) that holds the sha256 of itself, with zeros in that place."""
    text = json.dumps({"sha256": _UNSEALED, **record}, allow_nan=False, indent=1) + "\n"
    return text.replace(_UNSEALED, _sha256(text.encode()), 1).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    """Write a file at once: a reader sees the old one or the new."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
        raise ModelError(
            f"cannot write {path} ({len(data):,} bytes): {_reason(fault)}; a model that was there is intact"
        ) from None


# Reading ------------------------------------------------------------------------------------------------------------


def read_json(folder: Path, name: str = MODEL) -> dict[str, Any]:
    """The record of a folder, its format and sha256 checked. Raises ModelError where it is missing, foreign, newer,
    damaged or altered."""
    path = folder / name
    try:
        if not path.is_file():
            what = "it is a file" if folder.is_file() else f"it has no {name}" if folder.exists() else "no such folder"
            raise ModelError(f"{folder} is not a diffeo model ({what}); make one with: diffeo fit DATA -o {folder}")
        if path.stat().st_size > LARGEST_JSON:
            raise ModelError(f"{path} has {path.stat().st_size:,} bytes, more than a model's record can have")
        text = path.read_bytes().decode()
        record = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except ModelError:
        raise
    except (OSError, ValueError, RecursionError) as fault:
        raise ModelError(f"{path} cannot be read as JSON: {_reason(fault)[:100]}; restore it from a copy") from None
    _check(record, text, path)
    return record


def _check(record: Any, text: str, path: Path) -> None:
    """Refuse records that are foreign, newer, or not as they were written."""
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ModelError(f"{path} was not written by diffeo")
    version = record.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ModelError(f"{path} names no format version; it is damaged")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{path} is of format {version}, newer than {FORMAT_VERSION}, which this diffeo reads; update it"
        )
    seal = record.get("sha256")
    if not isinstance(seal, str) or not seal or _sha256(text.replace(seal, _UNSEALED, 1).encode()) != seal:
        raise ModelError(f"{path} is not what was saved (its sha256 differs); restore it from a copy")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def fields_of(record: dict[str, Any]) -> dict[str, Any]:
    """What a record records, without what it says of the files."""
    return {name: value for name, value in record.items() if name not in OWN}


def read_tensors(folder: Path, record: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    """The tensors that a record names, their sha256 checked. Raises ModelError where they are missing or altered."""
    name = record.get("weights")
    digest = name[len(prefix) + 1 : -len(".safetensors")] if isinstance(name, str) else ""
    if name != f"{prefix}-{digest}.safetensors" or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ModelError(f"{folder}: the record names no weights file as diffeo writes it; it is damaged")
    path = folder / f"{prefix}-{digest}.safetensors"
    if path.is_symlink() or not path.is_file():
        raise ModelError(f"{folder}: the weights file {path.name} is missing; restore it from a copy")
    if path.stat().st_size != record.get("weights_bytes") or path.stat().st_size > LARGEST_WEIGHTS:
        raise ModelError(f"{path} does not have the size that the record says; it is damaged or was altered")
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise ModelError(f"{path} cannot be read: {_reason(fault)}") from None
    if _sha256(data) != digest:
        raise ModelError(f"{path} is not what was saved (its sha256 differs); restore it from a copy")
    try:
        return load_tensors(data)
    except (SafetensorError, ValueError, RuntimeError) as fault:
        raise ModelError(f"{path} is no safetensors file: {str(fault)[:100]}") from None


def read_text(folder: Path, record: dict[str, Any], name: str) -> str:
    """A text beside the record, its sha256 checked. Raises ModelError where it is missing or of another model."""
    digest = (record.get("beside") or {}).get(name)
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ModelError(f"{folder} names no {name}")
    for path in (folder / name, folder / _staged(name, digest)):
        with suppress(OSError):
            data = path.read_bytes() if path.stat().st_size <= LARGEST_JSON else b""
            if _sha256(data) == digest:
                return data.decode()
    raise ModelError(f"{folder / name} is missing, or not what was saved with this model; restore it from a copy")


def clear_resume(folder: Path) -> None:
    """Remove the state of an interrupted run, once the model is saved."""
    with suppress(OSError):
        (folder / RESUME).unlink(missing_ok=True)
        _sweep(folder, "resume", set())


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
