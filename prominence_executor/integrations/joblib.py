"""joblib on an executor: `register`, and then ``with parallel_config("prominence", executor=executor):``.

joblib (1.3 or later, 1.4 for ``generator_unordered``) cuts the work into batches, and keeps order, exceptions and time
limits; here a batch becomes a call of the executor, and is one job, or one call of a warm worker. It uses public names
only, of joblib those that it offers to backends. What runs in the job is `run_batch` alone, which needs neither this
package nor joblib there.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from .. import ProminenceExecutor

try:
    from joblib.parallel import AutoBatchingMixin, ParallelBackendBase, register_parallel_backend
except ImportError as error:
    raise ImportError("joblib is missing: pip install 'prominence-executor[joblib]'") from error

__all__ = ["register"]

NAME = "prominence"

Item = tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]  # a call, as `joblib.delayed` makes it
Place = tuple[int, int | str, int]  # of which call, which argument (by position or name), and which large object
Batch = Callable[..., tuple[list[Any], float]]

_LARGE = 1 << 20  # bytes of an argument from which on it travels apart, once for all that share it
_TIMES = 10  # a batch is to take so many times as long as a job needs besides
_SHORTEST, _LONGEST = 0.2, 60.0  # seconds of a batch that is large enough
_SPREAD = 5.0  # so many times as long may it take before it counts as too large


def register() -> None:
    """Make ``"prominence"`` a backend of joblib: ``parallel_config("prominence", executor=executor)`` chooses it."""
    register_parallel_backend(NAME, ProminenceBackend)


class ProminenceBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """What joblib asks of a backend. One for each ``parallel_config``; the executor stays its user's, and open.

    ``n_jobs=-1`` is what `ProminenceExecutor.slots` says. How many calls are at the service at once is joblib's
    ``pre_dispatch``: by default twice as many.

    Args:
        executor: where the calls run; a view by ``with_options`` will do.

    Raises:
        TypeError: there is no executor, or it is another one.
    """

    default_n_jobs = -1
    supports_retrieve_callback = True
    supports_return_generator = True
    supports_timeout = True
    uses_threads = False
    supports_sharedmem = False

    def __init__(
        self, executor: ProminenceExecutor | None = None, nesting_level: int | None = None, **options: Any
    ) -> None:
        super().__init__(nesting_level=nesting_level, **options)
        if not isinstance(executor, ProminenceExecutor):
            raise TypeError(f'parallel_config("{NAME}", executor=...) needs a ProminenceExecutor, not {executor!r}')
        self._executor = executor
        self._slots: int | None = None
        self._run_batch = _batch_function()
        self._overhead: float | None = None  # seconds that a job needs beside its calls, as far as has been seen
        self._retrieved = threading.local()  # the seconds of the batch whose result this thread has just taken
        self._large: dict[int, tuple[weakref.ref[Any], Any]] = {}  # by id: what came before, and what stands for it
        self._lock = threading.Lock()  # guards what follows
        self._open: set[Future[Any]] = set()
        self._aborted = False

    # -- how many, and how large -----------------------------------------------------------------------------------

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many calls joblib is to keep going; 1 of them runs here, in the program, as everywhere in joblib.

        Raises:
            ValueError: 0 has no meaning.
            ProminenceError: the service, asked for its slots, does not answer.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is not None and n_jobs > 0:
            return n_jobs
        if self._slots is None:
            self._slots = self._executor.slots()
        # Never 1: what is asked for is all of the executor, and joblib would not send anything there.
        return max(2, self._slots + 1 + (-1 if n_jobs is None else n_jobs))

    def configure(
        self, n_jobs: int | None = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **ignored: Any
    ) -> int:
        """Begin to work for a `Parallel`. Settings of memory maps and temporary folders mean nothing here."""
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def batch_completed(self, batch_size: int, duration: float) -> None:
        """Note how long a batch took where it ran, and how much longer it took altogether.

        ``duration`` has the time in the queue, too. What is left of it when that is short, in the best case, is what a
        job costs: batches grow until they take ten times as long.
        """
        seconds = self._retrieved.__dict__.pop("seconds", duration)
        rest = max(0.0, duration - seconds)
        self._overhead = rest if self._overhead is None else min(self._overhead, rest)
        self.MIN_IDEAL_BATCH_DURATION, self.MAX_IDEAL_BATCH_DURATION = ideal_seconds(self._overhead)
        super().batch_completed(batch_size, max(seconds, 1e-6))

    # -- the way of a batch ----------------------------------------------------------------------------------------

    def start_call(self) -> None:
        """Begin a call of `Parallel`."""
        with self._lock:
            self._aborted = False

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> Future[Any]:
        """Send a batch; ``callback`` is called with its future when it is done, in one of the executor's threads."""
        future: Future[Any]
        try:
            items, places, large = self._apart(func.items)
            future = self._executor.submit(self._run_batch, items, places, *large)
        except Exception as error:  # noqa: BLE001  raised in a callback it would be lost, and joblib wait for ever
            future = Future()
            future.set_exception(error)
        with self._lock:
            late = self._aborted
            self._open.add(future)
        future.add_done_callback(self._forget)
        if callback is not None:
            future.add_done_callback(callback)
        if late:  # another thread has given up meanwhile
            future.cancel()
        return future

    def apply_async(self, func: Any, callback: Callable[[Any], None] | None = None) -> Future[Any]:
        """Do as `submit`, whose name this is before joblib 1.5."""
        return self.submit(func, callback)

    def retrieve_result_callback(self, out: Future[Any]) -> list[Any]:
        """Return the results of a batch that is done, or raise what one of its calls raised."""
        results, self._retrieved.seconds = out.result()
        return list(results)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel what has not started, and end what runs: nobody will look at the results."""
        with self._lock:
            self._aborted = True
            futures = list(self._open)
        for future in futures:
            terminate = getattr(future, "terminate", future.cancel)
            terminate()

    def stop_call(self) -> None:
        """End a call of `Parallel`: an object may be changed before the next one."""
        self._large.clear()

    def terminate(self) -> None:
        """Do nothing: the executor is its user's."""

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._open.discard(future)

    def _apart(self, items: Sequence[Item]) -> tuple[Sequence[Item], list[Place], list[Any]]:
        """Take large arguments out of the calls of a batch: each becomes an argument of its own, which travels once.

        One that comes in a second batch is stored by its content from then on, and needs no more to be looked at.
        """
        large: list[Any] = []
        numbers: dict[int, int] = {}  # by id, the place in `large`
        places: list[Place] = []

        def put(value: Any, call: int, where: int | str) -> Any:
            if _weight(value) < _LARGE:
                return value
            if id(value) not in numbers:
                numbers[id(value)] = len(large)
                large.append(self._shared(value))
            places.append((call, where, numbers[id(value)]))
            return None

        calls = [
            (
                function,
                [put(value, call, where) for where, value in enumerate(args)],
                {name: put(value, call, name) for name, value in kwargs.items()},
            )
            for call, (function, args, kwargs) in enumerate(items)
        ]
        return calls, places, large

    def _shared(self, value: Any) -> Any:
        """Return what is to travel in the place of a large object: itself when it comes first, then a reference."""
        key = id(value)
        before, reference = self._large.get(key, (None, None))
        if before is not None and before() is value:
            if reference is None:
                reference = self._executor.scatter(value)
                self._large[key] = before, reference
            return reference
        with suppress(TypeError):  # it cannot be referred to weakly: then each batch looks at its content
            self._large[key] = weakref.ref(value, lambda _: self._large.pop(key, None)), None
        return value


