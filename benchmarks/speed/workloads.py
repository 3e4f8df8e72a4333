"""The work that is measured: families of flows by their sizes, and what is done with each."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

__all__ = ["AIMS", "AXES", "FAMILIES", "Axis", "Task", "Work", "net_sizes"]


class Task(NamedTuple):
    """What is done with a flow (train: one step; log_prob, sample: without gradients; epoch), of how many rows."""

    name: str
    n: int


@dataclass(frozen=True)
class Work:
    """A family: one flow by its sizes, and the tasks that are measured with it."""

    workload: str
    layers: int
    d: int
    hidden: tuple[int, ...]
    tasks: tuple[Task, ...]
    moves: Literal["coupling", "autoregressive", "picture", "continuous"]
    scalar: Literal["spline", "affine"] = "affine"
    bins: int = 8
    event: tuple[int, ...] = ()

    @property
    def family(self) -> str:
        return f"{self.workload}-{self.d}"

    @property
    def width(self) -> int:
        """Raw parameters that steer one number."""
        return 3 * self.bins - 1 if self.scalar == "spline" else 2

    @property
    def depth(self) -> int:
        return len(self.hidden)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of an event."""
        return self.event or (self.d,)


def net_sizes(work: Work) -> list[tuple[int, ...]]:
    """The layers of every conditioner net: (in, *hidden, out)."""
    if work.moves == "autoregressive":
        return [(work.d, *work.hidden, work.width * work.d)] * work.layers
    stay = [work.d // 2 if i % 2 == 0 else work.d - work.d // 2 for i in range(work.layers)]
    return [(kept, *work.hidden, work.width * (work.d - kept)) for kept in stay]


TRAIN, LOG_PROB = Task("train", 512), Task("log_prob", 512)
SPLINES = Work("W1", 10, 6, (128, 128), (TRAIN, LOG_PROB, Task("sample", 10_000)), "coupling", "spline")
MASKED = Work("W2", 5, 6, (128, 128), (TRAIN, LOG_PROB), "autoregressive")
MASKED_SPLINES = replace(MASKED, workload="W3", scalar="spline")
PAIR = Work("W4", 4, 2, (32, 32), (Task("epoch", 1500),), "coupling")
PICTURE_TASKS = (Task("train", 32), Task("log_prob", 32), Task("sample", 64))
PICTURES = Work("W5", 8, 1024, (64, 64), PICTURE_TASKS, "picture", event=(4, 16, 16))
CONTINUOUS = Work("W6", 1, 2, (64, 64), (TRAIN, LOG_PROB, Task("sample", 512)), "continuous")

FAMILIES: dict[str, Work] = {
    work.family: work
    for work in (
        SPLINES,
        replace(SPLINES, d=63),
        MASKED,
        replace(MASKED, d=21),
        replace(MASKED, d=63, tasks=(TRAIN, LOG_PROB, Task("sample", 1000))),
        replace(MASKED, d=784, layers=1, hidden=(512, 512), tasks=(Task("sample", 100),)),
        MASKED_SPLINES,
        replace(MASKED_SPLINES, d=63),
        PAIR,
        PICTURES,
        CONTINUOUS,
    )
}

# What diffeo aims at, in units of the floor, by family, task and variant.
AIMS: dict[tuple[str, str, str], float] = {
    ("W1-6", "train", "diffeo"): 1.5,
    ("W1-6", "log_prob", "diffeo"): 1.3,
    ("W1-6", "sample", "diffeo"): 1.3,
    ("W1-63", "train", "diffeo"): 1.6,
    ("W1-63", "log_prob", "diffeo"): 1.4,
    ("W1-63", "sample", "diffeo"): 1.5,
    ("W2-63", "train", "diffeo"): 1.3,
    ("W2-63", "sample", "diffeo"): 7,
    ("W2-784", "sample", "diffeo"): 6,
    ("W2-784", "sample", "diffeo, incremental"): 25,
    ("W3-63", "train", "diffeo"): 1.6,
    ("W4-2", "epoch", "diffeo"): 1.2,
}


class Axis(NamedTuple):
    """One size of a flow that is let grow, the others staying."""

    name: str
    label: str
    works: tuple[tuple[int, Work], ...]


USUAL = replace(SPLINES, layers=5, d=16, tasks=(TRAIN,))
DRAWN = replace(MASKED, tasks=(Task("sample", 100),))
AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis("d", "numbers a row, d", tuple((d, replace(USUAL, d=d)) for d in (2, 4, 8, 16, 32, 64, 128))),
        Axis(
            "n", "rows a step, n", tuple((n, replace(USUAL, tasks=(Task("train", n),))) for n in (32, 128, 512, 2048))
        ),
        Axis("layers", "layers of the flow", tuple((k, replace(USUAL, layers=k)) for k in (1, 2, 5, 10, 20))),
        Axis("bins", "bins of a spline", tuple((k, replace(USUAL, bins=k)) for k in (4, 8, 16, 32))),
        Axis("depth", "hidden layers of a net", tuple((k, replace(USUAL, hidden=(128,) * k)) for k in (1, 2, 4, 8))),
        Axis("drawn", "numbers a row, d", tuple((d, replace(DRAWN, d=d)) for d in (4, 8, 16, 32, 64, 128))),
    )
}
