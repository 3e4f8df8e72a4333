"""What a flow does, step by step: draws after every layer, and a grid of the noise drawn through the layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffeo.flow import Flow
from diffeo.studies.figures import SAMPLES, Cloud, Panel, Web, web
from diffeo.studies.truth import Window
from diffeo.transforms import Chain, Transform

__all__ = ["around", "kept_steps", "layers", "noise", "steps_of", "webs"]


def noise(n: int, d: int, seed: int) -> Tensor:
    """Standard normal draws [n, d]."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def kept_steps(steps: Sequence[Tensor], last: Sequence[int]) -> list[np.ndarray]:
    """The first of some steps, and those after which a layer is complete."""
    return [steps[i].detach().double().numpy() for i in (0, *last)]


@torch.no_grad()
def layers(flow: Flow, z: Tensor, last: Sequence[int], titles: Sequence[str]) -> list[Panel]:
    """A panel of draws before the first layer and after each; `last`: how many steps of the flow are then behind."""
    found = kept_steps(flow.trace(z), last)
    return [Panel(title, clouds=(Cloud(points, SAMPLES),)) for title, points in zip(titles, found, strict=True)]


@torch.no_grad()
def webs(flow: Flow, last: Sequence[int], titles: Sequence[str], reach: float = 3.0, lines: int = 13) -> list[Panel]:
    """A panel of the noise's grid before the first layer and after each."""
    start = web(reach, lines)
    parts = [*start.across, *start.along, *start.rings]
    found = kept_steps(flow.trace(torch.as_tensor(np.concatenate(parts), dtype=torch.float32)), last)
    ends = np.cumsum([len(part) for part in parts])[:-1]
    panels = []
    for title, points in zip(titles, found, strict=True):
        lines_now = np.split(points, ends)
        a, b = len(start.across), len(start.across) + len(start.along)
        panels.append(Panel(title, web=Web(lines_now[:a], lines_now[a:b], lines_now[b:])))
    return panels


def around(panels: Sequence[Panel], share: float = 0.995, most: float = 1e3) -> Window:
    """The square window that holds all but a few of the points and lines of panels."""
    points = [cloud.points for panel in panels for cloud in panel.clouds]
    points += [line for panel in panels if panel.web for line in (*panel.web.across, *panel.web.along)]
    ends = [np.quantile(part.clip(-most, most), [1 - share, share], axis=0) for part in points if len(part)]
    low, high = np.min([end[0] for end in ends], 0), np.max([end[1] for end in ends], 0)
    middle, half = (low + high) / 2, 0.55 * float((high - low).max())
    return Window(middle[0] - half, middle[0] + half, middle[1] - half, middle[1] + half)


def steps_of(flow: Flow) -> list[Transform]:
    """The steps of a flow that is one chain, the first nearest to the data."""
    chain = flow.transform
    assert isinstance(chain, Chain)
    return [step for step in chain.transforms if isinstance(step, Transform)]
