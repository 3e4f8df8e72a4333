"""Fits that are interrupted, by a flag or by real signals, and go on to the very weights of an uninterrupted run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from diffeo import artefact, resume
from diffeo.config import FitConfig
from diffeo.data import files
from diffeo.errors import ModelError
from diffeo.model import Model
from diffeo.training import Interrupted, train

CONFIG = FitConfig(epochs=4, hidden=8, components=2, batch_size=8)


def mixed(n: int = 120) -> pa.Table:
    """Numbers, an angle, a category and a spiked column: something for every part of a density."""
    rng = np.random.default_rng(1)
    a = rng.normal(size=n)
    rain = np.where(rng.random(n) < 0.5, 0.0, rng.lognormal(0, 1, n))
    kind, angle = rng.choice(["red", "green", "blue"], n), rng.uniform(0, 360, n)
    return pa.table({"a": a, "b": 1e6 * a + rng.normal(size=n), "angle": angle, "kind": list(kind), "rain": rain})


KINDS = CONFIG.model_copy(update={"kinds": {"angle": "circular:360"}})


def weights_of(folder: Path) -> str:
    """The name of the weights file, which holds their sha256."""
    (path,) = folder.glob("weights-*.safetensors")
    return path.name


def interrupt_at(monkeypatch: pytest.MonkeyPatch, counts: Iterator[int]) -> None:
    """Every training from now on is told to stop when it asks for the k-th time."""

    def trained(problem: Any, settings: Any, state: Any, budget: Any, stop: Any) -> Iterator[dict[str, Any]]:
        count, asked = next(counts), iter(range(10**9))
        return train(problem, settings, state, budget, lambda: next(asked) >= count)

    monkeypatch.setattr("diffeo.fitting.train", trained)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.fit(mixed(), config=KINDS, out=tmp_path_factory.mktemp("whole") / "model")


@pytest.mark.parametrize("asked", [0, 1, 20, 45])
def test_a_fit_goes_on_to_the_same_weights(
    asked: int, whole: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert whole.folder is not None
    out = tmp_path / "model"
    interrupt_at(monkeypatch, iter([asked, 5, 10**9]))
    with pytest.raises(Interrupted, match="interrupted after epoch") as end:
        Model.fit(mixed(), config=KINDS, out=out)
    assert end.value.run is not None
    with pytest.raises(ModelError, match="interrupted run; go on with --resume"):
        Model.fit(mixed(), config=KINDS, out=out)
    with pytest.raises(Interrupted):
        Model.fit(mixed(), config=KINDS, out=out, resume=True)
    model = Model.fit(mixed(), config=KINDS, out=out, resume=True)
    assert weights_of(out) == weights_of(whole.folder)
    assert model.card.start == whole.card.start
    assert model.card.valid_log_prob == whole.card.valid_log_prob
    assert model.card.steps == whole.card.steps
    assert [step.valid for step in model.findings.history] == [step.valid for step in whole.findings.history]
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in whole.folder.iterdir())


def test_a_finished_model_stays_as_it_is(whole: Model) -> None:
    assert whole.folder is not None
    before = {path.name: path.stat().st_mtime_ns for path in whole.folder.iterdir()}
    said: list[dict[str, Any]] = []
    again = Model.fit(mixed(), config=KINDS, out=whole.folder, resume=True, progress=said.append)
    assert again.card == whole.card
    assert {path.name: path.stat().st_mtime_ns for path in whole.folder.iterdir()} == before
    assert "finished already" in said[0]["message"]


def test_before_training_there_is_nothing_to_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def signals(catch: bool) -> Iterator[Any]:
        yield lambda: True

    monkeypatch.setattr("diffeo.model.signals", signals)
    with pytest.raises(Interrupted, match="before training began; nothing was saved") as end:
        Model.fit(mixed(), config=KINDS, out=tmp_path / "model")
    assert end.value.run is None
    assert not (tmp_path / "model").exists()


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an interrupted run; later fits are not interrupted."""
    interrupt_at(monkeypatch, iter([20, *[10**9] * 20]))
    with pytest.raises(Interrupted):
        Model.fit(mixed(), config=KINDS, out=tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("change", "said"),
    [({"hidden": 9}, "hidden: .* had 8, now 9"), ({"seed": 1}, "seed: "), ({"epochs": 5}, "epochs: .* had 4, now 5")],
)
def test_other_options_are_refused(change: dict[str, Any], said: str, stopped: Path) -> None:
    with pytest.raises(ModelError, match=said):
        Model.fit(mixed(), config=KINDS.model_copy(update=change), out=stopped, resume=True)


