"""What is measured: a flow of one library with the tasks it can do, and the floor that all are held against."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from benchmarks.speed.workloads import Work, net_sizes
from torch import Tensor, nn

__all__ = ["FLOOR", "Subject", "floor", "of_torch", "parameters", "rows", "started"]

FLOOR = "floor"
BATCH = 64  # of an epoch
RATE = 1e-3


class Subject(NamedTuple):
    """One library's flow: each task is a function that does it once. ``evaluations``: of a field, by task."""

    library: str
    parameters: int
    tasks: dict[str, Callable[[], object]]
    evaluations: dict[str, int] = {}  # noqa: RUF012
    compiles: bool = False


def rows(work: Work, n: int, device: str = "cpu") -> Tensor:
    """Standard normal rows [n, *event], the same for every library."""
    return torch.randn(n, *work.shape, generator=torch.Generator().manual_seed(n)).to(device)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def started(module: nn.Module) -> nn.Module:
    """The weights and biases of every net as torch starts a linear layer, last ones too, so that no library computes
    the identity: uniform within 1 / sqrt(inputs)."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        weight, bias = getattr(part, "weight", None), getattr(part, "bias", None)
        if isinstance(weight, nn.Parameter) and weight.ndim >= 2 and weight.numel():
            most = weight[0].numel() ** -0.5
            for values in (weight, bias):
                if values is not None:
                    values.copy_((2 * torch.rand(values.shape, generator=generator) - 1) * most)
    return module


def of_torch(
    library: str,
    module: nn.Module,
    log_prob: Callable[[Tensor], Tensor],
    sample: Callable[[int], Tensor],
    work: Work,
    device: str,
) -> Subject:
    """The tasks of a torch flow: Adam is fused for all, gradients are set to none."""
    optimizer = torch.optim.Adam(module.parameters(), RATE, fused=True)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        (-log_prob(x).mean()).backward()
        optimizer.step()

    @torch.no_grad()
    def score(x: Tensor) -> Tensor:
        return log_prob(x)

    @torch.no_grad()
    def draw(n: int) -> Tensor:
        return sample(n)

    return Subject(library, parameters(module), _tasks(work, device, step, score, draw))


def floor(work: Work, device: str) -> Subject:
    """Forward and backward of the conditioner nets alone, plain and eager; with fused Adam in an epoch only."""
    nets = FieldNet(work) if work.moves == "continuous" else Nets(work)
    nets.to(device)
    optimizer = torch.optim.Adam(nets.parameters(), RATE, fused=True)
    with torch.no_grad():
        most = max(task.n for task in work.tasks)
        gradients = [torch.randn_like(out) for out in nets(rows(work, most, device))]

    def step(x: Tensor) -> None:
        nets.zero_grad()
        outs = nets(x)
        torch.autograd.backward(outs, [gradient[: len(out)] for out, gradient in zip(outs, gradients, strict=True)])

    def step_of_epoch(x: Tensor) -> None:
        step(x)
        optimizer.step()

    @torch.no_grad()
    def forward(x: Tensor) -> Sequence[Tensor]:
        return nets(x)

    epoch = any(task.name == "epoch" for task in work.tasks)
    drawn = {task.n: rows(work, task.n, device) for task in work.tasks if task.name == "sample"}
    tasks = _tasks(work, device, step_of_epoch if epoch else step, forward, lambda n: forward(drawn[n]))
    return Subject(FLOOR, parameters(nets), tasks)


def _tasks(
    work: Work,
    device: str,
    step: Callable[[Tensor], object],
    score: Callable[[Tensor], object],
    draw: Callable[[int], object],
) -> dict[str, Callable[[], object]]:
    def task(name: str, n: int) -> Callable[[], object]:
        if name == "sample":
            return lambda: draw(n)
        x = rows(work, n, device)
        if name == "epoch":
            return lambda: [step(x[some]) for some in torch.randperm(n, device=device).split(BATCH)]
        return lambda: (step if name == "train" else score)(x)

    return {name: task(name, n) for name, n in work.tasks}


class Nets(nn.Module):
    """All conditioner nets of a flow, nothing between them: events [n, *event] -> what each net says of its inputs."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        if work.moves == "picture":
            self.nets = nn.ModuleList(convolutions(work) for _ in range(work.layers))
            self.seen = [work.event[0] // 2] * work.layers
        else:
            sizes = net_sizes(work)
            self.nets = nn.ModuleList(perceptron(each) for each in sizes)
            self.seen = [each[0] for each in sizes]

    def forward(self, x: Tensor) -> list[Tensor]:
        return [net(x[:, :seen]) for net, seen in zip(self.nets, self.seen, strict=True)]


class FieldNet(nn.Module):
    """One look at a velocity field: points and six numbers of time -> velocities."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.net = perceptron((work.d + 6, *work.hidden, work.d), nn.ELU)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.net(torch.cat([x, x.new_zeros(len(x), 6)], 1))]


def perceptron(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [activation(), nn.Linear(a, b)]
    return nn.Sequential(*layers[1:])


def convolutions(work: Work) -> nn.Sequential:
    """3x3, 1x1, 3x3 over the half of the channels that stays -> a scale and a shift for every number of the other."""
    half, (a, b) = work.event[0] // 2, work.hidden
    first, last = nn.Conv2d(half, a, 3, padding=1), nn.Conv2d(b, 2 * half, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(a, b, 1), nn.ReLU(), last)
