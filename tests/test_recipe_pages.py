"""Every recipe has its page and its picture; the pages say what the script says, and what they say is so."""

import importlib.util
import re
import runpy
import shlex
from pathlib import Path
from types import ModuleType

import click
import pytest
import torch
from PIL import Image

from diffeo import transforms
from diffeo.cli import load, main
from diffeo.flow import Flow
from diffeo.recipes import RECIPES, Plan

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "docs" / "recipes"
EVERY = pytest.mark.parametrize("name", RECIPES)
ARXIV = r"\d{4}\.\d{4,5}"


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipes_script", ROOT / "scripts" / "recipes.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


SCRIPT = loaded()
PAGES = [*(f"{name}.md" for name in RECIPES), "README.md"]


def built(name: str) -> Flow:
    """A recipe in two dimensions, with as many layers as it has unless asked otherwise."""
    recipe = RECIPES[name]
    sizes = {"components": 2 if name == "auto" else 1, "layers": recipe.layers, "hidden": (8, 8), "bins": 4}
    plan = Plan(recipe=name, dropout=0.0, members=2, start_rows=1, units=(), given_units=(), **sizes)
    return recipe.build(plan, 2, 0)


def parts(flow: Flow) -> set[str]:
    """The transforms and fields in a flow, but for chains."""
    kinds = {type(part) for part in flow.modules()}
    return {kind.__name__ for kind in kinds if getattr(transforms, kind.__name__, None) is kind} - {"Chain", "Stacked"}


def test_every_recipe_has_words_a_page_and_a_picture_and_nothing_else_has() -> None:
    assert list(SCRIPT.WORDS) == list(RECIPES)
    assert {page.name for page in PLACE.glob("*.md")} == set(PAGES)
    assert {picture.name for picture in PLACE.glob("pictures/*")} == {f"{name}.png" for name in RECIPES}
    assert list(SCRIPT.measured()["recipes"]) == list(RECIPES)


@EVERY
def test_a_page_is_up_to_date(name: str) -> None:
    text = (PLACE / f"{name}.md").read_text()
    assert SCRIPT.words(name) in text, "run `make recipes`, or only `python scripts/recipes.py --words`"
    assert text == SCRIPT.page(name, SCRIPT.measured())


def test_the_table_of_all_is_up_to_date() -> None:
    text = (PLACE / "README.md").read_text()
    assert text == SCRIPT.index(SCRIPT.measured())
    assert re.findall(r"^\| \[(.*?)\]", text, flags=re.MULTILINE) == list(RECIPES)


@EVERY
def test_the_numbers_are_possible(name: str) -> None:
    """KL is above zero but for its error, and below that of a Gaussian (1.00); ranges hold their medians."""
    found = SCRIPT.measured()["recipes"][name]
    kl = SCRIPT.gap(found)
    assert -4 * kl.error < kl.nats < 1.0
    assert 0 < found["epochs"] <= SCRIPT.epochs(name)
    assert list(found["cost"]) == ["2", "8"]
    for cost in found["cost"].values():
        for low, middle, high in (cost["score"], cost["draw"]):
            assert 0 < low <= middle <= high


@EVERY
def test_a_picture_is_small(name: str) -> None:
    place = PLACE / "pictures" / f"{name}.png"
    assert place.stat().st_size < 150_000
    with Image.open(place) as picture:
        assert picture.format == "PNG"
        assert picture.mode == "P"
        assert 1000 < picture.width < 1500


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^):]*)\)", (PLACE / page).read_text())
    assert targets
    for target in targets:
        name, _, anchor = target.partition("#")
        place = (PLACE / name).resolve()
        assert place.exists(), f"{page} links to {name}, which is not there"
        headings = re.findall(r"^#+ (.*)", place.read_text(), flags=re.MULTILINE) if anchor else []
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, f"{page} links to {target}, which is not there"


@EVERY
def test_the_sources_are_those_of_the_code(name: str) -> None:
    """Whatever the recipe's docstring names, the page names too; every address is that of its number."""
    said = {number for number, _ in SCRIPT.WORDS[name]["sources"]}
    named = set(re.findall(ARXIV, RECIPES[name].build.__doc__ or ""))
    assert named <= said
    text = (PLACE / f"{name}.md").read_text()
    links = re.findall(rf"\[arXiv ({ARXIV})\]\(https://arxiv\.org/abs/({ARXIV})\)", text)
    assert links
    assert {number for number, _ in links} == said
    assert all(number == address for number, address in links)


@EVERY
def test_the_parts_named_are_those_it_is_made_of(name: str) -> None:
    named = set(SCRIPT.WORDS[name]["layers"]) & set(transforms.__all__)
    assert parts(built(name)) == named


@EVERY
def test_what_is_put_together_by_hand_is_the_same_kind_of_flow(name: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (PLACE / f"{name}.md").read_text(), flags=re.DOTALL)
    place = tmp_path / "by_hand.py"
    place.write_text(blocks[1])
    torch.manual_seed(0)
    flow = runpy.run_path(str(place))["flow"]
    assert isinstance(flow, Flow)
    assert parts(flow) == parts(built(name))
    assert flow.learn == built(name).learn
    assert flow.log_prob(torch.randn(5, 2)).isfinite().all()
    assert flow.sample(3).shape == (3, 2)


@EVERY
def test_the_command_parses_and_the_call_names_the_recipe(name: str) -> None:
    text = (PLACE / f"{name}.md").read_text()
    (line,) = re.findall(r"```sh\n(.*?)\n```", text)
    words, top = shlex.split(line), click.Context(main, info_name="diffeo", **main.context_settings)
    context = load(words[1]).make_context(words[1], words[2:], parent=top)
    assert context.params["recipe"] == name
    assert f'diffeo.fit("stars", recipe="{name}"' in text
