"""`ProminenceFuture`: a ``concurrent.futures.Future`` that knows its job.

Everywhere in the package it represents its call. It may not talk to the service itself: what it needs done there, it
asks of its `CallHandle`, as a rule a chunk. Futures are settled by what carries their call, never by the user; the
functions at the end are for that, and for nobody else.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

from ..client.model import Resources
from ..client.transfers import appearing_whole
from ..errors import JobError
from ..payload.dependencies import StoredResult
from ..payload.pickling import dumps_out_of_band
from ..public import public
from ..shown import facts
from .notebook import fold
from .retry import Attempt

T = TypeVar("T")
Streams = tuple[list[int], list[int] | None]

_log = logging.getLogger("prominence_executor")

_held = threading.local()  # callbacks that are not to be called in this thread
_RUN = "_prominence_run"  # in the __dict__ of an exception that could be taken for an interruption of this program


class CallHandle(Protocol):
    """The job that runs a call, as its future sees it."""

    @property
    def run_id(self) -> str:
        """Whose call it is."""

    @property
    def job_id(self) -> int | None:
        """The service's number of the (last) job, or None while none has been accepted."""

    @property
    def status(self) -> str:
        """The service's word for it as of the last poll."""

    @property
    def attempts(self) -> int:
        """How many jobs have been tried, the present one included."""

    @property
    def resources(self) -> Resources:
        """What the job asks for."""

    def call_cancelled(self, *, terminated: bool = False) -> None:
        """Take note that the call was cancelled; return at once. If it is ``terminated``, it is not to run at all."""

    def terminate(self) -> bool:
        """End the job though it runs, in the background; False if it is over."""

    def output(self, call: ProminenceFuture[Any], stream: Literal["stdout", "stderr"]) -> str:
        """Fetch what the call has printed: one request."""


class OutputFiles(Protocol):
    """The files that a call has written: at the service, or here."""

    def fetch(self) -> Mapping[str, Path]:
        """Return their paths by their names, downloading them when it is called first."""


class DeferredResult:
    """Stands in a future for a result that is still at the service."""

    def value(self) -> Any:
        """Fetch the result when it is first asked for, and return it."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result to a file, for `load`."""
        raise NotImplementedError


