"""The real thing, once: a table fitted by the command, then scored, sampled, reported and asked about."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from diffeo.cli import main
from diffeo.data import files
from diffeo.data.embedded import path_of

COLUMNS = ["b_v", "M_hp", "ra_rad"]


def diffeo(*words: str | Path, input: bytes | None = None) -> str:
    """What a command writes to stdout; it must end well and, but for fit, say nothing on stderr."""
    done = CliRunner().invoke(main, [str(word) for word in words], input=input, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    assert words[0] == "fit" or not done.stderr
    return done.stdout


def refused(*words: str | Path) -> str:
    """The one line on stderr of a command that must end with exit code 2."""
    done = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    lines: list[str] = done.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """(table of 300 stars with one hole, model, what `fit --json` said)."""
    folder = tmp_path_factory.mktemp("end_to_end")
    stars = files.read(path_of("stars")).select(COLUMNS).slice(0, 300)
    holed = stars["M_hp"].to_pylist()
    holed[7] = None
    table, model = folder / "stars.csv", folder / "model"
    files.write(stars.set_column(1, "M_hp", pa.array(holed, pa.float32())), table)
    said = diffeo("fit", table, "-o", model, "--epochs", "2", "--threads", "1", "--json")
    return table, model, json.loads(said)


def test_fit_says_what_it_made(fitted: Any) -> None:
    _, model, said = fitted
    assert (said["path"], said["recipe"]) == (str(model), "auto")
    assert isinstance(said["valid_log_prob"], float)
    assert (model / "model.json").exists()


def test_score_writes_a_line_a_row(fitted: Any, tmp_path: Path) -> None:
    table, model, _ = fitted
    lines = diffeo("score", model, table).splitlines()
    assert lines[0] == "log_prob,percentile,reason"
    assert len(lines) == 301
    assert lines[8].startswith(",,")
    assert "M_hp" in lines[8]
    assert diffeo("score", model, "-", input=table.read_bytes()).splitlines() == lines
    said = json.loads(diffeo("score", model, table, "--json", "-o", tmp_path / "all.parquet", "--append"))
    assert (said["rows"], said["scored"], sum(said["unscored"].values())) == (300, 299, 1)
    assert files.read(tmp_path / "all.parquet").column_names == [*COLUMNS, "log_prob", "percentile", "reason"]


def test_sample_repeats_itself(fitted: Any) -> None:
    _, model, _ = fitted
    once = diffeo("sample", model, "-n", "20", "--seed", "5")
    assert len(once.splitlines()) == 21
    assert once.splitlines()[0] == ",".join(COLUMNS)
    assert diffeo("sample", model, "-n", "20", "--seed", "5") == once
    assert diffeo("sample", model, "-n", "20", "--seed", "6") != once


def test_report_and_info(fitted: Any) -> None:
    _, model, _ = fitted
    report = Path(diffeo("report", model).strip())
    assert report.read_text().lstrip().lower().startswith("<!doctype html")
    assert "b_v" in diffeo("info", model)
    assert json.loads(diffeo("info", model, "--json"))["recipe"] == "auto"


def test_check_holds(fitted: Any) -> None:
    table, model, _ = fitted
    lines = diffeo("check", model, table).splitlines()
    assert all(line.startswith(("ok ", "skipped ")) for line in lines)
    assert len(lines) > 25


def test_a_damaged_model_is_no_model_to_check(fitted: Any, tmp_path: Path) -> None:
    table, model, _ = fitted
    damaged = tmp_path / "damaged"
    shutil.copytree(model, damaged)
    weights = next(damaged.glob("weights-*"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert "sha256 differs" in refused("check", damaged, table)
    assert "no such folder" in refused("check", tmp_path / "nothing")


def test_bad_input_is_one_line(fitted: Any, tmp_path: Path) -> None:
    table, model, _ = fitted
    assert "--overwrite" in refused("fit", table, "-o", model, "-q", "--epochs", "1")
    assert "no such" in refused("score", model, tmp_path / "none.csv")
    assert "nothing" in refused("info", tmp_path / "nothing")
    (tmp_path / "short.csv").write_text("b_v,ra_rad\n0.5,1\n")
    assert "'M_hp'" in refused("score", model, tmp_path / "short.csv")
    assert "'M_hp'" in refused("check", model, tmp_path / "short.csv")
