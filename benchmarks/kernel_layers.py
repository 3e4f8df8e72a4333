"""Affine maps and small stacks of couplings, by tensor operations and in C: `python benchmarks/kernel_layers.py`.

One thread, CPU microseconds of a call with all that stands around it, the two ways in turn, medians and quartiles.
docs/kernels.md has these tables.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from diffeo import nets, scalars
from diffeo.kernels import in_use, library
from diffeo.transforms import Coupling, Partition
from diffeo.transforms.stacked import chained

MAPS = ((1, 64), (1, 1000), (3, 512), (63, 512))
STACKS = (("MLP", 2, 32, 64), ("MLP", 2, 32, 512), ("MLP", 16, 64, 512), ("MLP", 16, 64, 4096))
STACKS += (("ScaleAndShift", 2, 32, 64), ("ScaleAndShift", 16, 64, 4096))
HERE = library.LIBRARY

Call = Callable[[], object]


@contextmanager
def by_operations() -> Iterator[None]:
    """Within, C is not used."""
    library.LIBRARY = None
    yield
    library.LIBRARY = HERE


def compared(call: Call, rounds: int) -> list[str]:
    """Microseconds by tensor operations and in C."""
    spent: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for times, compiled in zip(spent, (False, True), strict=True):
            repeats, start = 0, time.process_time()
            while repeats < 5 or time.process_time() - start < 0.01:
                if compiled:
                    call()
                else:
                    with by_operations():
                        call()
                repeats += 1
            if turn:
                times.append((time.process_time() - start) / repeats * 1e6)
    return [f"{median:.0f} ({low:.0f}-{high:.0f})" for low, median, high in map(statistics.quantiles, spent)]


def row(name: str, calls: list[Call], rounds: int) -> None:
    print(f"| {name} | {' | '.join(cell for call in calls for cell in compared(call, rounds))} |", flush=True)


def without_gradient(act: Callable[..., object], *given: Tensor) -> object:
    with torch.no_grad():
        return act(*given)


def learned(act: Callable[..., tuple[Tensor, Tensor]], wanted: list[Tensor], *given: Tensor) -> object:
    moved, log_slope = act(*given)
    return torch.autograd.grad(moved.sum() + log_slope.sum(), wanted)


def maps(rounds: int) -> None:
    print("\n| affine | forward | C | forward and gradient | C | inverse | C |\n|---|---|---|---|---|---|---|")
    scalar = scalars.affine()
    for shape in MAPS:
        x, raw = torch.randn(shape, requires_grad=True), torch.randn(2, *shape, requires_grad=True)
        moves = [partial(without_gradient, move, x, raw) for move in (scalar.forward, scalar.inverse)]
        row(str(list(shape)), [moves[0], partial(learned, scalar.forward, [x, raw], x, raw), moves[1]], rounds)


def stacks(rounds: int) -> None:
    print("\n| nets, coordinates, width, rows | forward and gradient | C | forward | C |\n|---|---|---|---|---|")
    for kind, d, width, n in STACKS:
        half, layers = Partition.halves(d), []
        for _ in range(4):
            mlp = partial(nets.MLP, hidden=(width, width), activation="relu")
            net = mlp if kind == "MLP" else nets.ScaleAndShift(half.stay, half.move, (width, width))
            layers.append(Coupling(half, scalars.affine(), net))
            half = half.flip()
        stack, x = chained(*layers), torch.randn(n, d)
        for p in stack.parameters():
            p.data.add_(0.1 * torch.randn(p.shape))
        calls = [partial(learned, stack, list(stack.parameters()), x), partial(without_gradient, stack, x)]
        row(f"{kind}, {d}, {width}, {n}", calls, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, kernels: {in_use()}")
    maps(rounds)
    stacks(rounds)


if __name__ == "__main__":
    main()
