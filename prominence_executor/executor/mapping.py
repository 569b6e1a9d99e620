"""`MapFunctions`: how many calls are handed in at once: `map` and its relatives, and `submit_many`.

Base class of the executor. It cuts what it is given into chunks, in the caller's thread; what becomes of a chunk is the
executor's. It is longer than others by its signatures: what a map returns depends on ``return_exceptions``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import islice, repeat, takewhile
from typing import Any, Literal, TypeVar, overload

from ..run.future import ProminenceFuture
from ..run.objects import RefCache
from ..run.options import Options
from .function import PickledFunction
from .results import Results
from .run import Run
from .settings import check_buffersize, check_chunksize
from .submission import Call, PackedCalls

T = TypeVar("T")

BeforeSending = Callable[[Sequence[ProminenceFuture[Any]]], None]

_TOGETHER = 500  # chunks that `submit_many` queues at once
_AT_ONCE = 20  # calls that `map` queues at once, where none has to be waited for: the first are to begin soon
_PATIENCE = 60.0  # seconds: see `probe_timeout` of `map`
_STILL = (
    list,
    tuple,
    range,
    repeat,
)  # no code runs between two elements of these: what comes again is unchanged


class MapFunctions(Executor):
    """What an executor offers beside `submit`."""

    _run: Run
    _options: Options

    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        probe_timeout: float = 60.0,
        return_exceptions: Literal[False] = False,
        progress: bool | None = False,
    ) -> Results[T]: ...

    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        probe_timeout: float = 60.0,
        return_exceptions: bool,
        progress: bool | None = False,
    ) -> Results[T | BaseException]: ...

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        probe_timeout: float = 60.0,
        return_exceptions: bool = False,
        progress: bool | None = False,
    ) -> Results[Any]:
        """Run ``map(fn, *iterables)`` as jobs; the results come in order.

        With ``chunksize=n`` one job runs n calls one after the other, each with its own outcome. Closing the iterator
        or losing it cancels what has not started (see `Results`). Calls with futures among their arguments, as in
        `submit`, wait each for its own; neighbours that become ready at the same time share a job, n at most (with
        ``"auto"`` none do).

        Args:
            timeout: seconds from this call after which the iterator raises TimeoutError for a result that is missing;
                by default it waits as long as it takes.
            chunksize: calls in one job. With ``"auto"`` the first calls, at most ``max_workers`` (8 without it), go out
                alone, and the rest waits until the first of them have ended; then it goes in chunks for which the start
                of a job costs less than a tenth of its time, which fit into the walltime, and of which there are no
                fewer than could run at once (``max_workers``, or what the service says to be free).
            probe_timeout: seconds from now after which ``"auto"`` waits no longer.
            buffersize: submit at most so many chunks ahead of the results that were taken, as in Python 3.14; the
                iterables may be endless then. By default all is submitted at once.
            return_exceptions: what a call raised, or its job ended with, comes in the place of its result, as in
                `asyncio.gather`, and nothing is cancelled for it. By default it is raised, and ends the iteration.
            progress: show a bar of the calls, by tqdm (the extra ``progress``), while the results are taken; None: only
                where standard error is a terminal, and tqdm is installed.

        Raises:
            ValueError: ``chunksize`` or ``buffersize`` below 1, or ``"auto"`` with a ``buffersize``.
            TypeError: one of them is not an integer.
            ImportError: there is to be a bar, and tqdm is not installed.
        """
        calls = zip(*iterables)  # noqa: B905  the shortest ends it, as in the built-in map
        known = _cache(iterables, buffersize)
        return self._map(fn, calls, known, timeout, chunksize, buffersize, probe_timeout, return_exceptions, progress)

    @overload
    def starmap(
        self,
        fn: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        *,
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        probe_timeout: float = 60.0,
        return_exceptions: Literal[False] = False,
        progress: bool | None = False,
    ) -> Results[T]: ...

    @overload
    def starmap(
        self,
        fn: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        *,
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        probe_timeout: float = 60.0,
        return_exceptions: bool,
        progress: bool | None = False,
    ) -> Results[T | BaseException]: ...

    def starmap(
        self,
        fn: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        *,
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        probe_timeout: float = 60.0,
        return_exceptions: bool = False,
        progress: bool | None = False,
    ) -> Results[Any]:
        """Run ``itertools.starmap(fn, iterable)`` as jobs: each element has all arguments of a call. Else as `map`."""
        calls = map(tuple, iterable)
        known = _cache(iterable if isinstance(iterable, (list, tuple)) else [iterable], buffersize)
        return self._map(fn, calls, known, timeout, chunksize, buffersize, probe_timeout, return_exceptions, progress)

    @overload
    def map_unordered(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        probe_timeout: float = 60.0,
        return_exceptions: Literal[False] = False,
        progress: bool | None = False,
    ) -> Results[T]: ...

    @overload
    def map_unordered(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        probe_timeout: float = 60.0,
        return_exceptions: bool,
        progress: bool | None = False,
    ) -> Results[T | BaseException]: ...

    def map_unordered(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = 1,
        buffersize: int | None = None,
        probe_timeout: float = 60.0,
        return_exceptions: bool = False,
        progress: bool | None = False,
    ) -> Results[Any]:
        """Run the calls as `map` does; each result comes as soon as it is there, in whatever order."""
        calls = zip(*iterables)  # noqa: B905  as in `map`
        known = _cache(iterables, buffersize)
        return self._map(
            fn,
            calls,
            known,
            timeout,
            chunksize,
            buffersize,
            probe_timeout,
            return_exceptions,
            progress,
            ordered=False,
        )

    def submit_many(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        chunksize: int | Literal["auto"] = 1,
        before_sending: Callable[[Sequence[ProminenceFuture[T]]], None] | None = None,
    ) -> list[ProminenceFuture[T]]:
        """Submit the calls of ``map(fn, *iterables)``; return their futures, in order, for `as_completed` and the like.

        They travel as those of `map` do: together, and in chunks. The iterables are read to their end here; when one
        raises, or is interrupted, what has been sent before goes on (`futures` has it).

        Args:
            chunksize: calls in one job, as for `map`. Each has its own outcome; one can be cancelled alone until its
                chunk is sent.
            before_sending: called with the futures of some hundred chunks after the other, in this thread, before any
                of them is sent: so a program can write down by which numbers (``future.index``) they are found again.
                What it raises is raised here, and those calls are not sent.

        Raises:
            ValueError: ``chunksize`` below 1.
            TypeError: it is not an integer.
            RuntimeError, BrokenRunError: as `submit`.
        """
        size = check_chunksize(chunksize)
        function = self._function(fn)
        calls: Iterator[Call] = ((args, {}) for args in zip(*iterables))  # noqa: B905  as in `map`
        options = self._options.fresh()
        if size is None and not self._run.is_warm:
            self._check_usable()
            rest = list(calls)
            packed = [self._pack(function, rest, options, size, _cache(iterables, None))] if rest else []
            return self._send(packed, options, before_sending, _PATIENCE) if rest else []
        futures: list[ProminenceFuture[T]] = []
        while True:
            self._check_usable()
            known = _cache(iterables, None)  # a new one each time: `before_sending` may have changed what it was
            chunks = takewhile(bool, (list(islice(calls, size or 1)) for _ in range(_TOGETHER)))
            batch = [self._pack(function, chunk, options, size, known) for chunk in chunks]
            if not batch:
                return futures
            futures += self._send(batch, options, before_sending)

    # -- the caller's thread ---------------------------------------------------------------------------------------

    def _map(
        self,
        fn: Callable[..., T],
        calls: Iterator[tuple[Any, ...]],
        known: RefCache | None,
        timeout: float | None,
        chunksize: int | Literal["auto"],
        buffersize: int | None,
        probe_timeout: float,
        return_exceptions: bool,
        progress: bool | None,
        *,
        ordered: bool = True,
    ) -> Results[Any]:
        if chunksize == "auto" and self._run.is_warm:
            chunksize = 1  # they are put together when they are dealt out
        size = check_chunksize(chunksize)
        check_buffersize(buffersize, chunksize)
        function = self._function(fn)
        patience = probe_timeout if size is None else None
        together = 1 if known is None or size is None else max(1, _AT_ONCE // size)

        def submit() -> list[ProminenceFuture[T]]:
            taken: Iterator[list[Call]] = ([(args, {}) for args in islice(calls, size)] for _ in range(together))
            chunks = list(takewhile(bool, taken))
            if not chunks:
                return []
            self._check_usable()
            options = self._options.fresh()
            packed = [self._pack(function, chunk, options, size, known) for chunk in chunks]
            return self._send(packed, options, None, patience)

        return Results(
            submit,
            ordered=ordered,
            buffersize=buffersize,
            timeout=timeout,
            leaves=self._run.leaves_jobs,
            return_exceptions=return_exceptions,
            progress=progress,
        )

    def _function(self, fn: Callable[..., Any]) -> PickledFunction:
        """Prepare a function for its calls."""
        raise NotImplementedError

    def _check_usable(self) -> None:
        """Raise RuntimeError or BrokenRunError where no more calls are taken."""
        raise NotImplementedError

    def _pack(
        self,
        function: PickledFunction,
        calls: Sequence[Call],
        options: Options,
        together: int | None,
        known: RefCache | None = None,
    ) -> PackedCalls:
        """Pickle calls; see `pack`."""
        raise NotImplementedError

    def _send(
        self,
        packed: Sequence[PackedCalls],
        options: Options,
        before: BeforeSending | None,
        patience: float | None = None,
    ) -> list[ProminenceFuture[Any]]:
        """Queue chunks that have been pickled; return the futures of all their calls in their order.

        With ``patience`` the calls are not a chunk: see `Dispatcher.submit_held`.
        """
        raise NotImplementedError


def _cache(iterables: Sequence[Iterable[Any]], buffersize: int | None) -> RefCache | None:
    """Return what remembers large arguments that come again, where they are surely what they were."""
    return {} if buffersize is None and all(type(values) in _STILL for values in iterables) else None
