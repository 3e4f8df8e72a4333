"""How a model behaves: a row's score is its own, whatever stands beside it; frames and files come back as they were."""

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from diffeo.check.lines import Line, flag, skip, worst
from diffeo.check.stairs import NO_NUMBERS
from diffeo.check.subject import ROWS, Subject, drawn, relative
from diffeo.data.arrow import parse_type, plain, whole
from diffeo.data.column import Column

__all__ = ["batches", "frames", "supports"]

ALONE = 1e-5  # relative, or a few times what float32 rounds: matrix products sum in another order
SOME = 200  # rows in a batch
OUTLIER = 1e30


# Batches ------------------------------------------------------------------------------------------------------------


def batches(s: Subject) -> Iterator[Line]:
    """Scores of rows alone, in other batches and in another order; beside an outlier, a NaN, a missing cell; twice."""
    x, score = torch.from_numpy(s.x[:SOME]), s.density.log_prob
    scores = score(x)
    order = torch.randperm(len(x), generator=s.generator(7))
    errors = torch.zeros_like(scores)
    errors[order] = relative(score(x[order]), scores[order])
    errors = torch.maximum(errors, relative(torch.cat([score(part) for part in x.split(7)]), scores))
    errors[:10] = torch.maximum(errors[:10], relative(torch.cat([score(row[None]) for row in x[:10]]), scores[:10]))
    rounding = float(relative(scores, s.wide.log_prob(x)).max())
    yield worst("rows do not depend on their batch", errors, max(ALONE, 4 * rounding), lambda i: f"row {i + 1}")
    spoiled = x.clone()
    spoiled[0, [i for i, _ in s.density.layout.smooth]] = OUTLIER
    yield (
        _others("an outlier leaves the other rows alone", score(spoiled), scores)
        if s.numbers
        else skip("an outlier leaves the other rows alone", NO_NUMBERS)
    )
    yield _beside_nan(s)
    holed = s.model.log_prob(_with_hole(s.table[:SOME], s.model.schema.row_columns[0].name))
    fine = np.isnan(holed[0]) and np.array_equal(holed[1:], s.model.log_prob(s.table[1:SOME]), equal_nan=True)
    yield flag("a missing cell leaves the other rows alone", not fine)
    twice = [drawn(s.model, s.given, SOME, s.seed) for _ in range(2)]
    yield flag("the same again: scores", not torch.equal(score(x), scores))
    yield flag("the same seed again: draws", not twice[0].equals(twice[1]))


def _others(name: str, found: torch.Tensor, expected: torch.Tensor) -> Line:
    """Bit for bit in all rows but the first, which may be anything but NaN."""
    differ = (found != expected).double()
    differ[0] = float(found[0].isnan())
    return worst(name, differ, 0.0, lambda i: f"row {i + 1}" if differ[i] else "")


@torch.no_grad()
def _beside_nan(s: Subject) -> Line:
    """In the flow of the numbers, whose door lets no NaN pass."""
    name = "a NaN leaves the other rows alone"
    if not s.numbers:
        return skip(name, NO_NUMBERS)
    u, context = s.units[:SOME].clone(), s.context(s.features[:SOME])
    spoiled = u.clone()
    spoiled[0] = torch.nan
    scores = []
    for rows in (u, spoiled):
        z, log_det = s.flow.transform(rows, context)
        scores.append(s.flow.base(z, context) + log_det)
    return _others(name, torch.cat([scores[0][:1], scores[1][1:]]), scores[0])


def _with_hole(table: pa.Table, name: str) -> pa.Table:
    """The table with its first cell of a column left empty."""
    cells, kind = table[name], table.schema.field(name).type
    hole = pa.chunked_array([pa.nulls(1, kind), *cells.slice(1).chunks], kind)
    return table.set_column(table.column_names.index(name), pa.field(name, kind), hole)


# Supports -----------------------------------------------------------------------------------------------------------


