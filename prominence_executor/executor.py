"""`ProminenceExecutor`: the ``concurrent.futures`` contract, kept by jobs of a PROMINENCE service.

    submit, map      the caller's thread: pickles, queues, returns at once
    Dispatcher       its thread and pool: chunks -> jobs, the only writer to the service
    Tracker          its thread and pool: polls, fetches outcomes, settles the futures
    Run              joins the two; outlives a forgotten executor until its futures are done

This module may not talk to the service itself.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from itertools import islice
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar, cast

from .auth import TokenSource
from .chunk import Options
from .client import ProminenceClient
from .futures import ProminenceFuture
from .model import JobPolicies, Resources
from .modules import LocalModules
from .payload import Pickled, dumps
from .run import Run, new_run_id

P = ParamSpec("P")
T = TypeVar("T")

_MANY = 1000  # what _max_workers says when nothing bounds the jobs: dask and others size their batches by it
_MODULES = LocalModules()


class ProminenceExecutor(Executor):
    """Runs calls as batch jobs; a drop-in for ``ProcessPoolExecutor`` with futures that know their job.

    Without arguments it takes the service's URL from ``PROMINENCE_URL`` and the token from ``PROMINENCE_TOKEN`` or
    ``~/.prominence/token``. With the URL ``"local"`` it starts the embedded service on this machine for its lifetime
    (needs the extra ``local``). Nothing is sent before the first `submit`.

    Args:
        url: the service's base URL, ``".../prominence/v1"``, or ``"local"``.
        token: the bearer token, or a callable that returns a fresh one.
        image: the container image; it needs Python of this program's minor version. Default ``python:X.Y-slim``.
        runtime: ``"singularity"`` or ``"udocker"``; by default chosen by the image's name.
        resources: CPUs, memory (GB), disk (GB), walltime (minutes) of each job.
        policies: the service's job policies.
        labels: labels of each job beside the executor's own.
        env: environment variables of each call.
        name: the beginning of the run's id, and so of the jobs' names.
        max_workers: at most so many jobs of this executor at the service at once; None leaves queueing to the service.
        poll_interval: seconds between two looks at the jobs: one number, or the (shortest, longest) of an interval that
            adapts to how often jobs end. Default (0.1, 30).
        service_timeout: seconds for which the service may be away before open futures give up.
        on_interrupt: what becomes of outstanding jobs when the program is interrupted (Ctrl-C, ``sys.exit``) inside the
            ``with`` block, or while it waits for its futures at its end: ``"delete"`` or ``"leave"``.

    Raises:
        AuthenticationError: there is no token, or it has expired.
        ValueError: a value that the service would not take, or no URL.
        ImportError: ``"local"`` without the extra ``local``.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | Callable[[], str] | None = None,
        *,
        image: str | None = None,
        runtime: str | None = None,
        resources: Resources | None = None,
        policies: JobPolicies | None = None,
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        max_workers: int | None = None,
        poll_interval: float | tuple[float, float] = (0.1, 30.0),
        service_timeout: float = 900.0,
        on_interrupt: Literal["delete", "leave"] = "delete",
    ) -> None:
        self._options = Options().changed(
            image=image, runtime=runtime, resources=resources, policies=policies, labels=labels, env=env
        )
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, not {max_workers!r}")
        if name is not None and not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name):
            raise ValueError(f"name must be 1 to 100 letters, digits, '_', '.' or '-', not {name!r}")
        if on_interrupt not in ("delete", "leave"):
            raise ValueError(f"on_interrupt must be 'delete' or 'leave', not {on_interrupt!r}")
        self._max_workers = max_workers or _MANY
        self._process = os.getpid()
        self._base: ProminenceExecutor | None = None  # of a view: the executor that it is a view of
        connect, at_end = _connect(url, token)
        self._run = Run(
            connect,
            new_run_id(name),
            secrets.token_bytes(32),
            max_workers=max_workers,
            poll_interval=_interval(poll_interval),
            service_timeout=service_timeout,
            on_interrupt=on_interrupt,
            at_end=at_end,
        )
        _runs.add(self._run)
        weakref.finalize(self, self._run.shutdown, wait=False, cancel=False).atexit = False

    @property
    def run_id(self) -> str:
        """The name under which all jobs of this executor stand at the service (label ``pxrun``)."""
        return self._run.run_id

    @property
    def client(self) -> ProminenceClient:
        """The REST client, for what the executor itself has no method for."""
        return self._run.client

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> ProminenceFuture[T]:
        """Run ``fn(*args, **kwargs)`` as a job; returns its future at once, before anything is sent.

        What cannot be pickled is the future's exception, as in the standard library.

        Raises:
            RuntimeError: after `shutdown`, or in a forked child.
            BrokenRunError: the run is broken, for example because the token is refused.
        """
        self._check_usable()
        return cast("ProminenceFuture[T]", self._submit(_Function(fn), [(args, kwargs)])[0])

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """As ``map(fn, *iterables)``, the calls running as jobs; the results come in order.

        The iterables are read at once. With ``chunksize=n`` one job runs n calls one after the other, each with its
        own outcome. Closing or losing the iterator cancels what has not started.

        Raises:
            ValueError: ``chunksize`` below 1.
            TimeoutError: from the iterator, when a result is not there ``timeout`` seconds after this call.
        """
        if chunksize < 1:
            raise ValueError(f"chunksize must be at least 1, not {chunksize!r}")
        self._check_usable()
        deadline = None if timeout is None else time.monotonic() + timeout
        function = _Function(fn)
        calls = zip(*iterables)  # noqa: B905  the shortest ends it, as in the built-in map
        futures: list[ProminenceFuture[T]] = []
        while chunk := list(islice(calls, chunksize)):
            futures += self._submit(function, [(args, {}) for args in chunk])
        return _results(futures, deadline)

    def with_options(
        self,
        *,
        image: str | None = None,
        runtime: str | None = None,
        resources: Resources | None = None,
        policies: JobPolicies | None = None,
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> ProminenceExecutor:
        """A view of this executor whose calls run with other options; the rest stays as it is.

        `shutdown` of a view, and leaving its ``with`` block, act on the executor.
        """
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._options = self._options.changed(
            image=image, runtime=runtime, resources=resources, policies=policies, labels=labels, env=env
        )
        view._base = self
        return view

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls.

        Args:
            wait: block until all futures are done and the threads have ended; else that happens in the background.
            cancel_futures: cancel what is not running yet, and delete its jobs.
        """
        self._run.shutdown(wait=wait, cancel=cancel_futures)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for all futures; but interrupted, delete the outstanding jobs (or leave them, see ``on_interrupt``)."""
        if kind is not None and issubclass(kind, (KeyboardInterrupt, SystemExit)):
            self._run.interrupt()
        else:
            _shut_down(self._run)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} run {self.run_id} at {self._run.client.url}>"

    def __reduce__(self) -> Any:
        raise TypeError("an executor cannot be pickled: it has threads and connections; make one where it is needed")

    # -- the caller's thread ---------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("this executor belongs to the parent process; a forked child must make its own")
        if _exiting.is_set():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        self._run.check_open()

    def _submit(self, function: _Function, calls: Sequence[tuple[Any, Any]]) -> list[ProminenceFuture[Any]]:
        """Pickle and queue one chunk; calls that cannot be pickled come back as failed futures in their places."""
        futures: list[ProminenceFuture[Any] | None] = []
        pickled: list[Pickled] = []
        for call in calls:
            try:
                function.pickled()
                pickled.append(dumps(call))
            except Exception as error:  # noqa: BLE001  __reduce__ is somebody else's code; the future carries it
                failed: ProminenceFuture[Any] = ProminenceFuture()
                failed._settle(False, error)
                futures.append(failed)
            else:
                futures.append(None)
        sent: Iterator[ProminenceFuture[Any]] = iter(())
        if pickled:
            ours = function.pickled()
            modules = ours.modules.union(*(item.modules for item in pickled))
            code = ours.code.union(*(item.code for item in pickled))
            packed = _MODULES.pack(modules, code)
            sent = iter(self._run.submit(ours.blob, [item.blob for item in pickled], packed, self._options))
        return [future or next(sent) for future in futures]


