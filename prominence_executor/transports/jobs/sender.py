"""Chunks to jobs: gathers what waits together, and creates jobs and arrays.

A thread takes chunks in the order of submission, within ``max_workers``, and a small pool does the requests. Many that
wait together become arrays; a few, or one that comes alone, become jobs of their own at once. It settles futures only
before their job is accepted; afterwards that is the tracker's.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Protocol

from ...errors import (
    AuthenticationError,
    BrokenRunError,
    InvalidRequestError,
    JobDeletedError,
    ServiceError,
    ServiceUnavailableError,
)
from ...payload.pickling import ObjectRef
from ...run.breaking import breaking
from ...run.chunk import REFUSED, Chunk
from ...run.context import RunContext
from ...run.registry import ChunkRegistry
from .array import MOST, Array, arrays_of, groups_for_arrays
from .create import create_once, find_job, find_workflow
from .describe import JobDescriber
from .table import JobTable
from .turn import Turn

_ALONE = 0.005  # seconds that a chunk waits for others
_SILENCE = 0.05  # seconds without another one that end an array
_GATHER = (1.0, 4.0)  # seconds for which the first array of a long loop may gather, and the later ones
_NO_WORKFLOWS = (403, 404, 405, 501)  # what a service answers that has none


class Accepted(Protocol):
    """What is to happen to chunks when they are at the service, or never will be; called in the pool."""

    def accepted(self, chunk: Chunk) -> None:
        """Look after a chunk whose job, or array, the service has taken."""

    def release(self, chunk: Chunk) -> None:
        """Let go of a chunk all of whose calls are settled."""

    def delete_object(self, name: str) -> None:
        """Delete an uploaded object."""


class Sender:
    """Creates the jobs of one run."""

    def __init__(
        self,
        context: RunContext,
        registry: ChunkRegistry,
        table: JobTable,
        pool: Callable[[], Executor],
        owner: Accepted,
    ) -> None:
        self._context = context
        self._registry = registry
        self._table = table
        self._pool = pool
        self._owner = owner
        self._describer = JobDescriber(context, table)
        self._waiting: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        # Of the thread alone:
        self._next: Chunk | None = None  # taken from the queue, and not yet sent: there was no room for it
        self._gathering_until = 0.0  # time.monotonic() when the last array was full, or had gathered for long enough
        self._turn: Turn | None = None  # of what was sent last
        self._arrays = True  # until the service turns out to have no workflows; the pool may say so
        self.thread = threading.Thread(target=self._loop, name=f"prominence-dispatch-{context.run_id}", daemon=True)

    def put(self, chunk: Chunk) -> None:
        """Queue a chunk, and begin to upload what it shares with others; return at once."""
        self._waiting.put(chunk)
        context = self._context
        for reference in context.objects.early(chunk.payload.objects if chunk.payload else ()):
            self._pool().submit(self._place_early, reference)

    def stop(self) -> None:
        """End the thread; every chunk has been settled."""
        self._waiting.put(None)
        if self.thread.is_alive() and threading.current_thread() is not self.thread:
            self.thread.join()

    # -- its thread ------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        with breaking(self._registry, "sender"):
            while (chunk := self._take()) is not None:
                if self._table.wait_for_room(chunk):
                    together = [chunk, *self._companions()]
                    for group in groups_for_arrays(together, self._table.in_doubt(together)):
                        arrays = arrays_of(group, self._table.arrays_making_jobs())
                        for part in arrays:
                            array = Array.of(part)
                            self._table.put_into(array)
                            self._turn = Turn(self._turn)
                            self._pool().submit(self._send_array, array, self._turn)
                        for alone in group if not arrays else ():
                            self._turn = Turn(self._turn)
                            self._pool().submit(self._send, alone, self._turn)

    def _take(self) -> Chunk | None:
        """Return the next chunk; None when there will be no more."""
        chunk, self._next = self._next, None
        return chunk or self._waiting.get()

    def _companions(self) -> list[Chunk]:
        """Gather what else is being submitted just now, as far as there is room for it at the service."""
        gathered: list[Chunk] = []
        began = time.monotonic()
        goes_on = began - self._gathering_until < _SILENCE  # the loop that filled the last array
        until, silence = began + _GATHER[goes_on], _SILENCE if goes_on else _ALONE
        while self._arrays and len(gathered) + 1 < MOST and (now := time.monotonic()) < until:
            try:
                chunk = self._waiting.get(timeout=min(silence, until - now))
            except queue.Empty:
                if time.monotonic() < until:
                    return gathered  # the loop is over
                break
            if chunk is None:
                self._waiting.put(None)
                return gathered
            if self._table.is_full():
                self._next = chunk
                return gathered
            if self._table.wait_for_room(chunk):
                gathered.append(chunk)
            silence = _SILENCE
        self._gathering_until = time.monotonic()
        return gathered

    # -- in the pool -----------------------------------------------------------------------------------------------

    def _place_early(self, reference: ObjectRef) -> None:
        with suppress(Exception):  # what fails is done again, by the call that needs it
            self._context.objects.place(self._context.client, reference, None)

    def _send_array(self, array: Array, turn: Turn) -> None:
        context, chunks = self._context, list(array.left.values())
        if not array.is_wanted():
            turn.end()
            self._drop_unwanted(chunks)
            self._release(chunks)
            return
        try:
            workflow_id = create_once(
                context,
                self._table,
                chunks,
                describe=lambda: self._describer.array(array),
                post=turn.post(context.client.create_workflow),
                find=lambda: find_workflow(context, array.name),
                sending=lambda: self._sending(chunks),
            )
            self._table.accepted_array(array, workflow_id)
            self._forget(chunks)
        except AuthenticationError as error:
            self._registry.fail(error)
        except ServiceUnavailableError as error:
            for chunk in chunks:
                chunk.settle_all(error)
            self._release(chunks)
        except Exception as error:  # noqa: BLE001  it may do without arrays
            self._do_without(array, turn, error)
        else:
            for chunk in chunks:
                self._owner.accepted(chunk)
        finally:
            turn.end()

    def _do_without(self, array: Array, turn: Turn, error: Exception) -> None:
        """Have the jobs of an array created one by one, unless the run has broken: its journal keeps them then."""
        if getattr(error, "status_code", None) in _NO_WORKFLOWS:
            self._arrays = False
        if array.bundle:
            self._owner.delete_object(array.bundle)
        if self._registry.broken is not None:
            return
        chunks, behind = self._table.take_out_of(array), turn
        text = "run %s: sending %d jobs one by one: %s"
        self._context.log.info(text, self._context.run_id, len(chunks), error)
        for chunk in chunks:
            behind = Turn(behind)
            self._pool().submit(self._send, chunk, behind)

    def _send(self, chunk: Chunk, turn: Turn) -> None:
        context = self._context
        try:
            if not self._registry.is_open(chunk):
                self._table.drop_closed(chunk)
                return
            if chunk.terminated or chunk.cancelled():
                if chunk.terminated:  # maybe while warm workers still had it
                    chunk.settle_all(JobDeletedError("the call was ended by terminate() before its job began"))
                self._drop_unwanted([chunk])
                self._release([chunk])
                return
            job_id = create_once(
                context,
                self._table,
                [chunk],
                describe=lambda: self._describer.job(chunk),
                post=turn.post(context.client.create_job),
                find=lambda: find_job(context, chunk.name),
                sending=lambda: self._sending([chunk]),
            )
            self._table.accepted(chunk, job_id)
            self._forget([chunk])
        except AuthenticationError as error:
            self._registry.fail(error)
        except Exception as error:  # noqa: BLE001  whatever happened, no future may hang
            if not isinstance(error, ServiceError):
                self._drop_unwanted([chunk])  # what the service never saw stays in the journal
            if isinstance(error, InvalidRequestError) or (isinstance(error, ServiceError) and error.is_server_fault):
                chunk.status = REFUSED
            chunk.settle_all(error)
            self._release([chunk])
        else:
            self._owner.accepted(chunk)
        finally:
            turn.end()

    def _sending(self, chunks: list[Chunk]) -> None:
        """Note that their jobs may exist from now on. BrokenRunError: the run has failed."""
        if not any(self._registry.is_open(chunk) for chunk in chunks):
            raise BrokenRunError(f"run {self._context.run_id} is broken: {self._registry.broken}")
        self._context.journal.sending(chunk.name for chunk in chunks)

    def _forget(self, chunks: list[Chunk]) -> None:
        """Drop chunks from the journal: they are at the service."""
        self._context.journal.remove(chunk.name for chunk in chunks)

    def _drop_unwanted(self, chunks: list[Chunk]) -> None:
        """Drop chunks from the journal that nobody wants; those of a run that has broken, or was left, stay."""
        self._context.journal.remove(self._registry.open_names(chunks))

    def _release(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self._owner.release(chunk)