@public
class ProminenceFuture(Future[T]):
    """The outcome of a call that runs as, or in, a job.

    Pending until the service reports the job running; then running, and running it stays whatever a later list says;
    then done. Works with ``concurrent.futures.wait``, ``as_completed`` and ``asyncio.wrap_future``. Callbacks run in
    one of the executor's threads.
    """

    def __init__(self, index: int = -1, cancels_running: bool = False) -> None:
        super().__init__()
        self._index = index
        self._cancels_running = cancels_running
        self._handle: CallHandle | None = None  # of its last attempt
        self._streams: Streams | None = None
        self._files: OutputFiles | None = None
        self._past: tuple[Attempt, ...] = ()  # what was tried before the present attempt
        self._seconds: float | None = None  # that the present one took
        self._needed = False  # by another call
        self._stored: StoredResult | None = None  # where a large result is

    @property
    def index(self) -> int:
        """The number of the call in its run, in the order of submission; -1 for one that never became part of it."""
        return self._index

    @property
    def job_id(self) -> int | None:
        """The service's number of the call's (last) job, or None while none has been accepted."""
        return self._handle.job_id if self._handle else None

    @property
    def attempts(self) -> int:
        """How many jobs have been tried for this call, the present one included.

        More than 1 only with ``retries``, or when a warm worker was lost with it.
        """
        return self._handle.attempts if self._handle else 0

    @property
    def history(self) -> tuple[Attempt, ...]:
        """Each attempt at the call in its order, the present one last: its job, resources, seconds, and its end.

        A sequence of its own beside `attempts`, which is their number: a program that compares that with 1 goes on
        doing so. Without those of a program before `attach`. Makes no request.
        """
        if self._handle is None:
            return self._past
        error = None
        end = "cancelled" if self.cancelled() else ""
        if self.done() and not end:
            error = super().exception()
            end = "result" if error is None else type(error).__name__
        return (*self._past, Attempt(self._handle.job_id, self._handle.resources, self._seconds, end, error))

    def status(self) -> str:
        """Return the service's word for the job as of the last poll; makes no request.

        ``"unsent"`` before the service has accepted it, ``"refused"`` if it would not; then idle, pending, deploying,
        waiting, running; at the end completed, failed, killed or deleted. ``"held"`` of a job that the service calls
        failed, but keeps in its queue, where it may be released: it is waited for, for as long as a service that is
        away.
        """
        return self._handle.status if self._handle else "unsent"

    def stdout(self) -> str:
        """Fetch what the call has printed so far, about a second behind while it runs; blocks for one request.

        Of a finished call in a chunk this is its own part where the platform writes output to a file, else the whole
        job's. Undecodable bytes are replaced. Empty before the job exists.

        Raises:
            ServiceUnavailableError: the service does not answer.
        """
        return self._handle.output(self, "stdout") if self._handle else ""

    def stderr(self) -> str:
        """Fetch what the call has written to its standard error so far; see `stdout`. Blocks for one request.

        Raises:
            ServiceUnavailableError: the service does not answer.
        """
        return self._handle.output(self, "stderr") if self._handle else ""

    def cancel(self) -> bool:
        """Cancel the call unless it is running or done; the job is deleted at the service when no call needs it.

        With ``cancel_running=True`` of the executor a running call, too: only one that is done is not cancelled. True
        means that the future is ``cancelled()``, and stays so whatever the call still does; False that it is as it
        was. The job of a chunk goes on until all of its calls are cancelled. This is also what a task of asyncio does
        when it is cancelled while it awaits the call.

        Returns at once; waiters and callbacks are told at once, the deletion follows in the background, as that of
        `terminate` does.
        """
        if not self._cancel_pending() and not (self._cancels_running and self._cancel_running()):
            return False
        if self._handle:
            self._handle.call_cancelled()
        return True

    def _cancel_pending(self) -> bool:
        if not super().cancel():
            return False
        self.set_running_or_notify_cancel()
        return True

    def _cancel_running(self) -> bool:
        """Do as the base class's `cancel` does, which would not do it to a call that runs."""
        with self._condition:  # the base class's own lock, reentrant
            if not self.running():
                return self.cancelled()
            self._state = "CANCELLED"
            self._condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]  # without the lock: they are the user's
        self.set_running_or_notify_cancel()
        return True

    def terminate(self) -> bool:
        """End the call even if it is running: its job is deleted, and the future ends with `JobDeletedError`.

        A call that has not started is cancelled, and ended if it begins just then. The other calls of a chunk share the
        job and end with it. A job is deleted once it has run for two seconds, since the slot of a younger one would
        stay blocked; a call that ends before that has its outcome. Returns at once; False when the call is done
        already.
        """
        if self._cancel_pending():
            if self._handle:
                self._handle.call_cancelled(terminated=True)  # it may have begun a moment ago
            return True
        return not self.done() and self._handle is not None and self._handle.terminate()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the call and return its result, or raise its exception, as the base class does.

        With ``lazy=True``, or where other calls have this future as an argument, a large result is fetched now, which
        takes its time beyond ``timeout`` seconds.

        Raises:
            TimeoutError: the call has not ended in time.
            CancelledError: the call was cancelled.
            JobError: the platform ended the call's job, or lost it; its subclass says how.
            DependencyError: a future among the call's arguments has no result.
            ServiceUnavailableError, TransferError: a result that is still at the service did not come; it may be asked
                for again.
            Exception: what the call raised; its ``__cause__`` is the remote traceback.
        """
        result: Any = super().result(timeout)
        return cast(T, result.value() if isinstance(result, DeferredResult) else result)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the call and return what `result` would raise, or None, as the base class does.

        With ``lazy=True`` a large result is fetched for that, too: it may still turn out not to be there.

        Raises:
            TimeoutError: the call has not ended within ``timeout`` seconds.
            CancelledError: the call was cancelled.
        """
        error = super().exception(timeout)
        if error is None:
            try:
                self.result(timeout)
            except Exception as problem:  # noqa: BLE001  returned, as all that a call raises
                return problem
        return error

    def save(self, path: str | os.PathLike[str], timeout: float | None = None) -> None:
        """Wait for the call and write its result to a file, for `load`; the file appears when it is whole.

        Blocks for at most ``timeout`` seconds until the call has ended, and for the file. With ``lazy=True`` a large
        result goes from the service to the file without being held in memory.

        Raises:
            OSError: the file cannot be written.
            Exception: what `result` raises.
        """
        result: Any = super().result(timeout)
        if isinstance(result, DeferredResult):
            result.save(path)
        else:
            with appearing_whole(os.fspath(path)) as file:
                for piece in dumps_out_of_band(result).pieces:
                    file.write(piece)

    @property
    def files(self) -> Mapping[str, Path]:
        """The call's output files (see ``outputs`` of `ProminenceExecutor`): their paths here, by their names there.

        Waits for the call. They have been fetched before it was done, unless the executor is ``lazy`` or that failed:
        then this fetches them, once, also after the executor's end. Empty for a call that wrote none, or that asked for
        none; a call that raised has those that it wrote until then.

        Raises:
            JobError, CancelledError: what became of a call that has no outcome.
            StageOutError: they could not be collected where the call ran.
            SignatureError: they are not what was signed.
            ServiceUnavailableError, TransferError, OSError: they do not come now; they may be asked for again.
        """
        error = super().exception()
        if self._files is not None:
            return self._files.fetch()
        if isinstance(error, JobError):
            raise error
        return {}

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call ``fn(future)`` when the call is over; at once, if it is. Else in a thread of the run, as in a pool."""
        super().add_done_callback(partial(_call, fn))

    def set_running_or_notify_cancel(self) -> bool:
        """Do as the base class; but it may be called again: every poll that shows the job running does.

        Returns True when the future is running, False when it is cancelled or done.
        """
        with self._condition:  # the base class's own lock, reentrant
            if self._state == "RUNNING":
                return True
            if self._state in ("CANCELLED_AND_NOTIFIED", "FINISHED"):
                return False
            return super().set_running_or_notify_cancel()

    def _repr_html_(self) -> str:
        error = failure_of(self) if self.done() and not self.cancelled() else None
        state = "cancelled" if self.cancelled() else "running" if self.running() else "pending"
        if self.done() and not self.cancelled():
            state = "failed" if error is not None else "done"
        result = None
        if state == "done":
            held = Future.result(self, 0)
            result = "still at the service" if isinstance(held, DeferredResult) else type(held).__qualname__
        return facts(
            f"call {self.index}" if self.index >= 0 else "a call that was not sent",
            [
                ("run", self._handle.run_id if self._handle else None),
                ("state", state),
                ("job", self.job_id),
                ("its status", self.status()),
                ("attempts", self.attempts if self.attempts > 1 else None),
                ("seconds", None if self._seconds is None else f"{self._seconds:.3g}"),
                ("result", result),
                ("error", None if error is None else f"{type(error).__qualname__}: {text_of(error)}"),
            ],
        )

    def __reduce__(self) -> Any:
        raise TypeError(
            "a future cannot be pickled: it belongs to this process; as an argument of a call it stands for its result"
        )


# -- for what carries the call -----------------------------------------------------------------------------------------


def bind(future: ProminenceFuture[Any], handle: CallHandle) -> None:
    """Let a future represent a call of this job from now on."""
    future._handle = handle


def settle(future: ProminenceFuture[Any], succeeded: bool, value: Any) -> None:
    """Give a future its one outcome; one that is cancelled or done keeps what it has."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        if succeeded:
            future.set_result(value)
            return
        fold(value)
        if not isinstance(value, Exception) and future._handle is not None:
            value.__dict__[_RUN] = future._handle.run_id
        future.set_exception(value)
    except InvalidStateError:
        pass  # another thread was quicker
    except BaseException:  # noqa: BLE001  a callback's sys.exit, say: the base class lets pass what is no Exception
        _log.exception("a callback of call %s raised", future.index)


