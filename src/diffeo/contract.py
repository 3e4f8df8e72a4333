"""What must hold of every transform and every density, checked against something independent.

``check_transform`` and ``check_density`` try an object of the user's or of ours and give a Report: a line a property,
with the largest error seen and the tolerance it is held to. Nothing here raises because a property fails.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffeo.bases import Density
from diffeo.scalars import working_dtype
from diffeo.transforms.base import Chain, Transform

__all__ = ["Report", "Row", "check_density", "check_transform"]

ULPS = 64  # units in the last place that a layer may lose, one way or the other
STANDARD_ERRORS = 5  # a two-sided false alarm of 6e-7


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


def check_transform(
    transform: Transform,
    *,
    event_shape: Sequence[int],
    context_features: int = 0,
    dtype: torch.dtype = torch.float64,
    inputs: Tensor | None = None,
    generator: torch.Generator | None = None,
    skip: Sequence[str] = (),
) -> Report:
    """Check a transform of events [*event_shape] on ``inputs`` [n, *event_shape] (default: 16 standard normal rows).

    The transform is copied and never changed. ``skip`` names properties that it cannot have.

    >>> from diffeo.transforms import LU
    >>> check_transform(LU(3), event_shape=(3,)).ok
    True
    """
    with torch.random.fork_rng(devices=[]):
        trial = _Trial(transform, tuple(event_shape), context_features, dtype, inputs, generator)
        rows = [Row(name, float(error), tolerance) for name, error, tolerance in trial.rows() if name not in skip]
    return Report(tuple(rows))


Line = tuple[str, float | bool, float]


class _Trial:
    """One transform under examination: copies of it, data to try it on, and a method for each group of properties."""

    def __init__(
        self,
        transform: Transform,
        event: tuple[int, ...],
        context_features: int,
        dtype: torch.dtype,
        inputs: Tensor | None,
        generator: torch.Generator | None,
    ) -> None:
        generator = generator or torch.Generator().manual_seed(0)
        self.dtype, self.event, self.eps = dtype, event, torch.finfo(dtype).eps
        self.t = copy.deepcopy(transform).to(dtype).eval()
        self.t64 = copy.deepcopy(self.t).double()
        drawn = torch.randn(16, *event, generator=generator, dtype=torch.float64)
        self.x = (drawn if inputs is None else inputs.detach()).to(dtype, copy=True)
        self.z = torch.randn(len(self.x), *event, generator=generator, dtype=torch.float64).to(dtype)
        shape = (len(self.x), context_features)
        self.c = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) if context_features else None
        self.layers = max(1, sum(not isinstance(m, Chain) for m in transform.modules() if isinstance(m, Transform)))

    def rows(self) -> Iterator[Line]:
        yield from self.round_trips()
        yield from self.jacobian()
        yield from self.independence()
        yield from self.far_away()
        yield from self.copies()
        yield from self.sizes_and_dtypes()
        yield from self.side_effects()

    def round_trips(self) -> Iterator[Line]:
        """Forward or backward error, whichever is smaller: a steep or a flat map is not to blame for its slope."""
        there: list[tuple[str, Callable, Callable, Callable, Tensor]] = [
            ("x -> z -> x", self.t, self.t.inverse, self.t64, self.x),
            ("z -> x -> z", self.t.inverse, self.t, self.t64.inverse, self.z),
        ]
        slack = ULPS * self.layers * self.eps
        for name, go, back, exact, start in there:
            middle, log_det = go(start, self.c)
            end, log_back = back(middle, self.c)
            point = end.detach().double().requires_grad_()
            again, exact_log_det = exact(point, None if self.c is None else self.c.double())
            error = torch.minimum(_relative(end, start), _relative(again, middle))
            yield f"round trip {name}", _largest(error), slack
            # nor for what such an error of the point does to the log_det there
            (slope,) = torch.autograd.grad(exact_log_det.sum() + 0 * point.sum(), point)
            blur = slack * (slope.abs() * point.abs().clamp(min=1)).flatten(1).sum(1)
            gap = torch.minimum((log_det + log_back).abs(), (exact_log_det + log_back).abs() - blur)
            gap = gap / log_det.abs().clamp(min=1)
            closeness = 1e-8 if self.dtype == torch.float64 else 1e-3
            yield f"log_dets sum to zero {name}", _largest(gap.clamp(min=0)), closeness * self.layers

    def jacobian(self) -> Iterator[Line]:
        flat, errors = math.prod(self.event), []
        for i, row in enumerate(self.x[:6].double()):
            context = None if self.c is None else self.c[i : i + 1].double()
            jacobian = torch.autograd.functional.jacobian(lambda r, c=context: self.t64(r[None], c)[0][0], row)
            expected = torch.linalg.slogdet(jacobian.reshape(flat, flat))[1]
            errors.append(_relative(self.t64(row[None], context)[1][0], expected))
        yield "log_det is autograd's", _largest(torch.stack(errors)), 1e-8

    def independence(self) -> Iterator[Line]:
        z, log_det = self.t(self.x, self.c)
        pieces = [self.t(*self._slice(i, i + 1)) for i in range(len(self.x))]
        alone, alone_log_det = torch.cat([p[0] for p in pieces]), torch.cat([p[1] for p in pieces])
        error = torch.cat([_relative(alone, z).flatten(), _relative(alone_log_det, log_det)])
        noise = 1000 * self.layers * self.eps  # matrix products sum in another order
        yield "rows do not depend on the batch", _largest(error), noise
        spoiled = self.x.clone()
        spoiled[0] = math.nan
        z_spoiled, _ = self.t(spoiled, self.c)
        yield "a NaN row leaves the others alone", not torch.equal(z_spoiled[1:], z[1:]), 0.0
        strided = self.x.flatten(1).T.contiguous().T.reshape(self.x.shape)
        yield "strided input is the same", _largest(_relative(self.t(strided, self.c)[0], z)), noise
        if self.c is not None:
            moved = self.t(self.x, self.c + 1)
            yield "context is looked at", torch.equal(moved[0], z) and torch.equal(moved[1], log_det), 0.0

    def far_away(self) -> Iterator[Line]:
        """Values and gradients at +-1e6: finite, log_det perhaps -inf (outside a support)."""
        x = (1e6 * self.x.sign()).requires_grad_()
        z, log_det = self.t(x, self.c)
        gradients = torch.autograd.grad(
            z.sum() + log_det.sum(), [x, *(p for p in self.t.parameters() if p.requires_grad)], allow_unused=True
        )
        fine = z.isfinite().all() and not log_det.isnan().any() and not (log_det == math.inf).any()
        yield "finite values far outside the data", not fine, 0.0
        fine = all(g is None or bool(g.isfinite().all()) for g in gradients)
        yield "finite gradients far outside the data", not fine, 0.0

    def copies(self) -> Iterator[Line]:
        z, log_det = self.t(self.x, self.c)
        twin = copy.deepcopy(self.t)
        yield "deepcopy is equal", not _same(twin(self.x, self.c), (z, log_det)), 0.0
        state = {name: value.clone() for name, value in self.t.state_dict().items()}
        for value in twin.state_dict().values():
            if value.is_floating_point():
                value.add_(1)
        twin.load_state_dict(state)
        yield "load(save) is equal", not _same(twin(self.x, self.c), (z, log_det)), 0.0

    def sizes_and_dtypes(self) -> Iterator[Line]:
        for n in (0, 1):
            z, log_det = self.t(*self._slice(0, n))
            x, log_back = self.t.inverse(z, None if self.c is None else self.c[:n])
            fine = x.shape == (n, *self.event) and log_det.shape == log_back.shape == (n,) and z.shape[0] == n
            yield f"{n} row{'s' * (n != 1)}: shapes", not fine, 0.0
        z, log_det = self.t(self.x, self.c)
        fine = z.dtype == self.dtype and log_det.dtype == working_dtype(self.x)
        yield "dtypes follow the input", not fine, 0.0
        half = copy.deepcopy(self.t).bfloat16()
        _, log_det = half(self.x.bfloat16(), None if self.c is None else self.c.bfloat16())
        yield "log_det of bfloat16 is float32", log_det.dtype != torch.float32 or bool(log_det.isnan().any()), 0.0

    def side_effects(self) -> Iterator[Line]:
        before, x, c = torch.random.get_rng_state(), self.x.clone(), None if self.c is None else self.c.clone()
        weights = {name: value.clone() for name, value in self.t.state_dict().items()}
        first = self.t(self.x, self.c)
        self.t.inverse(first[0], self.c)
        repr(self.t)
        yield "same input, same output", not _same(self.t(self.x, self.c), first), 0.0
        yield "random state untouched", not torch.equal(before, torch.random.get_rng_state()), 0.0
        kept = torch.equal(x, self.x) and (c is None or self.c is None or torch.equal(c, self.c))
        kept = kept and all(torch.equal(value, weights[name]) for name, value in self.t.state_dict().items())
        yield "inputs and weights unchanged", not kept, 0.0

    def _slice(self, i: int, j: int) -> tuple[Tensor, Tensor | None]:
        return self.x[i:j], None if self.c is None else self.c[i:j]


def check_density(
    density: Density,
    *,
    context: Tensor | None = None,
    n: int = 20_000,
    tolerance: float = 1e-3,
    generator: torch.Generator | None = None,
) -> Report:
    """Check a density of vectors, given one row of context [1, c] if it takes one.

    Its integral is 1 (one or two dimensions, by quadrature on a grid that reaches 80 000 spreads out), and its sampler
    draws from it: for a narrow density h, the mean of h(x)/p(x) over the draws is 1 within 5 standard errors.

    >>> from diffeo.bases import StandardNormal
    >>> check_density(StandardNormal(1)).ok
    True
    """
    generator = generator or torch.Generator().manual_seed(0)
    with torch.no_grad():
        x = density.sample(n, context, generator).reshape(n, *density.event_shape)
        lines = list(_sampler(density, x, context))
        if x.shape[1:].numel() <= 2 and x.ndim == 2:
            lines.append(("integral is 1", abs(_integral(density, x, context) - 1), tolerance))
    return Report(tuple(Row(name, float(error), limit) for name, error, limit in lines))


def _sampler(density: Density, x: Tensor, context: Tensor | None) -> Iterator[Line]:
    log_prob = density(x, _repeat(context, len(x)))
    yield "log_prob of draws is finite", not log_prob.isfinite().all(), 0.0
    flat = x.flatten(1).double()
    unique = len(torch.unique(flat, dim=0))
    yield "draws that repeat", len(flat) - unique, 0.01 * len(flat)
    centre, spread = flat.median(0).values, _spread(flat)
    nearest = flat[((flat - centre) / spread).square().sum(1).argmin()]  # a place where there is density
    width = 0.5 * spread
    log_h = torch.distributions.Normal(nearest, width, validate_args=False).log_prob(flat).sum(1)
    ratio = (log_h - log_prob.double()).exp()
    standard_error = ratio.std() / math.sqrt(len(ratio))
    yield "sampler against density, standard errors", (ratio.mean() - 1).abs() / standard_error, STANDARD_ERRORS
    again = density(x[:0], _repeat(context, 0))
    yield "zero rows", again.shape != (0,), 0.0


def _integral(density: Density, x: Tensor, context: Tensor | None, reach: float = 12.0) -> float:
    """Midpoint rule in asinh space, about the middle of the draws."""
    d = x.shape[1]
    points = 40_000 if d == 1 else 900
    step = 2 * reach / points
    t = -reach + step * (torch.arange(points, dtype=torch.float64) + 0.5)
    centre, spread = x.double().median(0).values, _spread(x.double())
    axes = [centre[i] + spread[i] * t.sinh() for i in range(d)]
    measures = [(spread[i] * t.cosh() * step).log() for i in range(d)]
    total = 0.0
    grid = torch.cartesian_prod(*axes).reshape(-1, d)
    measure = torch.cartesian_prod(*measures).reshape(-1, d).sum(1)
    for rows, log_measure in zip(grid.split(100_000), measure.split(100_000), strict=True):
        log_prob = density(rows.to(x.dtype), _repeat(context, len(rows))).double()
        total += float((log_prob + log_measure).exp().sum())
    return total


def _repeat(context: Tensor | None, n: int) -> Tensor | None:
    return None if context is None else context.expand(n, -1)


def _spread(rows: Tensor) -> Tensor:
    """Interquartile range over 1.349, column by column, never zero."""
    low, high = torch.quantile(rows[:100_000], torch.tensor([0.25, 0.75], dtype=rows.dtype), dim=0)
    return ((high - low) / 1.349).clamp(min=1e-12)


def _relative(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() - b.double()).abs() / b.double().abs().clamp(min=1)


def _largest(error: Tensor) -> float:
    """The largest element, NaN if any is, 0 of none."""
    return float(error.detach().max()) if error.numel() else 0.0


def _same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
