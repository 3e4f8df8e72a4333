"""Units: the choices that columns ask for, spreads near one whatever the scale, and Jacobians that go with them."""

import warnings

import numpy as np
import pytest
import torch

from diffeo.contract import check_transform
from diffeo.units import Unit, fit_units, units

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=2000)
SHAPES = {
    "normal": (NORMAL, False, Unit()),
    "normal far above zero": (1000 + NORMAL, True, None),
    "lognormal": (np.exp(NORMAL), True, Unit("log")),
    "lognormal that may be negative": (np.exp(0.5 * NORMAL), False, Unit()),
    "cauchy": (RNG.standard_cauchy(2000), False, Unit(bent=True)),
    "few of a cauchy": (RNG.standard_cauchy(200), False, Unit()),
    "log of a cauchy": (np.exp(RNG.standard_cauchy(2000).clip(-300, 300)), True, Unit("log", bent=True)),
    "outlier": (np.append(NORMAL, [1e20] * 3), False, Unit(bent=True)),
    "nearly constant": (np.append(np.full(1999, 3.0), 4.0), False, None),
    "constant": (np.full(2000, 3.0), True, Unit()),
    "uniform": (RNG.random(2000), True, Unit()),
    "two values": (RNG.integers(0, 2, 2000).astype(float), False, Unit()),
    "one row": (np.array([2.0]), True, Unit()),
}
SCALES = (1.0, 1e-6, 1e6)


@pytest.mark.parametrize(("x", "positive", "expected"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("scale", SCALES)
def test_choices(x: np.ndarray, positive: bool, expected: Unit | None, scale: float) -> None:
    """They follow the shape, not the scale."""
    found = Unit.choose(scale * x, positive)
    assert expected is None or found == expected
    assert found == Unit.choose(x, positive)
    assert Unit.choose(x, True, (-1e30, 1e30)) == Unit("logit", (-1e30, 1e30))


@pytest.mark.parametrize(("x", "positive", "expected"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("scale", SCALES)
def test_everything_comes_to_unit_spread(x: np.ndarray, positive: bool, expected: Unit | None, scale: float) -> None:
    rows = torch.from_numpy(scale * x[:, None])
    chain = fit_units([Unit.choose(scale * x, positive)], rows, torch.ones_like(rows, dtype=torch.bool))
    z, log_det = chain(rows)
    assert z.dtype == torch.float32
    assert z.isfinite().all()
    assert log_det.isfinite().all()
    low, middle, high = np.quantile(z.numpy(), [0.25, 0.5, 0.75])
    assert abs(middle) < 1e-3
    assert high == low or 0.5 < (high - low) / 1.349 < 2
    back = chain.inverse(z)[0]
    assert (back - rows).abs().max() <= 1e-3 * rows.abs().max()  # float32 in between, perhaps under a logarithm


def test_seconds_since_1970() -> None:
    """A day of moments a second apart, 1.7e9 s from zero, keeps its seconds."""
    rows = 1.7e9 + torch.arange(86_400, dtype=torch.float64)[:, None]
    chain = fit_units([Unit.choose(rows[:, 0].numpy(), positive=True)], rows, torch.ones_like(rows, dtype=torch.bool))
    z, _ = chain(rows)
    assert z.abs().max() < 3
    assert (chain.inverse(z)[0] - rows).abs().max() < 0.1


@pytest.mark.parametrize(
    "chosen",
    [[Unit(), Unit("log")], [Unit("logit", (-2.0, 5.0)), Unit(bent=True)], [Unit("log", bent=True), Unit("logit")]],
)
def test_are_a_transform(chosen: list[Unit]) -> None:
    """Round trip, log_det against autograd's Jacobian, dtypes, copies; on values within all supports."""
    x = 0.05 + 0.9 * torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    chain = fit_units(chosen, x.double(), torch.ones_like(x, dtype=torch.bool))
    report = check_transform(chain, event_shape=(2,), inputs=x[:40], dtype=torch.float32)
    assert report.ok, f"\n{report}"


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("unit", [Unit(), Unit("log"), Unit(bent=True), Unit("log", bent=True), Unit("logit", (0, 9))])
def test_densities_go_with_the_scale(unit: Unit, scale: float) -> None:
    """z stays, log_det falls by log(scale)."""
    x = torch.from_numpy(np.exp(0.5 * RNG.normal(size=(500, 1))))
    there = torch.ones_like(x, dtype=torch.bool)
    z, log_det = fit_units([unit], x, there)(x)
    other = unit._replace(bounds=(scale * unit.bounds[0], scale * unit.bounds[1]))
    z_scaled, log_det_scaled = fit_units([other], scale * x, there)(scale * x)
    torch.testing.assert_close(z, z_scaled, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(log_det - log_det_scaled, torch.full_like(log_det, np.log(scale)), rtol=1e-5, atol=1e-4)


def test_only_present_cells_count() -> None:
    """Atoms are kept out; a column without any other cell stays as it is."""
    x = torch.tensor([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [0.0, 5.0]], dtype=torch.float64)
    present = torch.stack([x[:, 0] > 0, torch.zeros(5, dtype=torch.bool)], 1)
    step = fit_units([Unit(), Unit()], x, present).transforms[0]
    assert step.loc.tolist() == [2.0, 0.0]
    assert step.scale.tolist() == [pytest.approx(1 / 1.349), 1.0]


def test_a_saved_chain_is_rebuilt_from_the_choices() -> None:
    chosen = [Unit("log", bent=True), Unit("logit", (-1.0, 2.0)), Unit()]
    x = torch.rand(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fitted = fit_units(chosen, x, torch.ones_like(x, dtype=torch.bool))
    rebuilt = units([Unit(*unit) for unit in chosen])
    rebuilt.load_state_dict(fitted.state_dict())
    assert torch.equal(rebuilt(x)[0], fitted(x)[0])
    assert torch.equal(rebuilt(x)[1], fitted(x)[1])


@pytest.mark.parametrize("largest", [1e300, 1e-300, 1.7e308])
def test_extreme_numbers_raise_nothing(largest: float) -> None:
    x = largest * np.linspace(-1, 1, 1500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = Unit.choose(x)
        rows = torch.from_numpy(x[:, None])
        chain = fit_units([chosen], rows, torch.ones_like(rows, dtype=torch.bool))
    z, log_det = chain(rows)
    assert z.isfinite().all()
    assert log_det.isfinite().all()
