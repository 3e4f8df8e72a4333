"""Writes docs/commands.md from the help of the commands; `--check` only says whether it is up to date."""

import sys
from pathlib import Path

import click

from diffeo.cli import COMMANDS, load, main

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
HEAD = """# Commands

The help of every command, as `diffeo COMMAND --help` prints it. This page is made by `make docs`.
"""


def help_of(command: click.Command, name: str, parent: click.Context | None = None) -> str:
    """The help of a command, 100 columns wide."""
    settings = {**main.context_settings, "terminal_width": 100}
    with click.Context(command, info_name=name, parent=parent, **settings) as context:
        return command.get_help(context)


def page() -> str:
    """The whole page."""
    top = click.Context(main, info_name="diffeo")
    parts = [HEAD, f"```text\n{help_of(main, 'diffeo')}\n```\n"]
    parts += [f"## {name}\n\n```text\n{help_of(load(name), name, top)}\n```\n" for name in COMMANDS]
    return "\n".join(parts)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if PAGE.read_text() == page() else f"{PAGE.name} is out of date: run `make docs`")
    PAGE.write_text(page())
