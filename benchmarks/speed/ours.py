"""diffeo's flows of every workload."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from benchmarks.speed.subjects import Subject, convolutions, of_torch, started
from benchmarks.speed.workloads import Work
from torch import Tensor, nn

from diffeo.bases import StandardNormal
from diffeo.flow import Flow
from diffeo.nets import MLP, MaskedMLP
from diffeo.scalars import Scalar, affine, spline
from diffeo.transforms import (
    LU,
    ActNorm,
    Autoregressive,
    Continuous,
    Coupling,
    Field,
    OverChannels,
    Partition,
    Transform,
    chained,
)

__all__ = ["VARIANTS", "diffeo"]

LIPSCHITZ = 6.0  # of the field, as in the recipe ffjord


class Variant(NamedTuple):
    """Another way to do some tasks: what the layers are told."""

    options: dict[str, str]
    tasks: tuple[str, ...]


VARIANTS: dict[str, dict[str, Variant]] = {  # by kind of layers
    "autoregressive": {"diffeo, incremental": Variant({"inverse_by": "incremental"}, ("sample",))},
    "continuous": {"diffeo, dopri5": Variant({"method": "dopri5"}, ("train", "log_prob", "sample"))},
}


def diffeo(work: Work, device: str) -> list[Subject]:
    """The flow as it comes, and its variants."""
    found = []
    for name, variant in {"diffeo": None, **VARIANTS.get(work.moves, {})}.items():
        here = work
        if variant is not None:
            here = replace(work, tasks=tuple(task for task in work.tasks if task.name in variant.tasks))
        if here.tasks:
            layers = LAYERS[work.moves](work, **({} if variant is None else variant.options))
            flow = Flow(chained(*layers), StandardNormal(work.shape))
            started(flow).to(device)
            found.append(_subject(name, flow, here, device))
    return found


def _subject(name: str, flow: Flow, work: Work, device: str) -> Subject:
    subject = of_torch(name, flow, flow.log_prob, flow.sample, work, device)
    if work.moves != "continuous":
        return subject
    return subject._replace(evaluations={task: _looks(flow, run) for task, run in subject.tasks.items()})


def _looks(flow: Flow, run: Callable[[], object]) -> int:
    """How often a task looks at the field."""
    net = flow.transform[0].field.net  # type: ignore[index, union-attr]
    calls, shift = [], net.shift

    def counted(*arguments):  # type: ignore[no-untyped-def]
        calls.append(1)
        return shift(*arguments)

    net.shift = counted
    run()
    del net.shift
    return len(calls)


def _scalar(work: Work) -> Scalar:
    return spline(work.bins, bound=5.0) if work.scalar == "spline" else affine()


def _coupled(work: Work) -> list[Transform]:
    layers, partition = list[Transform](), Partition.halves(work.d)
    for _ in range(work.layers):
        layers.append(Coupling(partition, _scalar(work), partial(MLP, hidden=work.hidden, activation="relu")))
        partition = partition.flip()
    return layers


def _autoregressive(work: Work, **options: str) -> list[Transform]:
    layers = list[Transform]()
    for i in range(work.layers):
        order = list(range(work.d))[:: -1 if i % 2 else 1]
        net = partial(MaskedMLP, hidden=work.hidden, activation="relu")
        layers.append(Autoregressive(order, _scalar(work), net, **options))
    return layers


def _glow(work: Work) -> list[Transform]:
    """Steps of Glow on one level; channels are mixed between couplings, so the same half may stay in all."""
    layers, channels = list[Transform](), work.event[0]
    for _ in range(work.layers):
        coupling = Coupling(Partition.channels(work.event), affine(scale="sigmoid"), _Convolved(work))
        layers += [ActNorm(work.event), OverChannels(LU(channels, start="orthogonal")), coupling]
    return layers


class _Convolved(nn.Module):
    """The convolutional net, called as a coupling calls its net."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.net, self.shape = convolutions(work), (work.event[0] // 2, *work.event[1:])

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        return self.net(h.reshape(-1, *self.shape)).flatten(1).T


def _continuous(work: Work, method: str = "rk4") -> list[Transform]:
    field = Field(work.d, work.hidden, lipschitz=LIPSCHITZ)
    return [Continuous(field, method=method, rtol=1e-5, atol=1e-6, log_det="exact")]


LAYERS: dict[str, Callable[..., list[Transform]]] = {
    "coupling": _coupled,
    "autoregressive": _autoregressive,
    "picture": _glow,
    "continuous": _continuous,
}
