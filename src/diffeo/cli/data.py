"""`diffeo data`: the data sets that are known by name."""

from typing import Any

import click

from diffeo.cli.options import echo_json, json_option, output_options
from diffeo.data.embedded import EMBEDDED, find, path_of
from diffeo.data.source import FORMATS

_DIGITS = "digits8"
_WITHOUT_LABELS = ("celeba",)


@click.command()
@click.argument("name", required=False)
@output_options
@json_option
def command(name: str | None, output: str, overwrite: bool, as_json: bool) -> None:
    """\b
    Example: diffeo data stars | head

    List the data sets inside the package, or write one out; and list the sets of pictures that are known by name.
    Wherever DATA is asked for, the name of one will do. digits8, or digits8:test, is written as a table of grey levels
    with its labels, as a folder of PNG files, as a .png with a grid of them, or as an .npy of grey levels.
    """
    if name is None:
        _list(as_json)
    elif name.partition(":")[0] in _pictures():
        _write_pictures(name, output, overwrite, as_json)
    elif as_json:
        echo_json(**find(name)._asdict(), name=name)
    else:
        find(name)
        from diffeo.data.files import stream, writer

        with writer(output, overwrite=overwrite) as out:
            for table in stream(path_of(name)):
                out.write(table)


def _pictures() -> dict[str, dict[str, Any]]:
    """What is known of each set of pictures."""
    from diffeo.data.pictures.named import NAMED

    return {
        name: {"title": known.title, "embedded": name == _DIGITS, "source": known.origin, "classes": known.classes}
        for name, known in NAMED.items()
    }


def _list(as_json: bool) -> None:
    if as_json:
        echo_json(data={known: EMBEDDED[known]._asdict() for known in EMBEDDED}, pictures=_pictures())
        return
    for known, record in EMBEDDED.items():
        click.echo(f"{known}: {record.rows:,} rows, {len(record.columns)} columns: {record.title}")
        for column, meaning in record.columns.items():
            click.echo(f"    {column:<12} {meaning}")
        click.echo(f"    from: {record.source}; {record.licence}")
    for known, about in _pictures().items():
        click.echo(f"{known}: {about['title']}")
        click.echo(f"    {'from' if about['embedded'] else 'not in the package; get'}: {about['source']}")


def _write_pictures(name: str, output: str, overwrite: bool, as_json: bool) -> None:
    set_, _, _ = name.partition(":")
    if as_json:
        echo_json(**_pictures()[set_], name=name)
        return
    from diffeo.data.files import writer
    from diffeo.data.pictures import as_table, read_pictures
    from diffeo.data.pictures.outlets import outlet, write_pictures

    if not _for_tables(output):
        outlet(output, overwrite)
        found = read_pictures(name)
        write_pictures(output, found.pixels, grays=found.grays, overwrite=overwrite)
        return
    with writer(output, overwrite=overwrite) as out:
        out.write(as_table(read_pictures(name, labelled=set_ not in _WITHOUT_LABELS)))


def _for_tables(output: str) -> bool:
    """Whether a place is one for tables, standard output too; an .npy is not, which takes pictures as they are."""
    name = output.lower().removesuffix(".gz")
    return output == "-" or (name.endswith(tuple(FORMATS)) and not name.endswith((".npy", ".npz")))
