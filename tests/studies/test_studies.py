"""Every study: what it writes, what its findings hold, that it repeats, and that it changes nothing global."""

import json
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffeo.errors import DiffeoError
from diffeo.studies import STUDIES, find, folder
from diffeo.studies.kde import MEANS, mise
from diffeo.studies.moons import turns
from diffeo.studies.outcome import Options
from diffeo.studies.runs import RUNS

from .conftest import EFFORT

Told = dict[str, tuple[Path, list[dict[str, Any]]]]
KEYS = {
    "kde": {"rows", "densities", "easiest", "hardest"},
    "homework": {"runs"},
    "moons": {"entropy", "models"},
    "zoo": {"rows", "layers", "flows"},
    "depth": {"entropy", "kl", "parameters", "seconds"},
    "atoms": {"entropy", "losses", "highest_log_density", "kl_dequantised", "kl_masses", "probabilities"},
}
PICTURES = {
    "kde": {"data", "estimates", "bias-variance", "bandwidths"},
    "homework": {"points", "densities", "draws", "losses", "layers", "task-10", "task-11", "task-12"},
    "moons": {"losses", "densities", "learning", "layers", "grid"},
    "zoo": {"line", "line-map", "densities", "layers-planar", "layers-radial", "layers-maf"},
    "depth": {"depth", "densities", "grid-coupling", "grid-planar"},
    "atoms": {"losses", "densities"},
}


def read(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (place / "findings.json").read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON")
    )
    return found


def gaps(value: Any) -> list[dict[str, float]]:
    """Every divergence within findings."""
    if isinstance(value, dict):
        if value.keys() == {"nats", "standard_error"}:
            return [value]
        return [gap for part in value.values() for gap in gaps(part)]
    return [gap for part in value for gap in gaps(part)] if isinstance(value, list) else []


