"""Calls that have futures among their arguments: they wait here until these are done, and go on their way then.

`Dependents` is the `Transport` of such calls. All of them together have one thread, while there are any: it takes what
callbacks of futures say, puts results in the place of futures, and hands the calls on, those that have become ready
together at once. Callbacks only queue, so that a chain of any length fails without a recursion. It makes no requests,
but for a result that has to come from another service.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from ..payload.calls import Payload
from ..payload.dependencies import Value, Waits
from ..run.breaking import breaking
from ..run.chunk import Chunk
from ..run.context import RunContext
from ..run.future import ProminenceFuture
from ..run.registry import ChunkRegistry
from .arguments import Ready, completed, dependency_error, runs_of, value_of

_TOGETHER = 0.02  # seconds of silence after which calls that may share a job have become ready together
_AT_MOST = 0.5  # seconds for which they wait for each other


class _Heard(NamedTuple):
    """A call that waits no more."""

    chunk: Chunk
    waits: Waits
    failed: Future[Any] | None


class _Waiting:
    """A call that waits. What callbacks of its futures hold of it is let go when it waits no more."""

    def __init__(self, chunk: Chunk, waits: Waits, tell: Callable[[_Waiting], None]) -> None:
        self._lock = threading.Lock()  # guards all below
        self._call: tuple[Chunk, Waits] | None = (chunk, waits)
        self._failed: Future[Any] | None = None
        self._left = {id(future) for future in waits.futures.values()}
        self._tell: Callable[[_Waiting], None] | None = tell

    def listen(self, futures: Iterable[Future[Any]]) -> None:
        """Hear of its futures, some of which may be done."""
        for future in futures:
            future.add_done_callback(self._heard)

    def _heard(self, future: Future[Any]) -> None:
        has_failed = future.cancelled() or Future.exception(future) is not None
        with self._lock:
            tell = self._tell
            self._left.discard(id(future))
            if has_failed and tell is not None:
                self._failed = self._failed or future
            is_over = has_failed or not self._left
        if tell is not None and is_over:
            tell(self)

    def shares(self) -> bool:
        """Return whether it may share a job with others."""
        with self._lock:
            return self._call is not None and self._call[1].together > 1

    def end(self) -> _Heard | None:
        """Let go of all; return it, unless that has been done."""
        with self._lock:
            call, self._call = self._call, None
            failed, self._failed = self._failed, None
            self._tell = None
        return None if call is None else _Heard(*call, failed)


class Dependents:
    """A `Transport` of calls that wait for others.

    Args:
        forward: sends a chunk that waits no more.
    """

    def __init__(self, context: RunContext, registry: ChunkRegistry, forward: Callable[[Chunk], None]) -> None:
        self._context = context
        self._registry = registry
        self._forward = forward
        self._changed = threading.Condition()  # its lock guards what follows
        self._waiting: dict[Chunk, _Waiting] = {}
        self._heard: list[_Waiting] = []
        self._thread: threading.Thread | None = None

    # -- a transport -----------------------------------------------------------------------------------------------

    def submit(self, chunk: Chunk) -> None:
        """Have a chunk of one call wait; return at once."""
        payload = chunk.payload
        if payload is None or payload.waits is None:
            return  # it was cancelled a moment ago
        with self._changed:
            if chunk.transport is not self:
                return  # it comes a second time, as whoever queued it was interrupted, and has gone on
            entry = self._waiting.setdefault(chunk, _Waiting(chunk, payload.waits, self._tell))
            if self._thread is None:
                name = f"prominence-depend-{self._context.run_id}"
                self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
                self._thread.start()
        entry.listen(payload.waits.futures.values())

    def discard(self, chunk: Chunk) -> None:
        """Close a chunk whose call was cancelled, unless it has just gone on its way."""
        if self._take(chunk):
            self._context.journal.remove([chunk.name])
            self._close(chunk)

    def terminate(self, chunk: Chunk) -> bool:
        """Return False: what waits can be cancelled."""
        return False

    def output(self, chunk: Chunk, call: ProminenceFuture[Any], stream: Literal["stdout", "stderr"]) -> str:
        """Return nothing: it has not run."""
        return ""

    def release(self, chunk: Chunk) -> None:
        """Close a chunk whose call is settled."""
        if self._take(chunk):
            self._close(chunk)

    def threads(self) -> set[threading.Thread]:
        """Return those in which callbacks of futures may run."""
        with self._changed:
            return {self._thread} if self._thread else set()

    def close(self, leave: bool) -> None:
        """End the thread; every chunk is settled."""
        with self._changed:
            entries = list(self._waiting.values())
            self._waiting.clear()
            self._heard.clear()
            self._changed.notify_all()
            thread = self._thread
        for entry in entries:
            entry.end()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _tell(self, entry: _Waiting) -> None:
        with self._changed:
            self._heard.append(entry)
            self._changed.notify_all()

    def _take(self, chunk: Chunk) -> bool:
        """Have a chunk wait no more; return whether it has waited until now."""
        with self._changed:
            entry = self._waiting.pop(chunk, None)
            self._changed.notify_all()
        return entry is not None and entry.end() is not None

    def _close(self, chunk: Chunk) -> None:
        chunk.ended = True
        self._registry.close(chunk)

    # -- its thread ------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        with breaking(self._registry, "waiting for results"):
            while self._wait():
                self._go_on()

    def _wait(self) -> bool:
        """Wait for calls whose futures are done, or have failed; False when none waits, and the thread is to end.

        Of those that may share a job, more may come in a moment.
        """
        with self._changed:
            while not self._heard:
                if not self._waiting:
                    self._thread = None
                    return False
                self._changed.wait()
            count, until = 0, time.monotonic() + _AT_MOST
            while count < len(self._heard) and time.monotonic() < until and any(e.shares() for e in self._heard):
                count = len(self._heard)
                self._changed.wait(_TOGETHER)
            return True

    def _go_on(self) -> None:
        """Hand on what is ready, in the order of the calls."""
        with self._changed:
            entries, self._heard = self._heard, []
            heard = [found for entry in entries if (found := entry.end()) is not None]
            for found in heard:
                self._waiting.pop(found.chunk, None)
        ready = self._ready(heard)
        for run in runs_of(sorted(ready, key=lambda item: item[0].first)):
            self._send(run)

    def _ready(self, heard: Iterable[_Heard]) -> list[Ready]:
        """Settle the calls that cannot run, and put results in the place of futures for those that can."""
        ready = []
        made: dict[Future[Any], Value] = {}  # of what several of them need, once
        for chunk, waits, failed in heard:
            payload = chunk.payload
            if payload is None or not self._registry.is_open(chunk):
                continue
            try:
                if failed is not None:
                    raise dependency_error(chunk, failed)
                values = dict(waits.known)
                for number, future in waits.futures.items():
                    if future not in made:
                        made[future] = value_of(self._context.objects, self._context.client.url, future)
                    values[number] = made[future]
                ready.append((chunk, waits, completed(payload, values)))
            except Exception as error:  # noqa: BLE001  __reduce__ is somebody else's code; no future may hang
                self._fail(chunk, error)
        return ready

    def _fail(self, chunk: Chunk, error: BaseException) -> None:
        chunk.settle_all(error)
        with suppress(OSError):  # the journal's: what stays in it fails again
            self._context.journal.remove([chunk.name])
        self._close(chunk)

    def _send(self, run: Sequence[Ready]) -> None:
        """Hand on calls that share a job."""
        chunk, _, payload = run[0]
        if len(run) > 1:
            merged = self._registry.merge([item[0] for item in run], lambda: self._merged(run))
            if merged is None:  # one has been cancelled
                for item in run:
                    self._send([item])
                return
            chunk = merged
        else:
            chunk.payload = payload
        try:
            # At once: whoever goes on from a journal with both would run the calls twice.
            self._context.journal.put(chunk, instead_of=[item[0].name for item in run] if len(run) > 1 else ())
        except OSError as error:
            chunk.settle_all(error)
            self._close(chunk)
            return
        self._forward(chunk)

    def _merged(self, run: Sequence[Ready]) -> Chunk:
        first, _, one = run[0]
        payloads = [payload for _, _, payload in run]
        calls = [call for chunk, _, _ in run for call in chunk.calls]
        arguments = [blob for payload in payloads for blob in payload.arguments]
        objects = one.objects.union(*(payload.objects for payload in payloads))
        results = one.results.union(*(payload.results for payload in payloads))
        whole = Payload(one.function, arguments, one.modules, objects, one.name, results)
        return Chunk(first.run_id, first.first, calls, first.options, whole, self)
