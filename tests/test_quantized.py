"""The points of a rounding cell, and what a mean over them is worth."""

import numpy as np
import pytest
import scipy.stats
import torch

from diffeo.quantized import POINTS, lattice, log_mean_exp


@pytest.mark.parametrize("points", [1, 2, 4, 16, 50])
@pytest.mark.parametrize("dimensions", [0, 1, 2, 7, 40])
def test_every_axis_is_evenly_covered(points: int, dimensions: int) -> None:
    u = lattice(points, dimensions)
    assert u.shape == (points, dimensions)
    assert u.dtype == torch.float64
    middles = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    assert torch.equal(u.sort(0).values, middles[:, None].expand(-1, dimensions))
    assert torch.equal(u, lattice(points, dimensions))


@pytest.mark.parametrize(("width", "error"), [(0.3, 2e-4), (1.0, 1e-3), (2.0, 3e-3)])
def test_one_cell_of_a_normal(width: float, error: float) -> None:
    """Against the normal's distribution function; widths in standard deviations."""
    low = np.linspace(-3, 3 - width, 50)
    exact = np.log(scipy.stats.norm.cdf(low + width) - scipy.stats.norm.cdf(low))
    each = scipy.stats.norm.logpdf(low + width * lattice(POINTS, 1).numpy()) + np.log(width)
    assert np.abs(log_mean_exp(torch.from_numpy(each)).numpy() - exact).max() < error


@pytest.mark.parametrize(("dimensions", "error"), [(2, 0.02), (3, 0.06), (7, 0.15)])
def test_cells_of_several_normals(dimensions: int, error: float) -> None:
    """Root mean square of the error in nats, for cells one standard deviation wide about the middle."""
    low = np.random.default_rng(0).normal(size=(300, dimensions)) - 0.5
    exact = np.log(scipy.stats.norm.cdf(low + 1) - scipy.stats.norm.cdf(low)).sum(1)
    each = scipy.stats.norm.logpdf(low + lattice(POINTS, dimensions).numpy()[:, None]).sum(2)
    assert np.sqrt(np.mean((log_mean_exp(torch.from_numpy(each)).numpy() - exact) ** 2)) < error


def test_log_mean_exp() -> None:
    values = torch.tensor([[-1000.0, 3.0, -torch.inf, -torch.inf, 1.0], [-1001.0, 3.0, 0.0, -torch.inf, torch.nan]])
    found = log_mean_exp(values)
    expected = torch.logsumexp(values.double(), 0) - np.log(2)
    torch.testing.assert_close(found.double()[:4], expected[:4], rtol=1e-5, atol=1e-5)
    assert found[4].isnan()
    assert log_mean_exp(torch.zeros(4, 0)).shape == (0,)
