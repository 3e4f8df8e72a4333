"""`diffeo report`: one page that says whether a density is to be trusted."""

import click

from diffeo.cli.options import data_option, of_pictures, refuse_for_pictures, refuse_for_tables, threads_option


@click.command()
@click.argument("model")
@click.argument("data", required=False)
@click.option("--rows", is_flag=True, help="with DATA: also print the values of its most and least likely rows")
@data_option
@threads_option
@click.pass_context
def command(ctx: click.Context, model: str, data: str | None, rows: bool, where: str | None) -> None:
    """\b
    Example: diffeo report model

    Write one self-contained HTML page into the folder MODEL and print its path: whether to trust the density and why,
    how good it is on rows held out and whether it is right, samples beside the data, and the numbers of its most and
    least likely rows. With DATA the page is about these rows. All figures are in report.json beside it.

    Of a model of pictures: bits per dimension of pictures held out, or of DATA, beside those of simpler models and of
    zlib; samples, and the training pictures that are nearest to them.
    """
    from diffeo.model import load

    loaded = load(model)
    if of_pictures(loaded):
        refuse_for_pictures(ctx, "rows")
        from diffeo.pictures.listing import looking_in

        click.echo(looking_in(loaded, where).report(data))
    else:
        refuse_for_tables(ctx, "where")
        click.echo(loaded.report(data, rows=rows))
