"""The rules of the house, held against the source: imports point down, data is never run, only faces print."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffeo

ROOT = Path(diffeo.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FACES = {"cli", "app", "__main__"}

# the rooms from top to bottom; those of one line may use each other
ROOMS = [
    {"__main__"},
    {"cli", "app"},
    {"studies"},
    {"adapters"},
    {"uses"},
    {"check"},
    {"model"},
    {"pictures"},
    {"fitting", "seen"},
    {"resume"},
    {"contract"},
    {"outset", "stacking"},
    {"problem"},
    {"card"},
    {"recipes"},
    {"training"},
    {"descent"},
    {"calibration"},
    {"report"},
    {"baselines"},
    {"mixed"},
    {"prepare", "starts", "parsimonious"},
    {"climb"},
    {"rows", "masses", "units", "mixtures"},
    {"quantized", "dequantization"},
    {"flow"},
    {"door"},
    {"bases"},
    {"transforms"},
    {"scalars"},
    {"attention", "convnets", "picturenets"},
    {"nets"},
    {"kernels"},
    {"tracing"},
    {"data"},
    {"artefact", "processors"},
    {"config"},
    {"errors", "version"},
]
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
FORBIDDEN = {"eval", "exec", "compile", "__import__", "input"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_ATTRIBUTES = {
    ("torch", "load"),
    ("torch", "save"),
    ("yaml", "load"),
    ("os", "system"),
    ("os", "popen"),
    ("subprocess", "getoutput"),
    ("pandas", "read_pickle"),
    ("pd", "read_pickle"),
}


def room_of(file: Path) -> str:
    """The room of a file: its name, or that of the folder below the package."""
    return file.relative_to(ROOT).with_suffix("").parts[0]


def module_of(file: Path) -> list[str]:
    parts = ["diffeo", *file.relative_to(ROOT).with_suffix("").parts]
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """(line, full name) of everything that a file imports, inside functions too; of `from a import b`, a.b."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module_of(file) if file.name == "__init__.py" else module_of(file)[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_down(file: Path) -> None:
    if file == ROOT / "__init__.py":
        return  # the public names, of any room
    here = room_of(file)
    assert here in FLOOR, f"{here} has no room yet: give it a line in ROOMS, and in the design"
    for line, name in imported(file):
        parts = name.split(".")
        if parts[0] != "diffeo" or len(parts) == 1:
            continue
        there = parts[1]
        if there == here:
            continue
        assert there in FLOOR, f"{file.name}:{line} imports {name}, which has no room"
        assert FLOOR[there] >= FLOOR[here], f"{file.name}:{line}: {here} imports {there}, which lies above it"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_data_is_run(file: Path) -> None:
    for line, name in imported(file):
        assert name.split(".")[0] not in FORBIDDEN_MODULES, f"{file.name}:{line} imports {name}"
        assert tuple(name.rsplit(".", 1)) not in FORBIDDEN_ATTRIBUTES, f"{file.name}:{line} imports {name}"
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in FORBIDDEN_ATTRIBUTES, f"{file.name}:{node.lineno}"
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN, f"{file.name}:{node.lineno} calls {node.func.id}"
        for keyword in node.keywords:
            said = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            assert not (keyword.arg in ("shell", "allow_pickle") and said), f"{file.name}:{node.lineno}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_only_the_faces_speak(file: Path) -> None:
    if room_of(file) in FACES:
        return
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{file.name}:{node.lineno} prints"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("sys", "argv"), f"{file.name}:{node.lineno} looks at sys.argv"


def test_walk_sees_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk itself finds an import that points up, also a relative one inside a function."""
    (tmp_path / "data").mkdir()
    bad = tmp_path / "data" / "bad.py"
    bad.write_text("def f():\n    from ..model import Model\n    return Model\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert list(imported(bad)) == [(2, "diffeo.model.Model")]
    with pytest.raises(AssertionError, match="lies above"):
        test_imports_point_down(bad)


@pytest.mark.parametrize("module", ["diffeo", "diffeo.cli"])
def test_import_is_light(module: str) -> None:
    heavy = "torch numpy pyarrow pandas matplotlib sklearn rich pydantic"
    code = f"import sys, {module}; print(*[name for name in '{heavy}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_a_model_brings_nothing_that_only_reports_and_other_peoples_frames_need() -> None:
    heavy = "pandas matplotlib sklearn scipy.stats rich torch._dynamo sympy"
    code = f"import sys, diffeo; diffeo.Model; print(*[name for name in '{heavy}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_training_begins_without_what_is_slow_to_import(tmp_path: Path) -> None:
    """The command's own process, at its first step."""
    (tmp_path / "table.csv").write_text("a,b\n" + "".join(f"{i % 17 / 7},{i % 29 / 3}\n" for i in range(300)))
    heavy = "pandas matplotlib sklearn scipy.stats torch._dynamo"
    code = (
        "import os, sys\n"
        "from diffeo import training\n"
        "def step(self, progress):\n"
        f"    print(*[name for name in '{heavy}'.split() if name in sys.modules], flush=True)\n"
        "    os._exit(0)\n"
        "training._Run.step = step\n"
        "for name in [name for name in sys.modules if name.split('.')[0] in ('pyarrow', 'pandas')]:\n"
        "    raise AssertionError(name)\n"
        "from diffeo.cli import main\n"
        "main()\n"
    )
    words = [sys.executable, "-c", code, "fit", "table.csv", "-o", "model", "-q", "--epochs", "1", "--hidden", "8"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=100, cwd=tmp_path)
    assert done.stdout.split() == []


def test_public_names() -> None:
    assert set(diffeo.__all__) <= set(dir(diffeo))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = diffeo.nothing
    assert diffeo.errors.DataError.__name__ == "DataError"
    assert diffeo.FitConfig().recipe == "auto"
