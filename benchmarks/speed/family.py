"""One family in this process: all its libraries and the floor, interleaved -> rows."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.speed.machine import circumstances, versions
from benchmarks.speed.subjects import FLOOR, Subject, floor
from benchmarks.speed.timing import Case, Measured, interleaved, quartiles
from benchmarks.speed.workloads import AIMS, Work

__all__ = ["LIBRARIES", "Row", "measure"]

Row = dict[str, Any]


def _builder(module: str, name: str) -> Callable[[Work, str], list[Subject]]:
    def build(work: Work, device: str) -> list[Subject]:
        import importlib

        return getattr(importlib.import_module(f"benchmarks.speed.{module}"), name)(work, device)

    return build


LIBRARIES: dict[str, Callable[[Work, str], list[Subject]]] = {
    "diffeo": _builder("ours", "diffeo"),
    "zuko": _builder("others", "zuko"),
    "nflows": _builder("others", "nflows"),
    "normflows": _builder("others", "normflows"),
    "flowjax": _builder("with_jax", "flowjax"),
}


def measure(work: Work, libraries: Sequence[str], seconds: float, device: str, **more: Any) -> Iterator[Row]:
    """A row for every task of every library and of the floor."""
    subjects = [floor(work, device), *(each for name in libraries for each in LIBRARIES[name](work, device))]
    cases = [
        Case(task, subject.library, run, subject.compiles)
        for subject in subjects
        for task, run in subject.tasks.items()
    ]
    found = interleaved(cases, seconds, device)
    common = circumstances(device)
    for subject in subjects:
        for name, n in work.tasks:
            if (name, subject.library) in found:
                taken, bare = found[name, subject.library], found[name, FLOOR]
                sizes = {"n": n, "layers": work.layers, "hidden": list(work.hidden), "bins": work.bins}
                yield {
                    "workload": work.workload,
                    "task": name,
                    "d": work.d,
                    "library": subject.library,
                    **_figures(taken, bare, subject.evaluations.get(name, 1), device),
                    **({"evaluations": subject.evaluations[name]} if name in subject.evaluations else {}),
                    **_aim(work, name, subject.library),
                    **sizes,
                    **more,
                    "parameters": subject.parameters,
                    **common,
                    "versions": versions(subject.library),
                }


def _figures(taken: Measured, bare: Measured, times: int, device: str) -> Row:
    """Seconds of one call, and the ratio to ``times`` the floor, formed round by round: medians and quartiles."""
    clock = "device" if device == "cuda" else "cpu"
    pairs = zip(getattr(taken, clock), getattr(bare, clock), strict=False)
    low, ratio, high = quartiles([own / (times * floor) for own, floor in pairs])
    low_s, cpu, high_s = quartiles(taken.cpu)
    figures = {
        "ratio_to_floor": ratio,
        "spread": [low, high],
        "cpu_s": cpu,
        "cpu_spread": [low_s, high_s],
        "wall_s": quartiles(taken.wall)[1],
        "rounds": len(taken.cpu),
        "calls": taken.calls,
    }
    return figures | ({"device_s": quartiles(taken.device)[1]} if device == "cuda" else {})


def _aim(work: Work, task: str, library: str) -> Row:
    aim = AIMS.get((work.family, task, library))
    return {} if aim is None else {"aim": aim}
