"""What torch is about while something is computed."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["is_plain"]

KINDS = frozenset((Tensor, torch.nn.Parameter))


def is_plain(*tensors: Tensor) -> bool:
    """Whether numbers can be looked at, and none but they and their gradients are asked for: not where a program is
    traced, mapped, or differentiated forward, nor where somebody looks at its single steps, nor where one of these
    tensors is of a kind of its own.

    >>> is_plain(), is_plain(torch.ones(2)), torch.func.vmap(lambda x: x * is_plain(x))(torch.ones(2))
    (True, True, tensor([0., 0.]))
    """
    return not (
        torch.compiler.is_compiling()
        or not KINDS.issuperset(map(type, tensors))
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
    )
