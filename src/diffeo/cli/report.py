"""`diffeo report`: one page that says whether a density is to be trusted."""

import click

from diffeo.cli.options import threads_option


@click.command()
@click.argument("model")
@click.argument("data", required=False)
@click.option("--rows", is_flag=True, help="with DATA: also print the values of its most and least likely rows")
@threads_option
def command(model: str, data: str | None, rows: bool) -> None:
    """\b
    Example: diffeo report model

    Write one self-contained HTML page into the folder MODEL and print its path: whether to trust the density and why,
    how good it is on rows held out and whether it is right, samples beside the data, and the numbers of its most and
    least likely rows. With DATA the page is about these rows. All figures are in report.json beside it.
    """
    from diffeo.model import Model

    click.echo(Model.load(model).report(data, rows=rows))
