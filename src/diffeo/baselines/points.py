"""What the densities of plain arrays share: rows in, a door like that of a flow, draws out."""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo.bases import Density
from diffeo.door import check_context, check_draws, check_rows
from diffeo.errors import DataError, ShapeError, shown
from diffeo.flow import unrounded


class PointDensity(Density):
    """A density of vectors [d] without a context, checked at its door as a flow's is."""

    @unrounded
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats of x [n, d]: [n]; -inf where x is infinite. Raises ShapeError, and DataError for NaN."""
        check_rows(self, x, "x", self.event_shape, "raise")
        check_context(self, context, x.shape[0])
        finite = x.isfinite().all(1)
        found = self._log_density(torch.where(finite[:, None], x, 0.0))
        return torch.where(finite, found, -torch.inf)

    @torch.no_grad()
    @unrounded
    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """n draws [n, d]."""
        check_draws(self, n, context, generator)
        return self._draw(n, generator)

    @abstractmethod
    def _log_density(self, x: Tensor) -> Tensor:
        """Of finite rows x [n, d]: [n]."""

    @abstractmethod
    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        """[n, d]."""


def points(name: str, rows: Any, least: int = 1) -> Tensor:
    """Rows [n, d] of an array or a tensor, of float64 unless they are of another floating dtype. Raises ShapeError, and
    DataError where a number is not finite."""
    try:
        found = torch.as_tensor(rows if isinstance(rows, Tensor) else np.asarray(rows))
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"{name}: expected rows of numbers, got {shown(rows)}") from None
    if found.ndim != 2 or found.shape[1] == 0 or found.shape[0] < least:
        wanted = f"[n, d] with n at least {least}"
        raise ShapeError(f"{name}: expected shape {wanted}, got {list(found.shape)}")
    if found.is_complex():
        raise DataError(f"{name}: expected rows of real numbers, got {found.dtype}")
    found = found.detach() if found.dtype in (torch.float32, torch.float64) else found.detach().double()
    if not bool(found.isfinite().all()):
        row = int((~found.isfinite()).any(1).nonzero()[0])
        raise DataError(f"{name}: expected finite numbers, got {found[row].tolist()} in row {row}; drop such rows")
    return found


def exactly(values: Any) -> Tensor:
    """Numbers as a float64 tensor; those of Python keep all their digits, as torch.as_tensor(0.1) would not."""
    return (values if isinstance(values, Tensor) else torch.from_numpy(np.array(values, float))).detach().double()
