"""`diffeo check`: the correctness contract, run on a fitted model."""

import click

from diffeo.cli import printable, stop
from diffeo.cli.options import (
    data_option,
    echo_json,
    json_option,
    of_pictures,
    refuse_for_tables,
    threads_option,
)


@click.command()
@click.argument("model")
@click.argument("data", required=False)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="of rows and draws")
@data_option
@json_option
@threads_option
@click.pass_context
def command(ctx: click.Context, model: str, data: str | None, seed: int, where: str | None, as_json: bool) -> None:
    """\b
    Example: diffeo check model stars

    Is this really a density, and do its sampler, inverse and log-density belong together? A line a property: ok,
    FAIL or skipped (and why); the largest error, what it may be, and where it was. Tried on 1000 rows of DATA, or
    64 pictures, or on some drawn from the model, against autograd, quadrature, distribution functions and draws.

    Exit code 0 if all hold, 1 if one fails. A model that is right fails each of the lines that are statistical (five;
    one of pictures) once in a million seeds. With --json one object on stdout: ok, and properties, each with name,
    outcome, error, tolerance, place and reason.
    """
    from diffeo.check import check_lines
    from diffeo.model import load

    loaded = load(model)
    if of_pictures(loaded):
        from diffeo.pictures.listing import looking_in

        loaded = looking_in(loaded, where)
    else:
        refuse_for_tables(ctx, "where")
    lines = []
    for line in check_lines(loaded, data, seed):
        lines.append(line)
        if not as_json:
            click.echo(printable(line))
    failed = [line.name for line in lines if not line.passed]
    if as_json:
        found = [
            {"name": x.name, "outcome": x.outcome.lower(), "error": None if x.skipped else x.error}
            | {"tolerance": None if x.skipped else x.tolerance, "place": x.place, "reason": x.skipped}
            for x in lines
        ]
        echo_json(path=model, data=data, seed=seed, ok=not failed, properties=found)
    if failed:
        stop(f"{len(failed)} of {len(lines)} properties fail: {'; '.join(failed)}", 1)
