"""`diffeo study`: the founding experiments, with figures and findings."""

from pathlib import Path
from typing import Any

import click

from diffeo.cli.options import echo_json, json_option, threads_option
from diffeo.cli.progress import Progress


@click.command()
@click.argument("name", required=False)
@click.option("-o", "--output", metavar="FOLDER", help="write the study into this folder")
@click.option("--list", "listing", is_flag=True, help="list the studies and what each shows")
@click.option("--quick", is_flag=True, help="fewer epochs and test points: within a minute, and the findings say so")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    show_default="the one that the study was set with",
    help="of starts, batches and draws",
)
@click.option("--overwrite", is_flag=True, help="replace FOLDER if it holds a study")
@click.option("-q", "--quiet", is_flag=True, help="no progress and no messages")
@json_option
@threads_option
def command(
    name: str | None,
    output: str | None,
    listing: bool,
    quick: bool,
    seed: int | None,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """\b
    Example: diffeo study moons -o moons --quick

    Run a founding experiment of the field and write it into FOLDER: index.html, one self-contained page that says what
    is to be seen; findings.json, its numbers; and every picture as PNG and SVG. The path of the page is printed.

    Everything is written at the end, at once: an interrupted study leaves nothing behind.
    """
    from diffeo.studies import STUDIES, find

    if listing:
        _list(STUDIES, as_json)
        return
    if name is None:
        raise click.UsageError("name a study, or list them with --list")
    find(name)
    if output is None:
        raise click.UsageError("say where to write it: -o FOLDER")
    from diffeo.studies import folder
    from diffeo.studies.outcome import QUICK, Options

    options = Options(seed=seed, effort=QUICK if quick else 1.0)
    with Progress(quiet) as progress:
        findings = folder.run(name, output, options, overwrite, progress.take)
    page = str(Path(output) / folder.PAGE)
    if as_json:
        found: dict[str, Any] = findings.model_dump(by_alias=False, exclude={"schema_version"})
        echo_json(path=output, page=page, **found)
    else:
        click.echo(page)


def _list(studies: dict[str, str], as_json: bool) -> None:
    if as_json:
        echo_json(studies=studies)
        return
    for name, about in studies.items():
        click.echo(f"{name:<10} {about}")
