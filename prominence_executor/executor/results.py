"""The iterator that ``map`` and ``map_unordered`` return: it hands in chunks of calls, and hands out their results.

It knows futures only; how calls become futures is the executor's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, TimeoutError  # not the builtin one before Python 3.11
from queue import Empty, SimpleQueue
from typing import TypeVar

from ..run.future import ProminenceFuture, raised_by_call
from .watching import LOOK, WatchedCalls

T = TypeVar("T")


class Results(Iterator[T]):
    """The results of a ``map``: in the order of the calls, or as they come.

    Has a `close`, as a generator has. Closing it cancels what has not started, and so does losing it once iteration
    has begun, and any exception that it raises. One that was never iterated leaves its calls alone: ``map`` without a
    look at the results is how calls are run for what they do. It keeps no reference to a result that was handed out.

    Args:
        submit: submits the next chunk of calls, or several; returns no futures when there are none left.
        ordered: in the order of the calls.
        buffersize: at most so many chunks of which not every result was handed out; None submits everything at once.
        timeout: seconds from now within which every result must be there.
        return_exceptions: hand out what a call raised in the place of its result.
        progress: show a bar of all calls while the results are taken.
        leaves: do not cancel when Ctrl-C, or a signal handler's ``sys.exit``, ends the iteration, nor when the iterator
            is lost, which may be for that in the body of a loop: the jobs are to stay at the service.
    """

    def __init__(
        self,
        submit: Callable[[], list[ProminenceFuture[T]]],
        *,
        ordered: bool,
        buffersize: int | None,
        timeout: float | None,
        leaves: bool = False,
        return_exceptions: bool = False,
        progress: bool | None = False,
    ) -> None:
        self._watched = WatchedCalls() if progress is not False else None
        self._bar = self._watched.bar("calls", progress) if self._watched else None
        self._begun = False
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._submit: Callable[[], list[ProminenceFuture[T]]] | None = submit
        self._ordered = ordered
        self._leaves = leaves
        self._returns = return_exceptions
        self._next: SimpleQueue[ProminenceFuture[T]] = SimpleQueue()  # in the order in which they are handed out
        self._outstanding: dict[ProminenceFuture[T], list[int]] = {}  # and how many of their chunk are
        while self._submit is not None and (buffersize is None or buffersize > 0):
            self._submit_chunk()
            buffersize = None if buffersize is None else buffersize - 1

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        self._begun = True
        if not self._outstanding:
            self._close_bar()
            raise StopIteration
        try:
            future = self._take()
            result = self._outcome(future)
            left_of_chunk = self._outstanding.pop(future)
            left_of_chunk[0] -= 1
            if not left_of_chunk[0]:
                self._submit_chunk()
            return result
        except StopIteration as error:
            self.close()
            raise RuntimeError("a call raised StopIteration") from error  # as it is, it would end a for loop quietly
        except BaseException as error:
            if self._leaves and isinstance(error, (KeyboardInterrupt, SystemExit)) and not raised_by_call(error):
                self._outstanding.clear()
            self.close()
            raise
        finally:
            future = None  # type: ignore[assignment]  # a traceback must not keep the result alive

    def _take(self) -> ProminenceFuture[T]:
        """Return the next future that is to be handed out. TimeoutError: there is none in time."""
        try:
            return self._awaited()
        except Empty:  # a call may raise that, too
            raise TimeoutError from None

    def _awaited(self) -> ProminenceFuture[T]:
        if self._watched is None or self._bar is None:
            return self._next.get(timeout=self._left())
        while True:
            self._bar.look(total=self._watched.total())
            left = self._left()
            try:
                future = self._next.get(timeout=LOOK if left is None else min(left, LOOK))
            except Empty:
                if left is not None and left <= LOOK:
                    raise
            else:
                self._watched.wait(self._bar, future, self._deadline)
                return future

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _outcome(self, future: ProminenceFuture[T]) -> T:
        """Return a future's result; what it would raise in its place, if that is wanted."""
        if self._returns:
            try:
                error = future.exception(self._left())  # what this raises itself, is the time that is over
            except CancelledError as cancelled:
                error = cancelled
            if error is not None:
                return error  # type: ignore[return-value]  # what `map` says that it returns then
        return future.result(self._left())

    def close(self) -> None:
        """Cancel the calls that have not started, and submit no more; the iterator is exhausted then."""
        self._submit = None
        self._close_bar()
        futures, self._outstanding, self._next = self._outstanding, {}, SimpleQueue()
        for future in futures:
            future.cancel()

    def __del__(self) -> None:
        if getattr(self, "_begun", False) and not self._leaves:
            self.close()

    def _submit_chunk(self) -> None:
        futures = [] if self._submit is None else self._submit()
        if not futures:
            self._submit = None
        if self._watched is not None:
            self._watched.add(futures)
        left_of_chunk = [len(futures)]
        for future in futures:
            self._outstanding[future] = left_of_chunk
            if self._ordered:
                self._next.put(future)
            else:
                future.add_done_callback(self._next.put)  # type: ignore[arg-type]  # it is given the future itself

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
