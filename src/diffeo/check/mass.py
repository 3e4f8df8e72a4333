"""The total is 1: of the numbers by quadrature or importance sampling, of codes level by level, of angles round
the turn.

Importance sampling: where q is a density wide enough, the mean of p/q over draws of q is the integral of p. How wide
it is, draws of p tell: the variance of that mean is the mean of p/q over p, less 1.
"""

import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, MixtureSameFamily, MultivariateNormal

from diffeo.bases import LOG_2PI
from diffeo.check.lines import Line, skip, worst
from diffeo.check.slopes import differences
from diffeo.check.stairs import NO_ANGLES, NO_NUMBERS
from diffeo.check.subject import DRAWS, PLACES, Subject
from diffeo.masses import Masses

__all__ = ["NO_CODES", "integrals", "log_prob", "mixture_of"]

WHOLE = 1e-3  # how far a total may be from 1
SUMMED = 1e-5  # the same of masses, which are added up exactly
SURE = 0.02  # how far an estimate of it may be, however sure it is
VAGUE = 0.1  # the standard error from which an estimate says nothing
REACH = 12.0  # quadrature goes sinh(12) = 81,000 spreads out
NEAREST = 1e-5  # spreads: how closely it looks about a draw, with sinh(24) of them as its reach
NO_CODES = "the model has no columns with masses"
Outcome = tuple[float, float, str] | None  # error, tolerance and how it was found; None where it says nothing
Way = Callable[[Subject, Tensor | None, Tensor], Outcome]


@torch.no_grad()
def integrals(s: Subject) -> Iterator[Line]:
    """Of the numbers, the codes and the angles."""
    yield from _numbers(s)
    yield _masses(s)
    yield _angles(s)


# Numbers ------------------------------------------------------------------------------------------------------------


def log_prob(s: Subject, u: Tensor, context: Tensor | None) -> Tensor:
    """Of numbers in unit spread [n, d], given one context [1, c], in pieces: float64 [n]."""
    pieces = u.to(s.units.dtype).split(50_000)
    return torch.cat([s.flow(p, None if context is None else context.expand(len(p), -1)).double() for p in pieces])


def _numbers(s: Subject) -> Iterator[Line]:
    """All of them, and exactly the last given the others."""
    whole, last = "numbers integrate to 1", "the last number, given the others, does"
    if not s.numbers:
        yield from (skip(name, NO_NUMBERS) for name in (whole, last))
        return
    yield _largest(s, whole, (_by_quadrature, _by_importance), "importance sampling is too vague")
    if s.layered or len(s.numbers) == 1:
        yield skip(last, "the layers of the flow mix the numbers" if s.layered else "there is one number")
    else:
        yield _largest(s, last, (_by_the_last,), "quadrature does not settle")


def _largest(s: Subject, name: str, ways: tuple[Way, ...], else_: str) -> Line:
    """Given a few rows, the largest error in terms of what it may be, by the first of the ways that says something."""
    lines = []
    for context, draws in s.draws:
        if not draws.isfinite().all():
            return Line(name, math.nan, WHOLE, "draws are no numbers")
        found = next((outcome for way in ways if (outcome := way(s, context, draws))), None)
        lines += [Line(name, *found)] if found else []
    if not lines:
        return skip(name, else_)
    return max(lines, key=lambda line: line.error / line.tolerance if line.error >= 0 else math.inf)


def _by_quadrature(s: Subject, context: Tensor | None, draws: Tensor) -> Outcome:
    """In one and two dimensions, between edges that are close where draws are, in axes along which the inner draws
    are uncorrelated."""
    draws = draws.double()
    d, centre = draws.shape[1], draws.median(0).values
    if d > 2:
        return None
    low, high = torch.quantile(draws, torch.tensor([0.005, 0.995], dtype=draws.dtype), dim=0)
    inner = draws[((draws >= low) & (draws <= high)).all(1)]
    turn = torch.linalg.cholesky(torch.atleast_2d(torch.cov(inner.T)) + 1e-12 * torch.eye(d, dtype=draws.dtype))
    straight = torch.linalg.solve_triangular(turn, (draws - centre).T, upper=False)
    edges, totals = [_edges(values, 400 if d == 1 else 120) for values in straight], []
    for points in (4, 8) if d == 1 else (2, 3):
        rules = [_rule(edge, points) for edge in edges]
        grid = torch.cartesian_prod(*(nodes for nodes, _ in rules)).reshape(-1, d)
        weight = torch.cartesian_prod(*(weights for _, weights in rules)).reshape(-1, d).prod(1)
        heights = log_prob(s, grid @ turn.T + centre, context).exp()
        totals.append(float((heights * weight).sum() * turn.diagonal().prod()))
    return _settled(totals, "by quadrature")


