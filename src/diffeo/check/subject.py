"""What a check is made on: a model, rows of it, and a copy in float64 that derivatives are taken of."""

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from diffeo.data.column import Column
from diffeo.data.embedded import path_of
from diffeo.data.files import read
from diffeo.data.frames import to_table
from diffeo.errors import DataError, ModelError
from diffeo.flow import Flow
from diffeo.mixed import Mixed
from diffeo.rows import Rows
from diffeo.transforms import Chain

if TYPE_CHECKING:
    from diffeo.model import Model

__all__ = ["DRAWS", "PLACES", "ROWS", "Subject", "relative"]

ROWS = 1000  # rows that a check looks at
DRAWS = 20_000  # rows that it draws from each factor of the density
PLACES = 3  # rows whose codes, angles and given columns those of the numbers are conditioned on


@dataclass(frozen=True)
class Subject:
    """A model and the rows to check it on: `table` without missing cells and `x` [n, D], the same encoded; `source`
    says where they come from."""

    model: "Model"
    table: pa.Table
    x: np.ndarray
    source: str
    seed: int

    @classmethod
    def of(cls, model: "Model", data: Any, seed: int) -> "Subject":
        """On at most ROWS rows of data, or on rows drawn from the model. Raises DataError where the data does not fit
        the schema or all rows have holes, ModelError where what the model draws cannot be read again."""
        rng = np.random.default_rng(seed)
        if data is None:
            table = drawn(model, _made_up(model, rng), ROWS, seed)
            source = "rows drawn from the model"
        elif isinstance(data, str | Path):
            table = read(path_of(str(data)), types=model.schema.types)
            source = Path(data).name
        else:
            table, source = to_table(data)[0], f"a {type(data).__name__}"
        x = model.schema.encode(table)
        whole = np.flatnonzero(~np.isnan(x).any(1))
        if not len(whole):
            raise (
                ModelError("all rows drawn have cells that are no numbers")
                if data is None
                else DataError("every row of the data has a missing cell; a check needs rows without")
            )
        some = np.sort(rng.permutation(whole)[:ROWS])
        return cls(model, table.take(pa.array(some)), x[some], source, seed)

    @property
    def given(self) -> pa.Table | None:
        """The given columns of the rows; None where nothing is given."""
        names = [column.name for column in self.model.schema.given_columns]
        return self.table.select(names) if names else None

    @property
    def density(self) -> Mixed:
        return self.model.density

    @cached_property
    def wide(self) -> Mixed:
        """The density in float64."""
        return copy.deepcopy(self.density).double()

    @cached_property
    def rows(self) -> Rows:
        return self.density.layout.rows(self.x)

    @property
    def numbers(self) -> list[Column]:
        """The columns that the flow is of."""
        return [column for _, column in self.density.layout.smooth]

    @property
    def coded(self) -> list[str]:
        """The names of the columns that the masses are of, those with atoms last."""
        return [column.name for _, column in self.density.layout.discrete + self.density.layout.spiked]

    @property
    def angles(self) -> list[Column]:
        return [column for _, column in self.density.layout.angular]

    @property
    def flow(self) -> Flow:
        """The flow of the numbers; only where there are numbers."""
        assert self.density.rest is not None
        return self.density.rest

    @property
    def wide_flow(self) -> Flow:
        assert self.wide.rest is not None
        return self.wide.rest

    @property
    def wide_units(self) -> Chain:
        assert self.wide.units is not None
        return self.wide.units

    @property
    def angle_flows(self) -> list[Flow]:
        return cast(list[Flow], list(self.density.angles))

    @property
    def wide_angle_flows(self) -> list[Flow]:
        return cast(list[Flow], list(self.wide.angles))

    @property
    def layered(self) -> bool:
        """Whether the flow of the numbers moves them at all."""
        return bool(self.numbers) and not (isinstance(self.flow.transform, Chain) and len(self.flow.transform) == 0)

    @cached_property
    def places(self) -> Tensor:
        """The numbers [n, d], float64: in the middle of their cells, and of the units where there is an atom."""
        middle = self.rows.low + 0.5 * self.rows.width
        return torch.where(self.rows.atom, self.density.middle(), middle) if self.numbers else middle

    @cached_property
    def units(self) -> Tensor:
        """The numbers in unit spread [n, d], at random in the free places, of the rows that are possible; where none
        is finite there, no rows."""
        return self.density.numbers(self.rows, self.noise)[0].detach()

    @cached_property
    def noise(self) -> Tensor:
        """One point of each free place, [n, d] in (0, 1)."""
        shape = (len(self.x), len(self.numbers))
        return torch.rand(shape, generator=self.generator(), dtype=torch.float64)

    @cached_property
    def features(self) -> Tensor:
        """What each row's numbers are given, [n, c]."""
        return self.density.features(self.rows).detach()

    @cached_property
    def draws(self) -> list[tuple[Tensor | None, Tensor]]:
        """Draws of the numbers in unit spread, about DRAWS in all, given what each of PLACES rows has before its
        numbers: (context [1, c], draws [n, d]) a row; or, if nothing stands before them, of the numbers alone."""
        context = self.context(self.features[:PLACES])
        if context is None:
            return [(None, self.flow.sample(DRAWS, None, self.generator(2)))]
        draws = self.flow.sample(DRAWS // len(context), context, self.generator(2))
        return [(context[i : i + 1], draws[:, i]) for i in range(len(context))]

    def context(self, features: Tensor) -> Tensor | None:
        """What the flow of the numbers takes of features [n, c]."""
        return features if features.shape[1] else None

    def angle_contexts(self, features: Tensor) -> list[Tensor | None]:
        """What the flow of each angle takes of features [n, c]."""
        return [features[:, :width] if width else None for width in self.density.context_widths(self.density.layout)[1]]

    def code_context(self, features: Tensor) -> Tensor | None:
        """What the masses take of features [n, c]."""
        width = self.density.context_widths(self.density.layout)[0]
        return features[:, :width] if width else None

    def generator(self, more: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * self.seed + more)

    def few(self, n: int) -> "Subject":
        """The same on the first n rows."""
        return replace(self, table=self.table.slice(0, n), x=self.x[:n])


def drawn(model: "Model", given: pa.Table | None, n: int, seed: int) -> pa.Table:
    """n rows drawn from a model, one for each row of `given` in turn."""
    return pa.concat_tables(model.samples(n, given=given, seed=seed))


def _made_up(model: "Model", rng: np.random.Generator) -> pa.Table | None:
    """Rows of the given columns, evenly from their levels and ranges; None where nothing is given."""
    columns = model.schema.given_columns
    if not columns:
        return None
    x = np.stack([_evenly(column, rng) for column in columns], 1)
    return model.schema.decode(x, columns)


def _evenly(column: Column, rng: np.random.Generator) -> np.ndarray:
    """Encoded values [ROWS] of one column."""
    if column.discrete:
        return column.values(rng.integers(0, len(column.levels), ROWS))
    if column.kind == "circular":
        return column.turn[0] + column.turn[1] * rng.random(ROWS)
    low, high = (column.low, column.high) if column.low is not None else column.bounds or (0.0, 1.0)
    return low + ((low if high is None else high) - low) * rng.random(ROWS)


def relative(a: Tensor, b: Tensor) -> Tensor:
    """|a - b| / max(1, |b|), elementwise; 0 where both are equal, infinite ones too."""
    gap = (a.double() - b.double()).abs() / b.double().abs().clamp(min=1)
    return torch.where(a == b, 0.0, gap)
