"""One transform under examination: copies of it, and data to try it on."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from diffeo.transforms.base import Chain, Transform

__all__ = ["Trial", "outcomes"]

ULPS = 64  # units in the last place that a layer may lose, one way or the other


class Trial:
    """The transform ``t`` in the dtype asked for, ``t64`` in float64, rows x and z (to 8 standard deviations), c."""

    def __init__(
        self,
        transform: Transform,
        event: tuple[int, ...],
        context_features: int,
        dtype: torch.dtype,
        inputs: Tensor | None,
        generator: torch.Generator | None,
    ) -> None:
        generator = generator or torch.Generator().manual_seed(0)
        self.dtype, self.event, self.eps = dtype, event, torch.finfo(dtype).eps
        self.t = copy.deepcopy(transform).to(dtype).eval()
        self.t64 = copy.deepcopy(self.t).double()
        drawn = torch.randn(16, *event, generator=generator, dtype=torch.float64)
        self.x = (drawn if inputs is None else inputs.detach()).to(dtype, copy=True)
        z = torch.randn(len(self.x), *transform.event_after(event), generator=generator, dtype=torch.float64)
        z[:1], z[1:2] = 8.0, -8.0
        self.z = z.to(dtype)
        shape = (len(self.x), context_features)
        self.c = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) if context_features else None
        self.layers = max(1, sum(not isinstance(m, Chain) for m in transform.modules() if isinstance(m, Transform)))
        self.slack = ULPS * self.layers * self.eps

    def rows(self, index: Tensor | slice) -> tuple[Tensor, Tensor | None]:
        """Some rows of x, with their context."""
        return self.x[index], None if self.c is None else self.c[index]

    def unexplained(
        self, gap: Tensor, scale: Tensor, allowed: float | Tensor, step: Callable, point: Tensor, context: Tensor | None
    ) -> Tensor:
        """Gaps [n, d + 1] in the outcomes (z, log_det) of a step in float64 at a point [n, *event], over their scale.

        Where one is more than allowed, it is lessened by what errors of ``slack`` in the point, the context and the
        weights do to that outcome: nothing is to blame for being steep.
        """
        gap = gap.detach().double().clone()
        for i in (gap > allowed * scale).any(1).nonzero()[:, 0].tolist():
            gap[i] -= self._blur(step, point[i : i + 1], None if context is None else context[i : i + 1])
        return gap.clamp(min=0) / scale.detach()

    def _blur(self, step: Callable, point: Tensor, context: Tensor | None) -> Tensor:
        """What errors of ``slack`` do to each outcome [d + 1] of one row: to first order, and for the point, beside
        which a flat stretch may begin, also by what is found at either side."""
        given = [v.detach().double().requires_grad_() for v in (point, context) if v is not None]
        weights = [p for p in self.t64.parameters() if p.requires_grad]
        sizes = [*(v.detach().abs().clamp(min=1) for v in given), *(p.detach().abs() for p in weights)]
        z, log_det = step(*given)
        blurs = []
        for outcome in torch.cat([z.flatten(), log_det]).unbind():
            slopes = torch.autograd.grad(
                outcome + 0 * given[0].sum(), [*given, *weights], retain_graph=True, allow_unused=True
            )
            parts = [(g.abs() * size).sum() for g, size in zip(slopes, sizes, strict=True) if g is not None]
            blurs.append(self.slack * torch.stack(parts).sum())
        return torch.stack(blurs) + self._beside(step, *(v.detach() for v in given))

    def _beside(self, step: Callable, point: Tensor, *context: Tensor) -> Tensor:
        """Changes of the outcomes [d + 1] as each coordinate goes ``slack`` up or down, the greater, summed."""
        moves = self.slack * torch.diag(point.flatten().abs().clamp(min=1))
        points = torch.cat([point.flatten() + moves, point.flatten() - moves]).view(-1, *point.shape[1:])
        found = outcomes(step(points, *(c.expand(len(points), -1) for c in context)))
        return (found - outcomes(step(point, *context))).abs().unflatten(0, (2, -1)).amax(0).sum(0).nan_to_num(0.0)


def outcomes(found: tuple[Tensor, Tensor]) -> Tensor:
    """(z [n, *event], log_det [n]) side by side, float64 [n, d + 1]."""
    z, log_det = found
    return torch.cat([z.detach().double().flatten(1), log_det.detach().double()[:, None]], 1)
