"""The clock: cases taken in turn, round by round, in CPU seconds of the process."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

__all__ = ["Case", "Measured", "interleaved", "quartiles"]

LEAST = 0.01  # seconds of one measurement; quicker work is repeated within it
SLOW, ROUNDS_SLOW = 2.0, 2  # seconds from which a case is measured in the first rounds alone
ROUNDS_LEAST, ROUNDS_MOST = 5, 31


class Case(NamedTuple):
    """One task of one library; ``compiles``: its first call is not like the others."""

    task: str
    library: str
    run: Callable[[], object]
    compiles: bool = False


class Measured(NamedTuple):
    """What one call took, a list by rounds: CPU seconds of the process, seconds of the clock, seconds on the device."""

    calls: int
    cpu: list[float]
    wall: list[float]
    device: list[float]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def interleaved(cases: Sequence[Case], seconds: float, device: str) -> dict[tuple[str, str], Measured]:
    """Every case once a round, the order turning, until the seconds are over: (task, library) -> what it took."""
    took = [_first(case, device) for case in cases]
    calls = [max(1, math.ceil(LEAST / max(each, 1e-6))) for each in took]
    found = {(case.task, case.library): Measured(n, [], [], []) for case, n in zip(cases, calls, strict=True)}
    began, done = time.perf_counter(), 0
    gc.collect()
    gc.disable()
    while done < ROUNDS_LEAST or (done < ROUNDS_MOST and time.perf_counter() - began < seconds):
        turn = done % len(cases)
        for i in (*range(turn, len(cases)), *range(turn)):
            if took[i] < SLOW or done < ROUNDS_SLOW:
                case = cases[i]
                measured = found[case.task, case.library]
                for kept, value in zip(measured[1:], _time(case.run, calls[i], device), strict=True):
                    kept.append(value)
        gc.collect()
        done += 1
    gc.enable()
    return found


def _first(case: Case, device: str) -> float:
    """Seconds of a call, once it is warm."""
    took = _time(case.run, 1, device)[1]
    return _time(case.run, 1, device)[1] if case.compiles or took < SLOW else took


def _time(run: Callable[[], object], calls: int, device: str) -> tuple[float, float, float]:
    """CPU, wall and device seconds of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        run()
    on_device = math.nan
    if device == "cuda":
        after.record()
        torch.cuda.synchronize()
        on_device = before.elapsed_time(after) / 1e3 / calls
    return (time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls, on_device