def ideal_seconds(overhead: float) -> tuple[float, float]:
    """Return how long a batch is to take at least, and at most, where a job costs so many seconds besides."""
    shortest = min(max(_SHORTEST, _TIMES * overhead), _LONGEST)
    return shortest, _SPREAD * shortest


def _weight(value: Any) -> int:
    """Estimate the bytes of an argument: of an array, a table, a sparse matrix, a text; else 0."""
    if isinstance(value, (bytes, bytearray, str)):
        return len(value)
    try:
        size = getattr(value, "nbytes", None)
        if size is None and hasattr(value, "memory_usage"):
            used = value.memory_usage()
            size = used.sum() if hasattr(used, "sum") else used
        if size is None and hasattr(value, "nnz"):
            size = value.data.nbytes
        return int(size or 0)
    except Exception:  # noqa: BLE001  somebody else's attributes
        return 0


def _batch_function() -> Batch:
    """Make the function that runs a batch; it travels by value, since this package is not in the image."""

    def run_batch(items: list[Any], places: Sequence[Place], *large: Any) -> tuple[list[Any], float]:
        import contextlib
        import os
        import time

        began = time.perf_counter()
        for value in large:  # as with joblib's memory maps: several calls have it
            if getattr(getattr(value, "flags", None), "writeable", False):
                value.flags.writeable = False
        for call, where, number in places:
            items[call][1 if isinstance(where, int) else 2][where] = large[number]
        # What is parallel within a call stays in this job: threads, by default one, at most as many as it has CPUs.
        os.environ.setdefault("LOKY_MAX_CPU_COUNT", os.environ.get("PROMINENCE_CPUS", "1"))
        try:
            from joblib import parallel_config
            from joblib.parallel import ThreadingBackend
        except ImportError:  # then none of the calls uses it
            inside: Any = contextlib.nullcontext()
        else:
            inside = parallel_config(ThreadingBackend(nesting_level=1), n_jobs=None)
        with inside:
            results = [function(*args, **kwargs) for function, args, kwargs in items]
        return results, time.perf_counter() - began

    return run_batch
