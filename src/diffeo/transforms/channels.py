"""What is done to vectors, done to the channels of a picture at each of its places."""

from torch import Tensor

from diffeo.errors import ShapeError, shown
from diffeo.scalars import working_dtype
from diffeo.transforms.base import Transform, fits, sum_event

__all__ = ["OverChannels"]


class OverChannels(Transform):
    """A transform of vectors (C,) at every place of an event (C, ...); log_det is summed over the places.

    Over a linear map this is the invertible 1x1 convolution (arXiv 1807.03039, section 3.2); any transform of vectors
    will do, such as ``Permute`` or ``Planar``.

    >>> import torch
    >>> from diffeo.transforms import LU
    >>> OverChannels(LU(3))(torch.randn(2, 3, 8, 8))[1].shape
    torch.Size([2])
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        if not isinstance(transform, Transform):
            raise ShapeError(f"transform: expected a Transform, got {shown(transform)}")
        self.transform = transform
        self.context_features = transform.context_features

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._everywhere(self.transform.forward, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._everywhere(self.transform.inverse, z, context)

    def check_event(self, event: tuple[int, ...]) -> None:
        fits(self, len(event) >= 1, "channels first", event)
        self.transform.check_event(event[:1])

    @staticmethod
    def _everywhere(step, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        places = x.shape[2:].numel()
        vectors = x.flatten(2).movedim(1, -1) if x.ndim > 2 else x[:, None]  # [n, places, C]
        each = None if context is None else context[:, None].expand(-1, places, -1).flatten(0, 1)
        moved, log_det = step(vectors.reshape(-1, x.shape[1]), each)
        z = moved.reshape(x.shape[0], places, x.shape[1]).movedim(-1, 1).reshape(x.shape)
        return z, sum_event(log_det.reshape(x.shape[0], places)).to(working_dtype(x))
