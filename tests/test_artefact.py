"""A model on disk: nothing altered, foreign or half-written is ever taken for a model."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from diffeo import artefact
from diffeo.config import FitConfig
from diffeo.errors import ModelError
from diffeo.model import Model

QUICK = FitConfig(epochs=1, hidden=4, components=2)


def numbers(n: int = 60) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"a": list(rng.normal(size=n)), "b": list(rng.normal(size=n)), "kind": list(rng.choice(["x", "y"], n))}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    """Two models of one shape and different weights, saved."""
    folder = tmp_path_factory.mktemp("artefact")
    old, new = (
        Model.fit(numbers(), config=QUICK.model_copy(update={"seed": seed}), out=folder / str(seed)) for seed in (0, 1)
    )
    return old, new


@pytest.fixture(scope="module")
def homes(two: tuple[Model, Model], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Where the two are saved, whatever else is done with them."""
    folder = tmp_path_factory.mktemp("homes")
    return [model.save(folder / name) for model, name in zip(two, ("old", "new"), strict=True)]


@pytest.fixture
def saved(homes: list[Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(homes[0], tmp_path / "model"))


def weights_file(folder: Path) -> Path:
    (path,) = folder.glob("weights-*.safetensors")
    return path


def same_scores(folder: Path, model: Model) -> bool:
    return bool(np.array_equal(Model.load(folder).log_prob(numbers()), model.log_prob(numbers())))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """A record as an attacker would write it: changed, and sealed again."""
    record = json.loads((folder / "model.json").read_text())
    del record["sha256"]
    change(record)
    (folder / "model.json").write_bytes(artefact._sealed(record))


def reweigh(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Weights as an attacker would write them, and a record that names them."""
    path = weights_file(folder)
    tensors = load(path.read_bytes())
    change(tensors)
    data = save(tensors)
    path.unlink()
    name = f"weights-{hashlib.sha256(data).hexdigest()}.safetensors"
    (folder / name).write_bytes(data)
    rewrite(folder, lambda record: record.update(weights=name, weights_bytes=len(data)))


def test_what_a_folder_holds(saved: Path) -> None:
    names = {path.name for path in saved.iterdir()}
    assert names == {"model.json", "findings.json", "history.jsonl", weights_file(saved).name}
    assert weights_file(saved).stem == "weights-" + hashlib.sha256(weights_file(saved).read_bytes()).hexdigest()
    record = json.loads((saved / "model.json").read_text())
    for name in ("findings.json", "history.jsonl"):
        assert record["beside"][name] == hashlib.sha256((saved / name).read_bytes()).hexdigest()
    assert all(line.startswith('{"epoch"') for line in (saved / "history.jsonl").read_text().splitlines())


# Damage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.json", "weights"])
def test_every_flipped_bit_is_noticed(name: str, saved: Path) -> None:
    path = weights_file(saved) if name == "weights" else saved / name
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for place, bit in zip(rng.integers(0, len(data), 200), rng.integers(0, 8, 200), strict=True):
        altered = bytearray(data)
        altered[place] ^= 1 << bit
        path.write_bytes(altered)
        with pytest.raises(ModelError) as caught:
            Model.load(saved)
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.json", "weights"])
def test_every_truncation_is_noticed(name: str, saved: Path) -> None:
    path = weights_file(saved) if name == "weights" else saved / name
    data = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(data), 200):
        path.write_bytes(data[:place])
        with pytest.raises(ModelError):
            Model.load(saved)
    path.write_bytes(data + b" ")
    with pytest.raises(ModelError):
        Model.load(saved)


@pytest.mark.parametrize("name", ["findings.json", "history.jsonl"])
@pytest.mark.parametrize("how", ["missing", "flipped", "empty", "folder"])
def test_only_a_report_needs_the_findings(name: str, how: str, saved: Path, two: tuple[Model, Model]) -> None:
    path = saved / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "missing":
        path.write_bytes(data if how == "flipped" else b"")
    assert same_scores(saved, two[0])
    assert len(Model.load(saved).sample(3)["a"]) == 3
    if name == "findings.json":
        with pytest.raises(ModelError, match=r"findings\.json is missing, or not what was saved"):
            Model.load(saved).report()
    else:
        assert Model.load(saved).report().exists()


def test_missing_weights(saved: Path) -> None:
    weights_file(saved).unlink()
    with pytest.raises(ModelError, match=r"weights file .* is missing"):
        Model.load(saved)


def test_weights_of_another_model(saved: Path, homes: list[Path]) -> None:
    shutil.copy(weights_file(homes[1]), weights_file(saved))
    with pytest.raises(ModelError, match="sha256 differs"):
        Model.load(saved)


def test_a_link_is_not_followed(saved: Path) -> None:
    path = weights_file(saved)
    elsewhere = saved.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(ModelError, match="is missing"):
        Model.load(saved)


# Records that lie ---------------------------------------------------------------------------------------------------

RECORDS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "foreign": (lambda r: r.update(format="other"), "not written by diffeo"),
    "newer": (lambda r: r.update(format_version=2), "newer"),
    "no version": (lambda r: r.pop("format_version"), "no format version"),
    "version true": (lambda r: r.update(format_version=True), "no format version"),
    "unknown entry": (lambda r: r.update(code="print(1)"), "code: "),
    "unknown entry deep": (lambda r: r["plan"].update(code="print(1)"), "plan.code: "),
    "entry missing": (lambda r: r.pop("rows"), "rows: "),
    "unknown recipe": (lambda r: r["plan"].update(recipe="os.system"), "recipe: "),
    "hidden 1e9": (lambda r: r["plan"].update(hidden=[10**9, 10**9]), "hidden"),
    "hidden 4096": (lambda r: r["plan"].update(hidden=[4096] * 8), "the plan asks for"),
    "many layers": (lambda r: r["plan"].update(hidden=[1] * 10**6), "hidden"),
    "hidden zero": (lambda r: r["plan"].update(hidden=[0, 0]), "hidden"),
    "hidden negative": (lambda r: r["plan"].update(hidden=[-1, 8]), "hidden"),
    "components": (lambda r: r["plan"].update(components=4096), "damaged"),
    "components 1e9": (lambda r: r["plan"].update(components=10**9), "components: "),
    "traversal": (lambda r: r.update(weights="../secret"), "names no weights file"),
    "traversal in form": (lambda r: r.update(weights=f"weights-{'../' * 21}a.safetensors"), "names no weights file"),
    "absolute": (lambda r: r.update(weights="/etc/passwd"), "names no weights file"),
    "nul": (lambda r: r.update(weights=f"weights-{chr(0) * 64}.safetensors"), "names no weights file"),
    "no weights": (lambda r: r.pop("weights"), "names no weights file"),
    "size": (lambda r: r.update(weights_bytes=1), "size"),
    "kind unknown": (lambda r: r["data_schema"]["columns"][0].update(kind="os"), "kind: "),
    "no bounds": (lambda r: r["data_schema"]["columns"][0].update(kind="bounded"), "bounded needs bounds"),
    "bounds turned round": (
        lambda r: r["data_schema"]["columns"][0].update(kind="bounded", bounds=[1, 0]),
        "bounds rise",
    ),
    "no period": (lambda r: r["data_schema"]["columns"][0].update(kind="circular"), "circular needs period"),
    "no levels": (lambda r: r["data_schema"]["columns"][2].update(levels=[]), "category needs levels|needs levels"),
    "other columns": (lambda r: r["data_schema"]["columns"].pop(), "damaged|tensor|should be"),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_that_lie_are_refused(name: str, saved: Path) -> None:
    change, said = RECORDS[name]
    rewrite(saved, change)
    began = time.process_time()
    with pytest.raises(ModelError, match=said) as caught:
        Model.load(saved)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert time.process_time() - began < 20


def test_findings_of_a_path_are_not_read(saved: Path) -> None:
    (saved.parent / "findings.json").write_bytes((saved / "findings.json").read_bytes())
    rewrite(saved, lambda record: record.update(beside={"findings.json": "../findings"}))
    with pytest.raises(ModelError, match=r"names no findings\.json"):
        Model.load(saved).report()


TEXTS = {
    "empty": "",
    "no object": "[1, 2]",
    "no JSON": "{'format': 1}",
    "NaN": '{"format": NaN}',
    "infinity": '{"format": -Infinity}',
    "twice": '{"format": "diffeo-model", "format": "diffeo-model"}',
    "deep": '{"a":' * 10**5 + "1" + "}" * 10**5,
    "long number": '{"format": ' + "9" * 5000 + "}",
    "huge number": '{"format": 1e999}',
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_are_no_record(name: str, saved: Path) -> None:
    (saved / "model.json").write_text(TEXTS[name])
    with pytest.raises(ModelError, match=r"model\.json (cannot be read as JSON|was not written by diffeo)") as caught:
        Model.load(saved)
    assert len(str(caught.value)) < 400


def test_bytes_that_are_no_text(saved: Path) -> None:
    (saved / "model.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        Model.load(saved)
    (saved / "model.json").write_bytes(b"\x80\x04\x95cos\nsystem\n")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        Model.load(saved)


def test_a_record_that_is_too_large(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artefact, "LARGEST_JSON", 100)
    with pytest.raises(ModelError, match="more than a model's record"):
        Model.load(saved)


@pytest.mark.parametrize("place", ["nothing", "a" * 300, "file/model", "nul\0"])
def test_places_that_are_no_model(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError):
        Model.load(tmp_path / place)
    with pytest.raises(ModelError, match="it is a file"):
        Model.load(tmp_path / "file")
    with pytest.raises(ModelError, match=r"it has no model\.json"):
        Model.load(tmp_path)


TENSORS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "missing": (lambda t: t.pop("slopes"), "'slopes' is missing"),
    "extra": (lambda t: t.update(extra=torch.zeros(1)), "'extra' is not part"),
    "shape": (lambda t: t.update(slopes=torch.zeros(7, dtype=torch.float64)), "'slopes' should be"),
    "type": (lambda t: t.update(slopes=t["slopes"].float()), "'slopes' should be"),
    "nan": (lambda t: t["slopes"].fill_(float("nan")), "'slopes' has values that are not finite"),
    "infinite": (lambda t: t["slopes"].fill_(float("inf")), "'slopes' has values that are not finite"),
    "none": (lambda t: t.clear(), "damaged|missing"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_fit_are_named(name: str, saved: Path) -> None:
    change, said = TENSORS[name]
    reweigh(saved, change)
    with pytest.raises(ModelError, match=said):
        Model.load(saved)


def test_weights_that_are_no_safetensors(saved: Path) -> None:
    for data in (b"", b"\x80\x04\x95", (2**60).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"{}" + b"x"):
        name = f"weights-{hashlib.sha256(data).hexdigest()}.safetensors"
        (saved / name).write_bytes(data)
        rewrite(saved, lambda record, name=name, data=data: record.update(weights=name, weights_bytes=len(data)))
        with pytest.raises(ModelError):
            Model.load(saved)


# Places to write ----------------------------------------------------------------------------------------------------


def test_places_that_are_refused(saved: Path, tmp_path: Path, two: tuple[Model, Model]) -> None:
    with pytest.raises(ModelError, match="replace it with --overwrite"):
        two[1].save(saved)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ModelError, match="is a file"):
            two[1].save(tmp_path / "file", overwrite=overwrite)
        with pytest.raises(ModelError, match="other things in it"):
            two[1].save(tmp_path / "full", overwrite=overwrite)
        with pytest.raises(ModelError, match="cannot write in"):
            two[1].save(tmp_path / "file" / "model", overwrite=overwrite)
        with pytest.raises(ModelError, match="cannot write in"):
            two[1].save(tmp_path / ("a" * 300), overwrite=overwrite)
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_a_place_that_cannot_be_written_is_named_before_anything_is_read(tmp_path: Path) -> None:
    place = Path("/proc/diffeo/model")
    if not Path("/proc").is_dir():
        pytest.skip("there is no /proc here")
    said: list[Any] = []
    with pytest.raises(ModelError, match=r"cannot write in /proc/diffeo/model: .*; choose another place"):
        Model.fit(tmp_path / "none.csv", out=place, progress=said.append)
    assert not said


def test_a_fit_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no such file"):
        Model.fit(tmp_path / "none.csv", out=tmp_path / "deep" / "model")
    assert not (tmp_path / "deep").exists()


# Saving that fails --------------------------------------------------------------------------------------------------


class FailsAt:
    """In the place of a function of os: the k-th call fails."""

    def __init__(self, real: Callable[..., Any], k: int, number: int) -> None:
        self.real, self.left, self.number = real, k, number

    def __call__(self, *arguments: Any) -> Any:
        self.left -= 1
        if self.left == -1:
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*arguments)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["replace", "fsync", "chmod", "open"])
def test_a_save_that_fails_leaves_one_model_whole(
    name: str, number: int, two: tuple[Model, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whichever call it fails, what loads is the old model or the new one, with its own findings."""
    old, new = two
    outcomes = []
    for k in range(100):
        folder = tmp_path / str(k)
        old.save(folder)
        call = FailsAt(getattr(os, name), k, number)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, call)
            try:
                new.save(folder, overwrite=True)
                said = ""
            except ModelError as fault:
                said = str(fault)
        loaded = Model.load(folder)
        which = "new" if loaded.card.config.seed == 1 else "old"
        expected = new if which == "new" else old
        assert np.array_equal(loaded.log_prob(numbers()), expected.log_prob(numbers()))
        assert loaded.findings == expected.findings
        assert which == "new" or os.strerror(number) in said
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
        outcomes.append(which)
        new.save(folder, overwrite=True)
        assert same_scores(folder, new)
        assert {path.name for path in folder.iterdir()} == {
            "model.json",
            "findings.json",
            "history.jsonl",
            weights_file(folder).name,
        }
        if call.left >= 0:
            break
    assert outcomes[-1] == "new"
    assert "old" in outcomes
    assert name == "open" or outcomes == sorted(outcomes, reverse=True)  # tempfile tries to open in several ways


def test_what_a_killed_save_left_is_swept_away(saved: Path, two: tuple[Model, Model]) -> None:
    left = [".model.json.abc", f".weights-{'0' * 32}.xyz", f"weights-{'1' * 64}.safetensors"]
    left += [f"findings-{'2' * 64}.json", f".findings-{'2' * 31}.q", ".report.html-abcdef"]
    mine = ["notes.txt", "weights-mine.safetensors", ".hidden", "findings-old.json"]
    for name in left + mine:
        (saved / name).write_text("x")
    assert same_scores(saved, two[0])
    two[1].save(saved, overwrite=True)
    names = {path.name for path in saved.iterdir()}
    assert not names & set(left)
    assert names >= set(mine)


def test_a_folder_with_nothing_but_leavings_is_free(tmp_path: Path, two: tuple[Model, Model]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / f"weights-{'1' * 64}.safetensors").write_text("x")
    (tmp_path / "model" / ".model.json.abc").write_text("x")
    two[0].save(tmp_path / "model")
    assert same_scores(tmp_path / "model", two[0])


KILLED = """
import sys
from diffeo.model import Model
models = [Model.load(path) for path in sys.argv[1:3]]
for model in models:
    model.findings
sys.stdout.write("ready\\n")
sys.stdout.flush()
while True:
    for model in models:
        model.save(sys.argv[3], overwrite=True)
"""


def test_kill_while_saving(two: tuple[Model, Model], homes: list[Path], tmp_path: Path) -> None:
    """A process that does nothing but save, killed at times that fall into saves."""
    out = tmp_path / "model"
    two[0].save(out)
    for turn in range(3):
        words = [sys.executable, "-c", KILLED, *map(str, homes), str(out)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.037 * turn)
        process.kill()
        process.wait(20)
        process.stdout.close()
        loaded = Model.load(out)
        expected = two[loaded.card.config.seed]
        assert np.array_equal(loaded.log_prob(numbers()), expected.log_prob(numbers()))
        assert loaded.findings == expected.findings
    two[0].save(out, overwrite=True)
    assert len(list(out.iterdir())) == 4
