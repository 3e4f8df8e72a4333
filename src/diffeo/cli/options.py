"""Options that commands share: threads, output, JSON; and what models of pictures have of their own."""

import json
import math
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from diffeo.cli.choices import refuse

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from diffeo.pictures.model import PictureModel

Command = TypeVar("Command", bound=Callable[..., Any])

data_option = click.option(
    "--data", "where", metavar="DIR", help="pictures: folder in which data sets known by name are looked for"
)


def of_pictures(model: Any) -> "TypeIs[PictureModel]":
    """Whether a loaded model is one of pictures."""
    return getattr(model.card, "kind", None) == "pictures"


def refuse_for_pictures(ctx: click.Context, *names: str) -> None:
    """Raises ModelError where one of these options was set, which a model of pictures has no use for."""
    refuse(ctx, names, "is for models of tables, and this is one of pictures")


def refuse_for_tables(ctx: click.Context, *names: str) -> None:
    """Raises ModelError where one of these options was set, which a model of a table has no use for."""
    refuse(ctx, names, "is for models of pictures, and this is one of a table")


def threads_option(command: Command) -> Command:
    """`--threads`, applied before anything that computes is imported."""
    return click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        help="processor threads at most",
        expose_value=False,
        callback=lambda ctx, param, value: bound_threads(value),
    )(command)


def bound_threads(count: int | None) -> None:
    """Bound the processors that numerical libraries take, here and in what is imported later."""
    if count is None:
        return
    for name in ("DIFFEO_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(count)
    import pyarrow
    import torch

    torch.set_num_threads(count)
    pyarrow.set_cpu_count(count)
    pyarrow.set_io_thread_count(count)


def output_options(command: Command) -> Command:
    """`-o` and `--overwrite`."""
    command = click.option("--overwrite", is_flag=True, help="replace OUT if it exists")(command)
    return click.option(
        "-o", "--output", metavar="OUT", default="-", help="write here (csv, tsv, jsonl, parquet, arrow, npy by name)"
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout")


def strict(value: Any) -> Any:
    """The same value with null in place of numbers that JSON has no form for.

    >>> strict({"a": [1.0, math.nan]})
    {'a': [1.0, None]}
    """
    if isinstance(value, dict):
        return {str(key): strict(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def echo_json(**fields: Any) -> None:
    """One JSON object on stdout, with the number of its form."""
    click.echo(json.dumps({"schema": 1, **strict(fields)}, indent=2 if sys.stdout.isatty() else None, allow_nan=False))
