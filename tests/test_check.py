"""The check of a fitted model: a healthy one passes, and every sabotage is caught where it should be."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from diffeo.bases import Base
from diffeo.check import Line, Report, check_lines, check_model
from diffeo.check.behaviour import batches, frames, supports
from diffeo.check.draws import drawn_by_the_density
from diffeo.check.lines import most_errors, worst
from diffeo.check.mass import integrals
from diffeo.check.slopes import differences, log_dets, sums
from diffeo.check.stairs import far_out, returns
from diffeo.check.subject import Subject
from diffeo.config import FitConfig
from diffeo.errors import DataError
from diffeo.flow import Flow
from diffeo.masses import Masses
from diffeo.mixed import Mixed
from diffeo.model import Model
from diffeo.recipes import RECIPES
from diffeo.transforms import Transform

Sabotage = Callable[[Mixed], None]


def columns(n: int = 300) -> dict[str, Any]:
    """Two numbers, one with a logarithm and one with a spike, a direction, a category, an integer."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=n)
    return {
        "a": a,
        "price": np.exp(0.5 * a + rng.normal(size=n)),
        "rain": np.where(rng.random(n) < 0.3, 0.0, rng.gamma(2.0, size=n)),
        "direction": 360 * rng.random(n),
        "kind": list(rng.choice(["red", "green", "blue"], n)),
        "size": rng.integers(0, 5, n),
    }


def fitted(names: tuple[str, ...], **options: Any) -> Model:
    usual = {"epochs": 2, "hidden": 8, "components": 3} | (
        {"layers": 2} if options.get("recipe", "auto") != "auto" else {}
    )
    config = FitConfig.read(**usual | options)
    return Model.fit({name: cells for name, cells in columns().items() if name in names}, config=config)


@pytest.fixture(scope="module")
def whole() -> Model:
    return fitted(tuple(columns()))


@pytest.fixture(scope="module")
def layered() -> Model:
    return fitted(("a", "price"), recipe="spline-coupling")


@pytest.fixture(autouse=True)
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer draws and rows than in earnest; false alarms are as rare."""
    for module in ("subject", "mass", "draws"):
        monkeypatch.setattr(f"diffeo.check.{module}.DRAWS", 5000)
    for module in ("subject", "behaviour"):
        monkeypatch.setattr(f"diffeo.check.{module}.ROWS", 200)


# Health -------------------------------------------------------------------------------------------------------------


COSTLY = ("cdf", "neural-autoregressive", "gaussianization", "ffjord", "flow-matching")  # roots, or many steps


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=pytest.mark.slow) if name in COSTLY else name for name in RECIPES]
)
def test_healthy_models_pass(recipe: str) -> None:
    beside = ("kind",) if RECIPES[recipe].conditional else ()
    report = check_model(fitted(("a", "price", *beside), recipe=recipe), seed=1)
    assert report.ok, f"\n{report}"
    assert not beside or {row.name for row in report.rows if row.skipped} <= {  # type: ignore[attr-defined]
        *("angles through their flow and back", "log-det of the angles", "angles integrate to 1"),
        *(() if recipe != "auto" else ("numbers through the flow and back", "noise through the flow and back")),
        "log-det of the flow" if recipe == "auto" else "the last number, given the others, does",
    }


def test_auto_with_layers_passes() -> None:
    report = check_model(fitted(("a", "price", "kind"), layers=2), seed=1)
    assert report.ok, f"\n{report}"
    assert not next(row for row in report.rows if row.name == "log-det of the flow").skipped  # type: ignore[attr-defined]


def test_every_kind_of_column_passes(whole: Model) -> None:
    before = torch.get_rng_state()
    report = check_model(whole, columns())
    assert report.ok, f"\n{report}"
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(report, Report)
    assert str(report) == str(check_model(whole, columns()))
    assert str(report) != str(check_model(whole, columns(), seed=1))


def test_given_columns_are_taken_from_the_data_or_made_up() -> None:
    model = fitted(("a", "price", "kind"), given=("a", "kind"))
    for data in (columns(), None):
        rows = None if data is None else {name: data[name] for name in ("a", "price", "kind")}
        report = check_model(model, rows)
        assert report.ok, f"\n{report}"


def test_rows_with_holes_are_left_out(layered: Model) -> None:
    data = {name: columns()[name] for name in ("a", "price")}
    data["a"][::2] = np.nan
    assert Subject.of(layered, data, 0).table.num_rows == 150
    data["a"][:] = np.nan
    with pytest.raises(DataError, match="every row of the data has a missing cell"):
        check_model(layered, data)
    with pytest.raises(DataError, match="'price' is missing"):
        check_model(layered, {"a": [1.0]})


# Sabotage -----------------------------------------------------------------------------------------------------------


class Bent(Transform):
    """A transform with something wrong."""

    def __init__(self, inner: Transform, **wrong: Callable[..., Any]) -> None:
        super().__init__()
        self.inner, self.wrong, self.context_features = inner, wrong, inner.context_features

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        moved = self.inner(x, context)
        return self.wrong["forward"](*moved) if "forward" in self.wrong else moved

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        moved = self.inner.inverse(z, context)
        return self.wrong["inverse"](*moved) if "inverse" in self.wrong else moved


class Off(Base):
    """A base whose log-density or sampler is wrong."""

    def __init__(self, inner: Any, more: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.inner, self.more, self.scale, self.event_shape = inner, more, scale, inner.event_shape
        self.context_features = inner.context_features

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.inner(z, context) + self.more

    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        return self.scale * self.inner.sample(n, context, generator)

    def to_normal(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.inner.to_normal(z, context)


class Loud(Flow):
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().log_prob(x, context) + 0.1


class Heavy(Masses):
    def _column(self, j: int, logits: Tensor, codes: Tensor) -> Tensor:
        return super()._column(j, logits, codes) + 0.01


class Shifted(Masses):
    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        return (super().sample(n, context, generator) + 1).remainder(torch.tensor(self.sizes))


class Narrow(Mixed):
    def sample_given(self, rows: Any, generator: torch.Generator | None = None) -> np.ndarray:
        x = super().sample_given(rows, generator)
        x[:, 0] *= 0.8
        return x


class Restless(Mixed):
    def sample_given(self, rows: Any, generator: torch.Generator | None = None) -> np.ndarray:
        return super().sample_given(rows, None)


class Larger(Mixed):
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().log_prob(x, context) + 0.1


def bend_units(**wrong: Callable[..., Any]) -> Sabotage:
    def act(density: Mixed) -> None:
        density.units = Bent(density.units, **wrong)  # type: ignore[assignment, arg-type]

    return act


def bend_flow(**wrong: Callable[..., Any]) -> Sabotage:
    def act(density: Mixed) -> None:
        density.rest.transform = Bent(density.rest.transform, **wrong)  # type: ignore[union-attr, arg-type]

    return act


def change_base(**wrong: float) -> Sabotage:
    def act(density: Mixed) -> None:
        density.rest.base = Off(density.rest.base, **wrong)  # type: ignore[union-attr]

    return act


def become(part: str, kind: type) -> Sabotage:
    def act(density: Mixed) -> None:
        (getattr(density, part) if part else density).__class__ = kind

    return act


def open_masks(density: Mixed) -> None:
    """Every code sees itself and those after it."""
    with torch.no_grad():
        for module in density.masses.net.modules():  # type: ignore[union-attr]
            if hasattr(module, "mask"):
                module.mask.fill_(1.0)
        density.masses.net.last.weight.normal_(generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr]


def forget_slopes(density: Mixed) -> None:
    """An atom's free place is filled with noise whose density is divided out; not by the slope of the units."""
    density.slopes.add_(0.2)


