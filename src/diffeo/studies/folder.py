"""A study's folder: findings.json, index.html and every picture, put into place at once or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from diffeo.errors import DiffeoError
from diffeo.processors import threads
from diffeo.studies import STUDIES, find
from diffeo.studies.course import Course, Report
from diffeo.studies.outcome import Findings, Options, Outcome
from diffeo.studies.page import render
from diffeo.version import __version__

__all__ = ["FINDINGS", "PAGE", "run"]

FINDINGS, PAGE = "findings.json", "index.html"


def run(
    name: str, out: str | Path, options: Options | None = None, overwrite: bool = False, report: Report | None = None
) -> Findings:
    """Run a study and write its folder. Raises DiffeoError for a name that is none, and for a folder that exists, or,
    with `overwrite`, that holds anything but a study; what was there is then intact."""
    study, options, folder = find(name), options or Options(), Path(out)
    with _at(folder):
        _check_place(folder, overwrite)
    began = time.monotonic()
    with threads(None):
        outcome = study(options, Course(report))
    findings = Findings(
        schema=1,
        study=name,
        quick=options.quick,
        effort=options.effort,
        seed=outcome.seed,
        version=__version__,
        torch=str(torch.__version__),
        seconds=round(time.monotonic() - began, 3),
        figures=tuple(picture.name for picture in outcome.pictures),
        results=dict(outcome.results),
    )
    with _at(folder):
        _publish(folder, _files(outcome, findings), overwrite)
    return findings


@contextmanager
def _at(folder: Path) -> Iterator[None]:
    """Faults of the file system as one line."""
    try:
        yield
    except OSError as fault:
        reason = fault.strerror or type(fault).__name__
        raise DiffeoError(f"{folder}: the study cannot be written ({reason}); choose another place") from None


def _check_place(folder: Path, overwrite: bool) -> None:
    """Refuse a place before the study begins rather than after it."""
    if folder.exists() and not folder.is_dir():
        raise DiffeoError(f"{folder} is a file, and a study is a folder; choose another name")
    if folder.exists() and not overwrite:
        raise DiffeoError(f"{folder} exists; choose another name, or replace it with --overwrite")
    if folder.exists() and not _ours(folder):
        raise DiffeoError(f"{folder} is a folder with other things in it; choose another name")
    parent = folder.absolute().parent
    nearest = next(place for place in (parent, *parent.parents) if place.exists())
    with tempfile.TemporaryFile(dir=nearest):
        pass


def _ours(folder: Path) -> bool:
    """Whether a folder holds a study and nothing else, or nothing at all."""
    names = {place.name for place in folder.iterdir()}
    if not names:
        return True
    try:
        record = json.loads((folder / FINDINGS).read_bytes())
        known = {f"{picture}.{form}" for picture in record["figures"] for form in ("png", "svg")}
        return record["study"] in STUDIES and names <= {FINDINGS, PAGE, *known}
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _files(outcome: Outcome, findings: Findings) -> dict[str, bytes]:
    record = json.dumps(strict(findings.model_dump(by_alias=True)), indent=1, allow_nan=False) + "\n"
    files = {FINDINGS: record.encode(), PAGE: render(outcome, findings).encode()}
    for picture in outcome.pictures:
        files |= {f"{picture.name}.png": picture.drawing.png, f"{picture.name}.svg": picture.drawing.svg}
    return files


def _publish(folder: Path, files: Mapping[str, bytes], overwrite: bool) -> None:
    """Write the files into a new folder beside, then rename it into place; what was there goes last."""
    place = folder.absolute()
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        fresh.chmod(0o755)
        for name, content in files.items():
            with (fresh / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _check_place(folder, overwrite)  # much can happen in an hour
        _exchange(fresh, place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _exchange(fresh: Path, place: Path) -> None:
    """The fresh folder in the place of the old one, if there is one, which is put back where that fails."""
    if not place.exists():
        fresh.rename(place)
        return
    aside = place.with_name(f"{fresh.name}-old")
    place.rename(aside)
    try:
        fresh.rename(place)
    except BaseException:
        aside.rename(place)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def strict(value: Any) -> Any:
    """The same value with null in place of numbers that JSON has no form for.

    >>> strict({"a": [1.0, float("nan")]})
    {'a': [1.0, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): strict(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
