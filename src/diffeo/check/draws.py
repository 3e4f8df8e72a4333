"""What is drawn comes from the density that scores: codes, angles and numbers of whole rows, and of the flow alone.

Of draws, the levels w (through flow and base, by the Rosenblatt map) are independent standard normals. And whatever
another density q is that draws can be made of, if p is normalised and its draws are its own,

    E_q[p / (p + q)] = integral of p q / (p + q) = E_p[q / (p + q)]          (Bennett 1976),

both means of numbers between 0 and 1, whose standard errors can be believed; where q is narrow, this is a question
about one place. Of a model that is right, each line fails once in a million runs.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from diffeo.check.lines import FALSE_ALARM, Line, most_errors, skip, worst
from diffeo.check.mass import NO_CODES, log_prob, mixture_of
from diffeo.check.stairs import NO_NUMBERS
from diffeo.check.subject import DRAWS, Subject
from diffeo.rows import Rows

__all__ = ["drawn_by_the_density"]

NARROW = 0.5  # of the covariance of the nearest draws: a density at one place
NEAR = 0.1  # of the draws are the nearest
ENOUGH = 50.0  # draws expected in an overlap, or the variance of a count, from which a mean is as good as normal
PIECE = 2000  # rows at a time, in float64


@torch.no_grad()
def drawn_by_the_density(s: Subject) -> Iterator[Line]:
    """Of whole rows: levels of angles and numbers, frequencies of codes. Of the flow: against other densities."""
    rows = _drawn(s)
    features = s.density.features(rows)
    yield from _levels(s, rows, features)
    yield _frequencies(s, rows, features)
    yield _codes_overlap(s, rows, features)
    yield _numbers_overlap(s)


def _drawn(s: Subject) -> Rows:
    """DRAWS whole rows as the model draws them, given what rows of the data are given, before they are rounded."""
    x = s.x[torch.randint(len(s.x), (DRAWS,), generator=s.generator(3)).numpy()]
    layout = s.density.layout
    x[:, [i for i, c in enumerate(layout.schema.columns) if c.role == "row"]] = s.density.sample_given(
        layout.rows(x), s.generator(4)
    )
    rows = layout.rows(x)
    places = torch.from_numpy(x[:, [i for i, _ in layout.smooth]])
    return replace(rows, low=places, width=torch.zeros_like(places))


# Levels -------------------------------------------------------------------------------------------------------------


def _levels(s: Subject, rows: Rows, features: Tensor) -> Iterator[Line]:
    """Means, spreads and correlations of the levels in standard errors, and each column's distance from the normal
    (Kolmogorov), whose bound is that of Massart (1990)."""
    names = ("levels of draws: mean, spread, correlation", "levels of draws: Kolmogorov's distance")
    if not s.numbers and not s.angles:
        yield from (skip(name, "the model has neither numbers nor angles") for name in names)
        return
    w, columns = _normals(s, rows, features)
    n, d = w.shape
    pairs = [(i, j) for i in range(d) for j in range(i)]
    figures = [w.mean(0) * math.sqrt(n), (w.square().mean(0) - 1) * math.sqrt(n / 2)]
    figures.append(torch.stack([(w[:, i] * w[:, j]).mean() for i, j in pairs]) * math.sqrt(n) if pairs else w[0, :0])
    said = [f"{what} of {column}" for what in ("mean", "spread") for column in columns]
    said += [f"{columns[j]} with {columns[i]}" for i, j in pairs]
    yield worst(names[0], torch.cat(figures).abs(), most_errors(len(said)), said.__getitem__)
    level, step = torch.special.ndtr(w.sort(0).values), torch.arange(n, dtype=w.dtype)[:, None]
    distance = torch.maximum((level - step / n).amax(0), ((step + 1) / n - level).amax(0)) * math.sqrt(n)
    yield worst(names[1], distance, math.sqrt(math.log(2 * d / FALSE_ALARM) / 2), columns.__getitem__)


def _normals(s: Subject, rows: Rows, features: Tensor) -> tuple[Tensor, list[str]]:
    """Levels [n, a + d] of rows without an atom, whose numbers are all there; where these are too few, those of draws
    of the flow alone. What to call them: coordinates of a flow with layers belong to no column."""
    kept = ~rows.atom.any(1)
    parts = []
    if kept.sum() >= DRAWS / 10:
        u = s.wide_units(rows.low[kept])[0] if s.numbers else None
        parts = [part[kept] for part in _angle_normals(s, rows, features)]
        features = features[kept]
    else:
        context = s.context(features)
        u = s.flow.sample(DRAWS if context is None else 1, context, s.generator(5)).reshape(DRAWS, -1).double()
        parts = _angle_normals(s, rows, features)
    columns = [c.name for c in s.angles]
    if u is not None:
        pieces = zip(u.split(PIECE), features.split(PIECE), strict=True)
        parts.append(torch.cat([_number_normals(s, piece, s.context(given)) for piece, given in pieces]))
        columns += [f"coordinate {i + 1}" if s.layered else c.name for i, c in enumerate(s.numbers)]
    return torch.cat(parts, 1), columns


def _angle_normals(s: Subject, rows: Rows, features: Tensor) -> list[Tensor]:
    """Of each angle [n, 1]."""
    contexts = s.angle_contexts(features)
    found = []
    for a, (flow, context) in enumerate(zip(s.wide_angle_flows, contexts, strict=True)):
        z = flow.transform(rows.angles[:, a : a + 1], context)[0]
        found.append(flow.base.to_normal(z, context))  # type: ignore[operator]
    return found


def _number_normals(s: Subject, u: Tensor, context: Tensor | None) -> Tensor:
    z = s.wide_flow.transform(u, context)[0]
    found: Tensor = s.wide_flow.base.to_normal(z, context)  # type: ignore[operator]
    return found


# Codes --------------------------------------------------------------------------------------------------------------


def _frequencies(s: Subject, rows: Rows, features: Tensor) -> Line:
    """How often each level is drawn, against the sum of its probabilities given the codes before, in standard errors;
    open ends are never drawn."""
    name, masses = "drawn codes: frequencies of levels", s.density.masses
    if masses is None:
        return skip(name, NO_CODES)
    context = s.code_context(features)
    counts, chances, variances = torch.zeros(3, sum(masses.sizes), dtype=torch.float64)
    for i in range(0, len(rows.codes), PIECE):
        codes, here = rows.codes[i : i + PIECE], slice(i, i + PIECE)
        logits = masses._logits(codes, None if context is None else context[here])
        chance = torch.cat([torch.softmax(logit.double(), 0) for logit in logits])
        chances += chance.sum(1)
        variances += (chance * (1 - chance)).sum(1)
        counts += torch.cat([torch.bincount(c, minlength=k)[:k] for c, k in zip(codes.T, masses.sizes, strict=True)])
    figures = (counts - chances) / variances.clamp(min=ENOUGH).sqrt()
    said = [f"column {c}, level {k + 1}" for c, size in zip(s.coded, masses.sizes, strict=True) for k in range(size)]
    return worst(name, figures.abs(), most_errors(len(said)), said.__getitem__)


def _codes_overlap(s: Subject, rows: Rows, features: Tensor) -> Line:
    """Against independent codes with the same frequencies; both given the same."""
    name, masses = "drawn codes against their log-probability", s.density.masses
    if masses is None:
        return skip(name, NO_CODES)
    context, half, dice = s.code_context(features), DRAWS // 2, s.generator(6)
    shut = sum(math.log1p(-float(b)) for b, is_open in zip(masses.beyond, masses.open_ended, strict=True) if is_open)
    shares = [
        torch.bincount(c, minlength=size) + 1.0 for c, size in zip(rows.codes[:half].T, masses.sizes, strict=True)
    ]
    logs = [(share / share.sum()).double().log() for share in shares]
    other = torch.stack([torch.multinomial(share, half, True, generator=dice) for share in shares], 1)
    here, ratios = slice(half, None), []
    for codes in (other, rows.codes[here]):
        log_p = masses(codes, None if context is None else context[here]).double() - shut
        ratios.append(log_p - sum(log[c] for log, c in zip(logs, codes.T, strict=True)))
    found = _overlap(*ratios)
    if found is None:
        return skip(name, "independent codes with the same frequencies are too unlike them")
    return Line(name, abs(found[0]) / found[1], most_errors(1), "standard errors")


# Numbers ------------------------------------------------------------------------------------------------------------


def _overlap(at_q: Tensor, at_p: Tensor) -> tuple[float, float] | None:
    """The difference of both means and its standard error, from log p/q at draws of q [n] and of p [m]; None where
    both densities hardly meet."""
    one, other = torch.sigmoid(at_q), torch.sigmoid(-at_p)
    if one.sum() + other.sum() < ENOUGH:
        return None
    error = (one.var() / len(one) + other.var() / len(other)).sqrt()
    return float(one.mean() - other.mean()), float(error)


def _numbers_overlap(s: Subject) -> Line:
    """Against a mixture like them, and against narrow densities, given several rows; each and all together."""
    name = "drawn numbers against their density"
    if not s.numbers:
        return skip(name, NO_NUMBERS)
    found, said = [], []
    for i, (context, drawn) in enumerate(s.draws):
        if not drawn.isfinite().all():
            return Line(name, math.nan, 0.0, "draws are no numbers")
        fitted, kept = drawn.double().chunk(2)
        others = {"a mixture": mixture_of(fitted, s.seed)} | {f"place {k + 1}": _narrow(fitted, k) for k in range(3)}
        for what, other in others.items():
            u = other.sample((len(kept),)).to(drawn.dtype)
            pair = [log_prob(s, x, context) - other.log_prob(x.double()) for x in (u, kept.to(drawn.dtype))]
            overlap = _overlap(*pair)
            if overlap is not None:
                found.append(overlap)
                said.append(f"at {what}" + (f", given row {i + 1}" if context is not None else ""))
    if not found:
        return skip(name, "no other density is near enough")
    gaps, errors = torch.tensor(found, dtype=torch.float64).T
    figures = torch.cat([gaps / errors, gaps.sum(0, keepdim=True) / errors.square().sum().sqrt()])
    return worst(name, figures.abs(), most_errors(len(figures)), [*said, "all together"].__getitem__)


def _narrow(rows: Tensor, k: int) -> Distribution:
    """A normal at the k-th of rows [n, d] with NARROW times the covariance of those nearest to it."""
    d, distance = rows.shape[1], ((rows - rows[k]) / rows.std(0).clamp(min=1e-9)).square().sum(1)
    near = rows[distance.argsort()[: max(int(NEAR * len(rows)), d + 2)]]
    covariance = NARROW * torch.atleast_2d(torch.cov(near.T))
    floor = 1e-6 * covariance.diagonal().mean() + 1e-12
    return MultivariateNormal(rows[k], covariance + floor * torch.eye(d, dtype=rows.dtype))
