"""Chunks to jobs: packs what waits, uploads what is large, creates the jobs, deletes those nobody wants any more.

The only writer to the service. A thread takes chunks in the order of submission, within ``max_workers``, and a small
pool does the requests. It settles futures only before their job has an id; afterwards that is the tracker's.

A POST whose answer was lost may have made a job: it is looked up by the job's name, which is unique, before it is
repeated (the service has no idempotency key).
"""

from __future__ import annotations

import base64
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .chunk import RUN_LABEL, Chunk
from .errors import (
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    ProminenceError,
    ServiceError,
    ServiceUnavailableError,
    TransferError,
)
from .model import BODY_LIMIT, encode
from .payload import (
    CALLS_FILE,
    JOB_FILE,
    OUTCOME_FILE,
    RUNNER_FILE,
    Blob,
    calls_file,
    job_file,
    runner_archive,
)
from .pool import started_pool

if TYPE_CHECKING:
    from .run import Run

_SENDERS = 8  # requests under way at once; ten threads made the real service's submissions 2.4 times as fast
_SLACK = 16_384  # bytes of a request body left to what is not an input file
_LOOKUPS = (0.5, 3.0)  # seconds after an unanswered POST at which its job is looked for
_FIRST_CONTACT = 10.0  # seconds to wait for a service that has never answered: the URL may be wrong
_DELETE_TOGETHER = 0.02  # seconds in which cancellations are gathered into one request


