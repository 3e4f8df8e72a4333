"""Maps that are not learned: units, logarithms, bounds, heavy tails, the order of the coordinates.

They are the first transforms of a chain, so that log-densities are in the units of the user's own numbers. Constants
are float64 whatever the dtype of the model, because a column may be a date in seconds. A point outside a map's
support gives that row log_det = -inf and some finite z, and touches no other row.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from diffeo.errors import DataError, ShapeError, shown, whole
from diffeo.scalars import working_dtype
from diffeo.transforms.base import Transform, fits, sum_event

__all__ = ["Asinh", "Flip", "Log", "Logit", "Permute", "Standardize"]


class _Exact(Transform):
    """A transform whose constants stay float64 when the model is cast to another dtype."""

    def __init__(self, **constants: Tensor) -> None:
        super().__init__()
        self._exact = tuple(constants)
        for name, value in constants.items():
            self.register_buffer(name, value.detach().clone().double())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_Exact":
        kept = {name: self._buffers[name] for name in self._exact}
        super()._apply(fn, recurse)
        for name, value in kept.items():
            moved = self._buffers[name]
            if value is not None and moved is not None and moved.dtype != torch.float64:
                self._buffers[name] = value.to(moved.device)
        return self


class Standardize(_Exact):
    """z = (x - loc) / scale, computed in float64 and then cast to the model's dtype; the inverse gives float64.

    ``loc`` and ``scale`` have the shape of an event, or broadcast to it.

    >>> x = torch.tensor([[1.7e9, 0.0], [1.7e9 + 60, 1.0], [1.7e9 + 120, 2.0]], dtype=torch.float64)
    >>> unit = Standardize.fit(x)
    >>> z, log_det = unit(x)
    >>> z.dtype, bool((unit.inverse(z)[0] - x).abs().max() < 1e-4)
    (torch.float32, True)
    """

    loc: Tensor
    scale: Tensor
    like: Tensor

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        loc, scale = (torch.as_tensor(value, dtype=torch.float64) for value in (loc, scale))
        for name, value, fine in (
            ("loc", loc, loc.isfinite()),
            ("scale", scale, scale.isfinite() & (scale > 0)),
        ):
            if not bool(fine.all()):
                wanted = "finite numbers" + " above 0" * (name == "scale")
                raise ShapeError(f"{name}: expected {wanted}, got {shown(float(value[~fine][0]))}")
        if any(a != b and 1 not in (a, b) for a, b in zip(loc.shape[::-1], scale.shape[::-1], strict=False)):
            raise ShapeError(f"scale: expected a shape like loc's, {list(loc.shape)}, got {list(scale.shape)}")
        super().__init__(loc=loc, scale=scale)
        self.register_buffer("like", torch.empty(0), persistent=False)  # follows .to(dtype): what z is cast to

    @classmethod
    def fit(cls, x: Tensor) -> "Standardize":
        """Robust units of x [n, *event]: the median, and IQR/1.349, or else MAD, standard deviation, 1 where zero."""
        rows = x.detach().to("cpu", torch.float64).numpy()
        if not np.isfinite(rows).all():
            row = np.argwhere(~np.isfinite(rows))[0]
            raise DataError(f"x: expected finite numbers, got {rows[tuple(row)]} in row {row[0]}; drop such rows first")
        if not len(rows):
            return cls(torch.zeros(x.shape[1:]), torch.ones(x.shape[1:]))
        low, middle, high = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
        scale = np.ones_like(middle)
        with np.errstate(over="ignore", invalid="ignore"):
            spreads = (rows.std(0), 1.4826 * np.median(np.abs(rows - middle), 0), (high - low) / 1.349)
        for spread in spreads:
            scale = np.where(np.isfinite(spread) & (spread > 1e-300), spread, scale)
        return cls(torch.as_tensor(middle), torch.as_tensor(scale))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = (x.double() - self.loc) / self.scale
        return z.to(self.like.dtype), -self._log_scale(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.double() * self.scale + self.loc, self._log_scale(z)

    def check_event(self, event: tuple[int, ...]) -> None:
        for constant in (self.loc, self.scale):
            lead = len(event) - constant.ndim
            fine = lead >= 0 and all(a in (1, b) for a, b in zip(constant.shape, event[lead:], strict=True))
            fits(self, fine, f"shape {list(constant.shape)}", event)

    def _log_scale(self, x: Tensor) -> Tensor:
        total = self.scale.abs().log().expand(x.shape[1:]).sum()
        return total.to(working_dtype(x)).expand(x.shape[0])


class _Columns(_Exact):
    """An elementwise map of some columns (indices of the last dimension; None: of all), the others untouched."""

    columns: Tensor | None

    def __init__(self, columns: Sequence[int] | None, **constants: Tensor) -> None:
        super().__init__(**constants)
        index = None
        if columns is not None:
            places = [whole("columns", c, 0) for c in columns]
            if not places or len(set(places)) < len(places):
                raise ShapeError(f"columns: expected one column or more, each once, got {places}")
            index = torch.as_tensor(places, dtype=torch.long)
        self.register_buffer("columns", index)

    def check_event(self, event: tuple[int, ...]) -> None:
        least = 1 if self.columns is None else int(self.columns.max()) + 1
        fits(self, event[-1] >= least, f"{least} columns or more", event)

    def _on_columns(self, step: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> tuple[Tensor, Tensor]:
        part = x if self.columns is None else x.index_select(-1, self.columns)
        moved, log_slope = step(part.to(working_dtype(x)))
        moved = moved.to(x.dtype)
        whole = moved if self.columns is None else x.index_copy(-1, self.columns, moved)
        return whole, sum_event(log_slope)


class Log(_Columns):
    """z = log x, for positive columns."""

    def __init__(self, columns: Sequence[int] | None = None) -> None:
        super().__init__(columns)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._on_columns(self._log, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._on_columns(lambda z: (z.exp(), z), z)

    @staticmethod
    def _log(x: Tensor) -> tuple[Tensor, Tensor]:
        inside = x > 0
        z = torch.where(inside, x, 1.0).log()
        return z, torch.where(inside, -z, -math.inf)


class Logit(_Columns):
    """z = log((x - low) / (high - x)), for columns within (low, high); the bounds are numbers or one per column."""

    low: Tensor
    high: Tensor

    def __init__(
        self,
        columns: Sequence[int] | None = None,
        low: float | Sequence[float] | Tensor = 0.0,
        high: float | Sequence[float] | Tensor = 1.0,
    ) -> None:
        bounds = {"low": torch.as_tensor(low), "high": torch.as_tensor(high)}
        super().__init__(columns, **bounds)
        ends = f"got low={shown(self.low.tolist())}, high={shown(self.high.tolist())}"
        sizes = {bound.shape[0] for bound in (self.low, self.high) if bound.ndim} - {1}
        if len(sizes) > 1 or (self.columns is not None and not sizes <= {len(self.columns)}):
            raise ShapeError(f"low, high: expected numbers, or one for each column, {ends}")
        if not bool((self.low < self.high).all()):
            raise ShapeError(f"low: expected below high, {ends}")
        if not bool((self.low.isfinite() & self.high.isfinite()).all()):
            raise ShapeError(f"low, high: expected finite numbers, {ends}; take Log for a column with one bound")

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._on_columns(self._logit, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._on_columns(self._sigmoid, z)

    def _logit(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inside = (x > self.low) & (x < self.high)
        wide = torch.where(inside, x.double(), (self.low + self.high) / 2)
        below, above = (wide - self.low).log(), (self.high - wide).log()
        log_slope = torch.where(inside, (self.high - self.low).log() - below - above, -math.inf)
        return (below - above).to(x.dtype), log_slope.to(x.dtype)

    def _sigmoid(self, z: Tensor) -> tuple[Tensor, Tensor]:
        wide, size = z.double(), self.high - self.low
        near = size * torch.sigmoid(-wide.abs())  # distance to the nearer bound, which keeps its digits
        x = torch.where(wide < 0, self.low + near, self.high - near).to(z.dtype)
        log_slope = size.log() - torch.nn.functional.softplus(wide) - torch.nn.functional.softplus(-wide)
        return x, log_slope.to(z.dtype)


class Asinh(_Columns):
    """z = asinh x: linear near zero, logarithmic far out, for heavy tails of either sign."""

    def __init__(self, columns: Sequence[int] | None = None) -> None:
        super().__init__(columns)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._on_columns(self._asinh, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._on_columns(lambda z: (z.sinh(), _log_cosh(z)), z)

    @staticmethod
    def _asinh(x: Tensor) -> tuple[Tensor, Tensor]:
        far = x.sign() * (_log_hypot(x) + torch.log1p(x.abs() / torch.hypot(x, torch.ones_like(x))))
        near = x.clamp(-1, 1).asinh()  # whose slope at 0 is 1, not that of a sign
        return torch.where(x.abs() < 1, near, far), -_log_hypot(x)


def _log_cosh(z: Tensor) -> Tensor:
    return z.abs() + torch.log1p((-2 * z.abs()).exp()) - math.log(2)


def _log_hypot(x: Tensor) -> Tensor:
    """log sqrt(1 + x^2) without overflow."""
    return torch.hypot(x, torch.ones_like(x)).log()


class Permute(Transform):
    """z[..., i] = x[..., order[i]] over the last dimension.

    >>> Permute([2, 0, 1])(torch.tensor([[10.0, 20.0, 30.0]]))[0]
    tensor([[30., 10., 20.]])
    """

    order: Tensor
    back: Tensor

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        index = torch.as_tensor([int(i) for i in order], dtype=torch.long)
        if not len(index) or sorted(index.tolist()) != list(range(len(index))):
            raise ShapeError(f"order: expected a permutation of 0..{max(len(index) - 1, 0)}, got {index.tolist()}")
        self.register_buffer("order", index)
        self.register_buffer("back", index.argsort())

    @classmethod
    def random(cls, d: int, generator: torch.Generator | None = None) -> "Permute":
        """A permutation of d coordinates drawn from the generator."""
        return cls(torch.randperm(whole("d", d), generator=generator).tolist())

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, event[-1] == len(self.order), f"{len(self.order)} columns", event)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(x, self.order)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(z, self.back)

    def _move(self, x: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        self.check_event(tuple(x.shape[1:]))  # what is longer would be cut without a word
        moved = x.movedim(-1, 0).index_select(0, order).movedim(0, -1)  # the batch stays contiguous
        return moved, x.new_zeros(x.shape[0], dtype=working_dtype(x))


class Flip(Transform):
    """The last dimension reversed: its own inverse."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.d = whole("d", d)

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, event[-1] == self.d, f"{self.d} columns", event)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.flip(-1), x.new_zeros(x.shape[0], dtype=working_dtype(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.forward(z)

    def extra_repr(self) -> str:
        return f"d={self.d}"
