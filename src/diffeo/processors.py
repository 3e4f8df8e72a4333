"""How many processor threads work at a time. Networks of tables are small: one thread is as fast as several, and on a
busy machine far faster, because threads that wait for one another lose their turn."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["VARIABLE", "processors", "threads"]

VARIABLE = "DIFFEO_THREADS"


@contextmanager
def threads(count: int | None = None) -> Iterator[None]:
    """Within, torch and the linear algebra underneath use `count` threads; afterwards what it was. None: as many as
    DIFFEO_THREADS says, or 1.

    >>> before = torch.get_num_threads()
    >>> with threads(1):
    ...     torch.get_num_threads()
    1
    >>> torch.get_num_threads() == before
    True
    """
    from threadpoolctl import threadpool_limits

    asked = os.environ.get(VARIABLE, "")
    before, count = torch.get_num_threads(), count or (int(asked) if asked.isdecimal() else 0) or 1
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def processors() -> int | None:
    """How many there are for this process, at most 8: for networks of pictures, which are large enough for several
    threads. None where DIFFEO_THREADS says how many.

    >>> processors() is None or processors() >= 1
    True
    """
    if os.environ.get(VARIABLE, "").isdecimal():
        return None
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(own, 8)
