"""`diffeo score`: the log-density of each row, or picture."""

import math
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from diffeo.cli.options import (
    data_option,
    echo_json,
    json_option,
    of_pictures,
    output_options,
    refuse_for_pictures,
    refuse_for_tables,
    threads_option,
)
from diffeo.data.embedded import path_of
from diffeo.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from diffeo.data.tally import Tally
    from diffeo.model import Model
    from diffeo.pictures.model import PictureModel


@click.command()
@click.argument("model")
@click.argument("data")
@output_options
@click.option("--append", is_flag=True, help="write the columns of DATA too (of a table)")
@click.option(
    "--draws",
    type=click.IntRange(1, 10_000),
    help="pictures: draws of the bound, tighter with every one; those that the model was judged with by default",
)
@click.option("--skip-bad", is_flag=True, help="pictures: leave out files that cannot be read, and say so")
@data_option
@json_option
@threads_option
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    data: str,
    output: str,
    overwrite: bool,
    append: bool,
    draws: int | None,
    skip_bad: bool,
    where: str | None,
    as_json: bool,
) -> None:
    """\b
    Example: diffeo score model stars | head

    Write a line for each row of DATA, in constant memory: log_prob in nats, in the units of the file; percentile,
    the share of the training rows that are no more probable; reason, why a row could not be scored. For each picture:
    picture, its file or number; log_prob in nats and bits_per_dim, both by a bound; percentile; reason.

    With --json one object on stdout: rows, scored, mean_log_prob and standard_error (of the finite scores),
    minus_infinite (rows outside the support), unscored (rows by reason); of pictures also bits_per_dim, their mean,
    and bits_per_dim_error, its standard error. Rows are then written only where -o says.
    """
    if as_json and append and output == "-":
        raise click.UsageError("--append writes rows and --json one object; name a file for the rows with -o.")
    from diffeo.data.files import writer
    from diffeo.data.tally import Tally
    from diffeo.model import load

    loaded, tally = load(model), Tally()
    if of_pictures(loaded):
        refuse_for_pictures(ctx, "append")
        scored = _pictures(loaded, data, draws, skip_bad, where)
    else:
        refuse_for_tables(ctx, "draws", "skip_bad", "where")
        scored = _rows(loaded, data, append, tally)
    with nullcontext() if as_json and output == "-" else writer(output, overwrite=overwrite) as out:
        for scores, table in scored:
            tally.add(scores)
            if out is not None:
                out.write(table)
    if as_json:
        echo_json(**tally.summary(), **(_bits(loaded, tally) if of_pictures(loaded) else {}))


def _rows(model: "Model", data: str, append: bool, tally: "Tally") -> "Iterator[tuple[pa.Table, pa.Table]]":
    """The scores of rows, and what is written of them."""
    from diffeo.data.files import stream

    for rows in stream(path_of(data), types=model.schema.types):
        scores = model.score_table(rows, tally.rows + 1)
        yield scores, beside(rows, scores) if append else scores


def _pictures(
    model: "PictureModel", data: str, draws: int | None, skip_bad: bool, where: str | None
) -> "Iterable[tuple[pa.Table, pa.Table]]":
    """The scores of pictures, twice; how many were left out is said."""
    from diffeo.pictures.listing import asking, looking_in, score_tables

    pictures = asking(looking_in(model, where), skip_bad=skip_bad).read(data)
    if pictures.skipped:
        click.echo(f"{len(pictures.skipped)} of {len(pictures) + len(pictures.skipped)} files left out", err=True)
    return ((table, table) for table in score_tables(model, pictures, draws))


def _bits(model: "PictureModel", tally: "Tally") -> dict[str, Any]:
    """The mean of bits per dimension, and its standard error."""
    nats, found = model.density.dimensions * math.log(2), tally.summary()
    mean, error = found["mean_log_prob"], found["standard_error"]
    if found["minus_infinite"]:
        mean = error = None  # as one picture is impossible, the mean of all is infinite
    return {
        "bits_per_dim": None if mean is None else -mean / nats,
        "bits_per_dim_error": None if error is None else error / nats,
    }


def beside(rows: "pa.Table", scores: "pa.Table") -> "pa.Table":
    """The columns of both tables; DataError where a name is in both."""
    for name in scores.column_names:
        if name in rows.column_names:
            raise DataError(f"the data has a column {name!r} itself; rename it, or score without --append")
        rows = rows.append_column(name, scores[name])
    return rows