def supports(s: Subject) -> Iterator[Line]:
    """Rows of the data are finite where they are possible, else -inf; rows that are made impossible are -inf."""
    rows = s.rows
    inside = rows.possible & (s.wide_units(s.places)[1] > -torch.inf) if s.numbers else rows.possible
    found = s.density.log_prob(torch.from_numpy(s.x))
    wrong = torch.where(inside, ~found.isfinite(), found != -torch.inf).double()
    yield worst(
        "scores are finite, or -inf outside the support", wrong, 0.0, lambda i: f"row {i + 1}" if wrong[i] else ""
    )
    made = [(i, value) for i, column in enumerate(s.model.schema.columns) for value in _impossible(s, i, column)]
    name = "impossible rows are -inf"
    if not made:
        yield skip(name, "every row is possible")
        return
    x = np.repeat(s.x[:1], len(made), 0)
    for row, (i, value) in zip(x, made, strict=True):
        row[i] = value
    wrong = (s.density.log_prob(torch.from_numpy(x)) != -torch.inf).double()
    names = [f"column {s.model.schema.columns[i].name} at {value:g}" for i, value in made]
    yield worst(name, wrong, 0.0, lambda i: names[i] if wrong[i] else "")


def _impossible(s: Subject, i: int, column: Column) -> list[float]:
    """Encoded values that a column of the row can never have."""
    if column.role == "given":
        return []
    if column.coded:
        return [-1.0, float(len(column.levels)), 0.5]
    if column.discrete:
        assert column.grid is not None
        return [float(column.levels[0]) + 0.4 * (float(column.levels[1]) - float(column.levels[0]))]
    place = next((j for j, (k, _) in enumerate(s.density.layout.smooth) if k == i), None)
    if place is None:
        return []
    unit = s.model.card.plan.units[place]
    if unit.scale == "logit":
        low, high = unit.bounds
        return [2 * low - high, 2 * high - low]
    step = 0.0 if column.grid is None else column.grid.step
    return [-float(np.abs(s.x[:, i]).max()) - 100 * step] if unit.scale == "log" else []


# Frames and files ---------------------------------------------------------------------------------------------------


def frames(s: Subject) -> Iterator[Line]:
    """What is drawn can be read again and scored; decode is the inverse of encode; a saved model is the model."""
    table = drawn(s.model, s.given, ROWS, s.seed + 1)
    scores = torch.from_numpy(s.model.log_prob(table))
    wrong = (~scores.isfinite()).double()
    yield worst("draws can be scored", wrong, 0.0, lambda i: f"draw {i + 1}" if wrong[i] else "")
    for what, rows in (("draws", table), ("rows", s.table)):
        bad = next(
            (c.name for c, fine in zip(s.model.schema.columns, _come_back(s, rows), strict=True) if not fine), None
        )
        yield flag(f"{what} encoded come back decoded", bad is not None, f"column {bad}")
    with tempfile.TemporaryDirectory() as folder:
        copy.copy(s.model).save(Path(folder) / "model")
        loaded = type(s.model).load(Path(folder) / "model")
    fine = np.array_equal(loaded.log_prob(s.table), s.model.log_prob(s.table), equal_nan=True)
    fine &= loaded.schema == s.model.schema and drawn(loaded, s.given, SOME, s.seed).equals(
        drawn(s.model, s.given, SOME, s.seed)
    )
    yield flag("saved and loaded it is the same", not fine)


def _come_back(s: Subject, table: pa.Table) -> list[bool]:
    """Whether each column's cells are what they were, those left aside that lie off the grid of their column: in
    the types of the schema cell by cell, in others as they are encoded."""
    schema = s.model.schema
    x = schema.encode(table)
    back = schema.decode(x)
    again, found = schema.encode(back), []
    for i, column in enumerate(schema.columns):
        on = np.ones(len(x), bool)
        if column.grid is not None and not column.coded:
            on = np.abs(x[:, i] - column.grid.snap(x[:, i])) <= 1e-9 * np.abs(x[:, i])
            on |= np.isin(x[:, i], column.atoms)
        fine = np.array_equal(again[on, i], x[on, i], equal_nan=True)
        before = plain(table.select([column.name]))[column.name]
        if before.type == parse_type(column.type):
            some = pa.array(on)
            fine &= whole(before).filter(some).equals(whole(back[column.name]).filter(some))
        found.append(bool(fine))
    return found
