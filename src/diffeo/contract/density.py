"""Is it a density, and does its sampler draw from it?"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from diffeo.bases import Density
from diffeo.contract.report import Line, Report, Row

__all__ = ["check_density"]

STANDARD_ERRORS = 5  # a two-sided false alarm of 6e-7


def check_density(
    density: Density,
    *,
    context: Tensor | None = None,
    n: int = 20_000,
    tolerance: float = 1e-3,
    width: float = 0.5,
    generator: torch.Generator | None = None,
) -> Report:
    """Check a density of vectors, given one row of context [1, c] if it takes one.

    Its integral is 1 (one or two dimensions: by quadrature on a grid that reaches 80 000 spreads out, to ``tolerance``;
    three to eight: by importance sampling, to 5 standard errors or 2 %), and its sampler draws from it: for a density
    h, ``width`` spreads of the draws wide, the mean of h(x)/p(x) over the draws is 1 within 5 standard errors. No draw
    lies on a clamp, and in one dimension no more repeat than float32 lets, in several none.

    >>> from diffeo.bases import StandardNormal
    >>> check_density(StandardNormal(1)).ok
    True
    """
    generator = generator or torch.Generator().manual_seed(0)
    with torch.no_grad():
        x = density.sample(n, context, generator).reshape(n, *density.event_shape)
        lines = list(_sampler(density, x, context, width))
        if x.shape[1:].numel() <= 2 and x.ndim == 2:
            lines.append(("integral is 1", abs(_integral(density, x, context) - 1), tolerance))
        elif x.shape[1:].numel() <= 8:
            lines.append(_importance(density, x, context, generator))
    return Report(tuple(Row(name, float(error), limit) for name, error, limit in lines))


def _sampler(density: Density, x: Tensor, context: Tensor | None, width: float) -> Iterator[Line]:
    log_prob = density(x, _repeat(context, len(x)))
    yield "log_prob of draws is finite", not log_prob.isfinite().all(), 0.0
    flat = x.flatten(1).double()
    repeated = len(flat) - len(torch.unique(flat, dim=0))
    by_chance = 2.0 * len(flat) ** 2 * 2**-24 if flat.shape[1] == 1 else 0.0  # in float32
    yield "draws that repeat", repeated, by_chance
    ends = (flat == flat.amin(0)).sum(0).clamp(min=1) + (flat == flat.amax(0)).sum(0).clamp(min=1) - 2
    yield "draws on a clamp", float(ends.amax()), 0.0
    centre, spread = flat.median(0).values, _spread(flat)
    nearest = flat[((flat - centre) / spread).square().sum(1).argmin()]  # a place where there is density
    log_h = torch.distributions.Normal(nearest, width * spread, validate_args=False).log_prob(flat).sum(1)
    ratio = (log_h - log_prob.double()).exp()
    standard_error = ratio.std() / math.sqrt(len(ratio))
    yield "sampler against density, standard errors", float((ratio.mean() - 1).abs() / standard_error), STANDARD_ERRORS
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


def _importance(density: Density, x: Tensor, context: Tensor | None, generator: torch.Generator) -> Line:
    """The integral as a mean of p/q, q the draws blurred by Student's t with 5 degrees of freedom: "integral is 1"."""
    flat = x.flatten(1).double()
    n, centres, width = len(flat), flat[:500], 0.5 * _spread(flat)
    normal, chi = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in (flat.shape, (5, n)))
    points = centres[torch.arange(n) % len(centres)] + width * normal / (chi.square().mean(0).sqrt())[:, None]
    points = points.to(x.dtype).double()
    d = flat.shape[1]
    height = math.lgamma((5 + d) / 2) - math.lgamma(2.5) - d / 2 * math.log(5 * math.pi) - float(width.log().sum())
    away = torch.cdist(points / width, centres / width).square()
    log_q = height - math.log(len(centres)) + torch.logsumexp(-(5 + d) / 2 * torch.log1p(away / 5), 1)
    log_prob = density(points.to(x.dtype).reshape(x.shape), _repeat(context, n)).double()
    ratio = (log_prob - log_q).exp()
    return "integral is 1", abs(float(ratio.mean()) - 1), max(5 * float(ratio.std()) / math.sqrt(n), 0.02)


def _repeat(context: Tensor | None, n: int) -> Tensor | None:
    return None if context is None else context.expand(n, -1)


def _spread(rows: Tensor) -> Tensor:
    """Interquartile range over 1.349, column by column, never zero."""
    low, high = torch.quantile(rows[:100_000], torch.tensor([0.25, 0.75], dtype=rows.dtype), dim=0)
    return ((high - low) / 1.349).clamp(min=1e-12)
