"""Thread pools whose threads all run from the start.

From Python 3.12 on no thread can be started once the interpreter has begun to end; a program that ends without
shutdown must still have its calls sent and fetched, so the threads have to be there before.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor


class StartedPool(ThreadPoolExecutor):
    """A pool that knows its threads; made by `start_thread_pool`."""

    threads: frozenset[threading.Thread] = frozenset()


def start_thread_pool(size: int, name: str) -> StartedPool:
    """Start a pool of ``size`` threads; blocks until all of them run."""
    pool = StartedPool(size, thread_name_prefix=name)
    together = threading.Barrier(size + 1)

    def meet() -> threading.Thread:
        together.wait()
        return threading.current_thread()

    started = [pool.submit(meet) for _ in range(size)]
    together.wait()
    pool.threads = frozenset(future.result() for future in started)
    return pool
