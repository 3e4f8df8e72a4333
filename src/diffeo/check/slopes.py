"""Every log-determinant is that of its own map, and a row's log-density is the sum of what it is made of.

    log p(x) = log p(z) + log|det dz/dx|,   log p(z) = log phi(w) + log|det dw/dz|,   w = to_normal(z),

w being the Rosenblatt map of the noise to independent standard normals (Rosenblatt 1952), which is made of
distribution functions and not of the density. Derivatives are taken in float64: by autograd, and of w, which has
none, by central differences.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from diffeo.bases import LOG_2PI
from diffeo.check.lines import Line, skip, worst
from diffeo.check.stairs import EMPTY, NO_ANGLES, NO_NUMBERS
from diffeo.check.subject import Subject, relative
from diffeo.mixtures import Ensemble
from diffeo.quantized import POINTS, lattice, log_sum_exp
from diffeo.rows import Rows
from diffeo.transforms import Transform

__all__ = ["log_dets", "sums"]

FEW = 24  # rows that derivatives are taken at
MOST = 100  # numbers in a row, for a Jacobian
EXACT = 1e-6  # relative, of log-determinants in float64
BY_DIFFERENCES = 1e-4
STEP = 1e-4  # of a difference, in standard normals
SINGLE = 1e-3  # relative, of a log-density in float32
Map = Callable[[Tensor], Tensor]


def log_dets(s: Subject) -> Iterator[Line]:
    """Of the units, the layers and the angles against autograd; of the base against its distribution functions."""
    few, n = s.few(FEW), min(FEW, len(s.x))
    units, layers, base = "log-det of the units", "log-det of the flow", "log-density of the base, by its levels"
    if not s.numbers or len(s.numbers) > MOST:
        reason = NO_NUMBERS if not s.numbers else f"a row has {len(s.numbers)} numbers, and a Jacobian at most {MOST}"
        yield from (skip(name, reason) for name in (units, layers, base))
    else:
        inside = few.places[s.wide_units(few.places)[1].isfinite()]
        yield worst(units, _gap(s.wide_units, inside, None), EXACT)
        u, context = few.units.double(), _double(s.context(few.features))
        yield worst(layers, _gap(s.wide_flow.transform, u, context), EXACT) if s.layered else skip(layers, EMPTY)
        yield worst(base, _base_gap(few, u, context), BY_DIFFERENCES, lambda i: f"row {i + 1}")
    gaps = [
        _gap(flow.transform, few.rows.angles[:, a : a + 1], _double(context))
        for a, (flow, context) in enumerate(zip(s.wide_angle_flows, s.angle_contexts(few.features), strict=True))
    ]
    name = "log-det of the angles"
    yield worst(name, torch.cat(gaps), EXACT, lambda i: s.angles[i // n].name) if gaps else skip(name, NO_ANGLES)


def _double(context: Tensor | None) -> Tensor | None:
    return None if context is None else context.double()


def _image(transform: Transform, context: Tensor | None) -> Map:
    return lambda x: transform(x, context)[0]


def jacobian(move: Map, x: Tensor) -> Tensor:
    """Of rows x [n, d] that do not depend on one another: [n, d, d], derivatives of each output by each input."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        y = move(x)
        rows = [torch.autograd.grad(y[:, j].sum(), x, retain_graph=True)[0] for j in range(y.shape[1])]
    return torch.stack(rows, 1)


def _gap(transform: Transform, x: Tensor, context: Tensor | None) -> Tensor:
    """[n]: log-det against autograd's at x [n, d], and against that of the way back."""
    with torch.no_grad():
        z, log_det = transform(x, context)
        log_back = transform.inverse(z, context)[1]
    expected = torch.linalg.slogdet(jacobian(_image(transform, context), x))[1]
    return torch.maximum(relative(log_det, expected), relative(-log_back, expected))


@torch.no_grad()
def _base_gap(s: Subject, u: Tensor, context: Tensor | None) -> Tensor:
    """[n]: log p(z) against log phi(w) + log|det dw/dz|."""
    base = s.wide_flow.base
    z = s.wide_flow.transform(u, context)[0]
    slope = differences(lambda z: base.to_normal(z, context), z)  # type: ignore[operator]
    w = base.to_normal(z, context)  # type: ignore[operator]
    expected = torch.linalg.slogdet(slope)[1] - 0.5 * w.square().sum(1) - 0.5 * LOG_2PI * z.shape[1]
    return relative(base(z, context), expected)


