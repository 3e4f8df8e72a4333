"""`diffeo data`: the embedded data sets."""

import click

from diffeo.cli.options import echo_json, json_option, output_options
from diffeo.data.embedded import EMBEDDED, find, path_of


@click.command()
@click.argument("name", required=False)
@output_options
@json_option
def command(name: str | None, output: str, overwrite: bool, as_json: bool) -> None:
    """\b
    Example: diffeo data stars | head

    List the data sets inside the package, or write one out. Wherever DATA is asked for, the name of one will do.
    """
    if name is None:
        listing = {known: EMBEDDED[known]._asdict() for known in EMBEDDED}
        if as_json:
            echo_json(data=listing)
            return
        for known, record in EMBEDDED.items():
            click.echo(f"{known}: {record.rows:,} rows, {len(record.columns)} columns: {record.title}")
            for column, meaning in record.columns.items():
                click.echo(f"    {column:<12} {meaning}")
            click.echo(f"    from: {record.source}; {record.licence}")
        return
    if as_json:
        echo_json(**find(name)._asdict(), name=name)
        return
    find(name)
    from diffeo.data.files import stream, writer

    with writer(output, overwrite=overwrite) as out:
        for table in stream(path_of(name)):
            out.write(table)