def unfit(density: Mixed) -> None:
    with torch.no_grad():
        for parameter in density.parameters():
            parameter.fill_(torch.nan)


def mean_less(z: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
    return z - 0.1 * z.mean(0), log_det


UNITS, LEVELS = "numbers through their units and back", "levels of draws: mean, spread, correlation"
BATCH, SUM = "rows do not depend on their batch", "a row's log-density is the sum of its factors"
CASES: dict[str, tuple[str, Sabotage, Any, set[str]]] = {
    "units, sign of the log-det": (
        "whole",
        bend_units(forward=lambda z, d: (z, -d)),
        log_dets,
        {"log-det of the units"},
    ),
    "units, term dropped": (
        "whole",
        bend_units(forward=lambda z, d: (z, d + 0.01)),
        log_dets,
        {"log-det of the units"},
    ),
    "units, the sum": ("whole", bend_units(forward=lambda z, d: (z, d + 0.1)), sums, {SUM}),
    "units, inverse": ("whole", bend_units(inverse=lambda x, d: (x + 1e-3, d)), returns, {UNITS}),
    "units, support": (
        "whole",
        bend_units(forward=lambda z, d: (z, d.clamp(min=-50))),
        supports,
        {"impossible rows are -inf"},
    ),
    "flow, inverse": (
        "layered",
        bend_flow(inverse=lambda x, d: (x + 1e-3, d)),
        returns,
        {"numbers through the flow and back", "noise through the flow and back"},
    ),
    "flow, log-det": ("layered", bend_flow(forward=lambda z, d: (z, 1.01 * d)), log_dets, {"log-det of the flow"}),
    "flow, way back": ("layered", bend_flow(inverse=lambda x, d: (x, -d)), log_dets, {"log-det of the flow"}),
    "flow, batch": ("layered", bend_flow(forward=mean_less), batches, {BATCH}),
    "flow, far out": (
        "layered",
        bend_flow(forward=lambda z, d: (z, torch.where(z.abs().amax(1) > 1e5, torch.inf, d))),
        far_out,
        {"finite to 1e+06 spreads"},
    ),
    "base, constant": ("whole", change_base(more=0.1), log_dets, {"log-density of the base, by its levels"}),
    "base, integral": ("layered", change_base(more=0.1), integrals, {"numbers integrate to 1"}),
    "base, the last": ("whole", change_base(more=0.1), integrals, {"the last number, given the others, does"}),
    "base, sampler": ("whole", change_base(scale=0.9), drawn_by_the_density, {LEVELS}),
    "flow, constant": ("layered", become("rest", Loud), integrals, {"numbers integrate to 1"}),
    "flow, constant in the sum": ("layered", become("rest", Loud), sums, {SUM}),
    "flow, constant not saved": ("layered", become("rest", Loud), frames, {"saved and loaded it is the same"}),
    "masses, too much": ("whole", become("masses", Heavy), integrals, {"masses sum to 1"}),
    "masses, leak": ("whole", open_masks, integrals, {"masses sum to 1"}),
    "masses, sampler": (
        "whole",
        become("masses", Shifted),
        drawn_by_the_density,
        {"drawn codes: frequencies of levels", "drawn codes against their log-probability"},
    ),
    "atoms, slope": ("whole", forget_slopes, sums, {SUM}),
    "rows, sampler": ("whole", become("", Narrow), drawn_by_the_density, {LEVELS}),
    "rows, no seed": ("whole", become("", Restless), batches, {"the same seed again: draws"}),
    "rows, constant": ("whole", become("", Larger), sums, {SUM}),
}


def lines_of(group: Callable[[Subject], Iterator[Line]], model: Model, data: Any) -> list[Line]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return list(group(Subject.of(model, data, 0)))


@pytest.mark.parametrize("case", CASES)
def test_sabotage_is_caught_where_it_should(case: str, request: pytest.FixtureRequest) -> None:
    which, sabotage, group, expected = CASES[case]
    healthy: Model = request.getfixturevalue(which)
    data = {name: cells for name, cells in columns().items() if name in healthy.schema.names}
    sound = lines_of(group, healthy, data)
    assert all(line.passed for line in sound), "\n".join(map(str, sound))
    model = copy.copy(healthy)
    model.density = copy.deepcopy(healthy.density)
    sabotage(model.density)
    lines = lines_of(group, model, data)
    failed = {line.name for line in lines if not line.passed}
    assert expected <= failed, "\n".join(map(str, lines))
    assert all(
        line.place for line in lines if line.name in expected - {"saved and loaded it is the same", *SAYS_NO_PLACE}
    )


SAYS_NO_PLACE = {"log-det of the units", "log-det of the flow", "the same seed again: draws", "finite to 1e+06 spreads"}


def test_a_model_of_nans_fails_and_does_not_raise(whole: Model) -> None:
    model = copy.copy(whole)
    model.density = copy.deepcopy(whole.density)
    unfit(model.density)
    for data in (columns(), None):
        report = check_model(model, data)
        assert not report.ok
        assert all("\n" not in str(row) for row in report.rows)


def test_rows_off_their_grid_are_no_fault_of_the_model() -> None:
    rounded = np.round(columns()["a"], 1)
    model = Model.fit({"x": rounded, "y": columns()["price"]}, config=FitConfig(epochs=1, hidden=8, components=1))
    assert model.schema["x"].grid is not None
    other = {"x": rounded + 0.03, "y": columns()["price"]}
    lines = lines_of(frames, model, other)
    assert all(line.passed for line in lines), "\n".join(map(str, lines))


# Lines and tools ----------------------------------------------------------------------------------------------------


def test_lines() -> None:
    assert not Line("a", float("nan"), 1.0).passed
    assert Line("a", 2.0, 1.0, skipped="no numbers").passed
    assert str(Line("a", 2.0, 1.0, "row 3")).startswith("FAIL")
    assert worst("a", torch.tensor([1.0, torch.nan, 3.0]), 5.0, str).place == "1"
    assert worst("a", torch.zeros(0), 1.0).outcome == "skipped"
    assert most_errors(1) < most_errors(100) < 6


def test_differences_are_derivatives() -> None:
    z = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = differences(lambda z: torch.stack([z[:, 0].sinh() * 1e4, z[:, 0] * z[:, 1] + z[:, 1] * 1e-2], 1), z)
    expected = torch.zeros(5, 2, 2, dtype=torch.float64)
    expected[:, 0, 0], expected[:, 1, 0], expected[:, 1, 1] = z[:, 0].cosh() * 1e4, z[:, 1], z[:, 0] + 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def test_lines_come_as_they_are_found(layered: Model) -> None:
    first = next(check_lines(layered))
    assert first.name == UNITS


def test_data_of_another_type_is_read_as_the_schema_has_it(layered: Model) -> None:
    data = pa.table({"a": pa.array([1, 2, 3], pa.int64()), "price": pa.array([1.0, 2.0, 5.0], pa.float32())})
    assert all(line.passed for line in lines_of(frames, layered, data))
