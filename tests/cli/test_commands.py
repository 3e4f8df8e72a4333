"""What every command promises: an example first, exit codes, streams, strict JSON, files that are not overwritten."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import pytest

from diffeo.cli import COMMANDS, load, main, printable
from diffeo.cli.progress import Progress
from diffeo.data import files
from diffeo.data.column import KINDS
from diffeo.data.embedded import EMBEDDED, path_of
from diffeo.errors import DataError, MissingExtraError, TrainingError
from diffeo.kernels import in_use
from diffeo.version import __version__

Run = Callable[..., Any]


def strictly(text: str) -> dict[str, Any]:
    """The one JSON object in a text; NaN and Infinity are refused."""
    found: dict[str, Any] = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found["schema"] == 1
    return found


def diffeo(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "diffeo", *words], capture_output=True, text=True, timeout=120, **options
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_starts_with_an_example(name: str, run: Run) -> None:
    assert (load(name).help or "").lstrip("\b\n ").startswith(f"Example: diffeo {name}")
    for flag in ("-h", "--help"):
        done = run(name, flag)
        assert done.exit_code == 0
        assert "Example: diffeo" in done.stdout
        assert done.stdout.startswith("Usage: ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name: str) -> None:
    for option in load(name).params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.opts}"


def test_main_help_names_every_command(run: Run) -> None:
    text = run("-h").stdout
    for name, short in COMMANDS.items():
        assert name in text
        assert short in text
    assert set(main.list_commands(click.Context(main))) == set(COMMANDS)
    assert all(kind in (load("fit").help or "") for kind in KINDS)


def test_version_and_module() -> None:
    assert diffeo("--version").stdout.strip() == f"diffeo {__version__}"


def test_misspelt_words_get_a_hint(run: Run) -> None:
    for words in (["scor"], ["fit", "x", "-o", "m", "--epoch", "3"], ["data", "strs"]):
        done = run(*words)
        assert done.exit_code == 2
        assert "mean" in done.stderr


@pytest.mark.parametrize(
    ("fault", "code"), [(DataError("a\nb"), 2), (TrainingError("diverged"), 1), (MissingExtraError("pip install"), 3)]
)
def test_faults_are_one_line_with_their_code(fake: Any, run: Run, table: Path, fault: Exception, code: int) -> None:
    fake.raises = fault
    for words in (
        ["score", "m", table],
        ["fit", table, "-o", "m", "-q"],
        ["info", "m"],
        ["report", "m"],
        ["check", "m"],
    ):
        done = run(*words)
        assert done.exit_code == code
        assert done.stdout == ""
        assert done.stderr == f"diffeo: {printable(fault)}\n"


def test_bugs_keep_their_traceback(fake: Any, run: Run, table: Path) -> None:
    fake.raises = RuntimeError("ours")
    with pytest.raises(RuntimeError, match="ours"):
        run("score", "m", table)


def test_keyboard_interrupt_is_130(fake: Any, run: Run) -> None:
    fake.raises = KeyboardInterrupt()
    done = run("info", "m")
    assert (done.exit_code, done.stderr) == (130, "diffeo: interrupted\n")


@pytest.mark.parametrize(("run_kept", "said"), [("state", "; continue with the same command and --resume"), (None, "")])
def test_interrupted_fit_says_how_to_go_on(fake: Any, run: Run, table: Path, run_kept: Any, said: str) -> None:
    from diffeo.training import Interrupted  # the fixture's

    fake.raises = Interrupted()
    fake.raises.run = run_kept
    done = run("fit", table, "-o", "m", "-q")
    assert (done.exit_code, done.stderr) == (130, f"diffeo: interrupted after epoch 1{said}\n")


def test_score_streams_a_line_a_row(fake: Any, run: Run, table: Path, tmp_path: Path) -> None:
    done = run("score", "m", table)
    assert done.stdout.splitlines() == [
        "log_prob,percentile,reason",
        "0.5,50,",
        "1.5,50,",
        ",,a is missing",
        "4,50,",
    ]
    assert done.stderr == ""
    for name in ("s.parquet", "s.jsonl", "s.csv"):
        assert run("score", "m", table, "-o", tmp_path / name).exit_code == 0
        assert files.read(str(tmp_path / name))["log_prob"].to_pylist() == [0.5, 1.5, None, 4.0]
        refused = run("score", "m", table, "-o", tmp_path / name)
        assert refused.exit_code == 2
        assert "--overwrite" in refused.stderr
        assert run("score", "m", table, "-o", tmp_path / name, "--overwrite").exit_code == 0


def test_score_reads_stdin_and_appends(fake: Any, run: Run, table: Path, tmp_path: Path) -> None:
    done = run("score", "m", "-", "--append", input=table.read_bytes())
    assert done.stdout.splitlines()[0] == "a,b,log_prob,percentile,reason"
    assert done.stdout.splitlines()[4] == "4,y,4,50,"
    clash = tmp_path / "clash.csv"
    clash.write_text("a,log_prob\n1.5,2\n0.5,4\n")
    done = run("score", "m", clash, "--append")
    assert done.exit_code == 2
    assert "'log_prob'" in done.stderr


def test_score_json_is_one_strict_object(fake: Any, run: Run, table: Path, tmp_path: Path) -> None:
    assert strictly(run("score", "m", table, "--json").stdout) == {
        "schema": 1,
        "rows": 4,
        "scored": 3,
        "mean_log_prob": 2.0,
        "standard_error": pytest.approx(1.0408329997),
        "minus_infinite": 0,
        "unscored": {"a is missing": 1},
    }
    done = run("score", "m", table, "--json", "-o", tmp_path / "s.csv")
    assert strictly(done.stdout)["rows"] == 4
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 5
    assert run("score", "m", table, "--json", "--append").exit_code == 2


def test_score_json_of_nothing_scored(fake: Any, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "holes.csv"
    path.write_text("a,b\n,x\n,y\n")
    found = strictly(run("score", "m", path, "--json").stdout)
    assert (found["mean_log_prob"], found["standard_error"], found["scored"]) == (None, None, 0)


def test_sample_streams(fake: Any, run: Run, tmp_path: Path) -> None:
    assert len(run("sample", "m").stdout.splitlines()) == 1001
    assert run("sample", "m", "-n", "2", "--seed", "3").stdout.splitlines() == ["a,b", "3,x", "3,x"]
    assert run("sample", "m", "-n", "2500", "-o", tmp_path / "s.parquet").exit_code == 0
    assert pq.read_metadata(tmp_path / "s.parquet").num_rows == 2500
    assert run("sample", "m", "-n", "0").exit_code == 2
    (tmp_path / "given.csv").write_text("b\nx\ny\nx\n")
    assert len(run("sample", "m", "--given", tmp_path / "given.csv").stdout.splitlines()) == 4
    assert len(run("sample", "m", "--given", tmp_path / "given.csv", "-n", "7").stdout.splitlines()) == 8


def test_report_prints_the_path(fake: Any, run: Run) -> None:
    assert run("report", "m").stdout == "model/report.html\n"
    assert run("report", "m", "d.csv").stdout == "model/d.csv-False.html\n"
    assert run("report", "m", "d.csv", "--rows").stdout == "model/d.csv-True.html\n"


def test_check_says_a_line_a_property_and_fails_with_1(fake: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffeo.check.lines import Line

    good, bad = Line("totals", 1e-9, 1e-3, "column a"), Line("draws", float("nan"), 5.0, "a\nb")
    monkeypatch.setattr("diffeo.check.check_lines", lambda model, data, seed: iter([good, bad, skip]))
    skip = Line("angles", 0.0, 0.0, skipped="no angles")
    done = run("check", "m")
    assert done.exit_code == 1
    assert [line[:8].strip() for line in done.stdout.splitlines()] == ["ok", "FAIL", "skipped"]
    assert done.stdout.splitlines()[1].endswith("a\\nb")
    assert done.stderr == "diffeo: 1 of 3 properties fail: draws\n"
    done = run("check", "m", "--json")
    assert done.exit_code == 1
    found = strictly(done.stdout)
    assert found["ok"] is False
    assert [(each["outcome"], each["error"]) for each in found["properties"]] == [
        ("ok", 1e-9),
        ("fail", None),
        ("skipped", None),
    ]
    assert found["properties"][2]["reason"] == "no angles"


def test_info(fake: Any, run: Run) -> None:
    assert run("info", "m").stdout == "recipe: auto\na \\x1b[31mred\\nname\n"
    found = strictly(run("info", "m", "--json").stdout)
    assert found["card"]["valid_standard_error"] is None
    assert (found["path"], found["recipe"]) == ("m", "auto")


def test_doctor(run: Run) -> None:
    found = strictly(run("doctor", "--json").stdout)
    assert found["diffeo"] == __version__
    assert found["devices"][0] == "cpu"
    assert found["kernels"] == in_use()
    assert found["packages"]["needed"]["torch"]
    assert f"diffeo    {__version__}" in run("doctor").stdout


def test_data_lists_and_writes(run: Run, tmp_path: Path) -> None:
    assert "stars: 20,000 rows" in run("data").stdout
    assert strictly(run("data", "--json").stdout)["data"]["stars"]["licence"] == "public domain"
    assert run("data", "stars", "-o", tmp_path / "stars.parquet").exit_code == 0
    assert files.read(str(tmp_path / "stars.parquet")).equals(files.read(path_of("stars")))
    assert run("data", "stars", "-o", tmp_path / "stars.parquet").exit_code == 2


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_data_are_as_described(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = files.read(path_of(name))
    assert found.num_rows == EMBEDDED[name].rows
    assert found.column_names == list(EMBEDDED[name].columns)
    assert Path(path_of(name)).stat().st_size < 600_000
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert path_of(name) != name  # a folder, such as a model, does not hide it
    (tmp_path / name).rmdir()
    (tmp_path / name).write_text("a\n1\n")
    assert path_of(name) == name  # a file does


def test_fit_hands_on_what_was_asked(fake: Any, run: Run, table: Path) -> None:
    words = ["--columns", 'a,"b,c"', "--columns", "d", "--kind", "a=positive", "--kind", "b=ordered:x<y", "--seed", "4"]
    done = run("fit", table, "-o", "m", *words, "--valid", "v.csv", "--resume", "--schedule", "old")
    assert done.exit_code == 0
    config = fake.calls["config"]
    assert config.columns == ("a", "b,c", "d")
    assert config.kinds == {"a": "positive", "b": "ordered:x<y"}
    assert (config.seed, config.budget, config.epochs) == (4, 120.0, None)
    calls = {name: fake.calls[name] for name in ("data", "out", "valid", "resume", "overwrite", "schedule")}
    assert calls == {
        "data": str(table),
        "out": Path("m"),
        "valid": "v.csv",
        "resume": True,
        "overwrite": False,
        "schedule": Path("old"),
    }
    assert done.stdout == "m: auto, -1.5000 nats per held-out row\n"
    assert done.stderr.splitlines() == [
        "a: continuous",
        "training: epoch 1, train -1.000 nats/row, 9 rows/s, 1 s left",
    ]


def test_fit_json_and_quiet(fake: Any, run: Run, table: Path) -> None:
    done = run("fit", table, "-o", "m", "--quiet", "--json", "--epochs", "2")
    assert done.stderr == ""
    assert strictly(done.stdout) == {
        "schema": 1,
        "path": "m",
        "recipe": "auto",
        "rows": 4,
        "parameters": 7,
        "valid_log_prob": -1.5,
        "valid_standard_error": None,
    }
    assert (fake.calls["config"].epochs, fake.calls["config"].budget) == (2, None)


def test_flag_before_environment_before_file(fake: Any, run: Run, table: Path, tmp_path: Path) -> None:
    toml = tmp_path / "fit.toml"
    toml.write_text(
        'seed = 1\nlayers = 2\nbins = 3\nbudget = "5m"\ncolumns = ["a", "b, c"]\n[kinds]\n"a b" = "positive"\n'
    )
    env = {"DIFFEO_FIT_LAYERS": "5", "DIFFEO_FIT_BINS": "6", "DIFFEO_FIT_DROP": "c d,e"}
    done = run("fit", table, "-o", "m", "--config", toml, "--bins", "9", "--epochs", "3", env=env)
    assert done.exit_code == 0, done.stderr
    config = fake.calls["config"]
    assert (config.seed, config.layers, config.bins, config.epochs, config.budget) == (1, 5, 9, 3, None)
    assert (config.columns, config.drop, config.kinds) == (("a", "b, c"), ("c d", "e"), {"a b": "positive"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--epochs", "2", "--budget", "1m"], "not both"),
        (["--budget", "soon"], "'soon'"),
        (["--batch-size", "1"], "batch_size"),
        (["--kind", "a"], "COL=KIND"),
        (["--device", "tpu"], "device"),
        (["--missing", "keep"], "--missing"),
        (["--config", "none.toml"], "none.toml"),
    ],
)
def test_wrong_options_are_named(fake: Any, run: Run, table: Path, words: list[str], said: str) -> None:
    done = run("fit", table, "-o", "m", *words)
    assert done.exit_code == 2
    assert said in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "said"),
    [("layer = 2", "'layers'"), ("a = = 2", "TOML"), ("seed = {a = 1}", "table"), ("seed = 'x'", "--seed")],
)
def test_wrong_toml_is_named(fake: Any, run: Run, table: Path, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "fit.toml").write_text(text)
    done = run("fit", table, "-o", "m", "--config", tmp_path / "fit.toml")
    assert done.exit_code == 2
    assert said in done.stderr


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    record = {"epoch": 1.0, "train": -1.0, "valid": -1.1, "rows_per_second": 9.0, "progress": 0.5, "stage": "training"}
    with Progress(quiet=False) as progress:
        progress.take({"message": "[bold]a[/bold]: continuous"})
        progress.take(record)
    said = capsys.readouterr()
    assert said.out == ""
    assert "[bold]a[/bold]: continuous" in said.err


def test_closed_pipe_is_quiet() -> None:
    reader = subprocess.Popen(
        [sys.executable, "-m", "diffeo", "data", "stars"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert reader.stdout is not None
    assert reader.stderr is not None
    assert reader.stdout.readline().startswith(b"b_v,")
    reader.stdout.close()
    assert reader.stderr.read() == b""
    assert reader.wait(60) == 0
    reader.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "diffeo", "data", "stars"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.startswith("diffeo: ")
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_while_starting_is_130() -> None:
    code = "import os, signal, sys\nfrom diffeo.cli import main, Commands\nimport click\n"
    code += "click.Group.invoke = lambda *_: os.kill(os.getpid(), signal.SIGINT)\nmain(['data'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "diffeo: interrupted\n")
