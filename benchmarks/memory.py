"""What a training step of a Glow-like chain holds, by depth and by `memory=` of Chain, and how long it takes.

A step is an ActNorm, a 1x1 convolution and an affine coupling whose net is three convolutions, on 4 x 8 x 8 squeezed
pictures. Of the second training step, the peak above parameters, gradients and the optimizer's state is told, in MiB,
and the CPU seconds beside those of "store".

    python benchmarks/memory.py --depths 8 16 32 64

Counted is what tensors own, by a dispatch mode that sees each as it is made and as it goes, in backward too: so the
figure is exact and the same in every run. `ru_maxrss` also counts what the allocator keeps back and what an operator
needs within itself (the unfolded pictures of a convolution), which do not depend on the depth. All gradients are taken
off, though some come only after the peak: too much by at most those of one step, 0.011 MiB, a step.
"""

import argparse
import time
import weakref
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffeo import scalars
from diffeo.bases import StandardNormal
from diffeo.flow import Flow
from diffeo.transforms import LU, ActNorm, Chain, Coupling, OverChannels, Partition, Transform

SHAPE = (4, 8, 8)
WIDTH = 32
ROWS = 128
MIB = 2**20


class Held(TorchDispatchMode):
    """Bytes that tensors made within hold at once: ``now``, and the most, ``peak``.

    >>> with Held() as held:
    ...     x = torch.zeros(1024)
    ...     y = x + x
    >>> del x, y
    >>> held.peak, held.now
    (8192, 0)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __enter__(self) -> "Held":
        super().__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)

    def __torch_dispatch__(self, act: Any, kinds: Any, given: Any = (), options: Any = None) -> Any:
        before = {v.untyped_storage()._cdata for v in tree_leaves((given, options)) if isinstance(v, Tensor)}
        found = act(*given, **(options or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage(), before)
        return found

    def _count(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self.known or place in before:
            return
        self.known.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, place, size)

    def _gone(self, place: int, size: int) -> None:
        self.known.discard(place)
        self.now -= size


class Pictures(nn.Module):
    """Three convolutions over the channels that stay, as a coupling's net: [n, in] -> [out, n]."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        places = SHAPE[1] * SHAPE[2]
        self.net = nn.Sequential(
            nn.Conv2d(in_features // places, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, out_features // places, 3, padding=1),
        )
        nn.init.normal_(self.net[-1].weight, std=0.01)

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        return self.net(h.reshape(len(h), -1, *SHAPE[1:])).flatten(1).T


def glow(depth: int) -> Flow:
    """So many steps, each initialised from what comes to it."""
    torch.manual_seed(0)
    partition, steps = Partition.channels(SHAPE), list[Transform]()
    h = pictures(64)
    for _ in range(depth):
        norm = ActNorm(SHAPE)
        norm.initialize(h)
        steps.append(
            Chain(norm, OverChannels(LU(SHAPE[0], "orthogonal")), Coupling(partition, scalars.affine(), Pictures))
        )
        with torch.no_grad():
            h = steps[-1](h)[0]
        partition = partition.flip()
    return Flow(Chain(*steps), StandardNormal(SHAPE))


def pictures(n: int) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def step(depth: int, memory: str) -> tuple[float, float]:
    """MiB above parameters, gradients and moments in the second training step, and its CPU seconds."""
    flow, x = glow(depth), pictures(ROWS)
    flow.transform.memory = memory
    optimizer = torch.optim.Adam(flow.parameters(), 1e-4, fused=True)

    def train() -> None:
        optimizer.zero_grad()
        (-flow(x).mean()).backward()
        optimizer.step()

    train()
    gradients = sum(p.numel() * p.element_size() for p in flow.parameters())
    with Held() as held:
        train()
    start = time.process_time()
    train()
    return (held.peak - gradients) / MIB, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 16, 32, 64])
    depths = parser.parse_args().depths
    torch.set_num_threads(1)
    state = ROWS * SHAPE[0] * SHAPE[1] * SHAPE[2] * 4 / MIB
    print(f"one state of {ROWS} pictures {SHAPE}: {state:.3f} MiB; torch {torch.__version__}")
    print("| memory | " + " | ".join(f"K={depth}" for depth in depths) + " | last over first | MiB a step | time |")
    print("|---" * (len(depths) + 4) + "|")
    times = {}
    for memory in ("store", "checkpoint", "invert"):
        found, times[memory] = zip(*(step(depth, memory) for depth in depths), strict=True)
        growth = (found[-1] - found[0]) / max(1, depths[-1] - depths[0])
        cells = [f"{mib:.2f}" for mib in found]
        ratio = f"{found[-1] / found[0]:.2f}"
        print(
            "|",
            " | ".join([memory, *cells, ratio, f"{growth:.3f}", f"{times[memory][-1] / times['store'][-1]:.2f}"]),
            "|",
        )


if __name__ == "__main__":
    main()
