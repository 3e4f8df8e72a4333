"""A training step of Glow: CPU time beside normflows and bare networks, and what it holds by depth.

    python benchmarks/pictures.py step       glow-small and glow-28, all in one process, in turn
    python benchmarks/pictures.py memory     MiB at the peak of a step, by steps a level and `memory=`

The architecture is that of the recipes (arXiv 1807.03039): two levels of K steps, nets W wide. Bare networks are its
nets alone, by torch.nn.Conv2d. normflows is left out where it is not installed.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffeo.pictures.recipes import build, planned

sys.path.insert(0, str(Path(__file__).parent))
from memory import MIB, Held

SIZES = {"glow-small": (8, 64), "glow-28": (16, 128)}
ROWS = 64
LEVELS = ((4, 14), (8, 7))  # channels and side behind each squeeze
WARM = 3

Step = Callable[[], Any]


def pictures(n: int = ROWS) -> Tensor:
    return torch.randint(0, 256, (n, 1, 28, 28), generator=torch.Generator().manual_seed(0))


def units(x: Tensor) -> Tensor:
    """Pixels at the middle of their cells, within (0, 1)."""
    return (x + 0.5) / 256


def bare(steps: int, width: int) -> Step:
    """The nets alone: forward and backward."""
    nets = [
        (
            nn.Sequential(
                nn.Conv2d(c // 2, width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, width, 1),
                nn.ReLU(),
                nn.Conv2d(width, c, 3, padding=1),
            ),
            torch.randn(ROWS, c // 2, side, side, requires_grad=True),
        )
        for c, side in LEVELS
        for _ in range(steps)
    ]
    return lambda: sum(net(h).sum() for net, h in nets).backward()


def trained(module: nn.Module, loss: Callable[[], Tensor]) -> Step:
    """One step of Adamax."""
    optimizer = torch.optim.Adamax(module.parameters(), 1e-4, foreach=True)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def diffeo(steps: int, width: int, memory: str) -> tuple[nn.Module, Step]:
    torch.manual_seed(0)
    density = build(planned("glow-28", (1, 28, 28), steps=steps, width=width, memory=memory))
    x = pictures()
    density.flow.transform.settle(units(x))
    return density, trained(density, lambda: -density.objective(x).mean())


def normflows(steps: int, width: int) -> tuple[nn.Module, Step] | None:
    """The same by normflows, or None where there is none."""
    try:
        import normflows as nf
    except ImportError:
        return None
    torch.manual_seed(0)
    flows, bases, merges = [], [], []
    for channels, side, left in ((8, 7, 8), (4, 14, 2)):
        blocks = [nf.flows.GlowBlock(channels, width, split_mode="channel", scale=True) for _ in range(steps)]
        flows.append([*blocks, nf.flows.Squeeze()])
        bases.append(nf.distributions.DiagGaussian((left, side, side)))
    merges.append(nf.flows.Merge())
    model, x = nf.MultiscaleFlow(bases, flows, merges), units(pictures()) - 0.5
    model.log_prob(x, None)
    return model, trained(model, lambda: -model.log_prob(x, None).mean())


def subjects(steps: int, width: int) -> dict[str, Step]:
    found = {"bare networks": bare(steps, width)}
    if other := normflows(steps, width):
        found["normflows"] = other[1]
    return found | {f"diffeo, {memory}": diffeo(steps, width, memory)[1] for memory in ("store", "invert")}


def in_turn(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each, one after another, so many times."""
    found = {name: list[float]() for name in steps}
    for i in range(WARM + rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if i >= WARM:
                found[name].append(time.process_time() - start)
    return found


def quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def print_steps(rounds: int) -> None:
    print("| architecture | | CPU ms | times bare networks | normflows takes so many times it |")
    print("|---" * 5 + "|")
    for name, size in SIZES.items():
        seconds = in_turn(subjects(*size), rounds)
        for what, values in seconds.items():
            ratios = [
                quartiles([a / b for a, b in zip(*pair, strict=True)])
                for pair in ((values, seconds["bare networks"]), (seconds.get("normflows", []), values))
                if len(pair[0]) == len(pair[1])
            ]
            print("|", " | ".join([name, what, f"{1e3 * statistics.median(values):.0f}", *ratios]), "|", flush=True)


def held(module: nn.Module, step: Step) -> float:
    """MiB at the peak of a second step, above parameters, gradients and moments."""
    step()
    with Held() as found:
        step()
    gradients = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    return (found.peak - gradients) / MIB


def print_memory(depths: list[int], width: int) -> None:
    print("| | " + " | ".join(f"K={depth}" for depth in depths) + " |")
    print("|---" * (len(depths) + 1) + "|")
    makers: dict[str, Callable[[int], tuple[nn.Module, Step] | None]] = {
        "normflows": lambda depth: normflows(depth, width),
        "diffeo, store": lambda depth: diffeo(depth, width, "store"),
        "diffeo, checkpoint": lambda depth: diffeo(depth, width, "checkpoint"),
        "diffeo, invert": lambda depth: diffeo(depth, width, "invert"),
    }
    for name, make in makers.items():
        cells = [f"{held(*made):.1f}" for depth in depths if (made := make(depth))]
        if cells:
            print("|", " | ".join([name, *cells]), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["step", "memory"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--depths", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--width", type=int, default=128, help="of the nets, for memory")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "step":
        print_steps(given.rounds)
    else:
        print_memory(given.depths, given.width)


if __name__ == "__main__":
    main()
