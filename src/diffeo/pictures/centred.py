"""The affine map as it is written about a centre: what a net says is where x lies, and how widely, in x's own units."""

from diffeo.scalars import Scalar, affine

__all__ = ["centred"]


def centred() -> Scalar:
    """z = (x - raw[1]) exp(-s) with |s| < 2: `affine` the other way round (arXiv 2412.06329).

    >>> import torch
    >>> z, log_slope = centred().forward(torch.tensor([3.0]), torch.tensor([[0.0], [1.0]]))
    >>> z.item(), log_slope.item()
    (2.0, 0.0)
    """
    other_way = affine()
    return Scalar("affine_centred", 2, other_way.inverse, other_way.forward)
