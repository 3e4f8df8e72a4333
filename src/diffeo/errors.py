"""What can go wrong, by name; every message is one line that says what was wrong and what to do."""

import operator
from typing import Any


class DiffeoError(ValueError):
    """Any fault that diffeo foresaw; its text is one line for the user. Commands exit with `exit_code`."""

    exit_code = 2


class DataError(DiffeoError):
    """The data is not what was expected: a file, a column, a row or a cell."""


class ShapeError(DiffeoError):
    """A tensor or an array has the wrong number of rows, features or context features."""


class ModelError(DiffeoError):
    """An artefact is missing, damaged, foreign, newer, or does not fit the data; or a configuration is wrong."""


class TrainingError(DiffeoError):
    """Training ran and did not end well: it diverged, and rolling back did not mend it."""

    exit_code = 1


class MissingExtraError(DiffeoError):
    """An optional dependency is not installed; the message holds the command that installs it."""

    exit_code = 3


def whole(name: str, value: Any, least: int = 1) -> int:
    """The value of an argument that counts something. Raises ShapeError where it is no whole number of at least
    `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < least:
        raise ShapeError(f"{name}: expected a whole number, {least} or more, got {shown(value)}")
    return operator.index(value)


def shown(value: Any) -> str:
    """What came, on one line and not too long.

    >>> shown([1, 2]), len(shown("x" * 200))
    ('[1, 2]', 80)
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