class Dispatcher:
    """The writing half of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._waiting: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._pool: ThreadPoolExecutor | None = None
        self._thread = threading.Thread(target=self._loop, name=f"prominence-dispatch-{run.run_id}", daemon=True)
        self._lock = threading.Lock()
        self._to_delete: list[Chunk] = []
        self._shared: dict[str, threading.Lock] = {}  # objects that several jobs use, by name; locked while uploading
        self._present: set[str] = set()

    def start(self) -> None:
        self._pool = started_pool(_SENDERS, f"prominence-send-{self._run.run_id}")
        self._thread.start()

    def put(self, chunk: Chunk) -> None:
        """Queue a chunk; returns at once."""
        self._waiting.put(chunk)

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

    def _in_pool(self, work: Callable[..., None], *arguments: Chunk) -> None:
        if self._pool is None:
            raise RuntimeError("the dispatcher has not been started")
        self._pool.submit(work, *arguments)

    def _loop(self) -> None:
        try:
            while (chunk := self._waiting.get()) is not None:
                if self._run.wait_for_room(chunk):
                    self._in_pool(self._send, chunk)
        except BaseException as error:  # noqa: BLE001  a dead dispatcher must not leave futures behind
            self._run.log.exception("the dispatcher of run %s failed", self._run.run_id)
            self._run.break_off(error)

    def _send(self, chunk: Chunk) -> None:
        run = self._run
        try:
            if not run.is_open(chunk):
                return
            if chunk.terminated or chunk.cancelled():
                run.forget(chunk)
                run.settled(chunk)
                return
            run.accepted(chunk, self._create(chunk))
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

    # -- describing a job ------------------------------------------------------------------------------------------

    def _describe(self, chunk: Chunk) -> dict[str, Any]:
        """The job's JSON; what does not fit into one request is uploaded, the largest first."""
        assert chunk.payload is not None  # noqa: S101  given up only once the job is accepted
        options = chunk.options
        wanted = [position for position, call in enumerate(chunk.calls) if not call.done()]
        calls = calls_file(chunk.payload.part(range(chunk.size), wanted))
        calls_name, modules = CALLS_FILE, chunk.payload.modules
        modules_name = f"pxmods-{modules.sha256[:32]}" if modules else ""
        room = BODY_LIMIT - _SLACK - _in_base64(len(runner_archive()))
        uploads: list[str] = []
        sizes = {"calls": calls.size, "modules": len(modules.content) if modules else 0}
        for what in sorted(sizes, key=lambda item: -sizes[item]):
            if sum(_in_base64(size) for size in sizes.values()) <= room:
                break
            sizes[what] = 0
            if what == "calls":
                calls_name = f"{CALLS_FILE}-{chunk.name.replace('/', '-')}"
                chunk.uploaded = [calls_name]
                self._run.client.upload(calls_name, calls, size=calls.size)
                uploads.append(calls_name)
            elif modules:
                self._upload_once(modules_name, modules.content)
                uploads.append(modules_name)
        walltime = options.resources.json()["walltime"] * 60.0
        instructions = job_file(
            chunk.identity,
            self._run.key,
            calls=(calls_name, calls.sha256()),
            modules=[(modules_name, modules.sha256)] if modules else [],
            seconds=walltime - min(60.0, walltime / 20),
        )
        inputs = {RUNNER_FILE: runner_archive(), JOB_FILE: instructions}
        if calls_name not in uploads:
            inputs[calls_name] = calls.tobytes()
        if modules and modules_name not in uploads:
            inputs[modules_name] = modules.content
        description: dict[str, Any] = {
            "name": chunk.name,
            "tasks": [options.task(f"python3 {RUNNER_FILE}").json()],
            "resources": options.resources.json(),
            "labels": {**options.labels, RUN_LABEL: self._run.run_id},
            "inputs": [{"filename": name, "content": _base64(content)} for name, content in inputs.items()],
            "outputFiles": [OUTCOME_FILE],
        }
        if uploads:
            description["artifacts"] = [{"url": name} for name in uploads]
        if options.policies is not None and (policies := options.policies.json()):
            description["policies"] = policies
        size = len(encode(description))
        if size > BODY_LIMIT:
            raise InvalidRequestError(f"the job's description has {size} bytes; the service takes {BODY_LIMIT}")
        return description

    def _upload_once(self, name: str, content: bytes) -> None:
        """Upload an object that other jobs of this run use too, unless one of them has."""
        with self._lock:
            uploading = self._shared.setdefault(name, threading.Lock())
        with uploading:
            if name not in self._present:
                self._run.client.upload(name, Blob([content]), size=len(content))
                self._present.add(name)

    # -- creating it exactly once ----------------------------------------------------------------------------------

    def _create(self, chunk: Chunk) -> int:
        """Create the job, repeating a POST only when no job came of the one before; returns the job's id.

        Waits while the service is away, for as long as `Run.service_timeout`.
        """
        run, description = self._run, None
        pause, refusals = 0.25, 0
        while True:
            try:
                description = description or self._describe(chunk)
                if chunk.in_doubt and (found := self._find(chunk)) is not None:
                    return found
                chunk.in_doubt = False
                run.sending(chunk)
                job_id = run.client.create_job(description)
                run.answered()
                return job_id
            except (ServiceError, TransferError) as error:
                certain = isinstance(error, TransferError) or not getattr(error, "request_sent", True)
                chunk.in_doubt = chunk.in_doubt or not certain
                run.in_doubt = run.in_doubt or chunk.in_doubt
                away = run.unanswered()
                patience = run.service_timeout if run.reached else min(_FIRST_CONTACT, run.service_timeout)
                refusals += getattr(error, "status_code", None) == 500
                nobody = chunk.cancelled() and not chunk.in_doubt
                if refusals >= 3 or nobody or run.broken:
                    raise
                if away > patience:
                    raise ServiceUnavailableError(
                        f"run {run.run_id}: the call was not accepted by a service that has not answered for "
                        f"{away:.0f} s: {error}"
                    ) from error
                wait = getattr(error, "retry_after", None) or (0.0 if chunk.in_doubt else pause)
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
        try:
            ids = [chunk.job_id for chunk in chunks if chunk.job_id is not None and not chunk.ended]
            if ids:
                self._run.client.delete_jobs(ids)
            for chunk in chunks:
                for name in chunk.uploaded:
                    self._run.client.delete_data(name)
        except InvalidRequestError:
            pass  # they had all ended: that is what was wanted
        except ProminenceError as error:
            self._run.log.warning("jobs or objects of run %s could not be deleted: %s", self._run.run_id, error)
        finally:
            for chunk in chunks:
                self._run.close(chunk)


def _in_base64(size: int) -> int:
    return (size + 2) // 3 * 4


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