@contextmanager
def held_callbacks() -> Iterator[list[Callable[[], None]]]:
    """Within this, futures are settled in a thread that may not wait for what users do in callbacks.

    Those that would have been called are in the list, in their order, for another thread to call.
    """
    held: list[Callable[[], None]] = []
    _held.callbacks = held
    try:
        yield held
    finally:
        _held.callbacks = None


def _call(fn: Callable[[Future[Any]], object], future: Future[Any]) -> None:
    held: list[Callable[[], None]] | None = getattr(_held, "callbacks", None)
    if held is None:
        fn(future)
    else:
        held.append(partial(_call_later, fn, future))


def _call_later(fn: Callable[[Future[Any]], object], future: Future[Any]) -> None:
    try:
        fn(future)
    except Exception:  # said as the standard library says it of any other
        logging.getLogger("concurrent.futures").exception("exception calling callback for %r", future)
    except BaseException:  # noqa: BLE001  as in `settle`
        _log.exception("a callback of call %s raised", getattr(future, "index", None))


def set_seconds(future: ProminenceFuture[Any], seconds: float | None) -> None:
    """Say how long the present attempt took; None leaves what is known."""
    if seconds is not None:
        future._seconds = seconds


def note_attempt(future: ProminenceFuture[Any], error: BaseException, seconds: float | None) -> None:
    """Note how the present attempt ended, and that there will be another one."""
    handle = future._handle
    if handle is not None:
        took = future._seconds if seconds is None else seconds
        future._past += (Attempt(handle.job_id, handle.resources, took, type(error).__name__, error),)
        future._seconds = future._streams = None


