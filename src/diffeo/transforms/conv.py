"""The invertible 1x1 convolution with the ActNorm before it: one product of matrices at every place of a picture."""

from typing import Literal

import torch
from torch import Tensor

from diffeo.scalars import within, working_dtype
from diffeo.transforms.base import Transform
from diffeo.transforms.linear import LU, ActNorm
from diffeo.transforms.planes import as_pictures, as_planes, check_picture

__all__ = ["Conv1x1"]


class Conv1x1(Transform):
    """z = W (x - loc) exp(-s) over the channels of a picture, at each of its places: ActNorm and an invertible 1x1
    convolution with W = P L (U + diag) as one matrix and one shift (arXiv 1807.03039, sections 3.1 and 3.2).

    log_det is H W times (log|det W| - sum of s), which the factors give. ``settle`` takes loc and s from a batch.

    >>> conv = Conv1x1((3, 8, 8))
    >>> x = torch.randn(20, 3, 8, 8) * 4 + 1
    >>> z = conv.settle(x)
    >>> bool(torch.allclose(conv.inverse(conv(x)[0])[0], x, atol=1e-4))
    True
    """

    def __init__(
        self,
        event: tuple[int, ...],
        start: Literal["identity", "orthogonal"] = "orthogonal",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_picture(self, event)
        self.norm = ActNorm(event)
        self.mix = LU(event[0], start, generator)
        self.mix.bias.requires_grad_(False)  # the shift of `norm` says the same

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        matrix, offset, log_det = self._line(x)
        planes = as_planes(within(x.to(matrix.dtype)))
        z = torch.addmm(offset, matrix, planes.flatten(1)).view(planes.shape)
        return as_pictures(z).to(x.dtype), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        matrix, offset, log_det = self._line(z)
        planes = as_planes(within(z.to(matrix.dtype)))
        back = torch.linalg.inv(matrix.double()).to(matrix.dtype)
        x = (back @ (planes.flatten(1) - offset)).view(planes.shape)
        return as_pictures(x).to(z.dtype), -log_det

    @torch.no_grad()
    def settle(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.norm.initialize(x)
        return self(x, context)[0]

    def check_event(self, event: tuple[int, ...]) -> None:
        check_picture(self, event)
        self.norm.check_event(event)

    def _line(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The matrix [C, C] and the shift [C, 1] of both together, and log_det [n]."""
        loc, log_scale, total = self.norm.units(x)
        lower, upper, log_det = self.mix.factors(loc.dtype)
        scale = (-log_scale).exp().flatten()
        matrix = (lower @ upper)[self.mix.order] * scale
        offset = -(matrix @ loc.flatten(1))
        places = x.shape[2:].numel()
        return matrix, offset, (log_det * places - total).to(working_dtype(x))
