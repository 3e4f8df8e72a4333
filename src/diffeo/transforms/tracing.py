"""What torch is about while a transform runs."""

import torch
from torch.autograd import forward_ad

__all__ = ["is_plain"]


def is_plain() -> bool:
    """Whether numbers can be looked at, and none but they and their gradients are asked for: not where a program is
    traced, mapped, or differentiated forward."""
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return not traced and forward_ad._current_level < 0
