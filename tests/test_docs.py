"""The pages hold: the commands in them parse, and the page of commands is what the commands say."""

import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest

from diffeo.cli import load, main

ROOT = Path(__file__).parents[1]


def commands_in(page: Path) -> list[str]:
    """Every line of a shell block that calls diffeo, comments and pipes cut off."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL)
    lines = [re.split(r"\s[|#]|&&", line)[0] for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("diffeo ")]


def parse(words: list[str]) -> click.Context:
    top = click.Context(main, info_name="diffeo", **main.context_settings)
    return load(words[0]).make_context(words[0], words[1:], parent=top)


@pytest.mark.parametrize("line", commands_in(ROOT / "README.md"))
def test_printed_commands_parse(line: str) -> None:
    parse(shlex.split(line)[1:])


def test_the_parse_would_notice() -> None:
    with pytest.raises(click.UsageError):
        parse(["fit", "stars", "-o", "m", "--no-such-option"])


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/mathematics.md", "docs/commands.md"])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}, which is not there"


def test_the_page_of_commands_is_up_to_date() -> None:
    place = ROOT / "scripts" / "commands.py"
    spec = importlib.util.spec_from_file_location("commands_script", place)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (ROOT / "docs" / "commands.md").read_text() == script.page(), "run `make docs`"
