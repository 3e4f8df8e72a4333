"""A line of a check: a property of a model with the largest error seen, what it may be, and where it was seen."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffeo.contract import Row

__all__ = ["FALSE_ALARM", "Line", "broken", "flag", "most_errors", "skip", "worst"]

FALSE_ALARM = 1e-6  # how often a statistical line fails of a model that is right


@dataclass(frozen=True)
class Line(Row):
    """One property. `place`: where the largest error was seen; `skipped`: why the property could not be looked at.

    >>> print(Line("masses sum to 1", 2e-7, 1e-6, "column cut"))
    ok       masses sum to 1                                     2e-07 (at most 1e-06) column cut
    """

    place: str = ""
    skipped: str = ""

    @property
    def passed(self) -> bool:
        return bool(self.skipped) or self.error <= self.tolerance  # false for NaN

    @property
    def outcome(self) -> str:
        """ok, FAIL or skipped."""
        return "skipped" if self.skipped else "ok" if self.passed else "FAIL"

    def __str__(self) -> str:
        if self.skipped:
            return f"{self.outcome:<8} {self.name:<47} {self.skipped}"
        return (
            f"{self.outcome:<8} {self.name:<47} {self.error:9.2g} (at most {self.tolerance:.2g}) {self.place}".rstrip()
        )


def skip(name: str, reason: str) -> Line:
    """A property that says nothing here, and why."""
    return Line(name, 0.0, 0.0, skipped=reason)


def flag(name: str, fails: bool, place: str = "") -> Line:
    """A property that holds or does not; `place` is said where it does not."""
    return Line(name, float(fails), 0.0, place if fails else "")


def broken(name: str, fault: Exception) -> Line:
    """A property that could not be looked at because the model refused what it must take."""
    return Line(name, float("nan"), 0.0, str(fault))


def worst(name: str, errors: Tensor, tolerance: float, place: Callable[[int], str] = lambda i: "") -> Line:
    """The largest of errors [n], and the place of that row; NaN is larger than all."""
    if not errors.numel():
        return skip(name, "there is nothing to look at")
    errors = errors.detach().double().flatten()
    i = int(torch.where(errors.isnan(), torch.inf, errors).argmax())
    return Line(name, float(errors[i]), tolerance, place(i))


def most_errors(count: int) -> float:
    """How many standard errors off the largest of `count` normal figures may be, at a false alarm of FALSE_ALARM.

    >>> round(most_errors(1), 2)
    4.89
    """
    return float(-torch.special.ndtri(torch.tensor(FALSE_ALARM / 2 / max(count, 1), dtype=torch.float64)))
