"""The door of a density: shapes, dtypes, missing values and contexts are checked here, once, and told in one line that
names the argument, what was expected, what came, and what to do.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from diffeo.errors import DataError, ShapeError, shown

__all__ = ["check_context", "check_draws", "check_finite", "check_rows"]


class Asked(Protocol):
    """What a density says of its events and contexts."""

    context_features: int


def check_rows(density: Asked, x: Tensor, name: str, event: tuple[int, ...], on_nan: str) -> bool:
    """Whether x is known to be finite."""
    if not isinstance(x, Tensor):
        raise DataError(f"{name}: expected a torch.Tensor, got {type(x).__name__}; pass torch.as_tensor({name})")
    wanted = ", ".join(["n", *map(str, event)])
    if x.ndim == len(event) and tuple(x.shape) == event:
        raise ShapeError(f"{name}: expected shape [{wanted}], got one row {list(x.shape)}; pass {name}[None]")
    if tuple(x.shape[1:]) != event or x.ndim == 0:
        hint = f"this {_kind(density)} has events of shape {list(event)}"
        raise ShapeError(f"{name}: expected shape [{wanted}], got {list(x.shape)}; {hint}")
    return check_values(x, name, on_nan)


def check_context(density: Asked, context: Tensor | None, rows: int | None) -> None:
    """`rows`: of the data, each of which has its own context; None where there are none yet."""
    wanted, this = density.context_features, f"this {_kind(density)}"
    if context is None:
        if wanted:
            raise ShapeError(f"context: {this} takes {wanted} context features, got none; pass context=")
        return
    if not wanted:
        raise ShapeError(f"context: {this} takes no context, got one; leave context= out")
    if not isinstance(context, Tensor):
        raise DataError(f"context: expected a torch.Tensor, got {type(context).__name__}; pass torch.as_tensor(it)")
    if context.ndim < 1 or context.shape[-1] != wanted or (context.ndim != 2 and rows is not None):
        shape = f"[{'n' if rows is None else rows}, {wanted}]"
        raise ShapeError(f"context: expected shape {shape}, got {list(context.shape)}")
    if rows is not None and context.shape[0] != rows:
        raise ShapeError(f"context: expected one row per row of data, {rows}, got {context.shape[0]}; repeat it")
    if not check_values(context, "context", "raise"):
        check_finite(context, "context")


def check_draws(density: Asked, n: int, context: Tensor | None, generator: torch.Generator | None) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ShapeError(f"n: expected a number of draws, 0 or more, got {shown(n)}")
    if generator is not None and not isinstance(generator, torch.Generator):
        hint = "pass torch.Generator().manual_seed(0)"
        raise DataError(f"generator: expected a torch.Generator, got {shown(generator)}; {hint}")
    check_context(density, context, None)
    if context is not None and context.ndim != 2:
        raise ShapeError(f"context: expected shape [m, {density.context_features}], got {list(context.shape)}")


def _kind(density: Asked) -> str:
    return type(density).__name__.lower()


def check_values(x: Tensor, name: str, on_nan: str) -> bool:
    """Whether x is known to be finite."""
    if not x.dtype.is_floating_point:
        raise DataError(f"{name}: expected floating-point numbers, got {x.dtype}; pass {name}.float()")
    finite = _finite(x)
    if finite is False and on_nan == "raise" and bool(x.isnan().any()):
        row = int(x.isnan().flatten(1).any(1).nonzero()[0]) if x.ndim > 1 else 0
        raise DataError(f"{name}: expected numbers, got NaN in row {row}; drop such rows or fill them first")
    return finite is True


def check_finite(x: Tensor, name: str) -> None:
    """A NaN that was let through before stays."""
    if _finite(x) is False and bool(x.isinf().any()):
        row = int(x.isinf().flatten(1).any(1).nonzero()[0]) if x.ndim > 1 else 0
        raise DataError(f"{name}: expected finite numbers, got inf in row {row}; drop such rows first")


def _finite(x: Tensor) -> bool | None:
    """Whether all numbers are finite, by one look at the least and the largest. None where they cannot be looked at
    (export, compile, vmap), or where training on an accelerator would have to wait for the look; whatever is not a
    number then makes the log-density of its row NaN."""
    if torch.compiler.is_compiling() or (x.device.type != "cpu" and torch.is_grad_enabled()):
        return None
    try:
        return not x.numel() or all(math.isfinite(float(end)) for end in x.detach().aminmax())
    except RuntimeError:
        return None
