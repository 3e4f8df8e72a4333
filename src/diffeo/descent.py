"""Parameters laid end to end, so that a step of the optimiser is a few calls however many tensors there are.

A `Vector` holds parameters of one kind of number, rate and decay as one vector each of weights, their average, the
best, and the moments of AdamW (arXiv 1711.05101) or Adamax (arXiv 1412.6980, section 7.1); a `Part` is the vectors of
one module. Nothing here looks at a number on a device: whether a step counts, and by how much a gradient is too long,
stay tensors.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

__all__ = ["Optimizer", "Part", "Vector"]

Optimizer = Literal["adamw", "adamax"]

BETA, BETA2, EPSILON = 0.9, 0.999, 1e-8
KEPT = ("weight", "average", "best", "exp_avg", "exp_avg_sq", "step")


class Vector:
    """Parameters of one rate, relative to the highest, and one decay; until `release` they are pieces of `weight`."""

    def __init__(self, parameters: Sequence[nn.Parameter], rate: float, decay: float) -> None:
        self.parameters, self.rate, self.decay = list(parameters), rate, decay
        self.weight = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        self.average, self.best = self.weight.clone(), self.weight.clone()
        self.gradient, self.exp_avg, self.exp_avg_sq = (torch.zeros_like(self.weight) for _ in range(3))
        self.step = torch.zeros((), device=self.weight.device)
        pieces = self.weight.split([p.numel() for p in self.parameters])
        self._absent = [torch.zeros_like(piece) for piece in pieces]
        for p, piece in zip(self.parameters, pieces, strict=True):
            p.data = piece.view(p.shape)

    def release(self) -> None:
        """Give every parameter a memory of its own again."""
        for p in self.parameters:
            p.data = p.data.clone()

    def take_gradient(self) -> None:
        """Lay the gradients end to end, and forget them where they were."""
        found = []
        for p, absent in zip(self.parameters, self._absent, strict=True):
            found.append(absent if p.grad is None else p.grad.reshape(-1))
            p.grad = None
        torch.cat(found, out=self.gradient)

    @torch.no_grad()
    def descend(
        self, rate: float, shrink: Tensor, failed: Tensor, optimizer: Optimizer = "adamw", beta2: float = BETA2
    ) -> None:
        """One step by the gradient divided by `shrink`; nothing where `failed` is 1. `beta2`: what is kept of the
        second moment in a step."""
        if optimizer == "adamax":
            self._adamax(rate * self.rate, shrink, failed, beta2)
            return
        adamw(
            [self.weight],
            [self.gradient],
            [self.exp_avg],
            [self.exp_avg_sq],
            [],
            [self.step],
            fused=True,
            grad_scale=shrink,
            found_inf=failed,
            amsgrad=False,
            beta1=BETA,
            beta2=beta2,
            lr=rate * self.rate,
            weight_decay=self.decay,
            eps=EPSILON,
            maximize=False,
        )

    def _adamax(self, rate: float, shrink: Tensor, failed: Tensor, beta2: float) -> None:
        """Adamax: the second moment is the largest gradient of late, so one odd batch shortens steps for long."""
        counts = 1 - failed.to(self.weight.dtype)
        g = torch.where(failed > 0, 0.0, self.gradient / shrink.to(self.weight.dtype))
        self.step += counts
        self.exp_avg.lerp_(g, (1 - BETA) * counts)
        self.exp_avg_sq.mul_(1 - (1 - beta2) * counts).clamp_(min=EPSILON)
        torch.maximum(self.exp_avg_sq, g.abs_(), out=self.exp_avg_sq)
        share = counts * rate / (1 - BETA ** self.step.clamp(min=1))
        self.weight.mul_(1 - counts * rate * self.decay)
        self.weight.sub_(self.exp_avg / self.exp_avg_sq * share)


class Part:
    """The vectors of a module that is learned by itself; `places` gives each of its parameters a rate and a decay."""

    def __init__(self, places: Sequence[tuple[nn.Parameter, float, float]]) -> None:
        kinds: dict[Any, list[nn.Parameter]] = {}
        for p, rate, decay in places:
            kinds.setdefault((p.dtype, p.device, rate, decay), []).append(p)
        self.vectors = [Vector(own, rate, decay) for (_, _, rate, decay), own in kinds.items()]

    def norm(self) -> Tensor:
        """The norm of the gradient, which is taken from the parameters; 0 where there are none."""
        for one in self.vectors:
            one.take_gradient()
        norms = [torch.linalg.vector_norm(one.gradient).float() for one in self.vectors]
        return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())

    def descend(
        self, rate: float, shrink: Tensor, failed: Tensor, optimizer: Optimizer = "adamw", beta2: float = BETA2
    ) -> None:
        for one in self.vectors:
            one.descend(rate, shrink, failed, optimizer, beta2)

    def approach(self, share: Tensor) -> None:
        """Move the averages towards the weights by a share."""
        for one in self.vectors:
            one.average.lerp_(one.weight, share.to(one.weight.dtype))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the weights are the averages."""
        weights = [one.weight.clone() for one in self.vectors]
        for one in self.vectors:
            one.weight.copy_(one.average)
        yield
        for one, weight in zip(self.vectors, weights, strict=True):
            one.weight.copy_(weight)

    def keep(self) -> None:
        """The average is the best so far."""
        for one in self.vectors:
            one.best.copy_(one.average)

    def finish(self) -> None:
        """The weights are the best."""
        for one in self.vectors:
            one.weight.copy_(one.best)

    def release(self) -> None:
        for one in self.vectors:
            one.release()

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of all that the part stands on."""
        return {f"{i}.{name}": getattr(one, name).clone() for i, one in enumerate(self.vectors) for name in KEPT}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Stand where a snapshot was taken."""
        for i, one in enumerate(self.vectors):
            for name in KEPT:
                getattr(one, name).copy_(tensors[f"{i}.{name}"])
