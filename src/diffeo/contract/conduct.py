"""Does it behave: rows apart from one another, any layout and dtype, copies that are equal, no traces left?"""

import copy
import math
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from diffeo.contract.report import Line, largest, same
from diffeo.contract.trial import Trial, outcomes
from diffeo.scalars import working_dtype

__all__ = ["conduct"]


def conduct(trial: Trial) -> Iterator[Line]:
    """Every line about what a transform does besides its numbers."""
    yield from _batch_sizes(trial)
    yield from _batch_mates(trial)
    yield from _layouts(trial)
    yield from _copies(trial)
    yield from _shapes(trial)
    yield from _dtypes(trial)
    yield from _side_effects(trial)


def _batch_sizes(trial: Trial) -> Iterator[Line]:
    """Alone or among others, to rounding: matrix products of other sizes sum in another order."""
    together = outcomes(trial.t(trial.x, trial.c))
    pieces = [outcomes(trial.t(*trial.rows(slice(i, i + 1)))) for i in range(len(trial.x))]
    yield "rows do not depend on the batch's size", _apart(trial, torch.cat(pieces or [together]), together, 1e-5), 1e-5


def _apart(trial: Trial, found: Tensor, expected: Tensor, allowed: float) -> float:
    """The largest difference of outcomes that rounding does not explain."""
    gap, scale = (found - expected).abs(), expected.abs().clamp(min=1)
    return largest(trial.unexplained(gap, scale, allowed, trial.t64, trial.x, trial.c))


def _batch_mates(trial: Trial) -> Iterator[Line]:
    """In a batch of one size, whoever else is in it: bit for bit, gradients too."""

    def outcome(x: Tensor) -> tuple[Tensor, ...]:
        x = x.clone().requires_grad_()
        z, log_det = trial.t(x, trial.c)
        (slope,) = torch.autograd.grad(z[1:].sum() + log_det[1:].sum() + 0 * x[1:].sum(), x)
        return z[1:].detach(), log_det[1:].detach(), slope[1:]

    clean = outcome(trial.x)
    other, spoiled, far = trial.x.clone(), trial.x.clone(), trial.x.clone()
    other[:1], spoiled[:1], far[:1] = trial.x[-1:], math.nan, 1e30
    yield "rows do not depend on their batch mates", not same(outcome(other), clean), 0.0
    yield "a NaN row leaves the others alone", not same(outcome(spoiled), clean), 0.0
    yield "an outlier leaves the others alone", not same(outcome(far), clean), 0.0
    if trial.c is not None and len(trial.x):
        plain, moved = ([*trial.t(trial.x, c), *trial.t.inverse(trial.z, c)] for c in (trial.c, trial.c + 1))
        yield "context is looked at", same(plain, moved), 0.0


def _layouts(trial: Trial) -> Iterator[Line]:
    """However the numbers lie in memory, and whoever may write there."""
    x = trial.x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it could write to such an array
        array = x.numpy().copy()
        array.flags.writeable = False
        shut = torch.from_numpy(array)
    layouts = {
        "transposed": (x.flatten(1).T.contiguous().T.reshape(x.shape), x),
        "strided": (torch.stack([x, x], -1)[..., 0], x),
        "expanded": (x[:1].expand_as(x), x[:1].repeat(len(x), *(1,) * (x.ndim - 1))),
        "read-only": (shut, x),
    }
    for name, (laid, plain) in layouts.items():
        yield f"{name} input is the same", _differs(trial, laid, plain), 1e-6
    with torch.inference_mode():
        inferred = _outcomes(trial, x.clone())
    expected = outcomes(trial.t(x, trial.c))
    yield "inference input is the same", math.inf if inferred is None else _apart(trial, inferred, expected, 1e-6), 1e-6


