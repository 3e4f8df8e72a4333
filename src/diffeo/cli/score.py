"""`diffeo score`: the log-density of each row."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from diffeo.cli.options import echo_json, json_option, output_options, threads_option
from diffeo.data.embedded import path_of
from diffeo.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


@click.command()
@click.argument("model")
@click.argument("data")
@output_options
@click.option("--append", is_flag=True, help="write the columns of DATA too")
@json_option
@threads_option
def command(model: str, data: str, output: str, overwrite: bool, append: bool, as_json: bool) -> None:
    """\b
    Example: diffeo score model stars | head

    Write a line for each row of DATA, in constant memory: log_prob in nats, in the units of the file; percentile,
    the share of the training rows that are no more probable; reason, why a row could not be scored.

    With --json one object on stdout: rows, scored, mean_log_prob and standard_error (of the finite scores),
    minus_infinite (rows outside the support), unscored (rows by reason). Rows are then written only where -o says.
    """
    if as_json and append and output == "-":
        raise click.UsageError("--append writes rows and --json one object; name a file for the rows with -o.")
    from diffeo.data.files import stream, writer
    from diffeo.data.tally import Tally
    from diffeo.model import Model

    loaded = Model.load(model)
    tally = Tally()

    def scored() -> "Iterator[pa.Table]":
        row = 1
        for rows in stream(path_of(data), types=loaded.schema.types):
            scores = loaded.score_table(rows, row)
            row += rows.num_rows
            tally.add(scores)
            yield beside(rows, scores) if append else scores

    with nullcontext() if as_json and output == "-" else writer(output, overwrite=overwrite) as out:
        for table in scored():
            if out is not None:
                out.write(table)
    if as_json:
        echo_json(**tally.summary())


def beside(rows: "pa.Table", scores: "pa.Table") -> "pa.Table":
    """The columns of both tables; DataError where a name is in both."""
    for name in scores.column_names:
        if name in rows.column_names:
            raise DataError(f"the data has a column {name!r} itself; rename it, or score without --append")
        rows = rows.append_column(name, scores[name])
    return rows
