"""Columns of every kind with values to go with them, and densities over them whose nets do something."""

from collections.abc import Sequence

import numpy as np
import torch

from diffeo.data.column import Column
from diffeo.data.grid import WARPS, Grid
from diffeo.data.schema import Schema
from diffeo.mixed import Mixed
from diffeo.recipes import Plan, build
from diffeo.rows import Layout
from diffeo.units import Unit, fit_units

CATEGORY = Column(name="category", kind="category", type="string", levels=("a", "b", "c"))
BOOLEAN = Column(name="boolean", kind="boolean", type="bool", levels=(False, True))
ORDERED = Column(name="ordered", kind="ordered", type="string", levels=("low", "mid", "high"))
INTEGER = Column(name="integer", kind="integer", type="int64", levels=(2.0, 3.0, 4.0, 5.0), grid=Grid(step=1.0))
SHUT = Column(name="shut", kind="integer", type="int64", levels=(0.0, 1.0), grid=Grid(step=1.0))
INVERSE = Column(
    name="inverse", kind="integer", type="double", levels=(1 / 8, 1 / 7, 1 / 6), grid=Grid(step=1.0, warp="reciprocal")
)
CONTINUOUS = Column(name="continuous", kind="continuous", type="double")
POSITIVE = Column(name="positive", kind="positive", type="double", positive=True)
UNIT = Column(name="unit", kind="unit", type="double", bounds=(0.0, 1.0))
BOUNDED = Column(name="bounded", kind="bounded", type="double", bounds=(-2.0, 5.0))
CIRCULAR = Column(name="circular", kind="circular", type="double", period=(-180.0, 360.0))
ROUNDED = Column(name="rounded", kind="rounded", type="double", grid=Grid(step=0.5, offset=0.25, digits=2))
COUNTS = Column(name="counts", kind="rounded", type="int64", grid=Grid(step=1.0, digits=0), positive=True)
MOMENTS = Column(name="moments", kind="datetime", type="timestamp[s]", grid=Grid(step=3600.0))
SPIKED = Column(name="spiked", kind="continuous", type="double", atoms=(0.0,))
RAIN = Column(name="rain", kind="positive", type="double", atoms=(0.0, 7.0), positive=True)
WARPED = {
    warp: Column(name=warp, kind="rounded", type="double", grid=Grid(step=0.5, warp=warp))
    for warp in WARPS
    if warp != "identity"
}
ALL = (
    CATEGORY, BOOLEAN, ORDERED, INTEGER, SHUT, INVERSE, CONTINUOUS, POSITIVE, UNIT, BOUNDED, CIRCULAR, ROUNDED, COUNTS,
    MOMENTS, SPIKED, RAIN, *WARPED.values(),
)  # fmt: skip


def values(column: Column, n: int, seed: int = 0) -> np.ndarray:
    """Encoded values [n] such as the column might hold."""
    rng = np.random.default_rng(seed)
    if column.coded:
        return rng.integers(0, len(column.levels), n).astype(float)
    if column.discrete:
        return rng.choice(np.array(column.levels, float), n)
    if column.kind == "circular" and column.period is not None:
        return column.period[0] + column.period[1] * rng.random(n)
    if column.bounds is not None:
        return column.bounds[0] + (column.bounds[1] - column.bounds[0]) * rng.beta(2, 3, n)
    if column.grid is not None and column.grid.warp != "identity":
        return column.grid.value(np.rint(60 * np.exp(0.3 * rng.normal(size=n))))
    if column.kind == "datetime" and column.grid is not None:
        return column.grid.snap(1e6 + 4e4 * rng.normal(size=n))
    if column.positive:
        x = 5 * np.exp(0.5 * rng.normal(size=n))
        x = column.grid.snap(x + 1) if column.grid is not None else x
    else:
        x = 3 + 2 * rng.normal(size=n)
        x = column.grid.snap(x) if column.grid is not None else x
    which = rng.integers(0, 3 * len(column.atoms) + 1, n)
    return np.select([which == k for k in range(len(column.atoms))], column.atoms, x) if column.atoms else x


def scaled(column: Column, scale: float) -> Column:
    """The same column in other units of the file."""
    grid = column.grid
    if grid is not None and scale != 1:
        grid = grid.model_copy(update={"step": scale * grid.step, "offset": scale * grid.offset, "digits": None})
    bounds = None if column.bounds is None else (scale * column.bounds[0], scale * column.bounds[1])
    atoms = tuple(scale * atom for atom in column.atoms)
    return column.model_copy(update={"grid": grid, "bounds": bounds, "atoms": atoms})


def unit(column: Column) -> Unit:
    """How the values of a column are brought to unit spread."""
    if column.bounds is not None:
        return Unit("logit", column.bounds)
    above_zero = column.positive or column.name == "reciprocal"
    return Unit("log" if above_zero else "linear", bent=column.name == "continuous")


def density(
    columns: Sequence[Column],
    recipe: str = "auto",
    size: float = 0.2,
    scale: float = 1.0,
    n: int = 400,
    members: int = 1,
) -> tuple[Mixed, np.ndarray]:
    """A density of such columns with random nets, and the encoded rows that its units were fitted to; `scale`: of
    every number and its bounds and grid."""
    x = scale * np.stack([values(column, n, seed) for seed, column in enumerate(columns)], 1)
    layout = Layout(Schema(columns=tuple(scaled(column, scale) for column in columns)))
    rows = layout.rows(x)
    assert rows.possible.all()
    chosen = [unit(column) for _, column in layout.smooth]
    given = [Unit.choose(column) for column in rows.given_numbers.numpy().T]
    plan = Plan(
        recipe=recipe, components=3, layers=0 if recipe == "auto" else 2, hidden=(16, 16), bins=4, dropout=0.0,
        start_rows=1, members=members,
        units=tuple(chosen), given_units=tuple(given),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = build(plan, layout)
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.add_(size * torch.randn(parameter.shape))
    if built.units is not None:
        built.units.load_state_dict(fit_units(chosen, rows.low + 0.5 * rows.width, ~rows.atom).state_dict())
        built.set_slopes()
    if built.given_units is not None:
        everywhere = torch.ones_like(rows.given_numbers, dtype=torch.bool)
        built.given_units.load_state_dict(fit_units(given, rows.given_numbers, everywhere).state_dict())
    if built.masses is not None:
        built.masses.start(rows.codes, torch.ones(n))
    return built.eval(), x


def log_probs(built: Mixed, x: np.ndarray) -> np.ndarray:
    """Of encoded rows x [n, D]: float64 [n]."""
    return built.log_prob(torch.from_numpy(np.asarray(x, float))).numpy()