def differences(move: Map, z: Tensor) -> Tensor:
    """The Jacobian [n, d, d] of a map of rows z [n, d] by central differences of fourth order, each with a step that
    moves its own output by about STEP."""
    columns = []
    for j in range(z.shape[1]):
        way = torch.zeros_like(z)
        way[:, j] = 1e-6 * z[:, j].abs().clamp(min=1)
        rise = (move(z + way) - move(z - way))[:, j] / (2 * way[:, j])
        way[:, j] = STEP / rise.abs().clamp(min=1e-3)
        there = z + way
        way = there - z  # the step as it is after rounding
        near, far = move(z + way) - move(z - way), move(z + 2 * way) - move(z - 2 * way)
        columns.append((8 * near - far) / (12 * way[:, j : j + 1]))
    return torch.stack(columns, 2)


# The sum ------------------------------------------------------------------------------------------------------------


def sums(s: Subject) -> Iterator[Line]:
    """What the model says of a row, in float32, against the sum of its factors, put together here in float64 with
    autograd's derivatives: codes, angles, numbers over the points of their cells, less the noise in free places."""
    few = s.few(FEW)
    with torch.no_grad():
        said = torch.from_numpy(s.model.log_prob(few.table))
    rows, features = few.rows, s.wide.features(few.rows).detach()
    total = torch.zeros(rows.n, dtype=torch.float64)
    with torch.no_grad():
        if s.wide.masses is not None:
            total += s.wide.masses(rows.codes, few.code_context(features))
        for a, (flow, context) in enumerate(zip(s.wide_angle_flows, few.angle_contexts(features), strict=True)):
            angle = rows.angles[:, a : a + 1]
            slope = jacobian(_image(flow.transform, context), angle)[:, 0, 0]
            total += flow.base(flow.transform(angle, context)[0]) + slope.abs().log()
            total += math.log(2 * math.pi / s.angles[a].turn[1])
        if few.numbers:
            total += _numbers(few, features)
    total = torch.where(rows.possible, total, -math.inf)
    yield worst(
        "a row's log-density is the sum of its factors", relative(said, total), SINGLE, lambda i: f"row {i + 1}"
    )


def _numbers(s: Subject, features: Tensor) -> Tensor:
    """Log-density [n] of the numbers: the log of its mean over the points of the cells, which the members of an
    ensemble, each with its weight, share among themselves."""
    free, bases = s.density.layout.free, s.wide.members or [s.wide_flow.base]
    base = s.wide_flow.base
    shares = base.log_weights.double().exp().tolist() if isinstance(base, Ensemble) and s.wide.members else [1.0]
    each = -(-POINTS // len(bases)) if free else 1
    points = torch.full((each * len(bases), len(s.numbers)), 0.5, dtype=torch.float64)
    points[:, free] = lattice(len(points), len(free))
    pairs = zip(points, ((b, w) for b, w in zip(bases, shares, strict=True) for _ in range(each)), strict=True)
    parts = [_at(s, s.rows, point, features, b) + math.log(w / each) for point, (b, w) in pairs]
    return log_sum_exp(torch.stack(parts))


def _at(s: Subject, rows: Rows, point: Tensor, features: Tensor, base: nn.Module) -> Tensor:
    """Under one base at one point [d] of every cell: [n]. Free places of atoms hold normal noise, whose density is
    taken off."""
    x = torch.where(rows.atom, s.density.middle(), rows.low + rows.width * point)
    u = s.wide_units(x)[0]
    rises = jacobian(_image(s.wide_units, None), x).diagonal(dim1=1, dim2=2).abs().log()
    noise = torch.special.ndtri(point).expand_as(x)
    volume = torch.where(rows.width > 0, rows.width, 1.0).log()
    u = torch.where(rows.atom, noise, u)
    cost = torch.where(rows.atom, 0.5 * noise.square() + 0.5 * LOG_2PI, rises + volume)
    context = s.context(features)
    z = s.wide_flow.transform(u, context)[0]
    found = base(z, context) + cost.sum(1)
    if s.layered:
        found = found + torch.linalg.slogdet(jacobian(_image(s.wide_flow.transform, context), u))[1]
    outside = s.wide_units(x)[1] == -math.inf
    return torch.where(outside, -math.inf, found)
