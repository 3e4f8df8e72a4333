"""Noise that makes integers continuous, drawn from a learned density on [0, 1) for each of them.

A picture k of integers has the probability P(k) = integral of p(k + u) over u in [0, 1)^D, and for any density q(u|k)

    log P(k) >= E_q[log p(k + u) - log q(u|k)],

with uniform noise for q = 1, and nearer to P the nearer q is to p within the cell: variational dequantisation
(arXiv 1902.00275, section 3.1).
"""

import torch
from torch import Tensor, nn

from diffeo.errors import ShapeError, shown, whole
from diffeo.picturenets import GatedResNet
from diffeo.scalars import affine, working_dtype
from diffeo.transforms.base import sum_event
from diffeo.transforms.squeeze import Squeeze

__all__ = ["VariationalNoise"]

MOST_GRAYS = 65536


class VariationalNoise(nn.Module):
    """A conditional flow of noise u [n, C, H, W] on (0, 1), given the picture that it is added to.

    Standard normal numbers eps are moved by ``steps`` affine couplings of the two colours of a checkerboard in turn, to
    e', and u = Phi(e') by the normal distribution function, so that with the Jacobian J of e'

        log q(u|x) = (|e'|^2 - |eps|^2) / 2 - log|det J|.

    The nets of the couplings, residual nets with gates of ``width`` channels and ``blocks`` blocks, see the colour that
    stays and features of the picture, which are found once. They start at zero, where e' = eps: the noise is uniform
    then, and log q exactly 0. Phi ends before the numbers do: u is rounded into [s, 1 - s] with s = grays / 2^24, for
    which k + u < k + 1 in float32 for every k below ``grays``.

    ``context`` features, such as a class as one-hot, are seen by all nets. Raises ShapeError for an odd height or
    width, for sizes below 1, and for more than 65,536 grays.

    >>> noise = VariationalNoise((1, 8, 8), width=8)
    >>> x = torch.randint(0, 256, (5, 1, 8, 8)).float()
    >>> u, log_q = noise.draw(x)
    >>> u.shape, log_q.tolist()
    (torch.Size([5, 1, 8, 8]), [0.0, 0.0, 0.0, 0.0, 0.0])
    """

    def __init__(
        self,
        event: tuple[int, int, int],
        width: int = 32,
        steps: int = 4,
        context: int = 0,
        grays: int = 256,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        if len(event) != 3:
            raise ShapeError(f"event: expected the shape of a picture, (C, H, W), got {shown(event)}")
        self.event = (whole("C", event[0]), whole("H", event[1]), whole("W", event[2]))
        self._board = Squeeze("checkerboard")
        self._board.check_event(self.event)
        if not whole("grays", grays, 2) <= MOST_GRAYS:
            raise ShapeError(f"grays: expected a whole number, 2 to {MOST_GRAYS}, got {grays}")
        self.grays, self.context_features, self.scalar = grays, whole("context", context, 0), affine()
        fields = 2 * self.event[0]
        self.features = GatedResNet(2 * fields, width, width, blocks, context, border=True, zero_last=False)
        self.nets = nn.ModuleList(
            GatedResNet(fields + width, self.scalar.width * fields, width, blocks, context, border=True)
            for _ in range(whole("steps", steps))
        )

    def draw(
        self, x: Tensor, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Integers x [n, C, H, W] in any float dtype, context [n, c] -> (u [n, C, H, W], log q(u|x) [n], in nats)."""
        eps = torch.randn(x.shape, generator=generator, dtype=working_dtype(x), device=x.device)
        drawn: tuple[Tensor, Tensor] = self(eps, x, context)
        return drawn

    def forward(self, eps: Tensor, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same from given standard normal numbers eps [n, C, H, W], as a function of them."""
        return self.from_noise(eps, x, context)

    def from_noise(self, eps: Tensor, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(u [n, C, H, W], log q(u|x) [n]) for standard normal eps [n, C, H, W]."""
        for name, value in (("x", x), ("eps", eps)):
            if value.shape != (len(x), *self.event):
                expected = [len(x), *self.event]
                raise ShapeError(f"{name}: expected pictures of shape {expected}, got {list(value.shape)}")
        eps = eps.to(working_dtype(eps, x))
        moved, log_det = self._move(eps, 2 * (x.to(eps.dtype) + 0.5) / self.grays - 1, context)
        end = self.grays / 2**24
        u = torch.special.ndtr(moved).clamp(end, 1 - end)
        return u, sum_event((moved - eps) * (moved + eps) / 2) - log_det

    def _move(self, eps: Tensor, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """eps [n, C, H, W] -> (e' [n, C, H, W], log|det J| [n]), given a picture in [-1, 1]."""
        known = self.features(self._fields(x), context)
        stay, move = self._fields(eps).chunk(2)
        log_det = eps.new_zeros(len(eps))
        for net in self.nets:
            raw = net(torch.cat([stay, known.to(stay.dtype)]), context).view(self.scalar.width, *move.shape)
            move, log_slope = self.scalar.forward(move, raw)
            log_det = log_det + log_slope.sum((0, 2, 3))
            stay, move = move, stay
        pair = (stay, move) if len(self.nets) % 2 == 0 else (move, stay)
        return self._board.inverse(torch.cat(pair).transpose(0, 1))[0], log_det

    def _fields(self, x: Tensor) -> Tensor:
        """Pictures [n, C, H, W] -> fields [4C, n, H/2, W/2], those of one colour first."""
        return self._board(x)[0].transpose(0, 1)

    def extra_repr(self) -> str:
        return f"{list(self.event)}, context={self.context_features}, grays={self.grays}"
