"""Linear maps: a matrix by its triangular factors or by its singular values, and a scale and shift from a batch."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from diffeo.errors import DataError, ShapeError, shown, whole
from diffeo.scalars import within, working_dtype
from diffeo.transforms.base import Transform, fits
from diffeo.transforms.orthogonal import reflect, rotation

__all__ = ["LU", "ActNorm", "Linear"]

LOG_SCALE_LIMIT = 3.0


def _check_start(start: str) -> bool:
    """Whether it is an orthogonal one."""
    if start not in ("identity", "orthogonal"):
        raise ShapeError(f"start: expected identity or orthogonal, got {shown(start)}")
    return start == "orthogonal"


def _bounded(raw: Tensor) -> Tensor:
    """A log-scale within +-3, equal to raw near zero."""
    return LOG_SCALE_LIMIT * torch.tanh(raw / LOG_SCALE_LIMIT)


class LU(Transform):
    """z = W x + b with W = P L (U + diag(s)) over the last dimension (arXiv 1807.03039, section 3.2).

    P is a fixed permutation, L unit lower and U strictly upper triangular; the signs of s are fixed and |log|s|| <=
    3, so that W can be inverted whatever is learned. ``start="orthogonal"`` starts from a random rotation (its
    factors, with the diagonal bounded).

    >>> lu, x = LU(3, start="orthogonal"), torch.randn(5, 3)
    >>> bool(torch.allclose(lu.inverse(lu(x)[0])[0], x, atol=1e-5))
    True
    """

    order: Tensor
    sign: Tensor

    def __init__(
        self,
        d: int,
        start: Literal["identity", "orthogonal"] = "identity",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        orthogonal, d = _check_start(start), whole("d", d)
        weight = torch.eye(d, dtype=torch.float64)
        if orthogonal:
            weight = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))[0]
        permutation, lower, upper = torch.linalg.lu(weight)
        diagonal = upper.diagonal()
        start_log = (diagonal.abs().clamp(min=1e-9).log() / LOG_SCALE_LIMIT).clamp(-0.95, 0.95)
        dtype = torch.get_default_dtype()
        self.lower = nn.Parameter(lower.tril(-1).to(dtype))
        self.upper = nn.Parameter(upper.triu(1).to(dtype))
        self.log_diagonal = nn.Parameter((LOG_SCALE_LIMIT * start_log.atanh()).to(dtype))
        self.bias = nn.Parameter(torch.zeros(d))
        self.register_buffer("sign", torch.where(diagonal < 0, -1.0, 1.0).to(dtype))
        self.register_buffer("order", permutation.argmax(1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper, log_det = self.factors(working_dtype(x, self.lower))
        z = within(x.to(lower.dtype)) @ (lower @ upper)[self.order].T + self.bias.to(lower.dtype)
        return z.to(x.dtype), self._spread(log_det, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper, log_det = self.factors(working_dtype(z, self.lower))
        rhs = (within(z.to(lower.dtype)) - self.bias.to(lower.dtype))[..., self.order.argsort()]
        x = _solve(upper, _solve(lower, rhs, upper=False, unit=True), upper=True, unit=False)
        return x.to(z.dtype), -self._spread(log_det, z)

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, event[-1] == len(self.bias), f"{len(self.bias)} columns", event)

    def factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """L, U + diag(s) and log|det W| []."""
        log_diagonal = _bounded(self.log_diagonal.to(dtype))
        lower = self.lower.to(dtype).tril(-1) + torch.eye(len(log_diagonal), dtype=dtype, device=log_diagonal.device)
        upper = self.upper.to(dtype).triu(1) + torch.diag(self.sign.to(dtype) * log_diagonal.exp())
        return lower, upper, log_diagonal.sum()

    @staticmethod
    def _spread(log_det: Tensor, x: Tensor) -> Tensor:
        """[n], times the number of vectors in an event."""
        return (log_det * math.prod(x.shape[1:-1])).to(working_dtype(x)).expand(x.shape[0])


def _solve(matrix: Tensor, rows: Tensor, *, upper: bool, unit: bool) -> Tensor:
    """matrix^-1 row for each row of [..., d]."""
    flat = rows.reshape(-1, rows.shape[-1]).T
    return torch.linalg.solve_triangular(matrix, flat, upper=upper, unitriangular=unit).T.reshape(rows.shape)


class Linear(Transform):
    """z = W x + b with the full matrix W = U diag(s) V^T W0 over the last dimension: no order among the coordinates.

    U and V are rotations, exponentials of skew matrices; W0 is fixed, the identity or with ``start="orthogonal"`` a
    product of d random reflections; the singular values s lie within exp(-3) .. exp(3). So W is invertible whatever is
    learned, its condition is at most exp(6), and it can be any matrix of such singular values with the sign of W0's
    determinant. log_det = sum log s; the inverse takes transposes, and solves nothing.

    >>> linear, x = Linear(3, start="orthogonal"), torch.randn(5, 3)
    >>> z, log_det = linear(x)
    >>> bool(torch.allclose(linear.inverse(z)[0], x, atol=1e-5)), bool(log_det.any())
    (True, False)
    """

    mirrors: Tensor

    def __init__(
        self,
        d: int,
        start: Literal["identity", "orthogonal"] = "identity",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        count = _check_start(start) * whole("d", d)
        self.register_buffer("mirrors", torch.randn(count, d, generator=generator))
        self.left = nn.Parameter(torch.zeros(d, d))
        self.right = nn.Parameter(torch.zeros(d, d))
        self.log_scale = nn.Parameter(torch.zeros(d))
        self.bias = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        dtype = working_dtype(x, self.bias)
        left, right, log_scale = self._factors(dtype)
        z = within(x.to(dtype)) @ (left * log_scale.exp() @ right.mT).T + self.bias.to(dtype)
        return z.to(x.dtype), self._log_det(log_scale, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        dtype = working_dtype(z, self.bias)
        left, right, log_scale = self._factors(dtype)
        x = (within(z.to(dtype)) - self.bias.to(dtype)) @ (right * (-log_scale).exp() @ left.mT).T
        return x.to(z.dtype), -self._log_det(log_scale, z)

    def _factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """U, W0^T V and log s."""
        left, right = rotation(self.left.to(dtype)), rotation(self.right.to(dtype))
        right = reflect(self.mirrors.to(dtype)[..., None], right, back=True)
        return left, right, _bounded(self.log_scale.to(dtype))

    @staticmethod
    def _log_det(log_scale: Tensor, x: Tensor) -> Tensor:
        """[n], times the number of vectors in an event."""
        return (log_scale.sum() * math.prod(x.shape[1:-1])).to(working_dtype(x)).expand(x.shape[0])

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, event[-1] == len(self.bias), f"{len(self.bias)} columns", event)


class ActNorm(Transform):
    """z = (x - loc) exp(-s): one scale and shift per feature, or per channel of a picture (arXiv 1807.03039).

    The identity until ``initialize(batch)`` takes location and scale from data; what is then learned moves the log-
    scale by at most 3 from there. A constant feature, or a batch of one, has scale 1.

    >>> norm = ActNorm(2)
    >>> norm.initialize(torch.randn(100, 2) * 5 + 3)
    >>> norm.initialized.item()
    True
    """

    start_loc: Tensor
    start_log_scale: Tensor
    initialized: Tensor

    def __init__(self, event_shape: int | tuple[int, ...]) -> None:
        super().__init__()
        event = tuple(event_shape) if isinstance(event_shape, tuple) else (event_shape,)
        event = tuple(whole("event_shape", size) for size in event or (0,))
        shape = (event[0], *(1,) * (len(event) - 1))
        self.repeats = math.prod(event[1:])
        self.shift = nn.Parameter(torch.zeros(shape))
        self.raw_scale = nn.Parameter(torch.zeros(shape))
        self.register_buffer("start_loc", torch.zeros(shape))
        self.register_buffer("start_log_scale", torch.zeros(shape))
        self.register_buffer("initialized", torch.tensor(False))

    @torch.no_grad()
    def initialize(self, batch: Tensor) -> None:
        """Make the outputs of this batch [n, *event] zero mean and unit variance."""
        self.check_event(tuple(batch.shape[1:]))
        columns = batch.double().transpose(0, 1).flatten(1)
        if not columns.shape[1]:
            raise DataError("batch: expected one row or more, got none")
        if not bool(columns.isfinite().all()):
            raise DataError("batch: expected finite numbers, got NaN or inf; drop such rows first")
        scale = columns.std(1, correction=0)
        usable = scale.isfinite() & (scale > 1e-30)
        self.start_loc.copy_(columns.mean(1).view_as(self.start_loc))
        self.start_log_scale.copy_(torch.where(usable, scale, 1.0).log().view_as(self.start_loc))
        self.initialized.fill_(True)

    @torch.no_grad()
    def settle(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.initialize(x)
        return self(x, context)[0]

    def check_event(self, event: tuple[int, ...]) -> None:
        channels = len(self.shift)
        fine = bool(event) and event[0] == channels and math.prod(event[1:]) == self.repeats
        fits(self, fine, f"{channels} channels of {self.repeats} numbers", event)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        loc, log_scale, total = self.units(x)
        return ((within(x.to(loc.dtype)) - loc) * (-log_scale).exp()).to(x.dtype), -total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        loc, log_scale, total = self.units(z)
        return (within(z.to(loc.dtype)) * log_scale.exp() + loc).to(z.dtype), total

    def units(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Location, log-scale, and the summed log-scale [n]."""
        dtype = working_dtype(x, self.shift)
        start = self.start_log_scale.to(dtype)
        log_scale = start + _bounded(self.raw_scale.to(dtype))
        loc = self.start_loc.to(dtype) + self.shift.to(dtype) * start.exp()
        return loc, log_scale, (log_scale.sum() * self.repeats).to(working_dtype(x)).expand(x.shape[0])
