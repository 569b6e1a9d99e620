"""A thread pool whose threads all run from the start.

From Python 3.12 on no thread can be started once the interpreter has begun to end; a program that ends without
shutdown must still have its calls sent and fetched, so the threads have to be there before.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor


def started_pool(size: int, name: str) -> ThreadPoolExecutor:
    """A pool of ``size`` threads, all of them running; blocks until they do."""
    pool = ThreadPoolExecutor(size, thread_name_prefix=name)
    together = threading.Barrier(size + 1)
    for _ in range(size):
        pool.submit(together.wait)
    together.wait()
    return pool