def failure_of(future: ProminenceFuture[Any]) -> BaseException | None:
    """Return what a call that is done, and not cancelled, has failed with; fetches nothing."""
    return Future.exception(future, 0)


def text_of(error: BaseException) -> str:
    """Return what an exception says; making that is somebody else's code."""
    try:
        return str(error)
    except Exception as problem:  # noqa: BLE001
        return f"(its text cannot be made: {type(problem).__name__})"


def last_failure(future: ProminenceFuture[Any]) -> BaseException:
    """Return why a call that waits for another attempt has had none of its attempts succeed."""
    error = future._past[-1].error if future._past else None
    return error or InvalidStateError(f"call {future.index} has not failed")


def set_streams(future: ProminenceFuture[Any], streams: Streams | None) -> None:
    """Say where in the output of its job a call's own lies: bytes of [stdout, stderr] where it began, and ended.

    None in the place of the end: it goes on to the end of the job's.
    """
    future._streams = streams


def own_part(future: ProminenceFuture[Any], stream: Literal["stdout", "stderr"], content: bytes) -> bytes:
    """Cut a call's own part out of what its job has printed; the whole where nobody knows which part that is."""
    if not future._streams:
        return content
    began, ended = future._streams
    column = 0 if stream == "stdout" else 1
    return content[began[column] : None if ended is None else ended[column]]


def need(future: ProminenceFuture[Any]) -> None:
    """Note that another call needs the result: if it is large, it may stay at the service until somebody here asks."""
    future._needed = True


def is_needed(future: ProminenceFuture[Any]) -> bool:
    """Return whether another call needs the result."""
    return future._needed


def set_stored(future: ProminenceFuture[Any], stored: StoredResult) -> None:
    """Say where a call's large result is."""
    future._stored = stored


def stored_result(future: ProminenceFuture[Any]) -> StoredResult | None:
    """Return where the result is, if it is a large one of a job."""
    return future._stored


def call_of(future: Future[Any]) -> tuple[str, int] | None:
    """Return run and number of a future's call; None if it is none of an executor here."""
    if not isinstance(future, ProminenceFuture) or future._handle is None:
        return None
    return future._handle.run_id, future.index


def set_files(future: ProminenceFuture[Any], files: OutputFiles) -> None:
    """Say where a call's output files are."""
    future._files = files


def raised_by_call(error: BaseException | None, run_id: str | None = None) -> bool:
    """Tell whether this very exception, no `Exception`, is what became of a call, wherever it has been raised since.

    ``run_id``: of a call of this run. A call's ``sys.exit`` says nothing about the program that waits for the call.
    The mark is on the exception itself: ``raise ... from`` replaces its cause, and nothing can refer to it weakly.
    """
    run = None if error is None else error.__dict__.get(_RUN)
    return run is not None and run_id in (None, run)
