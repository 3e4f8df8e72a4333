"""How a long run shows on stderr: a bar on a terminal, a line every ten seconds elsewhere, nothing when quiet."""

import sys
import time
from types import TracebackType
from typing import Any

import click

from diffeo.cli import printable

_EVERY = 10.0  # seconds between lines where there is no terminal


def clock(seconds: float) -> str:
    """A time left, short.

    >>> clock(5.2), clock(75), clock(7500)
    ('5 s', '1 min 15 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def line(record: dict[str, Any]) -> str:
    """A record of training in words; what it does not hold is left out.

    >>> line({"epoch": 2.0, "train": -1.25, "valid": None, "rows_per_second": 12000.0, "seconds_left": 75})
    'epoch 2, train -1.250 nats/row, 12,000 rows/s, 1 min 15 s left'
    >>> line({"epoch": 2.0, "train": -90.0, "train_bits": 4.125, "valid_bits": 4.5, "rows_per_second": 99.5})
    'epoch 2, train 4.125 valid 4.500 bits/dim, 100 pictures/s'
    """
    known = {name: value for name, value in record.items() if value is not None}
    parts = [f"epoch {known['epoch']:.3g}"] if "epoch" in known else []
    bits = "train_bits" in known or "valid_bits" in known
    end, unit, rows = ("_bits", "bits/dim", "pictures/s") if bits else ("", "nats/row", "rows/s")
    fits = " ".join(f"{word} {known[word + end]:.3f}" for word in ("train", "valid") if word + end in known)
    parts += [f"{fits} {unit}"] if fits else []
    parts += [f"{known['rows_per_second']:,.0f} {rows}"] if known.get("rows_per_second") else []
    parts += [f"{clock(known['seconds_left'])} left"] if known.get("seconds_left") else []
    return ", ".join(parts)


class Progress:
    """A context manager; `take(record)` shows a record of training or a message."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._stage, self._last = quiet, "", -_EVERY
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(6), TextColumn("{task.fields[words]}"))
            self._bar = Bar(*columns, console=Console(stderr=True, highlight=False), transient=True)
            self._task = self._bar.add_task("", total=1.0, words="", visible=False)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def take(self, record: dict[str, Any]) -> None:
        """Show one record: `message`, or the figures of a round."""
        if self._quiet:
            return
        if "message" in record:
            self._say(printable(record["message"]))
        elif self._bar is not None:
            self._bar.update(self._task, completed=record.get("progress") or 0.0, words=line(record), visible=True)
        else:
            self._line(record)

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, soft_wrap=True)
        else:
            click.echo(text, err=True)

    def _line(self, record: dict[str, Any]) -> None:
        stage, now = str(record.get("stage", "")), time.monotonic()
        if stage == self._stage and now - self._last < _EVERY:
            return
        self._stage, self._last = stage, now
        self._say(": ".join(part for part in (stage, line(record)) if part))