class Fetched(HTMLParser):
    """What a page would fetch, and whether it runs anything."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "iframe", "object", "embed"):
            self.found.append(tag)
        for name, value in attrs:
            fetches = name in ("src", "href", "srcset", "data", "poster") and not (value or "").startswith("data:")
            if fetches or name.startswith("on") or "url(" in (value or ""):
                self.found.append(f"{name}={value}")


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_writes_its_folder(studies: Told, name: str) -> None:
    place, records = studies[name]
    found = read(place)
    assert found["schema"] == 1
    assert found["study"] == name
    assert found["quick"] is True
    assert KEYS[name] <= found["results"].keys()
    assert PICTURES[name] <= set(found["figures"])
    files = {f"{picture}.{form}" for picture in found["figures"] for form in ("png", "svg")}
    assert {path.name for path in place.iterdir()} == {"findings.json", "index.html"} | files
    for picture in found["figures"]:
        with Image.open(place / f"{picture}.png") as drawn:
            assert len(np.unique(np.asarray(drawn.convert("L")))) > 3, picture  # not blank
        assert ET.parse(place / f"{picture}.svg").getroot().tag.endswith("svg")
    shares = [record["progress"] for record in records if "progress" in record]
    assert shares == sorted(shares)
    assert shares[-1] <= 1
    assert any("message" in record for record in records) or name == "depth"


@pytest.mark.parametrize("name", STUDIES)
def test_a_page_stands_alone(studies: Told, name: str) -> None:
    page = (studies[name][0] / "index.html").read_text()
    assert Fetched(page).found == []
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert "default-src 'none'" in page
    assert page.count("data:image/png;base64,") == len(read(studies[name][0])["figures"])
    assert "quick run" in page


def test_divergences_are_not_below_zero(studies: Told) -> None:
    """KL(p || q) >= 0: a mean below by five standard errors has a chance of 3e-7, for about 70 of them 2e-5."""
    told = 0
    for place, _ in studies.values():
        for gap in gaps(read(place)["results"]):
            told += 1
            if gap["nats"] is not None:
                assert gap["nats"] > -5 * gap["standard_error"] - 1e-9
    assert told > 60


def test_the_homework_has_its_settings(studies: Told) -> None:
    runs = read(studies["homework"][0])["results"]["runs"]
    assert read(studies["homework"][0])["seed"] == 8
    assert [run["parameters"] for run in runs] == [2438 * run["layers"] for run in runs]
    assert [(run.task, run.dist, run.epochs, run.rows, run.layers, run.gaussians) for run in RUNS] == [
        (9, "Moons", 1000, 1500, 4, 5),
        (9, "Circles", 500, 1500, 4, 5),
        (9, "GaussiansGrid", 500, 1500, 4, 5),
        (9, "GaussiansRot", 500, 1500, 4, 5),
        (10, "GaussiansRot", 250, 1500, 2, 5),
        (10, "GaussiansRot", 250, 1500, 4, 5),
        (11, "GaussiansRot", 400, 1500, 4, 5),
        (11, "GaussiansRot", 400, 3000, 4, 5),
        (12, "GaussiansRot", 250, 1500, 4, 3),
        (12, "GaussiansRot", 250, 1500, 4, 7),
    ]
    entropies = {run["points"]: run["entropy"] for run in runs}
    for name, entropy in {"Moons": 1.00758, "Circles": 1.17483, "GaussiansGrid": 2.71702}.items():
        assert entropies[name] == pytest.approx(entropy, abs=2e-5)
    assert {run["finite_share"][kind] for run in runs for kind in ("final", "best")} == {1.0}


def test_best_weights_are_those_of_the_best_validation(studies: Told) -> None:
    for run in read(studies["homework"][0])["results"]["runs"]:
        assert run["best_valid_loss"] <= run["valid_loss"]


def test_the_same_seed_gives_the_same_findings(studies: Told, tmp_path: Path) -> None:
    """And torch draws on as if nothing had been; another seed gives others."""
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    places = {"first": studies["moons"][0], "again": tmp_path / "again", "other": tmp_path / "other"}
    folder.run("moons", places["again"], Options(effort=EFFORT, seed=42))
    folder.run("moons", places["other"], Options(effort=EFFORT, seed=43))
    assert torch.equal(torch.rand(3), expected)
    losses = {
        name: [model["losses"] for model in read(place)["results"]["models"].values()] for name, place in places.items()
    }
    assert losses["first"] == losses["again"] != losses["other"]
    same = [path.name for path in places["first"].glob("*.svg")]
    assert same
    for name in same:
        assert (places["first"] / name).read_bytes() == (places["again"] / name).read_bytes(), name


def test_exact_errors_of_kernel_estimates() -> None:
    """The closed form against the figures of its definition, and its best bandwidths."""
    exact = {0.5: (8.502e-4, 1.24726e-2, 3.12488e-2), 1.0: (7.926e-4, 2.585e-4, 2.147e-3)}
    for std, values in exact.items():
        for h, value in zip((0.1, 0.5, 1.0), values, strict=True):
            assert mise(std, h, 10_000)["mise"] == pytest.approx(value, rel=2e-4)
        fine = np.linspace(0.05, 0.6, 276)
        best = fine[np.argmin([mise(std, float(h), 10_000)["mise"] for h in fine])]
        assert best == pytest.approx({0.5: 0.139, 1.0: 0.315}[std], abs=2.1e-3)


def test_the_closed_form_agrees_with_a_simulation() -> None:
    """Averaged over 40 samples of 200 points, by quadrature; false alarms below 1e-4 (four standard errors)."""
    std, h, n = 0.5, 0.4, 200
    rng = np.random.default_rng(0)
    at = np.linspace(-3.5, 5.5, 91)
    grid = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    means, cell = np.array(MEANS), (at[1] - at[0]) ** 2

    def bumps(centres: np.ndarray, spread: float) -> np.ndarray:
        square = ((grid[:, None] - centres[None]) ** 2).sum(-1)
        return np.exp(-square / (2 * spread**2)).mean(1) / (2 * math.pi * spread**2)

    real, errors = bumps(means, std), []
    for _ in range(40):
        points = means[rng.integers(4, size=n)] + std * rng.normal(size=(n, 2))
        errors.append(float(((bumps(points, h) - real) ** 2).sum() * cell))
    assert abs(np.mean(errors) - mise(std, h, n)["mise"]) < 4 * np.std(errors) / math.sqrt(40)


def test_turns_count_what_moves_anew() -> None:
    """Neighbours that move the same coordinate are one; whatever stands between them is looked through."""
    from diffeo.bases import StandardNormal
    from diffeo.flow import Flow
    from diffeo.nets import MLP
    from diffeo.scalars import affine
    from diffeo.transforms import LU, Chain, Coupling, Partition, Permute

    half = Partition.alternating(2)
    first, second = Coupling(half, affine(), MLP), Coupling(half.flip(), affine(), MLP)

    def count(*steps: Any) -> int:
        return turns(Flow(Chain(*steps), StandardNormal(2)))

    assert count(first, second) == 2
    assert count(first, Permute([0, 1]), second) == 2
    assert count(first, Permute([1, 0]), second) == 1
    assert count(first, first) == 1
    assert count(first, LU(2), first) == 2


def test_names_are_found_or_explained() -> None:
    assert all(find(name).__name__ == name for name in STUDIES)
    with pytest.raises(DiffeoError, match="did you mean moons"):
        find("moon")
    with pytest.raises(DiffeoError, match="known: kde, homework"):
        find("?")


def test_pictures_in_the_page_are_the_files(studies: Told) -> None:
    from base64 import b64decode

    place = studies["atoms"][0]
    page = (place / "index.html").read_text()
    embedded = [b64decode(text) for text in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert embedded == [(place / f"{name}.png").read_bytes() for name in read(place)["figures"]]
    assert Image.open(BytesIO(embedded[0])).format == "PNG"
