"""How many processor threads work at a time. Networks of tables are small: one thread is as fast as several, and on a
busy machine far faster, because threads that wait for one another lose their turn."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["VARIABLE", "threads"]

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
