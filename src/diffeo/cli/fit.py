"""`diffeo fit`: a table in, a model out."""

from pathlib import Path
from typing import Any, cast

import click

from diffeo.cli import INTERRUPTED, stop
from diffeo.cli.options import Flags, bound_threads, chosen, config_options, echo_json, json_option, strict, toml_option
from diffeo.cli.progress import Progress
from diffeo.config import FitConfig

_FLAGS: Flags = {
    "columns": ("--columns", "A,B,..."),
    "drop": ("--drop", "A,B,..."),
    "given": ("--given", "A,B,..."),
    "kinds": ("--kind", "COL=KIND"),
    "weight": ("--weight", "COL"),
    "split": ("--split", "COL"),
    "time": ("--time", "COL"),
    "budget": ("--budget", "TIME"),
    "epochs": ("--epochs", None),
    "device": ("--device", "auto|cpu|cuda"),
}

_FIGURES = ("recipe", "rows", "parameters", "valid_log_prob", "valid_standard_error")


@click.command()
@click.argument("data")
@click.option("-o", "--output", metavar="MODEL", required=True, help="write the model into this folder")
@config_options(FitConfig, _FLAGS, {"budget": "2m"})
@click.option("--valid", metavar="DATA", help="validate on these rows instead of held-out ones")
@click.option("--schedule", metavar="MODEL", type=Path, help="replay the schedule that a --budget run recorded")
@click.option("--resume", is_flag=True, help="go on with an interrupted fit")
@click.option("--overwrite", is_flag=True, help="replace MODEL if it exists")
@click.option("-q", "--quiet", is_flag=True, help="no progress and no messages")
@json_option
@toml_option(FitConfig)
@click.pass_context
def command(
    ctx: click.Context,
    data: str,
    output: str,
    valid: str | None,
    schedule: Path | None,
    resume: bool,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    **_: Any,
) -> None:
    """\b
    Example: diffeo fit stars -o model --budget 45s

    Learn the exact density of DATA (a file, FILE.npz:KEY, an embedded data set, or - for stdin) and write it into
    the folder MODEL. The kinds of columns are found and said; --kind overrules them, for a name or a pattern such as
    '*=continuous'.

    \b
    Kinds: continuous, positive, unit, bounded:LOW:HIGH, circular:PERIOD, integer,
    rounded:STEP, ordered:A<B<C, category, boolean, datetime.

    Every option may also stand in the environment, as DIFFEO_FIT_BUDGET=5m does, or in a file named by --config; a
    flag goes before the environment, and that before the file. Lists take names with commas between them, and
    may be repeated.
    """
    config = cast(FitConfig, FitConfig.read(**chosen(ctx, FitConfig)))
    bound_threads(config.threads)
    from diffeo.model import Model
    from diffeo.training import Interrupted

    with Progress(quiet) as progress:
        try:
            model = Model.fit(
                data,
                config=config,
                valid=valid,
                out=Path(output),
                overwrite=overwrite,
                resume=resume,
                schedule=schedule,
                progress=progress.take,
            )
        except Interrupted as end:
            go_on = "" if end.run is None else "; continue with the same command and --resume"
            stop(f"{end.resume_hint}{go_on}", INTERRUPTED)
    figures = strict({name: getattr(model.card, name) for name in _FIGURES})
    if as_json:
        echo_json(path=output, **figures)
    else:
        log_prob, error = figures["valid_log_prob"], figures["valid_standard_error"]
        score = "" if log_prob is None else f", {log_prob:.4f} nats per held-out row"
        click.echo(
            f"{output}: {figures['recipe']}{score}" + ("" if error is None else f" (standard error {error:.4f})")
        )
