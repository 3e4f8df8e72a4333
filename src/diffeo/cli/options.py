"""Options that commands share: flags made from the fields of a configuration, a TOML file, threads, JSON."""

import csv
import difflib
import json
import math
import os
import sys
import tomllib
from collections.abc import Callable
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from diffeo.errors import ModelError

Command = TypeVar("Command", bound=Callable[..., Any])
Flags = dict[str, tuple[str, str | None]]  # field -> (flag, metavar), where they are not plain


class Names(click.ParamType):
    """Names with commas between them; a name that has a comma itself stands in double quotes."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The names, as a tuple.

        >>> Names().convert('a,"b,c"', None, None)
        ('a', 'b,c')
        """
        if isinstance(value, tuple):
            return value
        return tuple(name for row in csv.reader([value], skipinitialspace=True) for name in row if name)

    def split_envvar_value(self, rv: str) -> list[str]:
        """The whole variable is one value: names may hold spaces."""
        return [rv]


class Pair(Names):
    """COL=KIND."""

    name = "pair"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """(COL, KIND).

        >>> Pair().convert("price=positive", None, None)
        ('price', 'positive')
        """
        if isinstance(value, tuple):
            return value
        column, equals, kind = value.partition("=")
        if not (column and equals and kind):
            self.fail(f"{value!r} is not COL=KIND, such as price=positive", param, ctx)
        return column, kind


def _bare(annotation: Any) -> Any:
    """The annotation without `| None`."""
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return parts[0] if isinstance(annotation, UnionType) and len(parts) == 1 else annotation


def _option(name: str, field: FieldInfo, default: Any, flags: Flags) -> Callable[[Command], Command]:
    flag, metavar = flags.get(name, ("--" + name.replace("_", "-"), None))
    kind = _bare(field.annotation)
    more: dict[str, Any] = {"help": field.description, "metavar": metavar}
    if get_origin(kind) in (tuple, dict):
        several = Names() if get_origin(kind) is tuple else Pair()
        return click.option(flag, name, type=several, multiple=True, **more)
    if get_origin(kind) is Literal:
        more |= {"type": click.Choice(get_args(kind)), "metavar": None}
    elif kind in (int, float) and not metavar:
        more["type"] = kind
    if default is not None:
        return click.option(flag, name, default=default, show_default=True, **more)
    return click.option(flag, name, **more)


def config_options(config: type[BaseModel], flags: Flags, defaults: dict[str, str]) -> Callable[[Command], Command]:
    """A flag for every field of a configuration, with its meaning and default; `defaults` are shown as these words."""

    def decorate(command: Command) -> Command:
        for name, field in reversed(config.model_fields.items()):
            command = _option(name, field, defaults.get(name, field.default), flags)(command)
        return command

    return decorate


def chosen(ctx: click.Context, config: type[BaseModel]) -> dict[str, Any]:
    """The fields that the user set by flag, environment or file; where one excludes another the stronger place wins."""
    order = [ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP]
    places = {name: ctx.get_parameter_source(name) for name in config.model_fields}
    ranks = {name: order.index(place) for name, place in places.items() if place in order}
    if {"budget", "epochs"} <= ranks.keys() and ranks["budget"] != ranks["epochs"]:
        del ranks[max("budget", "epochs", key=ranks.__getitem__)]
    return {name: _joined(ctx.params[name], config.model_fields[name]) for name in config.model_fields if name in ranks}


def _joined(value: Any, field: FieldInfo) -> Any:
    """Repeated flags as one tuple of names or one dictionary."""
    kind = get_origin(_bare(field.annotation))
    if kind is dict:
        return dict(value)
    return tuple(name for names in value for name in names) if kind is tuple else value


def toml_option(config: type[BaseModel]) -> Callable[[Command], Command]:
    """`--config FILE.toml`: values for the fields of a configuration, below flags and environment."""

    def read(ctx: click.Context, param: click.Parameter, path: str | None) -> None:
        if path is None:
            return
        try:
            with open(path, "rb") as file:
                found = tomllib.load(file)
        except (OSError, ValueError) as fault:
            said = fault.strerror if isinstance(fault, OSError) else fault
            raise ModelError(f"{path}: cannot be read as TOML ({said})") from fault
        for key in found:
            if key not in config.model_fields:
                close = difflib.get_close_matches(key, config.model_fields, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(config.model_fields)}"
                raise ModelError(f"{path}: there is no option {key!r}; {hint}")
        ctx.default_map = {name: _for_click(path, name, value) for name, value in found.items()}

    return click.option(
        "--config",
        metavar="FILE.toml",
        is_eager=True,
        expose_value=False,
        callback=read,
        help="read options from a file: name = value, with _ for - (kinds is a table)",
    )


def _for_click(path: str, name: str, value: Any) -> Any:
    """A value of a TOML file as the option of that name takes it."""
    if isinstance(value, dict):
        if name != "kinds":
            raise ModelError(f"{path}: {name} is a table, but one value is needed")
        return [(str(column), str(kind)) for column, kind in value.items()]
    if isinstance(value, list):
        return [(str(part),) for part in value]
    return [value] if name in ("columns", "drop", "given", "kinds") else value


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
    """`-o` and `--overwrite` of a table."""
    command = click.option("--overwrite", is_flag=True, help="replace FILE if it exists")(command)
    return click.option(
        "-o", "--output", metavar="FILE", default="-", help="write here (csv, tsv, jsonl, parquet, arrow, npy by name)"
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
