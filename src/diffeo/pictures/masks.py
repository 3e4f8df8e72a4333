"""Couplings by channels as founding flows have them: under masks, not packed."""

from collections.abc import Callable

from torch import nn

from diffeo.picturenets import Masked

__all__ = ["over_all_channels"]


def over_all_channels(net: Callable[[int, int], nn.Module], split: str, channels: int, flip: bool) -> Masked:
    """A net that sees and tells all channels, for an affine ``PictureCoupling`` by ``split``, "channels" or
    "alternate", of so many channels; ``net`` makes one of so many features in and out.

    >>> from diffeo.picturenets import GatedResNet
    >>> over_all_channels(GatedResNet, "alternate", 4, flip=True).move
    tensor([0, 2])
    """
    every = list(range(channels))
    parts = (every[0::2], every[1::2]) if split == "alternate" else (every[: channels // 2], every[channels // 2 :])
    stay, move = parts[::-1] if flip else parts
    return Masked(net(channels, 2 * channels), stay, move)