def _settled(totals: list[float], how: str) -> Outcome:
    """The finer of two quadratures, where the coarser agrees with it."""
    coarse, fine = totals
    return None if abs(fine - coarse) > WHOLE else (abs(fine - 1), WHOLE, how)


def _by_importance(s: Subject, context: Tensor | None, draws: Tensor) -> Outcome:
    """Its standard error is the larger of what the draws of q and those of p make of it."""
    half = len(draws) // 2
    wide = mixture_of(draws[:half], s.seed, stretch=1.5, tails=0.1)
    u, other = wide.sample((DRAWS,)).to(draws.dtype), draws[half:]
    ratio = (log_prob(s, u, context) - wide.log_prob(u.double())).exp()
    second = (log_prob(s, other, context) - wide.log_prob(other.double())).exp().mean()
    error = float((torch.maximum(ratio.var(), second - 1) / len(u)).sqrt())
    how = f"by importance sampling, standard error {error:.2g}"
    return None if error >= VAGUE else (abs(float(ratio.mean()) - 1), max(SURE, 5 * error), how)


def _by_the_last(s: Subject, context: Tensor | None, draws: Tensor) -> Outcome:
    """Where levels are triangular in the numbers, so that those of all but the last give their density,

        p(u_1 .. u_d-1) = phi(w_1 .. w_d-1) |det dw/du|  (of the first d-1),

    against the integral of p(u) over u_d, by quadrature about a draw. Not with layers, which mix the numbers."""
    d, row, wide = draws.shape[1], draws[:1].double(), None if context is None else context.double()
    w = s.wide_flow.base.to_normal(row, wide)[0, : d - 1]  # type: ignore[operator]
    slope = differences(lambda u: s.wide_flow.base.to_normal(u, wide), row)[0, : d - 1, : d - 1]  # type: ignore[operator]
    before = torch.linalg.slogdet(slope)[1] - 0.5 * w.square().sum() - 0.5 * LOG_2PI * (d - 1)
    near = NEAREST * torch.linspace(-2 * REACH, 2 * REACH, 2000, dtype=row.dtype).sinh()
    totals = []
    for points in (3, 6):
        nodes, weights = _rule(float(row[0, -1]) + near, points)
        rows = row.repeat(len(nodes), 1)
        rows[:, -1] = nodes
        totals.append(float(((log_prob(s, rows, context) - before).exp() * weights).sum()))
    return _settled(totals, f"{s.numbers[-1].name}, by quadrature")


def _edges(values: Tensor, count: int) -> Tensor:
    """About 2 `count` places to cut the line at: quantiles of values [n], and evenly in asinh all the way out."""
    levels = torch.linspace(0, 1, count, dtype=values.dtype)
    return (
        torch.cat([torch.quantile(values, levels), torch.linspace(-REACH, REACH, count, dtype=values.dtype).sinh()])
        .sort()
        .values
    )


