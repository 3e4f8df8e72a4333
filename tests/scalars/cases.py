"""The one list of every scalar."""

from dataclasses import dataclass

from diffeo import scalars


@dataclass(frozen=True)
class Case:
    scalar: scalars.Scalar
    bound: float = 0.0  # of a spline: where its interval ends
    circular: bool = False
    kinked: bool = False  # the slope jumps at the ends of the interval
    identity: float = 1e-13  # how near raw 0 is to it for |x| <= 8
    rows: int = 4  # in finite differences, whose cost grows with their square


CASES = [
    Case(scalars.additive()),
    Case(scalars.affine()),
    Case(scalars.affine(limit=0.5)),
    Case(scalars.affine(scale="exp")),
    Case(scalars.affine(scale="sigmoid")),
    Case(scalars.spline(), bound=8.0),
    Case(scalars.spline(bins=1, bound=1.0), bound=1.0),
    Case(scalars.spline(bins=2, bound=5.0), bound=5.0),
    Case(scalars.spline(bins=64, bound=32.0), bound=32.0, rows=1),
    Case(scalars.spline(bins=8, learned_bound=True), rows=2),
    Case(scalars.spline(bins=8, tails="circular"), circular=True),
    Case(scalars.spline(bins=1, tails="circular"), circular=True),
    Case(scalars.linear_spline(), bound=8.0, kinked=True),
    Case(scalars.linear_spline(bins=1, bound=1.0), bound=1.0, kinked=True),
    Case(scalars.quadratic_spline(), bound=8.0),
    Case(scalars.quadratic_spline(bins=1, bound=1.0), bound=1.0),
    Case(scalars.quadratic_spline(bins=16, bound=3.0), bound=3.0),
    Case(scalars.bernstein()),
    Case(scalars.bernstein(degree=1, bound=1.0)),
    Case(scalars.bernstein(degree=20, bound=5.0), rows=1),
    Case(scalars.mixture_cdf(), identity=0.05, rows=2),  # components start apart, lest they stay alike
    Case(scalars.mixture_cdf(components=1)),
    Case(scalars.mixture_cdf(kind="logistic"), identity=0.03, rows=2),
    Case(scalars.sigmoidal(units=4, layers=2), identity=0.06, rows=2),
]
