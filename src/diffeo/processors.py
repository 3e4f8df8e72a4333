"""How many processor threads work at a time. Networks of tables are small: one thread is as fast as several, and on a
busy machine far faster, because threads that wait for one another lose their turn."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["threads"]


@contextmanager
def threads(count: int | None = None) -> Iterator[None]:
    """Within, torch and the linear algebra underneath use `count` threads (1 if None); afterwards what it was.

    >>> before = torch.get_num_threads()
    >>> with threads(1):
    ...     torch.get_num_threads()
    1
    >>> torch.get_num_threads() == before
    True
    """
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count or 1)
    try:
        with threadpool_limits(count or 1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
