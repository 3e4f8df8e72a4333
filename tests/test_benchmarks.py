"""The benchmark runs, and its rows say what programs read of them. Nothing here looks at how long anything took."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FIELDS = {"workload", "task", "d", "library", "ratio_to_floor", "spread", "cpu_s", "wall_s", "parameters", "threads"}
FIELDS |= {"n", "rounds", "device", "heap", "machine", "versions", "date"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.speed", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    out = tmp_path_factory.mktemp("bench") / "results.jsonl"
    out.write_text('{"workload": "W9", "d": 1}\n{"workload": "W4", "d": 2, "library": "stale"}\n')
    done = run("--quick", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_rows_of_other_families_stay(rows: list[dict]) -> None:
    assert [row.get("library") for row in rows] == [None, "floor", "diffeo"]


def test_rows_say_what_was_measured(rows: list[dict]) -> None:
    for row in rows[1:]:
        assert set(row) >= FIELDS
        assert (row["workload"], row["task"], row["d"], row["threads"]) == ("W4", "epoch", 2, 1)
        low, high = row["spread"]
        assert 0 < low <= row["ratio_to_floor"] <= high < math.inf
        assert min(row["cpu_s"], row["wall_s"]) > 0
        assert {"processor", "caches", "cores", "kernels"} <= set(row["machine"])
        assert {"python", "torch"} <= set(row["versions"])
        assert row["parameters"] == 4744  # 4 nets of 1-32-32-2


def test_the_floor_is_the_unit(rows: list[dict]) -> None:
    assert (rows[1]["ratio_to_floor"], rows[1]["spread"]) == (1, [1, 1])


def test_what_is_not_there_is_left_out_by_name() -> None:
    done = run("--one", "W4-2", "--libraries", "nothing_of_this_name", "--seconds", "0")
    assert done.returncode == 0, done.stderr
    assert "not installed, left out: nothing_of_this_name" in done.stderr
    assert [json.loads(line)["library"] for line in done.stdout.splitlines()] == ["floor"]


def test_a_word_that_names_no_family_is_refused(tmp_path: Path) -> None:
    done = run("--only", "W10", "--out", str(tmp_path / "results.jsonl"))
    assert done.returncode != 0
    assert "--only: expected a workload" in done.stderr


def test_what_a_step_of_glow_holds() -> None:
    """The table of pictures' memory: rebuilding holds less than storing."""
    command = [sys.executable, "benchmarks/pictures.py", "memory", "--depths", "3", "--width", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in done.stdout.splitlines()[2:]]
    found = {name: float(value) for name, value in cells}
    assert 0 < found["diffeo, invert"] <= found["diffeo, checkpoint"] < found["diffeo, store"]
