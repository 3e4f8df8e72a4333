"""What torch is about while something is computed."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["is_plain", "is_watched"]

KINDS = frozenset((Tensor, torch.nn.Parameter))


def is_plain() -> bool:
    """Whether numbers can be looked at, and none but they and their gradients are asked for: not where a program is
    traced, mapped, or differentiated forward.

    >>> is_plain(), torch.func.vmap(lambda x: x * is_plain())(torch.ones(2))
    (True, tensor([0., 0.]))
    """
    return not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    )


def is_watched(*tensors: Tensor) -> bool:
    """Whether somebody looks at the single steps of a computation, so that they cannot be taken at once: all that is
    not plain, a mode that sees every operation, tensors of a kind of their own.

    >>> is_watched(torch.ones(2))
    False
    """
    return not (is_plain() and KINDS.issuperset(map(type, tensors)) and not torch._C._len_torch_dispatch_stack())
