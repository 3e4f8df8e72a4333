"""How the library comes to be when diffeo is installed."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from diffeo.kernels import library

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(hook: ModuleType, tmp_path: Path) -> Path:
    """A tree with the C files and, beside them, a library from before."""
    source = tmp_path / hook.SOURCE
    source.parent.mkdir(parents=True)
    for file in (ROOT / hook.SOURCE).parent.glob("*.[ch]"):
        shutil.copy(file, source.parent)
    source.with_name(hook.LIBRARY).write_bytes(b"old")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "value"), [("DIFFEO_KERNELS", "off"), ("CC", "false"), ("PATH", "")], ids=["off", "broken", "none"]
)
def test_without_a_compiler(
    name: str, value: str, hook: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is made and nothing said; what lay there from before is gone."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv(name, value)
    assert hook.build(tree) is None
    assert {path.suffix for path in (tree / hook.SOURCE).parent.iterdir()} == {".c", ".h"}


def test_with_one(hook: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFFEO_KERNELS", raising=False)
    if not hook.chosen():
        pytest.skip("no C compiler here")
    made = hook.build(tree)
    assert made == tree / hook.SOURCE.with_name(hook.LIBRARY)
    assert [path.name for path in made.parent.iterdir() if path.suffix not in (".c", ".h")] == ["libkernels.so"]
    assert library.opened(made.parent) is not None
