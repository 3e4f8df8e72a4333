"""`diffeo report`: one page that says whether a density is to be trusted."""

import click

from diffeo.cli.options import threads_option


@click.command()
@click.argument("model")
@click.argument("data", required=False)
@threads_option
def command(model: str, data: str | None) -> None:
    """\b
    Example: diffeo report model

    Write one self-contained HTML page into the folder MODEL and print its path: what was fitted and on what, how
    good it is on rows held out, and samples beside the data. With DATA the page is about these rows.
    """
    from diffeo.model import Model

    click.echo(Model.load(model).report(data))
