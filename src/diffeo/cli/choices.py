"""Choices about a fit as options: flags made from the fields of configurations, the environment, a TOML file."""

import csv
import difflib
import tomllib
from collections.abc import Callable, Iterable
from types import UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from diffeo.errors import ModelError

Command = TypeVar("Command", bound=Callable[..., Any])
Fields = dict[str, FieldInfo]


class Words(NamedTuple):
    """What is said of fields otherwise than their configurations say it, by the names of the fields."""

    flags: dict[str, tuple[str, str | None]]  # (flag, metavar)
    defaults: dict[str, str]
    help: dict[str, str]


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


def fields_of(*configs: type[BaseModel]) -> Fields:
    """The fields of all configurations, each once, as the first that has it describes it."""
    found: Fields = {}
    for config in configs:
        found |= {name: field for name, field in config.model_fields.items() if name not in found}
    return found


def _bare(annotation: Any) -> Any:
    """The annotation without `| None`.

    >>> _bare(int | None), _bare(Literal["a"] | None), _bare(float)
    (<class 'int'>, typing.Literal['a'], <class 'float'>)
    """
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return parts[0] if get_origin(annotation) in (Union, UnionType) and len(parts) == 1 else annotation


def _option(name: str, field: FieldInfo, words: Words) -> Callable[[Command], Command]:
    flag, metavar = words.flags.get(name, ("--" + name.replace("_", "-"), None))
    kind, default = _bare(field.annotation), words.defaults.get(name, field.default)
    more: dict[str, Any] = {"help": words.help.get(name, field.description), "metavar": metavar}
    if kind is bool:
        return click.option(flag, name, is_flag=True, default=False, help=more["help"])
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


def config_options(fields: Fields, words: Words) -> Callable[[Command], Command]:
    """A flag for every field, with its meaning and default."""

    def decorate(command: Command) -> Command:
        for name, field in reversed(fields.items()):
            command = _option(name, field, words)(command)
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


def refuse(ctx: click.Context, names: Iterable[str], why: str) -> None:
    """Raises ModelError for the first of these options that the user set, one line: what it was called, and why not."""
    for option in ctx.command.params:
        if option.name in names and (said := _said(ctx, option)) is not None:
            raise ModelError(f"{said} {why}; leave it out")


def _said(ctx: click.Context, option: click.Parameter) -> str | None:
    """What an option was called where the user set it; None where nobody did."""
    assert option.name is not None
    said = {
        ParameterSource.COMMANDLINE: option.opts[-1],
        ParameterSource.ENVIRONMENT: f"{ctx.auto_envvar_prefix}_{option.name.upper()} in the environment",
        ParameterSource.DEFAULT_MAP: f"{option.name} in the file of --config",
    }
    place = ctx.get_parameter_source(option.name)
    return None if place is None else said.get(place)


def toml_option(fields: Fields) -> Callable[[Command], Command]:
    """`--config FILE.toml`: values for fields, below flags and environment."""

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
            if key not in fields:
                close = difflib.get_close_matches(key, fields, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(fields)}"
                raise ModelError(f"{path}: there is no option {key!r}; {hint}")
        ctx.default_map = {name: _for_click(path, name, value) for name, value in found.items()}

    return click.option(
        "--config",
        metavar="FILE.toml",
        is_eager=True,
        expose_value=False,
        callback=read,
        help="read options from a file: name = value, with _ for - (kinds is a table; where stands for --data)",
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
