"""Rotations and reflections: maps that change no volume, by Householder's reflections or a matrix exponential."""

from typing import Literal

import torch
from torch import Tensor, nn

from diffeo.errors import ShapeError, shown, whole
from diffeo.scalars import within, working_dtype
from diffeo.transforms.base import Transform, fits

__all__ = ["Orthogonal", "reflect", "rotation"]


def reflect(vectors: Tensor, columns: Tensor, *, back: bool = False) -> Tensor:
    """columns [d, n] mirrored at the planes across vectors [k, d, n or 1], first to last, or ``back`` again.

    Each is x - 2 v (v.x) / |v|^2 (Householder 1958; arXiv 1611.09630); a vector of 0 mirrors nothing.
    """
    square = vectors.square().sum(1)
    twice = torch.where(square > 0, 2 / torch.where(square > 0, square, 1.0), 0.0)
    steps = list(zip(vectors.unbind(0), twice.unbind(0), strict=True))
    for vector, double in reversed(steps) if back else steps:
        columns = columns - vector * (double * (vector * columns).sum(0))
    return columns


def rotation(raw: Tensor) -> Tensor:
    """exp(A - A^T), A the part of raw [d, d] below the diagonal: any rotation, the identity for 0 (arXiv 1901.08428).

    Computed in float64; the exponential's own error, of up to 1e-11, is squared by a step towards the nearest
    orthogonal matrix (Bjorck and Bowie 1971).
    """
    lower = raw.double().tril(-1)
    turn = torch.matrix_exp(lower - lower.mT)
    return (1.5 * turn - 0.5 * turn @ turn.mT @ turn).to(raw.dtype)


class Orthogonal(Transform):
    """z = Q x over the last dimension, Q^T Q = 1 whatever is learned; log_det is 0.

    ``how="householder"``: Q is a product of ``reflections`` (default: d, enough for any orthogonal matrix) at planes
    that are random at first. ``how="exponential"``: Q = exp(A - A^T), any rotation, the identity at first.

    >>> x = torch.randn(5, 3)
    >>> z, log_det = Orthogonal(3)(x)
    >>> bool(torch.allclose(z.norm(dim=1), x.norm(dim=1), atol=1e-5)), bool(log_det.any())
    (True, False)
    """

    def __init__(
        self,
        d: int,
        how: Literal["householder", "exponential"] = "householder",
        reflections: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if how not in ("householder", "exponential"):
            raise ShapeError(f"how: expected householder or exponential, got {shown(how)}")
        if how == "exponential" and reflections is not None:
            raise ShapeError(f"reflections: an exponential has none, got {shown(reflections)}; leave it out")
        self.d, self.how = whole("d", d), how
        count = d if reflections is None else whole("reflections", reflections)
        start = torch.zeros(d, d) if how == "exponential" else torch.randn(count, d, generator=generator)
        self.raw = nn.Parameter(start)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._turn(x, back=False)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._turn(z, back=True)

    def _turn(self, x: Tensor, *, back: bool) -> tuple[Tensor, Tensor]:
        dtype = working_dtype(x, self.raw)
        raw = self.raw.to(dtype)
        matrix = rotation(raw) if self.how == "exponential" else self._product(raw)
        z = within(x.to(dtype)) @ (matrix if back else matrix.T)
        return z.to(x.dtype), x.new_zeros(x.shape[0], dtype=working_dtype(x))

    def _product(self, raw: Tensor) -> Tensor:
        """Q [d, d] of reflections raw [k, d]."""
        eye = torch.eye(self.d, dtype=torch.float64, device=raw.device)
        return reflect(raw.double()[:, :, None], eye).to(raw.dtype)

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, event[-1] == self.d, f"{self.d} columns", event)

    def extra_repr(self) -> str:
        return f"d={self.d}, {self.how}"
