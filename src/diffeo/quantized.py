"""Densities of rounded numbers: a value stands for its cell, and its log-probability for the mass in it.

Columns of a table, whose cells are few, and pixels, of which `Quantized` is the density.

    log P(cell) = log of the integral of p over the cell = log E_u[p(low + width u)] + log width,  u uniform on [0, 1].

Trained on one random point of the cell a step (uniform dequantisation, arXiv 1511.01844), and evaluated as the log of
the mean over M fixed, evenly spread points: with points shifted at random that is a lower bound on average (the
importance-weighted bound, arXiv 1509.00519), tighter with every point. Fixed points make it repeatable.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from diffeo.bases import Density
from diffeo.door import check_context, check_draws
from diffeo.errors import DataError, ModelError, ShapeError, shown, whole
from diffeo.flow import Flow
from diffeo.scalars import working_dtype
from diffeo.transforms.base import common_context

__all__ = ["POINTS", "Noise", "Quantized", "bits_per_dim", "cell_noise", "lattice", "log_mean_exp", "log_sum_exp"]

POINTS = 16  # points of a cell at which a density is evaluated
FINEST = 15  # bits of a place within a cell: with 8 of a grey level they fit into float32
MOST_LEVELS = 256
PIECE = 512  # pictures of which noise is made at a time where no gradients are wanted


def lattice(points: int, dimensions: int) -> Tensor:
    """Evenly spread points of the unit cube, float64 [points, dimensions]: along every axis one in the middle of each
    of `points` equal parts (a Latin hypercube), in the order of the multiples of a prime's root (Richtmyer 1951).

    >>> lattice(2, 1)
    tensor([[0.2500],
            [0.7500]], dtype=torch.float64)
    """
    roots = torch.tensor(_primes(dimensions), dtype=torch.float64).sqrt()
    place = (torch.arange(1, points + 1, dtype=torch.float64)[:, None] * roots) % 1.0
    return (place.argsort(0).argsort(0).double() + 0.5) / points


def _primes(count: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < count:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found


def log_sum_exp(values: Tensor) -> Tensor:
    """log of the sum of exp over the first dimension [m, n] -> [n]; -inf where all are, NaN where any is.

    >>> log_sum_exp(torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf]]))
    tensor([0., -inf])
    """
    top = values.amax(0)
    safe = torch.where(top == -torch.inf, 0.0, top)
    return safe + (values - safe).exp().sum(0).log()


def log_mean_exp(values: Tensor) -> Tensor:
    """log of the mean of exp over the first dimension [m, n] -> [n]; -inf where all are, NaN where any is.

    >>> log_mean_exp(torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf]]))
    tensor([0., -inf])
    """
    return log_sum_exp(values) - math.log(len(values))


def bits_per_dim(log_prob: Tensor, dimensions: int) -> Tensor:
    """Log-probabilities in nats as bits per dimension: -log_prob / (dimensions log 2).

    >>> bits_per_dim(torch.tensor([-2 * math.log(256)]), 2)
    tensor([8.])
    """
    return -log_prob / (dimensions * math.log(2))


class Noise(Protocol):
    """What a picture's place within its cell is drawn from, other than evenly: `diffeo.dequantization`."""

    event: tuple[int, ...]
    context_features: int

    def from_noise(self, eps: Tensor, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Standard normals eps and grey levels x, both [n, *event] -> (u in (0, 1) [n, *event], log q(u | x) [n])."""


class Quantized(Density):
    """Grey levels 0 ... levels - 1 by a flow of (x + u) / levels, u the place within the cell of a level.

    log P(x) = log of the integral of p over the cell of x, a box of width 1 / levels (arXiv 1511.01844). What is given
    is a lower bound of it, on average over the noise: the log of the mean over M draws of p(v) / q(u | x), which grows
    with M (arXiv 1509.00519). q is even, or learned as ``noise`` (arXiv 1902.00275). The noise covers the cell and no
    more: otherwise this were no bound. ``log_prob`` takes noise that is a function of the picture itself, so that it
    can be repeated and no row depends on another; ``objective``, for training, draws anew.

    x is of whole numbers, uint8 or of any other dtype; what is sampled is uint8.

    >>> from diffeo.bases import Uniform
    >>> from diffeo.transforms import Chain
    >>> even = Quantized(Flow(Chain(), Uniform(0.0, 1.0, 2)), levels=256)
    >>> bits_per_dim(even.log_prob(torch.tensor([[0, 255]], dtype=torch.uint8)), 2)
    tensor([8.])
    """

    like: Tensor

    def __init__(self, flow: Flow, levels: int = 256, noise: nn.Module | None = None, points: int = 1) -> None:
        super().__init__()
        if not isinstance(flow, Flow):
            raise ShapeError(f"flow: expected a Flow, got {shown(flow)}")
        self.flow, self.noise = flow, noise
        self.levels, self.points = whole("levels", levels, 2), whole("points", points)
        if levels > MOST_LEVELS:
            raise ShapeError(f"levels: expected {MOST_LEVELS} or fewer, got {levels}")
        self.event_shape, self.context_features = flow.event_shape, flow.context_features
        self.dimensions = math.prod(self.event_shape)
        if noise is not None:
            self.context_features = common_context(flow, noise)
            if tuple(cast(Noise, noise).event) != self.event_shape:
                found = f"{list(self.event_shape)}, got that of {list(cast(Noise, noise).event)}"
                raise ShapeError(f"noise: expected noise of events of the flow, {found}")
        self.register_buffer("like", torch.empty(0), persistent=False)

    def log_prob(self, x: Tensor, context: Tensor | None = None, points: int | None = None) -> Tensor:
        """The bound in nats of pictures x [n, *event] by so many points of their cells, self.points by default: [n]."""
        points = self.points if points is None else whole("points", points)
        levels = self._levels(x)
        check_context(self, context, len(x))
        pieces = [self._fixed(part, given, points) for part, given in self._pieces(levels, context)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _fixed(self, x: Tensor, context: Tensor | None, points: int) -> Tensor:
        each = [self._at(x, context, partial(cell_noise, x, i)) for i in range(points)]
        return log_mean_exp(torch.stack(each)) if points > 1 else each[0]

    def objective(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The bound of x [n, *event] at one random point of each cell, for training: [n]."""
        return self._at(self._levels(x), context, None)

    def _at(self, x: Tensor, context: Tensor | None, place: "partial[Tensor] | None") -> Tensor:
        """log p(v) - log q(u | x) - D log levels, u by an even place in the cell, drawn if none is named."""
        u = _drawn(x) if place is None else place()
        cost = None
        if self.noise is not None:
            eps = torch.randn_like(x) if place is None else torch.special.ndtri(u)
            noise = cast(Noise, self.noise)
            u, cost = noise.from_noise(eps, x, context if noise.context_features else None)
        given = context if self.flow.context_features else None
        log_prob = self.flow.log_prob((x + u) / self.levels, given) - self.dimensions * math.log(self.levels)
        return log_prob if cost is None else log_prob - cost

    @torch.no_grad()
    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """n pictures [n, *event] of grey levels, or [n, m, *event] given context [m, c]; the noise that they come from
        is multiplied by ``temperature``. Only for flows that preserve volume is that the density p^(1/T^2)."""
        check_draws(self, n, context, generator)
        if not (isinstance(temperature, int | float) and 0 <= temperature < math.inf):
            raise ShapeError(f"temperature: expected a number, 0 or more, got {shown(temperature)}")
        z = self.flow.base.sample(n, context, generator) * temperature
        lead = z.shape[: z.ndim - len(self.flow.base.event_shape)]
        if context is not None:
            context = context.expand(n, *context.shape).flatten(0, 1)
        x = self.from_latent(z.reshape(math.prod(lead), *self.flow.base.event_shape), context)
        return x.reshape(*lead, *self.event_shape)

    @torch.no_grad()
    def to_latent(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The noise [n, *latent] of the middles of the cells of x [n, *event]."""
        return self.flow.to_latent((self._levels(x) + 0.5) / self.levels, context)

    @torch.no_grad()
    def from_latent(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The pictures [n, *event], of grey levels, in whose cells the noise z [n, *latent] comes out."""
        v = self.flow.from_latent(z, context)
        if bool(v.isnan().any()):
            raise ModelError("a picture that was drawn is not a number; the weights are damaged, or training diverged")
        levels = (v * self.levels).floor().clamp(0, self.levels - 1)
        return levels.to(torch.uint8)

    def _levels(self, x: Tensor) -> Tensor:
        """x, checked, in the dtype and on the device of the flow."""
        if not isinstance(x, Tensor):
            raise DataError(f"x: expected a torch.Tensor, got {type(x).__name__}; pass torch.as_tensor(x)")
        if tuple(x.shape[1:]) != self.event_shape or x.ndim == 0:
            wanted = ", ".join(["n", *map(str, self.event_shape)])
            raise ShapeError(f"x: expected grey levels of shape [{wanted}], got {list(x.shape)}")
        known = x.dtype == torch.uint8 and (self.levels == 256 or (x.is_cuda and torch.is_grad_enabled()))
        if x.numel() and not known:  # in training on an accelerator nobody looks, as that would mean to wait for it
            x = x if x.is_floating_point() else x.to(torch.int64)
            low, high = x.aminmax()
            wanted = f"whole numbers from 0 to {self.levels - 1}"
            if not (float(low) >= 0 and float(high) < self.levels):
                found = f"{float(low):g} to {float(high):g}"
                raise DataError(f"x: expected {wanted}, got {found}; pass grey levels as they are in the file")
            if x.is_floating_point() and not bool((x == x.floor()).all()):
                raise DataError(f"x: expected {wanted}, got fractions; multiply and round to grey levels first")
        return x.to(self.like.device, working_dtype(self.like))  # half a dtype has no room for places in a cell

    def _pieces(self, x: Tensor, context: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        if torch.is_grad_enabled() or len(x) <= PIECE:
            yield x, context
            return
        for start in range(0, len(x), PIECE):
            some = slice(start, start + PIECE)
            yield x[some], None if context is None else context[some]


def _drawn(x: Tensor) -> Tensor:
    """Even places of cells, at neither end: at 0 a logarithm may end, and with 1 the next level begins."""
    return torch.rand_like(x).clamp_(0.5 ** (FINEST + 1), 1 - 0.5 ** (FINEST + 1))


def cell_noise(x: Tensor, draw: int = 0) -> Tensor:
    """Even places in (0, 1), [n, *event], that look random and are a function of each picture x [n, *event] of whole
    numbers and of the number of the draw alone: whole 2^-15ths and a half, by splitmix64 (Steele et al. 2014).

    >>> u = cell_noise(torch.tensor([[1.0, 2.0], [1.0, 3.0], [1.0, 2.0]]))
    >>> bool((u[0] == u[2]).all()), bool((u[0] == u[1]).any())
    (True, False)
    """
    flat = x.detach().flatten(1).to(torch.int64)
    places = _mixed(torch.arange(flat.shape[1], device=x.device))
    key = _mixed(((flat + 1) * (2 * places + 1)).sum(1))
    found = _mixed(key[:, None] + _mixed(torch.arange(flat.shape[1], device=x.device) + (draw + 1) * flat.shape[1]))
    u = ((found >> (64 - FINEST)) & (2**FINEST - 1)).to(x.dtype)
    return ((u + 0.5) / 2**FINEST).view(x.shape)


def _mixed(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 on int64, whose products wrap."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ ((x >> shift) & (2 ** (64 - shift) - 1))) * factor
    return x ^ ((x >> 31) & (2**33 - 1))
