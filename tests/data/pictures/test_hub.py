"""Data sets of the hub: through its library (here: something that behaves as it does), else one line."""

import builtins
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffeo.data.pictures import read_pictures
from diffeo.errors import DataError, MissingExtraError

from . import files

PIXELS = files.levels(3)


class _Image:
    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class _ClassLabel:
    names = ("cat", "dog")


class _Rows:
    """What `load_dataset` returns, as far as it is used."""

    def __init__(self, cells: list, features: dict[str, Any]) -> None:
        self._cells, self.features = cells, features

    def __iter__(self) -> Iterator[dict]:
        assert not self.features["picture"].decode
        return iter([{"picture": cell, "label": place % 2} for place, cell in enumerate(self._cells)])

    def __getitem__(self, name: str) -> list:
        return [place % 2 for place in range(len(self._cells))]

    def cast_column(self, name: str, feature: _Image) -> "_Rows":
        return _Rows(self._cells, {**self.features, name: feature})


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.ModuleType:
    (tmp_path / "2.png").write_bytes(files.png(PIXELS[2]))
    cells = [{"bytes": files.png(picture), "path": None} for picture in PIXELS[:2]]
    cells.append({"bytes": None, "path": str(tmp_path / "2.png")})

    def load_dataset(name: str, split: str) -> _Rows:
        if name != "some/animals":
            raise RuntimeError(f"Dataset '{name}' doesn't exist\nsecond line")
        assert split in ("train", "test")
        return _Rows(cells if split == "train" else cells[:1], {"picture": _Image(), "label": _ClassLabel()})

    module = types.ModuleType("datasets")
    module.Image, module.load_dataset = _Image, load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def test_a_set_of_the_hub(library: types.ModuleType) -> None:
    found = read_pictures("hub:some/animals", labelled=True)
    np.testing.assert_array_equal(found.pixels, PIXELS)
    assert found.labels is not None
    assert (found.classes, found.labels.tolist()) == (("cat", "dog"), [0, 1, 0])
    assert found.name(1) == "hub:some/animals: row 2"
    assert len(read_pictures("hub:some/animals:test")) == 1


def test_what_the_hub_does_not_have(library: types.ModuleType) -> None:
    with pytest.raises(DataError, match=r"hub:none: cannot be had \(RuntimeError: Dataset 'none' doesn't exist\)"):
        read_pictures("hub:none")
    library.Image = int  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="has no feature of pictures; it has picture, label"):
        read_pictures("hub:some/animals")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    true_import = builtins.__import__

    def without(name: str, *others: Any, **more: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return true_import(name, *others, **more)

    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"hub:x/y: .*pip install 'diffeo\[hub\]'") as caught:
        read_pictures("hub:x/y")
    assert caught.value.exit_code == 3
