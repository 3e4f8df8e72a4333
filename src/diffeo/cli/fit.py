"""`diffeo fit`: a table in, or pictures, a model out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click

from diffeo.cli import INTERRUPTED, stop
from diffeo.cli.choices import Words, chosen, config_options, fields_of, refuse, toml_option
from diffeo.cli.options import bound_threads, echo_json, json_option, strict
from diffeo.cli.progress import Progress
from diffeo.config import FitConfig, PictureConfig

_WORDS = Words(
    flags={
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
        "where": ("--data", "DIR"),
    },
    defaults={"budget": "2m"},
    help={
        "recipe": "the architecture; of tables: auto, realnvp, maf, spline-coupling, ...; of pictures: auto, "
        "glow-small, glow-28, realnvp-32, tarflow-28, ...",
        "layers": cast(str, PictureConfig.model_fields["layers"].description),
        "batch_size": "rows, or pictures, a step",
        "where": "pictures: folder in which data sets known by name are looked for",
    },
)
_FIELDS = fields_of(FitConfig, PictureConfig)
_TABLE_FIGURES = ("recipe", "rows", "parameters", "valid_log_prob", "valid_standard_error")
_PICTURE_FIGURES = (*_TABLE_FIGURES[:3], "valid_bits", "valid_bits_error", *_TABLE_FIGURES[3:])


@click.command()
@click.argument("data")
@click.option("-o", "--output", metavar="MODEL", required=True, help="write the model into this folder")
@config_options(_FIELDS, _WORDS)
@click.option("--valid", metavar="DATA", help="validate on these rows, or pictures, instead of held-out ones")
@click.option("--schedule", metavar="MODEL", type=Path, help="replay the schedule that a --budget run recorded")
@click.option("--resume", is_flag=True, help="go on with an interrupted fit")
@click.option("--overwrite", is_flag=True, help="replace MODEL if it exists")
@click.option("-q", "--quiet", is_flag=True, help="no progress and no messages")
@json_option
@toml_option(_FIELDS)
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

    Learn the exact density of DATA and write it into the folder MODEL. DATA is a table (a file, FILE.npz:KEY, an
    embedded data set, or - for stdin) or pictures (a folder of them, an .npy or .npz of three dimensions or more, IDX,
    CIFAR or Parquet files, or a name: digits8, fashion-mnist, mnist, cifar10, celeba, hub:NAME; NAME:PART for a part).
    The kinds of a table's columns are found and said; --kind overrules them, for a name or a pattern such as
    '*=continuous'.

    \b
    Kinds: continuous, positive, unit, bounded:LOW:HIGH, circular:PERIOD, integer,
    rounded:STEP, ordered:A<B<C, category, boolean, datetime.

    While pictures are learned, grids of samples from the same noise go into MODEL/samples.

    Every option may also stand in the environment, as DIFFEO_FIT_BUDGET=5m does, or in a file named by --config; a
    flag goes before the environment, and that before the file. Lists take names with commas between them, and
    may be repeated.
    """
    bound_threads(cast(FitConfig, FitConfig.read(threads=ctx.params["threads"])).threads)
    learner, config = _learner(ctx, data)
    from diffeo.training import Interrupted

    with Progress(quiet) as progress:
        try:
            model = learner.fit(
                data,
                config=config,
                valid=valid,
                out=Path(output),
                overwrite=overwrite,
                resume=resume,
                schedule=schedule,
                progress=_telling_of_samples(progress.take, Path(output)),
            )
        except Interrupted as end:
            go_on = "" if end.run is None else "; continue with the same command and --resume"
            stop(f"{end.resume_hint}{go_on}", INTERRUPTED)
    figures = _TABLE_FIGURES if isinstance(config, FitConfig) else _PICTURE_FIGURES
    found = strict({name: getattr(model.card, name) for name in figures})
    if as_json:
        echo_json(path=output, **found)
    else:
        click.echo(f"{output}: {found['recipe']}{_score(found)}")


def _learner(ctx: click.Context, data: str) -> tuple[Any, FitConfig | PictureConfig]:
    """What learns DATA, and the choices that are for it; an option for the other kind of data is refused."""
    from diffeo.data.embedded import path_of
    from diffeo.data.pictures import are_pictures

    tables, pictures = FitConfig.model_fields.keys(), PictureConfig.model_fields.keys()
    if are_pictures(path_of(data)):
        refuse(ctx, tables - pictures, f"is for tables, but DATA ({data}) are pictures")
        picture_config = cast(PictureConfig, PictureConfig.read(**chosen(ctx, PictureConfig)))
        from diffeo.pictures.model import PictureModel

        return PictureModel, picture_config
    refuse(ctx, pictures - tables, f"is for pictures, but DATA ({data}) is a table")
    config = cast(FitConfig, FitConfig.read(**chosen(ctx, FitConfig)))
    from diffeo.model import Model

    return Model, config


def _telling_of_samples(take: Callable[[dict[str, Any]], None], model: Path) -> Callable[[dict[str, Any]], None]:
    """The same, that says once where the samples of a fit to pictures lie."""
    told = False

    def also(record: dict[str, Any]) -> None:
        nonlocal told
        take(record)
        if not told and "valid_bits" in record and (model / "samples").is_dir():
            told = True
            take({"message": f"samples of the same noise, as training goes on: {model / 'samples'}/step_*.png"})

    return also


def _score(figures: dict[str, Any]) -> str:
    """The figure on what was held out, and its standard error, as far as they are known."""
    if "valid_bits" in figures:
        value, error = figures["valid_bits"], figures["valid_bits_error"]
        words = "bits per dimension of held-out pictures"
    else:
        value, error = figures["valid_log_prob"], figures["valid_standard_error"]
        words = "nats per held-out row"
    return ("" if value is None else f", {value:.4f} {words}") + (
        "" if error is None else f" (standard error {error:.4f})"
    )