def test_other_data_is_refused(stopped: Path) -> None:
    renamed = mixed().set_column(3, "kind", pa.array([f"dark {name}" for name in mixed()["kind"].to_pylist()]))
    for other in (mixed(121), renamed):
        with pytest.raises(ModelError, match="the data is not what the interrupted run"):
            Model.fit(other, config=KINDS, out=stopped, resume=True)
    with pytest.raises(ModelError, match="the data is not what the interrupted run"):
        Model.fit(mixed(), config=KINDS, valid=mixed(40), out=stopped, resume=True)


def test_another_torch_is_refused(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume.torch, "__version__", "99.0")
    with pytest.raises(ModelError, match=r"now it is 99\.0"):
        Model.fit(mixed(), config=KINDS, out=stopped, resume=True)


def test_a_damaged_state_is_refused(stopped: Path) -> None:
    (path,) = stopped.glob("resume-*.safetensors")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ModelError, match="sha256 differs"):
        Model.fit(mixed(), config=KINDS, out=stopped, resume=True)
    record = stopped / artefact.RESUME
    record.write_text(record.read_text().replace('"step": 1', '"step": 2', 1))
    with pytest.raises(ModelError, match="sha256 differs"):
        Model.fit(mixed(), config=KINDS, out=stopped, resume=True)


def test_starting_again_forgets_the_interrupted_run(stopped: Path) -> None:
    Model.fit(mixed(), config=KINDS, out=stopped, overwrite=True)
    assert not list(stopped.glob("resume*"))


def test_nothing_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no interrupted run"):
        Model.fit(mixed(), config=KINDS, out=tmp_path / "none", resume=True)
    with pytest.raises(ModelError, match="no interrupted run"):
        Model.fit(mixed(), config=KINDS, resume=True)
    with pytest.raises(ModelError, match="leave --schedule out"):
        Model.fit(mixed(), config=KINDS, out=tmp_path, resume=True, schedule=tmp_path)


def test_an_interrupted_overwrite_leaves_the_old_model(
    whole: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole.save(tmp_path / "model")
    old = weights_of(tmp_path / "model")
    interrupt_at(monkeypatch, iter([20, 10**9]))
    other = KINDS.model_copy(update={"seed": 7})
    with pytest.raises(Interrupted):
        Model.fit(mixed(), config=other, out=tmp_path / "model", overwrite=True)
    assert weights_of(tmp_path / "model") == old
    assert Model.load(tmp_path / "model").card == whole.card
    Model.fit(mixed(), config=other, out=tmp_path / "model", resume=True)
    assert weights_of(tmp_path / "model") != old
    assert Model.load(tmp_path / "model").card.config.seed == 7


# Real signals -------------------------------------------------------------------------------------------------------

LONG = FitConfig(epochs=5, hidden=8, components=2, batch_size=8)
WORDS = ("--epochs", "5", "--hidden", "8", "--components", "2", "--batch-size", "8")


def wait_for_training(process: subprocess.Popen[str]) -> str:
    """What the process says until training has begun."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("training"):
            return said
    raise AssertionError(said)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signals") / "table.parquet"
    files.write(mixed(400), path)
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_signals_save_and_the_run_goes_on(number: signal.Signals, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    words = [sys.executable, "-m", "diffeo", "fit", str(table), "-o", str(out), *WORDS]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for_training(process)
    process.send_signal(number)
    stdout, said = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert said.splitlines()[-1].startswith("diffeo: interrupted after epoch ")
    assert said.splitlines()[-1].endswith("; continue with the same command and --resume")
    assert (out / "resume.json").exists()
    Model.fit(table, config=LONG, out=out, resume=True)
    Model.fit(table, config=LONG, out=tmp_path / "uninterrupted")
    assert weights_of(out) == weights_of(tmp_path / "uninterrupted")


def test_a_second_signal_stops_at_once(table: Path, tmp_path: Path) -> None:
    """The step that is under way is made to last for ever."""
    code = (
        "import sys, time, diffeo.fitting as fitting\n"
        "from diffeo.mixed import Mixed\n"
        "def log_probs(self, *known):\n"
        "    if self.training or any(m.training for m in self.modules()):\n"
        "        sys.stderr.write('training\\n'); sys.stderr.flush(); time.sleep(100)\n"
        "    return whole(self, *known)\n"
        "whole, Mixed.learned_log_probs = Mixed.learned_log_probs, log_probs\n"
        "from diffeo.cli import main\n"
        "main()\n"
    )
    words = [sys.executable, "-c", code, "fit", str(table), "-o", str(tmp_path / "model"), "-q", *WORDS]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for_training(process)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.2)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "diffeo: interrupted\n")
    assert not (tmp_path / "model" / "model.json").exists()
