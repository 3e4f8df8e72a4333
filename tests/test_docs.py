"""The pages hold: the commands in them parse, and the page of commands is what the commands say."""

import importlib.util
import os
import re
import shlex
from pathlib import Path

import click
import pytest

from diffeo.cli import load, main

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md")),
]


def commands_in(page: Path) -> list[str]:
    """Every line of a shell block that calls diffeo, comments and pipes cut off."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL)
    lines = [re.split(r"\s[|#]|&&", line)[0] for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("diffeo ")]


def parse(words: list[str]) -> click.Context:
    top = click.Context(main, info_name="diffeo", **main.context_settings)
    return load(words[0]).make_context(words[0], words[1:], parent=top)


@pytest.mark.parametrize(("page", "line"), [(page, line) for page in PAGES for line in commands_in(ROOT / page)])
def test_printed_commands_parse(page: str, line: str) -> None:
    parse(shlex.split(line)[1:])


def test_the_parse_would_notice() -> None:
    with pytest.raises(click.UsageError):
        parse(["fit", "stars", "-o", "m", "--no-such-option"])


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#?([^)#:]*)\)", (ROOT / page).read_text()):
        place = (ROOT / page).parent / target if target else ROOT / page
        assert place.exists(), f"{page} links to {target}, which is not there"
        assert not anchor or anchor in anchors(place), f"{page} links to {target}#{anchor}, which is not there"


def test_every_page_is_found_from_the_first() -> None:
    found, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        if page not in found:
            found.add(page)
            names = re.findall(r"\]\(([^)#:]+\.md)[)#]", (ROOT / page).read_text())
            waiting += [os.path.normpath(Path(page).parent / name) for name in names]
    assert set(PAGES) - found == {"CHANGELOG.md"}


def test_the_page_of_commands_is_up_to_date() -> None:
    place = ROOT / "scripts" / "commands.py"
    spec = importlib.util.spec_from_file_location("commands_script", place)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (ROOT / "docs" / "commands.md").read_text() == script.page(), "run `make docs`"
