"""What a training step holds in memory, by the depth of a chain and by what the chain keeps: benchmarks/memory.py."""

from collections.abc import Iterator
from typing import Any

from benchmarks.speed.machine import circumstances, versions

__all__ = ["MEMORY", "measure_memory"]

MEMORY = "memory"
DEPTHS = (8, 16, 32, 64)
KEPT = ("store", "checkpoint", "invert")
AIM = 1.1  # of the deepest chain over the shallowest, by "invert"


def measure_memory() -> Iterator[dict[str, Any]]:
    """A row for every way and depth: MiB above parameters, gradients and moments, and as a multiple of the first."""
    from benchmarks import memory

    common = circumstances("cpu")
    for kept in KEPT:
        first = None
        for depth in DEPTHS:
            mib, seconds = memory.step(depth, kept)
            first = first or mib
            yield {
                "workload": MEMORY,
                "task": "train",
                "d": memory.SHAPE[0] * memory.SHAPE[1] * memory.SHAPE[2],
                "library": f"diffeo, {kept}",
                "n": memory.ROWS,
                "layers": depth,
                "mib": mib,
                "over_first": mib / first,
                "cpu_s": seconds,
                **({"aim": AIM} if (kept, depth) == (KEPT[-1], DEPTHS[-1]) else {}),
                **common,
                "versions": versions("diffeo"),
            }
