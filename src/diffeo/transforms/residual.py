"""Invertible residual layers: x plus something that stretches no distance by as much as it (arXiv 1811.00995)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffeo.errors import ShapeError, shown, whole
from diffeo.scalars import working_dtype
from diffeo.transforms.base import Transform, fits
from diffeo.transforms.lipschitz import LipschitzMLP, Push, Shift, beside, invert, jacobian
from diffeo.transforms.volume import LogDet, check_log_det, fixed_probes, fresh_probes, is_exact, series, terms_for

__all__ = ["Residual"]


class Residual(Transform):
    """z = x + g(x, context) with |g(x) - g(x')| <= coefficient |x - x'|, a bijection for every value of its weights.

    Distances change by factors within 1 - coefficient and 1 + coefficient, so a layer moves gently; flows stack ten.
    The inverse is found to rounding, with a bound of its error that ends the search (see ``invert``).

    ``log_det``: "exact" is log|det(I + dg/dx)|, d directions through g a row. "estimate" is the power series of that,
    by random probes: in training an unbiased estimate from fresh noise (Russian roulette, arXiv 1906.02735; drawn from
    torch's global generator, as dropout is); in evaluation an estimate from up to 16 fixed probes, the same every time,
    cut off where at most a thousandth of a nat is left. "auto" is exact in evaluation, and in training to 16
    coordinates. Raises ShapeError for a coefficient outside of (0, 0.99].

    >>> layer = Residual(3, hidden=(16,))
    >>> z, log_det = layer(torch.ones(4, 3))
    >>> z.shape, log_det.shape
    (torch.Size([4, 3]), torch.Size([4]))
    """

    probes: Tensor | None

    def __init__(
        self,
        d: int,
        hidden: Sequence[int] = (32, 32),
        context: int = 0,
        coefficient: float = 0.97,
        log_det: LogDet = "auto",
    ) -> None:
        super().__init__()
        if not (isinstance(coefficient, (int, float)) and 0 < coefficient <= 0.99):
            raise ShapeError(f"coefficient: expected a number above 0 and at most 0.99, got {shown(coefficient)}")
        check_log_det(log_det)
        self.coefficient, self.log_det = float(coefficient), log_det
        self.context_features = whole("context", context, 0)
        self.net = LipschitzMLP(d, hidden, context, self.coefficient)
        self.register_buffer("probes", fixed_probes(d) if log_det == "estimate" else None)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        flat, shift = self._shift(x, context)
        g, push = shift(flat)
        return (flat + g).reshape(x.shape).to(x.dtype), self._log_det(flat, push).to(working_dtype(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        flat, shift = self._shift(z, context)
        x = invert(shift, flat, self.coefficient, flat)
        return x.reshape(z.shape).to(z.dtype), -self._log_det(x, shift(x)[1]).to(working_dtype(z))

    def _shift(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Shift]:
        """Events in rows [n, d] of the working dtype, and g."""
        dtype = working_dtype(x, *self.net.parameters())
        flat = x.reshape(len(x), math.prod(x.shape[1:])).to(dtype)
        ready, side = self.net.ready(dtype), beside(context, self.context_features, flat)
        return flat, lambda x: self.net.shift(ready, side, x)

    def _log_det(self, x: Tensor, push: Push) -> Tensor:
        """log|det(I + dg/dx)| [n]."""
        if is_exact(self.log_det, self.net.d, self.training):
            return torch.linalg.slogdet(jacobian(x, push))[1]
        if self.training or self.probes is None:
            return series(push, fresh_probes(x), self.coefficient)
        probes = self.probes.to(x.dtype).expand(len(x), *self.probes.shape)
        return series(push, probes, self.coefficient, terms_for(self.net.d, self.coefficient))

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, math.prod(event) == self.net.d, f"{self.net.d} numbers", event)

    def extra_repr(self) -> str:
        return f"coefficient={self.coefficient:g}, log_det={self.log_det}"
