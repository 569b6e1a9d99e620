"""Thread pools whose threads all run from the start.

From Python 3.12 on no thread can be started once the interpreter has begun to end; a program that ends without
shutdown must still have its calls sent and fetched, so the threads have to be there before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class StartedPool(ThreadPoolExecutor):
    """A pool that knows its threads, and whose tasks nobody waits for; made by `start_thread_pool`."""

    threads: frozenset[threading.Thread] = frozenset()
    guard: Callable[[], AbstractContextManager[None]]

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a task done; what it raises, and has not caught itself, is the guard's."""

        def guarded() -> T:
            with self.guard():
                return fn(*args, **kwargs)
            raise AssertionError("the guard has kept what was raised")

        return super().submit(guarded)


def start_thread_pool(size: int, name: str, guard: Callable[[], AbstractContextManager[None]]) -> StartedPool:
    """Start a pool of ``size`` threads; blocks until all of them run.

    ``guard``: makes the context in which each task is done; see breaking.py.
    """
    pool = StartedPool(size, thread_name_prefix=name)
    pool.guard = guard
    together = threading.Barrier(size + 1)

    def meet() -> threading.Thread:
        with suppress(threading.BrokenBarrierError):  # who starts them says why
            together.wait()
        return threading.current_thread()

    try:
        started = [pool.submit(meet) for _ in range(size)]
    except BaseException:  # the system has no more threads: those that there are wait no longer
        together.abort()
        pool.shutdown(wait=False)
        raise
    together.wait()
    pool.threads = frozenset(future.result() for future in started)
    return pool
