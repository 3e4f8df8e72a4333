"""The one list of every scalar."""

from dataclasses import dataclass

from diffeo import scalars


@dataclass(frozen=True)
class Case:
    scalar: scalars.Scalar
    bound: float = 0.0  # of a spline: where its interval ends
    circular: bool = False


CASES = [
    Case(scalars.additive()),
    Case(scalars.affine()),
    Case(scalars.affine(limit=0.5)),
    Case(scalars.spline(), bound=8.0),
    Case(scalars.spline(bins=1, bound=1.0), bound=1.0),
    Case(scalars.spline(bins=2, bound=5.0), bound=5.0),
    Case(scalars.spline(bins=64, bound=32.0), bound=32.0),
    Case(scalars.spline(bins=8, tails="circular"), circular=True),
    Case(scalars.spline(bins=1, tails="circular"), circular=True),
]
