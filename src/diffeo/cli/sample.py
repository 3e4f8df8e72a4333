"""`diffeo sample`: new rows."""

import click

from diffeo.cli.options import output_options, threads_option
from diffeo.data.embedded import path_of

_ROWS = 1000


@click.command()
@click.argument("model")
@click.option(
    "-n",
    "--rows",
    type=click.IntRange(min=1),
    show_default="1000, or as many as --given has",
    help="rows to draw",
)
@output_options
@click.option("--given", metavar="DATA", help="a table of the columns that the density is conditioned on")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="same seed, same rows")
@threads_option
def command(model: str, rows: int | None, output: str, overwrite: bool, given: str | None, seed: int) -> None:
    """\b
    Example: diffeo sample model -n 5

    Draw rows from the density, in the columns, units and types of the data that it was fitted on, in constant
    memory. With --given, rows are drawn one for each row of that table, whose columns stand beside; it is gone
    through again and again where it has fewer than -n.
    """
    from diffeo.data.files import read, writer
    from diffeo.model import Model

    loaded = Model.load(model)
    context = None if given is None else read(path_of(given), types=loaded.schema.types)
    wanted = _ROWS if context is None else context.num_rows
    with writer(output, overwrite=overwrite) as out:
        for table in loaded.samples(rows or wanted, given=context, seed=seed):
            out.write(table)
