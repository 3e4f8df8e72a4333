"""`diffeo interpolate`: the pictures between two."""

import click

from diffeo.cli.options import data_option, of_pictures, threads_option
from diffeo.errors import ModelError


@click.command()
@click.argument("model")
@click.argument("a")
@click.argument("b")
@click.option("-o", "--output", metavar="OUT", required=True, help="write a .png (one strip), an .npy or a folder")
@click.option("--overwrite", is_flag=True, help="replace OUT if it exists")
@click.option(
    "--steps", type=click.IntRange(2, 1000), default=9, show_default=True, help="pictures, both ends included"
)
@data_option
@threads_option
def command(model: str, a: str, b: str, output: str, overwrite: bool, steps: int, where: str | None) -> None:
    """\b
    Example: diffeo interpolate model digits8:test@1 digits8:test@2 -o strip.png

    Write the pictures between A and B, through the noise of all levels of the density, along the great circle between
    theirs. A and B are files of pictures, or DATA@K, the K-th picture (from 1) of a data set, a folder or an array.
    """
    from diffeo.data.pictures.outlets import outlet, write_pictures
    from diffeo.model import load

    loaded = load(model)
    if not of_pictures(loaded):
        raise ModelError(f"{model} is a model of a table; only pictures are interpolated")
    from diffeo.pictures.listing import as_they_are, looking_in, one_picture

    outlet(output, overwrite)
    reader = looking_in(loaded, where)
    between = as_they_are(loaded).interpolate(one_picture(reader, a), one_picture(reader, b), steps)
    write_pictures(output, between, columns=steps, grays=loaded.card.plan.grays, overwrite=overwrite)
