"""`diffeo info`: what a model is."""

import click

from diffeo.cli import printable
from diffeo.cli.options import echo_json, json_option


@click.command()
@click.argument("model")
@json_option
def command(model: str, as_json: bool) -> None:
    """\b
    Example: diffeo info model

    Say what a model is: its columns and their kinds, or the size of its pictures; the recipe, the data it was fitted
    on, the figures on what was held out.
    """
    from diffeo.model import load

    loaded = load(model)
    if as_json:
        echo_json(path=model, recipe=loaded.card.recipe, card=loaded.card.model_dump(mode="json"))
    else:
        for line in loaded.info():
            click.echo(printable(line))
