"""`diffeo study`: what it prints, what it refuses, and that a folder is replaced at once or not at all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import pytest

from diffeo.cli import main
from diffeo.errors import DiffeoError
from diffeo.studies import STUDIES, figures, folder
from diffeo.studies.course import Course
from diffeo.studies.folder import strict
from diffeo.studies.outcome import Options, Outcome, Picture, Section, Table

Run = Callable[..., click.testing.Result]


def tiny(options: Options, course: Course) -> Outcome:
    """A study that takes no time."""
    course.plan({"all": 1.0})
    course.begin("all")({"progress": 1.0, "epoch": 2.0, "train": -1.5})
    drawing = figures.curves({"a<b>": ([1, 2], [1.0, 2.0])}, "x", "y")
    parts = ("words & <more>", Picture("curve", "A <curve>", "seen", drawing), Table(("", "n"), (("<a>", "1"),)))
    return Outcome("Tiny", "lead", (Section("One", parts),), {"value": float("inf")}, options.seed_or(4))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("diffeo.studies.folder.find", lambda name: tiny)

    def invoke(*words: str | Path) -> click.testing.Result:
        done = click.testing.CliRunner().invoke(main, ["study", *map(str, words)])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return invoke


def test_the_list_names_every_study(run: Run) -> None:
    text = run("--list").stdout
    for name, about in STUDIES.items():
        assert f"{name:<10} {about}\n" in text
    assert json.loads(run("--list", "--json").stdout)["studies"] == STUDIES


def test_the_page_is_named_and_progress_goes_elsewhere(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    done = run("atoms", "-o", out, "--quick", "--seed", "3")
    assert done.exit_code == 0
    assert done.stdout == f"{out / 'index.html'}\n"
    assert "epoch 2, train -1.500 nats/row" in done.stderr
    found = json.loads((out / "findings.json").read_text())
    assert (found["seed"], found["quick"], found["results"]) == (3, True, {"value": None})
    page = (out / "index.html").read_text()
    assert "words &amp; &lt;more&gt;" in page
    assert "A &lt;curve&gt;" in page


def test_json_is_strict_and_quiet_is_quiet(run: Run, tmp_path: Path) -> None:
    done = run("atoms", "-o", tmp_path / "s", "--json", "-q")
    assert done.stderr == ""
    found = json.loads(done.stdout, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found["study"] == "atoms"
    assert found["page"] == str(tmp_path / "s" / "index.html")
    assert found["quick"] is False
    assert found["seed"] == 4
    assert found["results"] == {"value": None}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["moonz", "-o", "x"], "diffeo: there is no study 'moonz'; did you mean moons?\n"),
        (["moonz"], "diffeo: there is no study 'moonz'; did you mean moons?\n"),
        (["\n?", "-o", "x"], "diffeo: there is no study '\\n?'; known: kde, homework, moons, zoo, depth, atoms\n"),
    ],
)
def test_an_unknown_name_is_one_line(run: Run, words: list[str], said: str) -> None:
    done = run(*words)
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", said)


def test_what_is_missing_is_said(run: Run) -> None:
    for words, said in (([], "name a study"), (["kde"], "-o FOLDER")):
        done = run(*words)
        assert done.exit_code == 2
        assert said in done.stderr


def test_a_folder_is_not_overwritten_unasked(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "s"
    assert run("atoms", "-o", out).exit_code == 0
    before = (out / "findings.json").read_bytes()
    done = run("atoms", "-o", out, "--seed", "9")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "--overwrite" in done.stderr
    assert (out / "findings.json").read_bytes() == before
    assert run("atoms", "-o", out, "--seed", "9", "--overwrite").exit_code == 0
    assert json.loads((out / "findings.json").read_text())["seed"] == 9
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_other_things_are_never_replaced(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "s"
    out.mkdir()
    assert run("atoms", "-o", out).exit_code == 2  # it exists
    assert run("atoms", "-o", out, "--overwrite").exit_code == 0  # and is empty
    (out / "mine.txt").write_text("mine")
    done = run("atoms", "-o", out, "--overwrite")
    assert done.exit_code == 2
    assert "other things" in done.stderr
    assert (out / "mine.txt").read_text() == "mine"
    file = tmp_path / "file"
    file.write_text("x")
    assert "is a file" in run("atoms", "-o", file, "--overwrite").stderr


def test_nothing_is_left_of_a_study_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither where it is interrupted, nor where the disk fails at the last moment; what was there is intact."""
    monkeypatch.setattr("diffeo.studies.folder.find", lambda name: tiny)
    folder.run("atoms", tmp_path / "s")
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}

    def interrupted(options: Options, course: Course) -> Outcome:
        raise KeyboardInterrupt

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diffeo.studies.folder.find", lambda name: interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder.run("atoms", tmp_path / "s", overwrite=True)
    monkeypatch.setattr("diffeo.studies.folder.find", lambda name: tiny)
    monkeypatch.setattr("diffeo.studies.folder._exchange", full)
    with pytest.raises(DiffeoError, match="No space left"):
        folder.run("atoms", tmp_path / "s", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DiffeoError, match="cannot be written"):
        folder.run("homework", tmp_path / "file" / "s")


def test_json_has_no_infinities() -> None:
    assert strict({"a": (1.0, float("nan")), 2: [float("-inf")]}) == {"a": [1.0, None], "2": [None]}


def test_stages_add_up() -> None:
    records: list[dict[str, Any]] = []
    course = Course(records.append)
    course.plan({"a": 1.0, "b": 1.0})
    course.begin("a")({"progress": 1.0})
    course.begin("b")({"progress": 0.5, "message": "not shown"})
    course.begin("b")({"progress": 0.5})
    assert [(record["stage"], record["progress"]) for record in records] == [("a", 0.5), ("b", 0.75)]
