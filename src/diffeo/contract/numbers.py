"""Are the numbers right: round trips, log_det against autograd's, float32 against float64, far from the data?"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from diffeo.contract.report import Line, largest
from diffeo.contract.trial import ULPS, Trial, outcomes

__all__ = ["numbers"]

JACOBIANS = 6  # rows whose Jacobians are looked at


def numbers(trial: Trial) -> Iterator[Line]:
    """Every line about values and derivatives."""
    yield from _round_trips(trial)
    yield from _jacobian(trial)
    yield from _precision(trial)
    yield from _far_away(trial)


def _round_trips(trial: Trial) -> Iterator[Line]:
    """There and back in the dtype asked for; less what a rounding on the way does to the way back. Where z tells
    little of x, it will do that x' is sent to z; but every z must come back, lest an inverse clamp."""
    t, t64, context = trial.t, trial.t64, trial.c
    there: list[tuple[str, Callable, Callable, Callable, Tensor]] = [
        ("x -> z -> x", t, t.inverse, t64.inverse, trial.x),
        ("z -> x -> z", t.inverse, t, t64, trial.z),
    ]
    closeness = (1e-8 if trial.dtype == torch.float64 else 1e-3) * trial.layers
    for name, go, back, exact_back, start in there:
        middle, log_det = go(start, context)
        end, log_back = back(middle, context)
        gap = torch.cat([(end.double() - start.double()).abs().flatten(1), (log_det + log_back).abs()[:, None]], 1)
        scale = torch.cat([start.double().flatten(1), log_det[:, None]], 1).abs().clamp(min=1)
        allowed = torch.full_like(scale, trial.slack)
        allowed[:, -1] = closeness
        error = trial.unexplained(gap, scale, allowed, exact_back, middle, context)
        if start is trial.x:
            error = torch.minimum(error, _backward(trial, end, middle, log_back, allowed))
        yield f"round trip {name}", largest(error[:, :-1]), trial.slack
        yield f"log_dets sum to zero {name}", largest(error[:, -1]), closeness


def _backward(trial: Trial, end: Tensor, middle: Tensor, log_back: Tensor, allowed: Tensor) -> Tensor:
    """How far the exact transform of x' [n, *event] is from z, and its log_det from minus the inverse's: [n, d + 1]."""
    exact = outcomes(trial.t64(end.double(), None if trial.c is None else trial.c.double()))
    wanted = outcomes((middle, -log_back))
    scale = wanted.abs().clamp(min=1)
    return trial.unexplained((exact - wanted).abs(), scale, allowed, trial.t64, end, trial.c)


def _jacobian(trial: Trial) -> Iterator[Line]:
    flat, errors = math.prod(trial.event), [torch.zeros((), dtype=torch.float64)]
    for i in range(min(JACOBIANS, len(trial.x))):
        row, context = (None if v is None else v.double() for v in trial.rows(slice(i, i + 1)))
        jacobian = torch.autograd.functional.jacobian(lambda r, c=context: trial.t64(r, c)[0].flatten(), row)
        expected, blur = _log_volume(jacobian.reshape(flat, flat))
        gap = (trial.t64(row, context)[1][0] - expected).abs() - blur
        errors.append(gap.clamp(min=0) / expected.abs().clamp(min=1))
    yield "log_det is autograd's", largest(torch.stack(errors)), 1e-8


def _log_volume(jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """log|det| [] and its rounding error: exact to the last digits where the matrix is a permuted triangle, for then
    it is the sum of logs of the only entries left as rows are struck off; else by elimination, whose error grows with
    the condition number."""
    left, total = jacobian.clone(), torch.zeros((), dtype=jacobian.dtype)
    while len(left):
        alone = ((left != 0).sum(1) == 1).nonzero()
        if not len(alone):
            blur = ULPS * torch.finfo(jacobian.dtype).eps * torch.linalg.cond(jacobian)
            return torch.linalg.slogdet(jacobian)[1], blur.nan_to_num(math.inf)
        row = int(alone[0, 0])
        column = int(left[row].abs().argmax())
        total = total + left[row, column].abs().log()
        rows, columns = (torch.arange(len(left)) != k for k in (row, column))
        left = left[rows][:, columns]
    return total, torch.zeros_like(total)


def _precision(trial: Trial) -> Iterator[Line]:
    """The log-density under standard normal noise, in the dtype asked for and in float64."""
    if trial.dtype == torch.float64:
        return
    context = None if trial.c is None else trial.c.double()

    def under_normal(found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z, log_det = found
        return z[:, :0], log_det - 0.5 * z.flatten(1).square().sum(1)

    got = outcomes(under_normal(trial.t(trial.x, trial.c)))
    exact = outcomes(under_normal(trial.t64(trial.x.double(), context)))

    def step(*given: Tensor) -> tuple[Tensor, Tensor]:
        return under_normal(trial.t64(*given))

    gap = trial.unexplained((got - exact).abs(), 1 + exact.abs(), 1e-5, step, trial.x, trial.c)
    yield "float32 log-density is float64's", largest(gap), 1e-5


def _far_away(trial: Trial) -> Iterator[Line]:
    """Values and gradients at +-1e6: finite, log_det perhaps -inf (outside a support)."""
    x = (1e6 * trial.x.sign()).requires_grad_()
    z, log_det = trial.t(x, trial.c)
    fine = z.isfinite().all() and not log_det.isnan().any() and not (log_det == math.inf).any()
    yield "finite values far outside the data", not fine, 0.0
    yield "finite gradients far outside the data", not _smooth(trial, x, z, log_det), 0.0
    x = trial.x.clone().requires_grad_()
    yield "finite gradients", not _smooth(trial, x, *trial.t(x, trial.c)), 0.0


def _smooth(trial: Trial, x: Tensor, z: Tensor, log_det: Tensor) -> bool:
    """Whether all gradients of z and log_det are finite."""
    wanted = [x, *(p for p in trial.t.parameters() if p.requires_grad)]
    gradients = torch.autograd.grad(z.sum() + log_det.sum(), wanted, allow_unused=True)
    return all(g is None or bool(g.isfinite().all()) for g in gradients)
