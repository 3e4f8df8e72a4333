"""A property, the largest error seen and what it may be; and the report that gathers them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Line", "Report", "Row", "largest", "relative", "same"]

Line = tuple[str, float | bool, float]  # property, error (or whether it fails), tolerance


@dataclass(frozen=True)
class Row:
    """One property: the largest error seen, and what it may be."""

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # false for NaN

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'}  {self.name:<44} {self.error:9.2g} (at most {self.tolerance:.2g})"


@dataclass(frozen=True)
class Report:
    """The outcome of a check; printed, one line a property."""

    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        return all(row.passed for row in self.rows)

    @property
    def failures(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if not row.passed)

    def __str__(self) -> str:
        return "\n".join(map(str, self.rows))


def relative(a: Tensor, b: Tensor) -> Tensor:
    """|a - b| in float64, relative to b where that is above 1."""
    return (a.double() - b.double()).abs() / b.double().abs().clamp(min=1)


def largest(error: Tensor) -> float:
    """The largest element, NaN if any is, 0 of none."""
    return float(error.detach().max()) if error.numel() else 0.0


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Whether they agree bit for bit."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