def _rule(edges: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss-Legendre in every interval."""
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(points))
    half, middle = edges.diff() / 2, (edges[1:] + edges[:-1]) / 2
    return (middle[:, None] + half[:, None] * nodes).flatten(), (half[:, None] * weights).flatten()


def _importance(s: Subject, context: Tensor | None, draws: Tensor) -> tuple[float, float]:
    """The integral and its standard error: the larger of what the draws of q and those of p make of it."""
    wide = mixture_of(draws[: len(draws) // 2], s.seed, stretch=1.5, tails=0.1)
    u = wide.sample((DRAWS,)).to(draws.dtype)
    ratio = (log_prob(s, u, context) - wide.log_prob(u.double())).exp()
    other = draws[len(draws) // 2 :]
    second = (log_prob(s, other, context) - wide.log_prob(other.double())).exp().mean()
    variance = torch.maximum(ratio.var(), second - 1)
    return float(ratio.mean()), float((variance / len(u)).sqrt())


def mixture_of(draws: Tensor, seed: int, components: int = 6, stretch: float = 1.0, tails: float = 0.0) -> Distribution:
    """A Gaussian mixture fitted to draws [n, d], by torch.distributions; covariances times `stretch`, and a share
    `tails` with five times the spread of all."""
    from sklearn.mixture import GaussianMixture

    rows = draws[:3000].double().numpy()
    size = max(1, min(components, len(rows) // (5 * rows.shape[1] + 5)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of EM that could go on
        fit = GaussianMixture(size, max_iter=30, reg_covar=1e-6, random_state=seed).fit(rows)
    weights, means, covariances = fit.weights_, fit.means_, stretch * fit.covariances_
    if tails:
        everywhere = np.atleast_2d(25 * np.cov(rows.T)) + 1e-6 * np.eye(rows.shape[1])
        weights = np.append((1 - tails) * weights, tails)
        means = np.concatenate([means, rows.mean(0)[None]])
        covariances = np.concatenate([covariances, everywhere[None]])
    parts = MultivariateNormal(torch.from_numpy(means), scale_tril=torch.from_numpy(np.linalg.cholesky(covariances)))
    return MixtureSameFamily(Categorical(torch.from_numpy(weights)), parts)


# Codes and angles ---------------------------------------------------------------------------------------------------


def _masses(s: Subject) -> Line:
    """Of each code at a few rows over all its levels and, where it is open, beyond; and it sees only those before."""
    name, masses = "masses sum to 1", s.wide.masses
    if masses is None:
        return skip(name, NO_CODES)
    codes, context = s.rows.codes[:PLACES], s.code_context(s.wide.features(s.rows[:PLACES]))
    logits, errors = masses._logits(codes, context), []
    for j in range(len(masses.sizes)):
        other = codes.clone()
        other[:, j:] = torch.tensor(masses.sizes[j:]) - 1 - other[:, j:].clamp(min=0)
        leak = (masses._logits(other, context)[j] - logits[j]).abs().amax()
        total = torch.stack([_total(masses, j, logits[j][:, r]) for r in range(len(codes))])
        errors.append(torch.maximum((total - 1).abs().amax(), leak))
    return worst(name, torch.stack(errors), SUMMED, lambda j: f"column {s.coded[j]}")


def _total(masses: Masses, j: int, logits: Tensor, beyond: int = 32) -> Tensor:
    """The sum of the masses of code j given its logits [levels]: every level, and where it is open `beyond` more at
    either end, which fall geometrically from there on."""
    size = masses.sizes[j]
    ends = beyond if masses.open_ended[j] else 0
    codes = torch.arange(-ends, size + ends)
    mass = masses._column(j, logits[:, None].expand(-1, len(codes)), codes).exp()
    if not ends:
        return mass.sum()
    low, high = mass[1] - mass[0], mass[-2] - mass[-1]  # the sum of the rest is r m / (1 - r), r the ratio of two
    return mass.sum() + mass[0].square() / low + mass[-1].square() / high


def _angles(s: Subject, points: int = 20_000) -> Line:
    """Midpoint rule round the turn."""
    name, found = "angles integrate to 1", []
    step = 2 * math.pi / points
    angle = (-math.pi + step * (torch.arange(points, dtype=torch.float64) + 0.5)).float()[:, None]
    for flow, context in zip(s.angle_flows, s.angle_contexts(s.features[:PLACES]), strict=True):
        rows = [None] if context is None else [row.expand(points, -1) for row in context]
        totals = torch.stack([(flow(angle, row).double().exp() * step).sum() for row in rows])
        found.append((totals - 1).abs().amax())
    return worst(name, torch.stack(found), WHOLE, lambda a: s.angles[a].name) if found else skip(name, NO_ANGLES)
