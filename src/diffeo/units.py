"""Units: how the columns of a table are brought to unit spread before anything is learned.

A column is taken as it is, by its logarithm, or by its logit between two bounds; then moved by its median and divided
by its spread; and where its tails are heavy, bent by asinh and brought to unit spread again. These maps are the first
of the chain, so that log-densities are in the units of the user's own file.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffeo.transforms import Asinh, Chain, Log, Logit, Standardize, Transform

__all__ = ["Unit", "fit_units", "units"]

HEAVY = 20.0  # range of the inner 99.8 % in interquartile ranges: 4.6 for a normal, 16 for Student's t with 2 df
ENOUGH = 1000  # rows from which a tail can be judged


class Unit(NamedTuple):
    """How one column is brought to unit spread; `bounds` of a logit; `bent`: by asinh as well.

    >>> Unit.choose(np.exp(np.linspace(-3, 3, 99)), positive=True).scale
    'log'
    """

    scale: Literal["linear", "log", "logit"] = "linear"
    bounds: tuple[float, float] = (0.0, 1.0)
    bent: bool = False

    @classmethod
    def choose(cls, x: np.ndarray, positive: bool = False, bounds: tuple[float, float] | None = None) -> "Unit":
        """For the values x [n] of a column: a logarithm where they are positive and it makes them more symmetric."""
        if bounds is not None:
            return cls("logit", (float(bounds[0]), float(bounds[1])))
        scale: Literal["linear", "log"] = "linear"
        if positive and _skewness(np.log(x)) < _skewness(x):
            scale, x = "log", np.log(x)
        low, quarter, three, high = np.quantile(x / 4, [0.001, 0.25, 0.75, 0.999])  # differences stay finite
        return cls(scale, bent=bool(len(x) >= ENOUGH and (high - low) / HEAVY > three - quarter))


def units(chosen: list[Unit]) -> Chain:
    """The chain of maps of x [n, d] that the choices ask for, its places and spreads still to be set or loaded."""
    d = len(chosen)
    logs = [i for i in range(d) if chosen[i].scale == "log"]
    logits = [i for i in range(d) if chosen[i].scale == "logit"]
    bent = [i for i in range(d) if chosen[i].bent]
    bounds = [chosen[i].bounds for i in logits]
    steps: list[Transform] = [Log(logs)] if logs else []
    steps += [Logit(logits, [low for low, _ in bounds], [high for _, high in bounds])] if logits else []
    steps += [Standardize(torch.zeros(d), torch.ones(d))]
    steps += [Asinh(bent), Standardize(torch.zeros(d), torch.ones(d))] if bent else []
    return Chain(*steps)


def fit_units(chosen: list[Unit], x: Tensor, present: Tensor) -> Chain:
    """The chain, fitted to the cells of x [n, d] (float64) that are `present` [n, d]; columns without any stay 0, 1.

    >>> x = torch.tensor([[1.0, 0.1], [10.0, 0.2], [100.0, 0.3]], dtype=torch.float64)
    >>> fit_units([Unit("log"), Unit()], x, torch.ones(3, 2, dtype=torch.bool))(x)[0]
    tensor([[-1.3490, -1.3490],
            [ 0.0000,  0.0000],
            [ 1.3490,  1.3490]])
    """
    steps: list[Transform] = []
    for step in units(chosen).transforms:
        if isinstance(step, Standardize):
            fitted = [Standardize.fit(column[here]) for column, here in zip(x.T, present.T, strict=True)]
            step = Standardize(torch.stack([one.loc for one in fitted]), torch.stack([one.scale for one in fitted]))
        assert isinstance(step, Transform)
        steps.append(step)
        x = _wide(step, x)
    return Chain(*steps)


def _wide(step: Transform, x: Tensor) -> Tensor:
    """One step of x in float64, whatever the dtype of the model."""
    return (x - step.loc) / step.scale if isinstance(step, Standardize) else step(x)[0]


def _skewness(x: np.ndarray) -> float:
    """How far the middle of the outer tenths lies from the median, in their distance (Kelly's coefficient)."""
    low, middle, high = np.quantile(x / 4, [0.1, 0.5, 0.9])
    return abs(low + high - 2 * middle) / (high - low) if high > low else 0.0
