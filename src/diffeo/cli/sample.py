"""`diffeo sample`: new rows, or new pictures."""

import math
from typing import TYPE_CHECKING

import click

from diffeo.cli.choices import refuse
from diffeo.cli.options import of_pictures, output_options, refuse_for_pictures, refuse_for_tables, threads_option
from diffeo.data.embedded import path_of
from diffeo.errors import DataError

if TYPE_CHECKING:
    from diffeo.model import Model

_ROWS = 1000
_PICTURES = 36
_COLUMNS = 9  # of a temperature sheet
_TEMPERATURES = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@click.command()
@click.argument("model")
@click.option(
    "-n",
    "--rows",
    type=click.IntRange(min=1),
    show_default="1000, or as many as --given has; 36 pictures, 9 in each row of a --sheet",
    help="rows, or pictures, to draw",
)
@output_options
@click.option("--given", metavar="DATA", help="a table of the columns that the density is conditioned on")
@click.option("--temperature", type=float, default=1.0, help="pictures: multiply the noise by this  [default: 1]")
@click.option("--sheet", is_flag=True, help="pictures: one grid, a row a temperature, from the same noise")
@click.option("--label", metavar="NAME", help="pictures: of this class, where the density is conditioned on labels")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="same seed, same rows")
@threads_option
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    rows: int | None,
    output: str,
    overwrite: bool,
    given: str | None,
    temperature: float,
    sheet: bool,
    label: str | None,
    seed: int,
) -> None:
    """\b
    Example: diffeo sample model -n 5

    Draw rows from the density, in the columns, units and types of the data that it was fitted on, in constant
    memory. With --given, rows are drawn one for each row of that table, whose columns stand beside; it is gone
    through again and again where it has fewer than -n.

    Of a model of pictures, -o is a folder (sample-001.png and so on, and grid.png), a .png (one grid), or an .npy
    (grey levels [n, C, H, W]). The rows of a --sheet are temperatures 0, .25, .5, .6, .7, .8, .9 and 1.
    """
    from diffeo.model import load

    loaded = load(model)
    if not of_pictures(loaded):
        refuse_for_tables(ctx, "temperature", "sheet", "label")
        _table(loaded, rows, output, overwrite, given, seed)
        return
    refuse_for_pictures(ctx, "given")
    if sheet:
        refuse(ctx, ["temperature"], "is a choice of --sheet itself")
    if not 0 <= temperature < math.inf:
        raise DataError(f"--temperature: expected a number, 0 or more, got {temperature:g}")
    from diffeo.data.pictures.outlets import outlet, write_pictures

    outlet(output, overwrite)
    n = rows or (_COLUMNS if sheet else _PICTURES)
    drawn = [
        loaded.sample(n, label=label, seed=seed, temperature=each)
        for each in (_TEMPERATURES if sheet else (temperature,))
    ]
    pixels = [picture for pictures in drawn for picture in pictures]
    grays = loaded.card.plan.grays
    write_pictures(output, pixels, columns=n if sheet else None, grays=grays, overwrite=overwrite)


def _table(model: "Model", rows: int | None, output: str, overwrite: bool, given: str | None, seed: int) -> None:
    from diffeo.data.files import read, writer

    context = None if given is None else read(path_of(given), types=model.schema.types)
    wanted = _ROWS if context is None else context.num_rows
    with writer(output, overwrite=overwrite) as out:
        for table in model.samples(rows or wanted, given=context, seed=seed):
            out.write(table)
