"""Continuous flows: data is carried to noise along a velocity field (arXiv 1806.07366, 1810.01367, 2210.02747)."""

import importlib
import math
import warnings
from functools import partial

import torch
from torch import Tensor, nn

from diffeo.errors import MissingExtraError, ModelError, ShapeError, shown, whole
from diffeo.scalars import working_dtype
from diffeo.transforms.base import Transform, fits
from diffeo.transforms.fields import MOST_STRETCH, Stage, Stream, least_steps, runge_kutta, stream
from diffeo.transforms.lipschitz import Push, invert, jacobian
from diffeo.transforms.volume import LogDet, check_log_det, fixed_probes, fresh_probes, is_exact, quadratic

__all__ = ["Continuous"]

ADAPTIVE = ("dopri5", "dopri8", "bosh3")
TRACED = 4  # rounds of Newton's method in a traced inverse, as a step of the equation leads near


class Continuous(Transform):
    """dx/dt = field(t, x, context) from the data at t = 1 to the noise at t = 0.

    ``method="rk4"``, the default, takes ``steps`` Runge-Kutta steps of equal length (with None as few as the field
    allows). Each is x plus a contraction, as the field's ``lipschitz`` and the number of steps are held to that, so the
    stepped map is itself a bijection: its inverse and, with an exact log_det, its volume change are those of the steps
    taken, not of the equation that they approach. The density integrates to 1 however coarse they are, a row is moved
    alone, and the program can be traced; what steps cost in accuracy towards the equation, `step_error` tells.

    ``method="dopri5"`` (or dopri8, bosh3) solves the equation to ``rtol`` and ``atol`` by torchdiffeq's adaptive
    solvers, for any field; log_det is the integral of the Jacobian's trace (FFJORD). Every row meets the tolerance, but
    all take the steps of the hardest. Raises MissingExtraError without torchdiffeq, and ModelError where ``most``
    evaluations of the field do not suffice.

    ``log_det``: "exact" looks along all d directions; "estimate" integrates Hutchinson's estimate of the trace: from
    fresh noise in training (of torch's global generator, as dropout's), from up to 16 fixed probes in evaluation, the
    same every time. "auto" is exact in evaluation, and in training to 16 coordinates.

    ``field`` is a Field, or any module called field(t [] or [n], x [n, d], context) -> [n, d] of x's dtype, with an
    attribute ``d``, and ``context_features`` if it takes any, and ``lipschitz`` for rk4. Gradients go
    through the steps.

    >>> from diffeo.transforms import Field
    >>> layer = Continuous(Field(2))
    >>> z, log_det = layer(torch.ones(4, 2))
    >>> z.shape, log_det.shape
    (torch.Size([4, 2]), torch.Size([4]))
    """

    probes: Tensor | None

    def __init__(
        self,
        field: nn.Module,
        steps: int | None = None,
        method: str = "rk4",
        rtol: float = 1e-6,
        atol: float = 1e-6,
        most: int = 10_000,
        log_det: LogDet = "auto",
    ) -> None:
        super().__init__()
        if not isinstance(field, nn.Module) or not callable(field):
            raise ShapeError(f"field: expected a module such as Field(2), got {shown(field)}")
        if method not in ("rk4", *ADAPTIVE):
            raise ShapeError(f"method: expected one of rk4, {', '.join(ADAPTIVE)}, got {shown(method)}")
        for name, value in (("rtol", rtol), ("atol", atol)):
            if not (isinstance(value, float) and 0 < value < 1):
                raise ShapeError(f"{name}: expected a number within 0 and 1, got {shown(value)}")
        check_log_det(log_det)
        self.field, self.method, self.log_det = field, method, log_det
        self.rtol, self.atol, self.most = rtol, atol, whole("most", most)
        self.d = whole("field.d", getattr(field, "d", None))
        self.context_features = int(getattr(field, "context_features", 0))
        self.steps = 0
        if method == "rk4":
            self.steps = self._enough(steps)
        else:
            _need_solvers(method)
        self.register_buffer("probes", fixed_probes(self.d) if log_det == "estimate" else None)

    def _enough(self, steps: int | None) -> int:
        lipschitz = getattr(self.field, "lipschitz", None)
        if not isinstance(lipschitz, (int, float)):
            other = f"or take method={ADAPTIVE[0]!r}"
            raise ShapeError(
                f"field.lipschitz: method='rk4' needs a bound of its slopes in x, got none; give it, {other}"
            )
        least = least_steps(float(lipschitz))
        if steps is not None and whole("steps", steps) < least:
            raise ShapeError(f"steps: expected {least} or more for a field of lipschitz={lipschitz:g}, got {steps}")
        return steps or least

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        flat, at = self._stream(x, context)
        probes = self._probes(flat)
        z, log_det = self._down(at, flat, probes) if self.steps else self._solve(at, flat, probes, (1.0, 0.0))
        return z.reshape(x.shape).to(x.dtype), log_det.to(working_dtype(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        flat, at = self._stream(z, context)
        probes = self._probes(flat)
        x, log_det = self._up(at, flat, probes) if self.steps else self._solve(at, flat, probes, (0.0, 1.0))
        return x.reshape(z.shape).to(z.dtype), log_det.to(working_dtype(z))

    def matching_loss(
        self, x: Tensor, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """|field(t, x_t) - (x - e)|² [n] at x_t = (1 - t) e + t x, for standard normal noise e and t uniform in (0, 1).

        Its mean is least for the field that carries standard normal noise at t = 0 to the data at t = 1 (flow matching
        along straight lines, arXiv 2210.02747), and no equation is solved to learn it; log_prob is then that of this
        transform before a standard normal base. ``generator``: of t and e, by default torch's global one.
        """
        dtype = working_dtype(x, *self.field.parameters())
        data = x.reshape(len(x), self.d).to(dtype)
        noise = torch.randn(data.shape, generator=generator, dtype=dtype, device=x.device)
        t = torch.rand(len(x), generator=generator, dtype=dtype, device=x.device)
        between = (1 - t[:, None]) * noise + t[:, None] * data
        return (self.field(t, between, context) - (data - noise)).square().sum(1)

    @torch.no_grad()
    def step_error(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """How far log_det and any number of z move if twice as many steps are taken, the most of them: [n]."""
        if not self.steps:
            raise ShapeError(f"step_error: of method='rk4' only, this one solves to rtol={self.rtol}, atol={self.atol}")
        flat, at = self._stream(x, context)
        (z, log_det), (finer, volume) = (self._down(at, flat, None, n) for n in (self.steps, 2 * self.steps))
        return torch.maximum((z - finer).abs().amax(1), (log_det - volume).abs())

    def _stream(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Stream]:
        """Events in rows [n, d] of the working dtype, and the field."""
        dtype = working_dtype(x, *self.field.parameters())
        return x.reshape(len(x), math.prod(x.shape[1:])).to(dtype), stream(self.field, dtype, context)

    def _probes(self, x: Tensor) -> Tensor | None:
        """Directions [n, m, d] of an estimate; None where the log_det is exact."""
        if is_exact(self.log_det, self.d, self.training):
            return None
        if self.training or self.probes is None:
            return fresh_probes(x)
        return self.probes.to(x.dtype).expand(len(x), *self.probes.shape)

    def _down(self, at: Stream, x: Tensor, probes: Tensor | None, steps: int = 0) -> tuple[Tensor, Tensor]:
        total, steps = torch.zeros_like(x[:, 0]), steps or self.steps
        for i in range(steps, 0, -1):
            moved, push, stages = runge_kutta(at, i / steps, -1 / steps, x)
            total, x = total + _log_volume(x, push, stages, probes), x + moved
        return x, total

    def _up(self, at: Stream, z: Tensor, probes: Tensor | None) -> tuple[Tensor, Tensor]:
        """The steps of `_down` undone one by one, each sought from where a step of the equation leads."""
        total, h = torch.zeros_like(z[:, 0]), 1 / self.steps
        for i in range(1, self.steps + 1):
            with torch.no_grad():
                start = z + runge_kutta(at, (i - 1) * h, h, z)[0]
            back = partial(runge_kutta, at, i / self.steps, -h)
            z = invert(lambda x, back=back: back(x)[:2], z, MOST_STRETCH, start, TRACED)  # type: ignore[misc]
            _, push, stages = back(z)
            total = total - _log_volume(z, push, stages, probes)
        return z, total

    def _solve(self, at: Stream, x: Tensor, probes: Tensor | None, ends: tuple[float, float]) -> tuple[Tensor, Tensor]:
        """x [n, d] and the integrated trace [n] by an adaptive solver, whose error norm is that of the worst row."""
        from torchdiffeq import odeint

        finite = x.isfinite().all(1)
        if not len(x):
            return x, torch.zeros_like(x[:, 0])
        if probes is None:
            probes = math.sqrt(self.d) * torch.eye(self.d, dtype=x.dtype, device=x.device).expand(len(x), -1, -1)
        calls = 0

        def rate(t: Tensor, state: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            if calls > self.most:
                raise ModelError(f"field: {self._stiff()}")
            v, push = at(t, state[:, :-1])
            return torch.cat([v, quadratic(push, probes)[:, None]], 1)

        start = torch.cat([torch.where(finite[:, None], x, 0.0), torch.zeros_like(x[:, :1])], 1)
        least = 64 * torch.finfo(x.dtype).eps
        try:
            found = odeint(
                rate,
                start,
                torch.tensor(ends, dtype=x.dtype, device=x.device),
                rtol=max(self.rtol, least),
                atol=max(self.atol, least),
                method=self.method,
                options={"norm": lambda error: error.square().mean(1).sqrt().max()},
            )[1]
        except AssertionError as error:  # of torchdiffeq: no step is small enough, or the field is not finite
            raise ModelError(f"field: {self._stiff()} ({error})") from error
        found = torch.where(finite[:, None], found, math.nan)
        return found[:, :-1], found[:, -1]

    def _stiff(self) -> str:
        way = f"{self.method} did not get to rtol={self.rtol:g}, atol={self.atol:g} within {self.most} evaluations"
        return f"{way}; the field is too steep: loosen them, learn slower, or take a Field and method='rk4'"

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, math.prod(event) == self.d, f"{self.d} numbers", event)

    def extra_repr(self) -> str:
        how = f"steps={self.steps}" if self.steps else f"rtol={self.rtol:g}, atol={self.atol:g}"
        return f"method={self.method}, {how}, log_det={self.log_det}"


def _log_volume(x: Tensor, push: Push, stages: list[Stage], probes: Tensor | None) -> Tensor:
    """That of one step [n]: of the step itself, or an estimate of the trace along it."""
    if probes is None:
        return torch.linalg.slogdet(jacobian(x, push))[1]
    return sum((stage.share * quadratic(stage.push, probes) for stage in stages), torch.zeros_like(x[:, 0]))


def _need_solvers(method: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it scripts a function of its own
            importlib.import_module("torchdiffeq")
    except ImportError as error:
        remedy = "pip install 'diffeo[continuous]', or take method='rk4'"
        raise MissingExtraError(f"method: {method} is torchdiffeq's, which is not installed; {remedy}") from error
