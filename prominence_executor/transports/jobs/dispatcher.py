"""Chunks to jobs: gathers what waits together, creates jobs and arrays, deletes those nobody wants any more.

The only writer to the service. A thread takes chunks in the order of submission, within ``max_workers``, and a small
pool does the requests. Many that wait together become arrays; one that comes alone becomes a job of its own at once.
It settles futures only before their job is accepted; afterwards that is the tracker's.

A POST whose answer was lost may have made a job: it is looked up by its name, which is unique, before it is repeated
(the service has no idempotency key).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...errors import (
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    ProminenceError,
    ServiceError,
    ServiceUnavailableError,
    TransferError,
)
from ...payload.pickling import Reference
from ...run.chunk import Array, Chunk
from ...run.threads import started_pool
from ..describe import Packer

if TYPE_CHECKING:
    from ...executor.run import Run

_SENDERS = 8  # requests under way at once; ten threads made the real service's submissions 2.4 times as fast
_LOOKUPS = (0.5, 3.0)  # seconds after an unanswered POST at which its job is looked for
_FIRST_CONTACT = 10.0  # seconds to wait for a service that has never answered: the URL may be wrong
_DELETE_TOGETHER = 0.02  # seconds in which cancellations are gathered into one request
_ALONE = 0.005  # seconds that a chunk waits for others
_SILENCE = 0.05  # seconds without another one that end an array
_GATHER = (1.0, 4.0)  # seconds for which the first array of a long loop may gather, and the later ones
_FEWEST = 8  # jobs for which an array is worth the 3 to 4 s that the service takes to start one
_MOST = 500  # jobs in one array
_SMALL = 1 << 18  # bytes of a chunk's payload that may travel in an array: each of its jobs fetches all payloads
_BUNDLE = 1 << 22  # bytes of all of them together
_NO_WORKFLOWS = (403, 404, 405, 501)  # what a service answers that has none


class Dispatcher:
    """The writing half of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.packer = Packer(run)
        self._waiting: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._next: Chunk | None = None  # taken from the queue, and not yet sent: there was no room for it
        self._gathering_until = 0.0  # time.monotonic() when the last array was full, or had gathered for long enough
        self._arrays = True  # until the service turns out to have no workflows
        self._pool: ThreadPoolExecutor | None = None
        self._thread = threading.Thread(target=self._loop, name=f"prominence-dispatch-{run.run_id}", daemon=True)
        self._lock = threading.Lock()
        self._to_delete: list[Chunk] = []

    def start(self) -> None:
        self._pool = started_pool(_SENDERS, f"prominence-send-{self._run.run_id}")
        self._thread.start()

    def put(self, chunk: Chunk) -> None:
        """Queue a chunk, and begin to upload what it shares with others; returns at once."""
        self._waiting.put(chunk)
        objects = self._run.objects
        for reference in objects.early(chunk.payload.objects if chunk.payload else ()):
            self._in_pool(objects.place, self._run.client, reference, None)  # what fails is done again

    def delete(self, chunk: Chunk) -> None:
        """Delete the chunk's job and objects in the background, together with others that come within a moment."""
        with self._lock:
            self._to_delete.append(chunk)
            if len(self._to_delete) > 1:
                return
        self._in_pool(self._delete_together)

    def terminate(self, chunk: Chunk) -> None:
        """Delete the chunk's running job in the background."""
        self._in_pool(self._terminate, chunk)

    def stop(self) -> None:
        """End the threads; every chunk has been settled."""
        self._waiting.put(None)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def threads(self) -> set[threading.Thread]:
        return {self._thread, *(self._pool._threads if self._pool else ())}

    def discard_object(self, name: str) -> None:
        """Delete an uploaded object in the background."""
        self._in_pool(self._delete_object, name)

    def _in_pool(self, work: Callable[..., object], *arguments: Any) -> None:
        if self._pool is None:
            raise RuntimeError("the dispatcher has not been started")
        self._pool.submit(work, *arguments)

    def _loop(self) -> None:
        try:
            while (chunk := self._take()) is not None:
                if self._run.wait_for_room(chunk):
                    for together in _in_arrays([chunk, *self._companions()]):
                        if len(together) < _FEWEST:
                            for alone in together:
                                self._in_pool(self._send, alone)
                        else:
                            self._in_pool(self._send_array, Array.of(together))
        except BaseException as error:  # noqa: BLE001  a dead dispatcher must not leave futures behind
            self._run.log.exception("the dispatcher of run %s failed", self._run.run_id)
            self._run.break_off(error)

    def _take(self) -> Chunk | None:
        """The next chunk; None when there will be no more."""
        chunk, self._next = self._next, None
        return chunk or self._waiting.get()

    def _companions(self) -> list[Chunk]:
        """What else is being submitted just now, as far as there is room for it at the service."""
        gathered: list[Chunk] = []
        began = time.monotonic()
        goes_on = began - self._gathering_until < _SILENCE  # the loop that filled the last array
        until, silence = began + _GATHER[goes_on], _SILENCE if goes_on else _ALONE
        while self._arrays and len(gathered) + 1 < _MOST and (now := time.monotonic()) < until:
            try:
                chunk = self._waiting.get(timeout=min(silence, until - now))
            except queue.Empty:
                if time.monotonic() < until:
                    return gathered  # the loop is over
                break
            if chunk is None:
                self._waiting.put(None)
                return gathered
            if self._run.is_full():
                self._next = chunk
                return gathered
            if self._run.wait_for_room(chunk):
                gathered.append(chunk)
            silence = _SILENCE
        self._gathering_until = time.monotonic()
        return gathered

    def _send_array(self, array: Array) -> None:
        run, chunks = self._run, list(array.left.values())
        if not array.is_wanted():
            run.forget(*chunks)
            for chunk in chunks:
                run.settled(chunk)
            return
        try:
            workflow_id = self._create(
                chunks,
                describe=lambda: self.packer.array(array),
                post=run.client.create_workflow,
                find=lambda: self._find_array(array),
            )
            run.accepted_array(array, workflow_id)
        except AuthenticationError as error:
            run.break_off(error)
        except ServiceUnavailableError as error:
            for chunk in chunks:
                chunk.settle_all(error)
                run.settled(chunk)
        except BaseException as error:  # noqa: BLE001  it may do without arrays
            if getattr(error, "status_code", None) in _NO_WORKFLOWS:
                self._arrays = False
            run.log.info("run %s: sending %d jobs one by one: %s", run.run_id, len(chunks), error)
            if array.bundle:
                self._delete_object(array.bundle)
            for chunk in chunks:
                chunk.array = None
                self._in_pool(self._send, chunk)
        else:
            for chunk in chunks:
                if not chunk.is_wanted():
                    run.discard(chunk)
            run.tracker.look_soon()

    def _send(self, chunk: Chunk) -> None:
        run = self._run
        try:
            if not run.is_open(chunk):
                return
            if chunk.terminated or chunk.cancelled():
                run.forget(chunk)
                run.settled(chunk)
                return
            job_id = self._create(
                [chunk],
                describe=lambda: self.packer.job(chunk),
                post=run.client.create_job,
                find=lambda: self._find(chunk),
            )
            run.accepted(chunk, job_id)
        except AuthenticationError as error:
            run.break_off(error)
        except BaseException as error:  # noqa: BLE001  whatever happened, no future may hang
            if not isinstance(error, ServiceError):
                run.forget(chunk)  # what the service never saw stays in the journal
            chunk.settle_all(error)
            run.settled(chunk)
        else:
            if chunk.cancelled():
                run.discard(chunk)
            elif chunk.terminated:
                self._terminate(chunk)
            else:
                run.tracker.look_soon()

    # -- creating it exactly once ----------------------------------------------------------------------------------

    def _create(
        self,
        chunks: list[Chunk],
        *,
        describe: Callable[[], dict[str, Any]],
        post: Callable[[dict[str, Any]], int],
        find: Callable[[], int | None],
    ) -> int:
        """Create what runs these chunks, repeating a POST only when nothing came of the one before; returns its id.

        Waits while the service is away, for as long as `Run.service_timeout`.
        """
        run, description = self._run, None
        in_doubt = any(chunk.in_doubt for chunk in chunks)
        pause, refusals = 0.25, 0
        while True:
            try:
                description = description or describe()
                if in_doubt and (found := find()) is not None:
                    return found
                in_doubt = False
                run.sending(chunks)
                created = post(description)
                run.answered()
                return created
            except InvalidRequestError as error:
                refusals += 1
                if refusals >= 3 or not (run.objects.missing(str(error)) or run.images.missing(str(error))):
                    raise
                description, wait = None, 0.0
            except (ServiceError, TransferError) as error:
                in_doubt = in_doubt or not (
                    isinstance(error, TransferError) or not getattr(error, "request_sent", True)
                )
                run.in_doubt = run.in_doubt or in_doubt
                away = run.unanswered()
                patience = run.service_timeout if run.reached else min(_FIRST_CONTACT, run.service_timeout)
                refusals += getattr(error, "status_code", None) == 500
                nobody = not in_doubt and all(chunk.cancelled() for chunk in chunks)
                if refusals >= 3 or nobody or run.broken:
                    raise
                if away > patience:
                    raise ServiceUnavailableError(
                        f"run {run.run_id}: the call was not accepted by a service that has not answered for "
                        f"{away:.0f} s: {error}"
                    ) from error
                wait = getattr(error, "retry_after", None) or (0.0 if in_doubt else pause)
            run.stopping.wait(wait)
            pause = min(pause * 2, 30.0)

    def _find(self, chunk: Chunk) -> int | None:
        """The job that an unanswered POST made, if it did; a second one of the same name is deleted."""
        for wait in _LOOKUPS:
            self._run.stopping.wait(wait)
            jobs = self._run.client.list_jobs(name=chunk.name, all=True)
            ids = sorted({job["id"] for job in jobs if job.get("name") == chunk.name})
            if ids[1:]:
                with suppress(NotFoundError):  # it has ended meanwhile
                    self._run.client.delete_jobs(ids[1:])
            if ids:
                return int(ids[0])
        return None

    def _find_array(self, array: Array) -> int | None:
        """The workflow that an unanswered POST made, if it did; a second one of the same name is deleted."""
        for wait in _LOOKUPS:
            self._run.stopping.wait(wait)
            listed = self._run.client.list_workflows(name=array.name, all=True)
            ids = sorted({workflow["id"] for workflow in listed if workflow.get("name") == array.name})
            for twin in ids[1:]:
                with suppress(NotFoundError):
                    self._run.client.delete_workflow(twin)
            if ids:
                return int(ids[0])
        return None

    # -- deleting --------------------------------------------------------------------------------------------------

    def _terminate(self, chunk: Chunk) -> None:
        try:
            if chunk.job_id is not None:
                self._run.client.delete_job(chunk.job_id)
        except NotFoundError:
            chunk.terminated = False  # it has just ended by itself
        except ProminenceError as error:
            chunk.terminated = False
            self._run.log.warning("job %s could not be terminated: %s", chunk.job_id, error)
        self._run.tracker.look_soon()

    def _delete_together(self) -> None:
        time.sleep(_DELETE_TOGETHER)
        with self._lock:
            chunks, self._to_delete = self._to_delete, []
        client = self._run.client
        unwanted = {chunk.array for chunk in chunks if chunk.array is not None and not chunk.array.is_wanted()}
        ids = [c.job_id for c in chunks if c.job_id is not None and not c.ended and c.array not in unwanted]
        with_them = [chunk for array in unwanted for chunk in list(array.left.values())]
        chunks = list(dict.fromkeys([*chunks, *with_them]))
        try:
            for array in unwanted:
                with suppress(NotFoundError):  # it has ended
                    if array.workflow_id is not None:
                        client.delete_workflow(array.workflow_id)
            if ids:
                with suppress(InvalidRequestError):  # they had all ended: that is what was wanted
                    client.delete_jobs(ids)
            for chunk in chunks:
                for name in chunk.uploaded:
                    client.delete_data(name)
        except ProminenceError as error:
            self._run.log.warning("jobs or objects of run %s could not be deleted: %s", self._run.run_id, error)
        finally:
            for chunk in chunks:
                self._run.close(chunk)

    def _delete_object(self, name: str) -> None:
        try:
            self._run.client.delete_data(name)
        except ProminenceError as error:
            self._run.log.info("object %s of run %s could not be deleted: %s", name, self._run.run_id, error)


def _in_arrays(chunks: list[Chunk]) -> list[list[Chunk]]:
    """Divide chunks into those that can travel together: calls that follow one another, alike in all but the last size.

    Several threads may have submitted them, so that they are not quite in order.
    """
    together: list[list[Chunk]] = []
    room = 0
    for chunk in sorted(chunks, key=lambda chunk: (chunk.attempt, chunk.first)):
        size = 0 if chunk.payload is None else sum(len(blob) for blob in chunk.payload.arguments if blob is not None)
        last = together[-1][-1] if together else None
        if (
            last is not None
            and len(together[-1]) < _MOST
            and size <= min(_SMALL, room)
            and chunk.first == last.first + last.size
            and chunk.size <= last.size == together[-1][0].size
            and chunk.attempt == last.attempt
            and chunk.options == last.options
            and _objects_of(chunk) == _objects_of(last)
            and not chunk.in_doubt
        ):
            together[-1].append(chunk)
            room -= size
        else:
            together.append([chunk])
            room = 0 if chunk.in_doubt or size > _SMALL else _BUNDLE - size
    return together


def _objects_of(chunk: Chunk) -> frozenset[Reference]:
    return frozenset() if chunk.payload is None else chunk.payload.objects
