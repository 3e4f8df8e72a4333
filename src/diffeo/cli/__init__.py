"""The command line: every command is one short function that reads, calls and writes; it is imported when it is run."""

import errno
import os
import sys
from contextlib import suppress
from importlib import import_module
from importlib.abc import MetaPathFinder
from typing import Any, NoReturn

import click

from diffeo.errors import DiffeoError
from diffeo.version import __version__

COMMANDS = {
    "fit": "Learn the density of a table, or of pictures.",
    "score": "Log-density of each row, or picture.",
    "sample": "Draw new rows, or pictures.",
    "interpolate": "The pictures between two.",
    "report": "One page: is this density to be trusted?",
    "check": "Is it a density, and do its parts belong together?",
    "study": "The founding experiments, with figures and findings.",
    "data": "The embedded data sets: list them, write one out.",
    "info": "What a model is and was fitted on.",
    "doctor": "Versions, devices, threads and kernels in use.",
}
READING = ("fit", "score", "sample", "report", "check")  # commands that read or write tables
INTERRUPTED = 130
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


def printable(text: object) -> str:
    """One line that a terminal shows as it is: line ends and control characters are escaped.

    >>> printable("a\\nb")
    'a\\\\nb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def stop(message: object, exit_code: int) -> NoReturn:
    """End with one line on stderr."""
    click.echo(f"diffeo: {printable(message)}", err=True)
    raise click.exceptions.Exit(exit_code)


class Commands(click.Group):
    """The group of all commands; the module of a command is imported when the command is run."""

    _alone = False

    def __init__(self, **options: Any) -> None:
        super().__init__(
            **options, commands={name: click.Command(name, short_help=COMMANDS[name]) for name in COMMANDS}
        )

    def main(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """As click's; where it is the process's own command line, pandas is left alone."""
        self._alone = args is None
        return super().main(args, *more, **options)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use."""
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The real command in place of the line that stands for it in the help."""
        name, stub, rest = super().resolve_command(ctx, args)
        if self._alone and name in READING:
            _spare_pandas()
        return name, load(name) if name and stub else None, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; expected faults become one line and an exit code, a closed pipe is quiet."""
        try:
            return super().invoke(ctx)
        except DiffeoError as fault:
            stop(fault, fault.exit_code)
        except BrokenPipeError:
            _close_stdout()
            ctx.exit(0)
        except KeyboardInterrupt:
            stop("interrupted", INTERRUPTED)
        except OSError as fault:
            if fault.errno not in _FULL:
                raise
            stop(f"cannot write ({fault.strerror}); make room, or name another place", DiffeoError.exit_code)


def load(name: str) -> click.Command:
    """The command of a name, from its module."""
    command: click.Command = import_module(f"diffeo.cli.{name}").command
    command.name, command.short_help = name, COMMANDS[name]
    return command


def _spare_pandas() -> None:
    """Let pyarrow do without pandas, which it would import, if it is there, at its first conversion: that takes longer
    than to read most tables, and no command has a use for it."""
    if "pandas" in sys.modules or "pyarrow" in sys.modules:
        return
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        import pyarrow

        pyarrow.scalar(0)
    finally:
        sys.meta_path.remove(hidden)


class _Hidden(MetaPathFinder):
    """Says that there is no pandas."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("no command needs pandas", name=fullname)


def _close_stdout() -> None:
    """Send what is still to be flushed to nowhere, so that the interpreter's own flush at the end stays quiet."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "DIFFEO", "max_content_width": 100},
    help="""\b
Example: diffeo fit stars -o model && diffeo sample model -n 5

diffeo learns the exact probability density of a table, or of pictures, and puts it to use. Results go to stdout,
all else to stderr; - is stdin or stdout. DATA is a file (.csv, .tsv, .jsonl, also .gz; .parquet, .arrow, .feather,
.npy, .npz), a folder of pictures, or the name of a data set.

Exit codes: 0 done, 1 it ran and the answer is no, 2 wrong input, 3 an optional package is missing, 130
interrupted.""",
)
@click.version_option(__version__, prog_name="diffeo", message="%(prog)s %(version)s")
def main() -> None:
    """Read the common options; the commands do the rest."""