class _Function:
    """A function that is pickled once for all the calls of a ``map``, whatever their number."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._pickled: Pickled | None = None

    def pickled(self) -> Pickled:
        if self._pickled is None:
            self._pickled = dumps(self._function)
        return self._pickled


def _results(futures: list[ProminenceFuture[T]], deadline: float | None) -> Iterator[T]:
    """The results in order, each let go of as it is yielded; what is left is cancelled when the iterator goes."""
    futures.reverse()

    def iterate() -> Iterator[T]:
        try:
            while futures:
                yield _result_of(futures.pop(), deadline)
        finally:
            for future in futures:
                future.cancel()

    return iterate()


def _result_of(future: Future[T], deadline: float | None) -> T:
    try:
        try:
            return future.result(None if deadline is None else deadline - time.monotonic())
        finally:
            future.cancel()
    finally:
        del future  # a traceback must not keep the result alive


def _interval(given: float | tuple[float, float]) -> tuple[float, float]:
    shortest, longest = (given, given) if isinstance(given, (int, float)) else given
    if not 0 < shortest <= longest:
        raise ValueError(f"poll_interval must be seconds above 0, or the shortest and the longest, not {given!r}")
    return float(shortest), float(longest)


def _connect(
    url: str | None, token: str | Callable[[], str] | None
) -> tuple[Callable[[], ProminenceClient], Callable[[], None]]:
    """What makes a client, and what must be done when it is no longer needed."""
    if (url or os.environ.get("PROMINENCE_URL")) != "local":
        tokens = TokenSource(token)
        tokens.get()  # a missing or expired token is better said here than by the first future
        return lambda: ProminenceClient(url, tokens), _nothing
    from .local.launch import launch  # the one line of the core that knows of the embedded service

    service = launch()
    return lambda: ProminenceClient(service.url, service.token), service.stop


def _nothing() -> None:
    pass


_runs: weakref.WeakSet[Run] = weakref.WeakSet()
_exiting = threading.Event()


def _at_exit() -> None:
    """A program that ends without shutdown waits for its futures, as with the standard library's executors."""
    _exiting.set()
    for run in list(_runs):
        _shut_down(run)


def _shut_down(run: Run) -> None:
    """Wait for a run's futures; Ctrl-C ends the wait and does what ``on_interrupt`` says."""
    try:
        run.shutdown(wait=True, cancel=False)
    except KeyboardInterrupt:
        run.interrupt()
        raise


# The hook that concurrent.futures itself uses: it runs before the interpreter joins threads and stops new ones.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