def _differs(trial: Trial, laid: Tensor, plain: Tensor) -> float:
    """The largest difference of the outcomes, infinite where one is refused."""
    got, expected = _outcomes(trial, laid), _outcomes(trial, plain)
    return math.inf if got is None or expected is None else _apart(trial, got, expected, 1e-6)


def _outcomes(trial: Trial, x: Tensor) -> Tensor | None:
    try:
        return outcomes(trial.t(x, trial.c))
    except RuntimeError:
        return None


def _copies(trial: Trial) -> Iterator[Line]:
    first = trial.t(trial.x, trial.c)
    twin = copy.deepcopy(trial.t)
    yield "deepcopy is equal", not same(twin(trial.x, trial.c), first), 0.0
    state = {name: value.clone() for name, value in trial.t.state_dict().items()}
    for value in twin.state_dict().values():
        if value.is_floating_point():
            value.add_(1)
    yield "deepcopy has its own storage", not same(trial.t(trial.x, trial.c), first), 0.0
    twin.load_state_dict(state)
    yield "load(save) is equal", not same(twin(trial.x, trial.c), first), 0.0


def _shapes(trial: Trial) -> Iterator[Line]:
    sizes = (0, 1, 7, 64) if len(trial.x) else (0,)
    for n in sizes:
        x, c = trial.rows(torch.arange(n) % max(1, len(trial.x)))
        z, log_det = trial.t(x, c)
        back, log_back = trial.t.inverse(z, c)
        fine = back.shape == (n, *trial.event) and log_det.shape == log_back.shape == (n,) and z.shape[0] == n
        fine = fine and z.device == log_det.device == x.device
        yield f"{n} row{'s' * (n != 1)}: shapes", not fine, 0.0


def _dtypes(trial: Trial) -> Iterator[Line]:
    z, log_det = trial.t(trial.x, trial.c)
    back, log_back = trial.t.inverse(z, trial.c)
    wide = working_dtype(trial.x)
    fine = z.dtype == trial.dtype and log_det.dtype == wide
    fine = fine and back.dtype in (trial.dtype, torch.float64)  # the units of a file are float64's
    fine = fine and log_back.dtype in (wide, torch.float64)
    yield "dtypes follow the input", not fine, 0.0
    for half in (torch.bfloat16, torch.float16):
        low = copy.deepcopy(trial.t).to(half)
        _, log_det = low(trial.x.to(half), None if trial.c is None else trial.c.to(half))
        fine = log_det.dtype == torch.float32 and not log_det.isnan().any()
        yield f"log_det of {str(half)[6:]} is float32", not fine, 0.0


def _side_effects(trial: Trial) -> Iterator[Line]:
    x, c = trial.x.clone(), None if trial.c is None else trial.c.clone()
    weights = {name: value.clone() for name, value in trial.t.state_dict().items()}
    before, numpy_before, globals_before = torch.random.get_rng_state(), _numpy_state(), _globals()
    first = trial.t(trial.x, trial.c)
    trial.t.inverse(first[0], trial.c)
    repr(copy.deepcopy(trial.t))
    yield "same input, same output", not same(trial.t(trial.x, trial.c), first), 0.0
    touched = not torch.equal(before, torch.random.get_rng_state()) or numpy_before != _numpy_state()
    yield "random state untouched", touched, 0.0
    yield "globals untouched", globals_before != _globals(), 0.0
    kept = torch.equal(x, trial.x) and (c is None or trial.c is None or torch.equal(c, trial.c))
    kept = kept and all(torch.equal(value, weights[name]) for name, value in trial.t.state_dict().items())
    yield "inputs and weights unchanged", not kept, 0.0


def _numpy_state() -> bytes:
    return bytes(np.random.get_state(legacy=True)[1].tobytes())  # type: ignore[index]  # noqa: NPY002


def _globals() -> tuple[object, ...]:
    """What a library could change for everybody."""
    return (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.distributions.Distribution._validate_args,
        np.geterr()["over"],
        tuple(warnings.filters),
    )
