"""The stairs from numbers to noise and back: each pair returns, however far out it starts."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from diffeo.check.lines import Line, skip, worst
from diffeo.check.subject import Subject, relative

__all__ = ["far_out", "returns"]

QUANTILES = (0.001, 0.01, 0.5, 0.99, 0.999)
SPREADS = (-100.0, -10.0, 10.0, 100.0)  # how far out numbers must still come back
FARTHEST = 1e6  # and how far all must still be finite
BACK = 1e-4  # relative, in unit spread: float32 and a margin
EMPTY = "the flow of this recipe has no layers"
NO_NUMBERS, NO_ANGLES = "the model has no numbers", "the model has no angles"
Move = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


@torch.no_grad()
def returns(s: Subject) -> Iterator[Line]:
    """Numbers x -> u -> x by their units, u -> z -> u and z -> u -> z by the flow; angles."""
    yield _units_return(s)
    yield from _flow_returns(s)
    yield _angles_return(s)


def _units_return(s: Subject) -> Line:
    """Errors in unit spread, where they mean the same for every column."""
    name = "numbers through their units and back"
    if s.density.units is None:
        return skip(name, NO_NUMBERS)
    x, names = _probes(s)
    back = s.density.units.inverse(s.density.units(x)[0])[0].double()
    error = relative(s.wide_units(back)[0], s.wide_units(x)[0])
    error = torch.where((back - x).abs() <= 1e-15 * x.abs(), 0.0, error)  # the last place, hard by a bound
    row, column = error.max(1)
    return worst(name, row, BACK, lambda i: _named(names[i], s.numbers[int(column[i])].name))


def _probes(s: Subject) -> tuple[Tensor, list[str]]:
    """Numbers [m, d], float64, and what to call each row: the rows themselves, those at the quantiles of each column,
    and one with each column far out; of all those that are within the support."""
    found, names = [s.places], [f"row {i + 1}" for i in range(len(s.places))]
    for j, column in enumerate(s.numbers):
        order = s.places[:, j].argsort()
        middle = s.places[order[len(order) // 2]]
        for q in QUANTILES:
            found.append(s.places[None, order[round(q * (len(order) - 1))]])
            names.append(f"{column.name} at its {100 * q:g} % quantile")
        for k in SPREADS:
            found.append(_moved(middle, j, float(middle[j]) + k * _spread(s.places[:, j])))
            names.append(f"{column.name} {k:+g} spreads from its median")
    x = torch.cat(found)
    inside = s.wide_units(x)[1] > -math.inf
    return x[inside], [name for name, good in zip(names, inside.tolist(), strict=True) if good]


def _moved(row: Tensor, j: int, value: float) -> Tensor:
    """[1, d]: the row [d] with another value in place j."""
    row = row.clone()
    row[j] = value
    return row[None]


def _spread(x: Tensor) -> float:
    """Interquartile range of x [n] over 1.349, or else its standard deviation, or 1."""
    low, high = torch.quantile(x, torch.tensor([0.25, 0.75], dtype=x.dtype))
    found = [float((high - low) / 1.349), float(x.std(correction=0)), 1.0]
    return next(value for value in found if value > 0)


def _named(probe: str, column: str) -> str:
    return probe if probe.startswith(f"{column} ") else f"{column}, {probe}"


def _flow_returns(s: Subject) -> Iterator[Line]:
    """Both ways, for the rows and with each coordinate far out."""
    forth, back = "numbers through the flow and back", "noise through the flow and back"
    if not s.layered:
        yield from (skip(name, EMPTY if s.numbers else NO_NUMBERS) for name in (forth, back))
        return
    context = s.context(s.features)
    noise = s.flow.base.sample(len(s.x) if context is None else 1, context, s.generator(1)).reshape(s.units.shape)
    flow, wide = s.flow.transform, s.wide_flow.transform
    yield _pair(s, forth, flow.forward, flow.inverse, wide.forward, s.units)
    yield _pair(s, back, flow.inverse, flow.forward, wide.inverse, noise)


def _pair(s: Subject, name: str, go: Move, back: Move, exact: Move, start: Tensor) -> Line:
    """The error there and back of rows [n, d], or that of their image, whichever is smaller: a steep layer is not to
    blame for its slope."""
    rows, at, names = _with_tails(start, [column.name for column in s.numbers])
    context = s.context(s.features[at])
    image = go(rows, context)[0]
    end = back(image, context)[0]
    again = exact(end.double(), None if context is None else context.double())[0]
    error = torch.minimum(relative(end, rows).amax(1), relative(again, image).amax(1))
    return worst(name, error, BACK, names.__getitem__)


def _with_tails(rows: Tensor, columns: list[str]) -> tuple[Tensor, Tensor, list[str]]:
    """Rows [n, d] and the first of them with each coordinate far out; which rows those were; what to call them."""
    found, names = [rows], [f"row {i + 1}" for i in range(len(rows))]
    for j, column in enumerate(columns):
        for k in SPREADS:
            found.append(_moved(rows[0], j, k))
            names.append(f"{column} at {k:g} spreads")
    at = torch.cat([torch.arange(len(rows)), torch.zeros(len(names) - len(rows), dtype=torch.long)])
    return torch.cat(found), at, names


def _angles_return(s: Subject) -> Line:
    """On the circle: the way round does not count."""
    name, errors = "angles through their flow and back", []
    if not s.angles:
        return skip(name, NO_ANGLES)
    for a, (flow, context) in enumerate(zip(s.angle_flows, s.angle_contexts(s.features), strict=True)):
        angle = s.rows.angles[:, a : a + 1].float()
        back = flow.transform.inverse(flow.transform(angle, context)[0], context)[0]
        turn = torch.remainder(back - angle + math.pi, 2 * math.pi) - math.pi
        errors.append(turn.abs()[:, 0])
    return worst(name, torch.cat(errors), BACK, lambda i: f"{s.angles[i // len(s.x)].name}, row {i % len(s.x) + 1}")


@torch.no_grad()
def far_out(s: Subject) -> Iterator[Line]:
    """Every number in turn FARTHEST spreads out, where the support reaches so far: its log-density and its image."""
    name = f"finite to {FARTHEST:g} spreads"
    if not s.numbers:
        yield skip(name, NO_NUMBERS)
        return
    rows, corner, names = [], [], []
    for j, (i, column) in enumerate(s.density.layout.smooth):
        for side in (-FARTHEST, FARTHEST):
            row = s.x[0].copy()
            row[i] = float(s.places[:, j].median()) + side * _spread(s.places[:, j])
            row[i] = row[i] if column.grid is None else column.grid.snap(row[i])
            rows.append(row)
            corner.append(_moved(torch.zeros(len(s.numbers)), j, side))
            names.append(f"{column.name} {side:+g} spreads from its median")
    far, units, context = s.density.layout.rows(np.stack(rows)), torch.cat(corner), s.features[:1].expand(len(rows), -1)
    inside = far.possible & (s.wide_units(far.low)[1] > -math.inf)
    fine = s.density.score(far).sum(1).isfinite() | ~inside
    fine &= s.flow(units, s.context(context)).isfinite()
    for move in (s.flow.transform.forward, s.flow.transform.inverse):
        image, log_det = move(units, s.context(context))
        fine &= image.isfinite().all(1) & log_det.isfinite()
    yield worst(name, (~fine).double(), 0.0, lambda i: "" if fine[i] else names[i])
