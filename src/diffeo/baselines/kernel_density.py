"""Kernel density estimation with a bandwidth matrix (Rosenblatt 1956; Parzen 1962; Wand and Jones 1995, chapter 4)."""

import math
from typing import Any

import torch
from torch import Tensor

from diffeo.baselines.points import PointDensity, exactly, points
from diffeo.bases import FARTHEST, LOG_2PI
from diffeo.errors import DataError, ShapeError, shown
from diffeo.scalars import working_dtype

__all__ = ["KernelDensity", "bandwidth_matrix", "log_kernel_sum", "whitened"]

ROWS, CENTRES = 1_000, 2_000  # at a time


class KernelDensity(PointDensity):
    """A Gaussian bell at each row: f(x) = 1/N sum_i 1/|det H| K(H^-1 (x_i - x)), K standard normal.

    ``rows`` [N, d] is an array or a tensor and decides the dtype. ``bandwidth`` is an invertible matrix H [d, d]: not
    a covariance, that of a bell is H H^T; a vector [d] stands for a diagonal, a number for h I. Sums are taken in log
    space, of 1,000 by 2,000 pairs at a time (but autograd keeps them all, where x wants a gradient). Raises ShapeError
    and DataError.

    >>> density = KernelDensity([[0.0, 0.0], [1.0, 1.0]], 0.5)
    >>> density.log_prob(torch.zeros(1, 2, dtype=torch.float64))
    tensor([-1.1266], dtype=torch.float64)
    >>> density.sample(3).shape
    torch.Size([3, 2])
    """

    rows: Tensor
    bandwidth: Tensor

    def __init__(self, rows: Any, bandwidth: Any) -> None:
        super().__init__()
        centres = points("rows", rows)
        self.event_shape = (centres.shape[1],)
        self.register_buffer("rows", centres.clone())
        self.register_buffer("bandwidth", bandwidth_matrix(bandwidth, centres.shape[1]).to(centres.dtype))

    def _log_density(self, x: Tensor) -> Tensor:
        dtype = working_dtype(x, self.rows)
        middle = self.rows.to(dtype).mean(0)
        near, at = (whitened(v.to(dtype) - middle, self.bandwidth.to(dtype)) for v in (self.rows, x))
        return log_kernel_sum(at, near) + self._log_height(len(self.rows))

    def leave_one_out(self) -> Tensor:
        """Log-density [N] of each row under the bells at the others. Raises DataError where there is one row."""
        if len(self.rows) < 2:
            raise DataError("rows: expected two or more to leave one out, got 1")
        centres = whitened(self.rows - self.rows.mean(0), self.bandwidth)
        return log_kernel_sum(centres, centres, own=True) + self._log_height(len(self.rows) - 1)

    def _log_height(self, count: int) -> Tensor:
        """log of 1/(count |det H| (2 pi)^(d/2)), as a scalar tensor."""
        log_det = torch.linalg.slogdet(self.bandwidth.double())[1]
        height = -log_det - math.log(count) - 0.5 * self.rows.shape[1] * LOG_2PI
        return height.to(working_dtype(self.rows))

    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        like = self.rows
        which = torch.randint(len(like), (n,), generator=generator, device=like.device)
        noise = torch.randn((n, like.shape[1]), generator=generator, dtype=like.dtype, device=like.device)
        return like[which] + noise @ self.bandwidth.T


def bandwidth_matrix(bandwidth: Any, d: int) -> Tensor:
    """The matrix [d, d], float64, that a number, a vector or a matrix stands for. Raises ShapeError where the shape is
    wrong, DataError where a number is not finite, a shorthand not positive or the matrix not invertible.

    >>> bandwidth_matrix([1.0, 2.0], 2)
    tensor([[1., 0.],
            [0., 2.]], dtype=torch.float64)
    """
    try:
        found = exactly(bandwidth)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"bandwidth: expected a number, a vector or a matrix, got {shown(bandwidth)}") from None
    if list(found.shape) not in ([], [d], [d, d]):
        raise ShapeError(f"bandwidth: expected a number, [{d}] or [{d}, {d}], got shape {list(found.shape)}")
    if not bool(found.isfinite().all()):
        raise DataError(f"bandwidth: expected finite numbers, got {shown(found.tolist())}")
    if found.ndim < 2:
        if bool((found <= 0).any()):
            raise DataError(f"bandwidth: expected positive numbers, got {shown(found.tolist())}")
        return torch.diag(found.expand(d)).clone()
    sizes = torch.linalg.svdvals(found / found.abs().amax(1, keepdim=True).clamp(min=1e-300))  # whatever the units
    if float(sizes[-1]) <= d * torch.finfo(torch.float64).eps * float(sizes[0]):
        raise DataError(f"bandwidth: expected a matrix that can be inverted, got {shown(found.tolist())}")
    return found.clone()


def whitened(x: Tensor, bandwidth: Tensor) -> Tensor:
    """H^-1 x for rows x [n, d], no further out than squares stay finite."""
    return torch.linalg.solve(bandwidth, x.T).T.clamp(-FARTHEST, FARTHEST)


def log_kernel_sum(at: Tensor, centres: Tensor, own: bool = False) -> Tensor:
    """log sum_i exp(-|u - c_i|^2 / 2) at places u [n, d], of centres c [m, d]: [n]. ``own``: the places are the
    centres, and each is left out of its own sum."""
    parts = []
    for i in range(0, max(1, len(at)), ROWS):
        some, total = at[i : i + ROWS], None
        for j in range(0, len(centres), CENTRES):
            others = centres[j : j + CENTRES]
            heights = -0.5 * squares(some, others)
            if own:
                heights = heights.masked_fill(same(i, len(some), j, len(others)).to(heights.device), -torch.inf)
            piece = heights.logsumexp(1)
            total = piece if total is None else torch.logaddexp(total, piece)
        parts.append(total)
    return torch.cat(parts)  # type: ignore[arg-type]


def squares(a: Tensor, b: Tensor) -> Tensor:
    """|a - b|^2 [n, m] of rows [n, d] and [m, d], by differences: a matrix product would lose the digits of what is
    close together."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()


def same(i: int, n: int, j: int, m: int) -> Tensor:
    """Where rows i .. i + n are columns j .. j + m: [n, m]."""
    return torch.arange(i, i + n)[:, None] == torch.arange(j, j + m)
