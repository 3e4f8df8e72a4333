"""Is it a bijection with the right log_det, and does it behave?"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from diffeo.contract.conduct import conduct
from diffeo.contract.numbers import numbers
from diffeo.contract.report import Report, Row
from diffeo.contract.trial import Trial
from diffeo.transforms.base import Transform

__all__ = ["check_transform"]


def check_transform(
    transform: Transform,
    *,
    event_shape: Sequence[int],
    context_features: int = 0,
    dtype: torch.dtype = torch.float64,
    inputs: Tensor | None = None,
    generator: torch.Generator | None = None,
    skip: Collection[str] = (),
) -> Report:
    """Check a transform of events [*event_shape] on ``inputs`` [n, *event_shape] (default: 16 standard normal rows).

    The transform is copied and never changed. ``skip`` names properties that it cannot have.

    >>> from diffeo.transforms import LU
    >>> check_transform(LU(3), event_shape=(3,)).ok
    True
    """
    with torch.random.fork_rng(devices=[]):
        trial = Trial(transform, tuple(event_shape), context_features, dtype, inputs, generator)
        lines = (*numbers(trial), *conduct(trial))
    return Report(tuple(Row(name, float(error), tolerance) for name, error, tolerance in lines if name not in skip))
