"""Pictures have the right side up, the right corner first, and shared axes."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from diffeo.bases import StandardNormal
from diffeo.flow import Flow
from diffeo.studies import figures, views
from diffeo.studies.figures.planes import DENSITY
from diffeo.studies.truth import Window, image
from diffeo.transforms import Chain, Standardize


def pixels(drawing: figures.Drawing) -> np.ndarray:
    """The picture [rows from the top, columns from the left, 3]."""
    with Image.open(BytesIO(drawing.png)) as picture:
        return np.asarray(picture.convert("RGB")).astype(float)


def off_centre(x: torch.Tensor) -> torch.Tensor:
    """A Gaussian at (3, 1) with standard deviation 1/4."""
    return -((x - torch.tensor([3.0, 1.0])) ** 2).sum(1) / (2 * 0.25**2)


def test_an_image_has_its_first_row_at_the_bottom() -> None:
    """On a window of 0..4 by 0..3 the peak at (3, 1) is three quarters to the right and a third up."""
    found = image(off_centre, Window(0, 4, 0, 3), 120)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert abs(column - 90) <= 1
    assert abs(row - 40) <= 1


def test_a_density_is_drawn_the_right_way_round() -> None:
    """The darkest place of the picture lies to the right of the middle and below it, where (3, 1) is on the axes."""
    window = Window(0, 4, 0, 3)
    dark = 765 - pixels(figures.planes([figures.Panel("", image(off_centre, window, 100))], window, 1)).sum(2)
    high, wide = dark.shape
    blot = dark > 0.9 * (765 - 255 * sum(DENSITY(1.0)[:3]))
    rows, columns = np.nonzero(blot)
    assert len(rows) > 50
    # the axes fill the picture but for the labels at the left and below: three quarters along, a third up
    assert columns.mean() / wide == pytest.approx(0.765, abs=0.04)
    assert rows.mean() / high == pytest.approx(0.61, abs=0.06)


def test_points_stand_on_their_density() -> None:
    """Points drawn from the density cover its darkest place: one set of axes for both."""
    window = Window(0, 4, 0, 3)
    draws = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) * 0.25 + torch.tensor([3.0, 1.0])
    dense = 765 - pixels(figures.planes([figures.Panel("", image(off_centre, window, 100))], window, 1)).sum(2)
    cloud = figures.Panel("", clouds=(figures.Cloud(draws.numpy(), "#000000"),))
    points = 765 - pixels(figures.planes([cloud], window, 1)).sum(2)
    left = int(0.15 * dense.shape[1])
    middles = []
    for picture in (dense[:-60, left:], points[:-60, left:]):
        rows, columns = np.nonzero(picture > 400)
        middles.append((rows.mean(), columns.mean()))
    assert np.allclose(*middles, atol=12)


def test_the_grid_goes_through_every_layer() -> None:
    """A flow that standardises carries the unit grid to loc + scale z, the rings with it."""
    loc, scale = torch.tensor([1.0, -2.0]), torch.tensor([2.0, 0.5])
    flow = Flow(Chain(Standardize(torch.zeros(2), torch.ones(2)), Standardize(loc, scale)), StandardNormal(2))
    panels = views.webs(flow, [1, 2], ["noise", "one", "two"], reach=2.0, lines=3)
    first, last = panels[0].web, panels[2].web
    assert first is not None
    assert last is not None
    assert len(first.across) == len(first.along) == 3
    for before, after in zip(
        (*first.across, *first.along, *first.rings), (*last.across, *last.along, *last.rings), strict=True
    ):
        np.testing.assert_allclose(after, before * scale.numpy() + loc.numpy(), atol=1e-5)
    np.testing.assert_allclose(np.hypot(*first.rings[1].T), 2.0, atol=1e-6)


def test_a_window_holds_what_is_drawn() -> None:
    panel = figures.Panel("", clouds=(figures.Cloud(np.array([[0.0, 0.0], [4.0, 1.0]])),))
    left, right, bottom, top = views.around([panel], share=1.0)
    assert left < 0
    assert right > 4
    assert right - left == pytest.approx(top - bottom)


def test_nothing_global_stays_changed() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.curves({"a": ([1, 2], [1.0, 2.0])}, "x", "y")
    figures.profiles(np.linspace(0, 1, 5), {"p": np.ones(5)}, np.array([0.5]), log=True)
    figures.against({"a": ([1, 2], [1.0, 2.0], [0.1, 0.1]), "b": ([1, 2], [1.0, 2.0], None)}, "x", "y")
    assert dict(matplotlib.rcParams) == before
