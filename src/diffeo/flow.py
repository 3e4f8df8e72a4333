"""The density of data by a transform to noise: log p(x) = log p(z) + log|det dz/dx| (arXiv 1912.02762).

What comes in is checked at the `door`, once; inside, code trusts.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from diffeo.bases import Density
from diffeo.door import check_context, check_draws, check_finite, check_rows
from diffeo.errors import ShapeError, shown
from diffeo.scalars import working_dtype
from diffeo.transforms.base import Chain, Transform, common_context
from diffeo.transforms.continuous import Continuous
from diffeo.transforms.pieces import numbers_a_row

__all__ = ["Density", "Flow", "FlowDistribution", "Mixture"]

MATCHES = 4  # times and noises for a row, of which flow matching takes the mean
CHUNK = 2**19  # numbers of the widest tensor at a time where no gradients are wanted: 2 MiB in float32
P = ParamSpec("P")
R = TypeVar("R")


def unrounded(act: Callable[P, R]) -> Callable[P, R]:
    """The same outside of autocast: products in bfloat16 would put a log-density wrong by tenths of a nat."""

    @wraps(act)
    def exact(*arguments: P.args, **options: P.kwargs) -> R:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                with torch.autocast(device, enabled=False):
                    return exact(*arguments, **options)
        return act(*arguments, **options)

    return exact


class Flow(Density):
    """A transform and a base. Any real row gives a finite log-density or -inf, never NaN.

    ``learn="matching"`` lets training lower the loss of flow matching in place of raising the log-density; the
    transform is then a `Continuous`. ``event_shape`` is that of the data, by default the base's. A NaN in x raises
    DataError naming the row, or with ``on_nan="nan"`` gives NaN in that row alone; so it does, whatever was asked, in
    training on an accelerator, where looking would mean waiting for the device. Autocast is off inside.

    Where no gradients are wanted, rows go through in pieces, of which the widest tensor has 2^19 numbers at most, by
    what the weights and kernels of the nets make of a row. All that is held at a time, beside the rows themselves and
    what is found for them, is then within 32 such tensors, 64 MiB in float32. With gradients all rows go at once.

    >>> from diffeo import bases, nets, scalars
    >>> from diffeo.transforms import Coupling, Partition
    >>> flow = Flow(Coupling(Partition.halves(2), scalars.spline(), nets.MLP), bases.StandardNormal(2))
    >>> flow.log_prob(torch.zeros(1, 2)).detach()
    tensor([-1.8379])
    >>> flow.sample(3).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        transform: Transform,
        base: Density,
        event_shape: tuple[int, ...] | None = None,
        on_nan: Literal["raise", "nan"] = "raise",
        learn: Literal["likelihood", "matching"] = "likelihood",
    ) -> None:
        super().__init__()
        if learn not in ("likelihood", "matching"):
            raise ShapeError(f"learn: expected likelihood or matching, got {shown(learn)}")
        if learn == "matching" and not isinstance(transform, Continuous):
            raise ShapeError(f"learn: only a Continuous transform can learn by matching, got {shown(transform)}")
        for name, part, kind in (("transform", transform, Transform), ("base", base, Density)):
            if not isinstance(part, kind):
                raise ShapeError(f"{name}: expected a {kind.__name__}, got {shown(part)}")
        if on_nan not in ("raise", "nan"):
            raise ShapeError(f"on_nan: expected raise or nan, got {shown(on_nan)}")
        self.transform, self.base, self.on_nan, self.learn = transform, base, on_nan, learn
        self.event_shape = tuple(base.event_shape if event_shape is None else event_shape)
        if math.prod(self.event_shape) != math.prod(base.event_shape):
            sizes = f"that of the base, {list(base.event_shape)}, got {list(self.event_shape)}"
            raise ShapeError(f"event_shape: expected as many numbers as {sizes}")
        transform.check_event(self.event_shape)
        self.context_features = common_context(transform, base)

    @unrounded
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats of x [n, *event] given context [n, c]: [n], of x's dtype, never below float32."""
        finite = self._check(x, context, "x", self.event_shape)
        return self._in_pieces(partial(self._score, finite), x, context)

    def _score(self, finite: bool, x: Tensor, context: Tensor | None) -> Tensor:
        """The same, where x is known to be `finite` without the detours that an infinity or a NaN takes."""
        x = x.to(working_dtype(x))  # half precision would be rounded anew after every layer
        if finite:
            return self._score_finite(x, context)
        rows = x.flatten(1)
        fine = rows.isfinite().all(1)
        log_prob = self._score_finite(torch.where(_along(fine, x), x, 0.0), context)
        missing = torch.where(rows.isnan().any(1), math.nan, -math.inf)
        return torch.where(fine, log_prob, missing.to(log_prob.dtype))

    def _score_finite(self, x: Tensor, context: Tensor | None) -> Tensor:
        z, log_det = self.transform(x, context)
        log_prob = self.base.log_prob(z, context) + log_det
        return log_prob.to(working_dtype(x, log_prob))

    @unrounded
    def objective(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """What training raises, of x [n, *event]: [n]; the log-density, or minus the loss of flow matching, random."""
        if isinstance(self.transform, Continuous) and self.learn == "matching":
            self._check(x, context, "x", self.event_shape)
            draws = (x.repeat(MATCHES, *(1,) * (x.ndim - 1)), None if context is None else context.repeat(MATCHES, 1))
            return -self.transform.matching_loss(*draws).view(MATCHES, -1).mean(0)
        return self(x, context)

    @torch.no_grad()
    @unrounded
    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """n draws [n, *event]; given context [m, c], n for each of its rows, [n, m, *event].

        All the noise is drawn first and then moved in pieces, so that memory is bounded and the draw is not changed.
        """
        z, shape, context = self._noise(n, context, generator)
        x = self._in_pieces(lambda z, context: self.transform.inverse(z, context)[0], z, context)
        return x.reshape(*shape, *self.event_shape)

    @unrounded
    def sample_and_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws and their log-densities, differentiable in the parameters where the base's draws are."""
        z, shape, context = self._noise(n, context, generator)

        def move(z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
            x, log_det = self.transform.inverse(z, context)
            return x, self.base.log_prob(z, context) - log_det

        x, log_prob = self._in_pieces(move, z, context)
        return x.reshape(*shape, *self.event_shape), log_prob.reshape(shape)

    @unrounded
    def to_latent(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Data x [n, *event] -> noise z [n, *latent]."""
        self._check(x, context, "x", self.event_shape)
        check_finite(x, "x")
        return self._in_pieces(lambda x, context: self.transform(x, context)[0], x, context)

    @unrounded
    def from_latent(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Noise z [n, *latent] -> data x [n, *event]."""
        self._check(z, context, "z", self.base.event_shape)
        check_finite(z, "z")
        return self._in_pieces(lambda z, context: self.transform.inverse(z, context)[0], z, context)

    @unrounded
    def trace(self, z: Tensor, context: Tensor | None = None) -> list[Tensor]:
        """Every step from noise to data: z first, then the outcome of each transform, x last."""
        self._check(z, context, "z", self.base.event_shape)
        check_finite(z, "z")
        steps = [z]
        for transform in _stairs(self.transform):
            steps.append(transform.inverse(steps[-1], context)[0])
        return steps

    def distribution(self, context: Tensor | None = None) -> "FlowDistribution":
        """This density as a torch Distribution; given context [*batch, c], of that batch shape."""
        check_context(self, context, None)
        return FlowDistribution(self, context)

    def _in_pieces(self, act: Callable[..., Any], rows: Tensor, context: Tensor | None) -> Any:
        """act(rows, context), a tensor or several of as many rows, found piece by piece if no gradients are wanted."""
        n = len(rows)
        if n < 2 or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return act(rows, context)
        size = max(1, CHUNK // max(1, numbers_a_row(self, self.event_shape)))
        if n <= size:
            return act(rows, context)
        contexts = (None,) * n if context is None else context.split(size)
        pieces = [act(*piece) for piece in zip(rows.split(size), contexts, strict=False)]
        if isinstance(pieces[0], Tensor):
            return torch.cat(pieces)
        return tuple(map(torch.cat, zip(*pieces, strict=True)))

    def _noise(
        self, n: int, context: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[int, ...], Tensor | None]:
        """Noise in one run of rows [rows, *latent], the shape of those rows, and each row's context."""
        check_draws(self, n, context, generator)
        z = self.base.sample(n, context, generator)
        shape = (n,) if context is None else (n, context.shape[0])
        if context is not None:
            context = context.expand(n, *context.shape).reshape(-1, context.shape[-1])
        return z.reshape(math.prod(shape), *self.base.event_shape), shape, context

    def _check(self, x: Tensor, context: Tensor | None, name: str, event: tuple[int, ...]) -> bool:
        """Whether x is known to be finite."""
        finite = check_rows(self, x, name, event, self.on_nan)
        check_context(self, context, x.shape[0])
        return finite


def _along(rows: Tensor, x: Tensor) -> Tensor:
    """rows [n] shaped to broadcast against x [n, *event]."""
    return rows.view(-1, *(1,) * (x.ndim - 1))


def _stairs(transform: Any) -> list[Transform]:
    """The single steps of nested chains, from noise to data."""
    if not isinstance(transform, Chain):
        return [transform]
    return [step for part in reversed(transform.transforms) for step in _stairs(part)]


class FlowDistribution(Distribution):
    """A Flow, given its context, in the shape of torch.distributions."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, flow: Flow, context: Tensor | None) -> None:
        self.flow, self.context = flow, context
        batch = torch.Size() if context is None else context.shape[:-1]
        self.has_rsample = getattr(flow.base, "reparametrised", False)
        super().__init__(batch, torch.Size(flow.event_shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """value [*sample, *batch, *event] -> [*sample, *batch]."""
        split = value.ndim - len(self.event_shape)
        lead = tuple(value.shape[: max(split, 0)])
        fine = split >= 0 and value.shape[split:] == self.event_shape
        if not fine or not _broadcasts(lead, tuple(self.batch_shape)):
            wanted = f"[..., {', '.join(map(str, (*self.batch_shape, *self.event_shape)))}]"
            raise ShapeError(f"value: expected shape {wanted}, got {list(value.shape)}")
        lead = torch.broadcast_shapes(lead, self.batch_shape)
        rows = value.expand(*lead, *self.event_shape).reshape(-1, *self.event_shape)
        return self.flow.log_prob(rows, self._contexts(lead)).reshape(lead)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        if not self.has_rsample:
            raise NotImplementedError(f"{type(self.flow.base).__name__} cannot be sampled differentiably; use sample()")
        return self._draw(sample_shape)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        return self._draw(sample_shape)

    def _draw(self, sample_shape: Sequence[int]) -> Tensor:
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        context = self._contexts(self.batch_shape)
        return self.flow.sample_and_log_prob(math.prod(sample_shape), context)[0].reshape(shape)

    def _contexts(self, lead: torch.Size) -> Tensor | None:
        """One row of context for each of the rows of shape ``lead``, flattened."""
        if self.context is None:
            return None
        return self.context.expand(*lead, -1).reshape(-1, self.context.shape[-1])


def _broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(i == j or 1 in (i, j) for i, j in zip(reversed(a), reversed(b), strict=False))


class Mixture(Density):
    """sum_k w_k p_k(x) of densities with one event shape, w = softmax(logits).

    >>> from diffeo.bases import StandardNormal
    >>> Mixture([StandardNormal(1), StandardNormal(1)]).log_prob(torch.zeros(1, 1)).detach()
    tensor([-0.9189])
    """

    def __init__(self, densities: Sequence[Density], logits: Tensor | None = None) -> None:
        super().__init__()
        if not densities or not all(isinstance(density, Density) for density in densities):
            raise ShapeError(f"densities: expected one Density or more, got {shown(densities)}")
        shapes = {tuple(density.event_shape) for density in densities}
        if len(shapes) != 1:
            raise ShapeError(f"densities: expected one event shape, got {sorted(shapes)}")
        self.densities = nn.ModuleList(densities)
        self.event_shape = shapes.pop()
        self.context_features = common_context(*densities)
        if logits is not None and (logits.shape != (len(densities),) or not bool(logits.isfinite().all())):
            raise ShapeError(f"logits: expected {len(densities)} finite numbers, got {shown(logits.tolist())}")
        self.logits = nn.Parameter(torch.zeros(len(densities)) if logits is None else logits.detach().clone())

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        lenient = any(getattr(density, "on_nan", "raise") == "nan" for density in self.densities)
        check_rows(self, x, "x", self.event_shape, "nan" if lenient else "raise")
        check_context(self, context, x.shape[0])
        parts = torch.stack([density(x, self._context(density, context)) for density in self.densities])
        weighted = parts + torch.log_softmax(self.logits, 0)[:, None]
        possible = (weighted > -math.inf).any(0)  # where no part can be, logsumexp has no gradient
        return torch.where(possible, torch.where(possible, weighted, 0.0).logsumexp(0), -math.inf)

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        check_draws(self, n, context, generator)
        shape = (n,) if context is None else (n, context.shape[0])
        weights = torch.softmax(self.logits.double(), 0)
        level = torch.rand(shape, generator=generator, dtype=torch.float64, device=weights.device)
        which = torch.bucketize(level, weights.cumsum(0)[:-1], right=True)
        draws = [self._lead(density, n, context, generator) for density in self.densities]
        return torch.stack(draws)[which, *torch.meshgrid(*(torch.arange(s) for s in shape), indexing="ij")]

    def _lead(self, density: nn.Module, n: int, context: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """n draws from one part, with the leading shape of the whole."""
        own = self._context(density, context)
        if context is None or own is not None:
            return density.sample(n, own, generator)  # type: ignore[operator]
        rows = density.sample(n * context.shape[0], None, generator)  # type: ignore[operator]
        return rows.reshape(n, context.shape[0], *self.event_shape)

    @staticmethod
    def _context(density: nn.Module, context: Tensor | None) -> Tensor | None:
        return context if density.context_features else None
