"""Warm workers: jobs that stay and take one batch of calls after the other, so that a call need not wait for a job.

The second way to carry a chunk, beside a job of its own (dispatcher.py, tracker.py). One thread is the scheduler: it
starts workers, deals out chunks, reads what the workers say, and settles futures. The mailboxes are keys of the
service's key-value store (worker.py, the other side, describes them): for each worker one batch at a time, and one
place where it says how that batch stands. One list request reads what all workers say, whatever their number.

A batch is sized to take a fraction of a second; what waits in it behind a call that takes longer comes back. A chunk
whose worker is lost goes to another one, so that its calls may run more than once, but count once.
"""

from __future__ import annotations

import io
import math
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Literal

from ...client.client import ProminenceClient
from ...client.status import ENDED
from ...errors import (
    AuthenticationError,
    JobDeletedError,
    JobError,
    NotFoundError,
    ProminenceError,
    ServiceError,
    ServiceUnavailableError,
    SignatureError,
    TransferError,
    WorkerLostError,
)
from ...payload.calls import Identity, Payload, calls_body
from ...payload.modules import ModuleZip
from ...payload.outcomes import OutcomeFile as Outcomes
from ...payload.outcomes import read_outcomes
from ...remote.wire import PART
from ...run import diagnosis
from ...run.chunk import Chunk
from ...run.context import RunContext
from ...run.future import ProminenceFuture, own_part
from ...run.names import parse_worker_name, worker_name
from ...run.options import WORKER_LABEL, Options
from ...run.registry import ChunkRegistry
from ...run.settle import Settler
from ...run.threads import StartedPool, start_thread_pool
from .describe import describe_worker
from .mailboxes import divided, gathered, mailboxes, opened, outcomes_in, sealed, without_outcomes
from .options import WarmOptions
from .rate import RateLimiter
from .state import Worker, WorkerInfo

LARGEST = 128 << 10  # bytes of a chunk with its function; a larger one has a job of its own
_OBJECTS = 8 << 20  # bytes of shared objects of a chunk that go through a mailbox at most,
_FETCHING = 10.0  # and the seconds that their worker may need to fetch them
_MODULES = 32 << 10  # bytes of modules that go through a mailbox; others come with a worker
_BATCH = 48 << 10  # bytes of a batch of several chunks
_BATCH_SECONDS = 0.25  # that a batch should take
_UNREAD = 700 << 10  # bytes of records not yet read of all workers; a worker has up to twice its part, in base64
_SHORTEST = 0.02  # seconds between two looks into a mailbox
_SENDERS = 4
_PATIENCE = 120.0  # seconds beyond idle_timeout after which a worker ends by itself: its client is gone
_REFUSALS = 10  # answers that make no sense to one batch, before its calls are given up
_UNSIGNED = 5  # times in a row that what a worker says may be damaged
_SILENT = 60.0  # seconds without a word of a worker that has a batch
_CALLS_LEFT = 2.0  # so many times the time of a call must be left of a worker's walltime to give it one
_STARTS = 3  # jobs in a row that may end before they work
_OTHERS = 10.0  # seconds without calls after which a worker makes room for one that other calls need
_WHOLE = 0.8  # of its walltime, what a worker gives to a call that it can begin at once
_WATCH = (1.0, 30.0)  # seconds between two looks at the jobs
_LOOKUPS = (0.5, 3.0)  # seconds after an unanswered POST at which its job is looked for, and given up


class WarmPool:
    """The workers of one run."""

    def __init__(self, context: RunContext, registry: ChunkRegistry, settler: Settler, options: WarmOptions) -> None:
        self._context = context
        self._registry = registry
        self._settler = settler
        self._options = options
        self.place = mailboxes(context.run_id)
        self.first_number = 1  # of its workers; those of another program come before
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._queue: deque[Chunk] = deque()
        self._needs: dict[Chunk, float] = {}  # seconds that a worker must have left, as one did not have enough
        self._workers: dict[int, Worker] = {}
        self._target = options.min_workers
        self._next_number = 1
        self._kind: tuple[Options, ModuleZip | None] | None = None  # of the next worker: what calls asked for last
        self._failed_starts = 0
        self._seconds: float | None = None  # of a call, a moving average
        self._eventful_at = time.monotonic()
        self._watch_at = 0.0
        self._ids: set[int] = set()
        self._shrinks = False
        self._used = False
        self._in_doubt = False  # True once a POST has gone unanswered
        share = options.max_requests_per_second / 2 / options.max_workers
        self._objects = min(_OBJECTS, int(_FETCHING * share * PART * 3 / 4))  # bytes of a chunk's shared objects
        context.objects.keep(self._objects)
        self._pace = RateLimiter(options.max_requests_per_second / 2)
        self._started_pool: StartedPool | None = None
        self._thread = threading.Thread(target=self._loop, name=f"prominence-workers-{context.run_id}", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._next_number = self.first_number
        self._started_pool = start_thread_pool(_SENDERS, f"prominence-warm-{self._context.run_id}")
        self._thread.start()

    @property
    def _pool(self) -> StartedPool:
        assert self._started_pool is not None  # noqa: S101  nothing is sent before `start`
        return self._started_pool

    # -- from other threads ----------------------------------------------------------------------------------------

    def accepts(self, payload: Payload, options: Options) -> bool:
        """Whether such calls are small enough for a mailbox, and need nothing that only comes with a job."""
        if options.needs_job or not self._context.objects.may_travel(payload.objects, self._objects):
            return False
        return payload.function.size + sum(blob.size for blob in payload.arguments if blob is not None) <= LARGEST

    def submit(self, chunk: Chunk) -> None:
        """Queue a chunk; returns at once."""
        with self._lock:
            self._queue.append(chunk)
        self._wake.set()

    def discard(self, chunk: Chunk) -> None:
        """All calls of the chunk were cancelled."""
        with self._lock, suppress(ValueError):
            self._queue.remove(chunk)
        self._context.journal.remove([chunk.name])
        self.release(chunk)
        self._wake.set()

    def release(self, chunk: Chunk) -> None:
        """Close a chunk all of whose calls are settled."""
        chunk.ended = True
        self._needs.pop(chunk, None)
        self._registry.close(chunk)

    def terminate(self, chunk: Chunk) -> bool:
        """Have the process of a running chunk ended; its worker goes on. False if it is over."""
        if chunk.ended or not self._registry.is_open(chunk):
            return False
        chunk.terminated = True
        for worker in list(self._workers.values()):
            if chunk in worker.chunks.values():
                text = sealed({"end": [chunk.first, chunk.attempt]}, b"", self._context.key, f"c{worker.number}")
                self._pool.submit(self._context.client.kv_set, f"{self.place}/c/{worker.number:05d}", text)
        return True

    def output(self, chunk: Chunk, call: ProminenceFuture[Any], stream: Literal["stdout", "stderr"]) -> str:
        """Fetch a call's part of what its worker's job has printed; one request."""
        job_id = chunk.job_id or 0

        def ask(client: ProminenceClient) -> bytes:
            return client.stdout(job_id) if stream == "stdout" else client.stderr(job_id)

        content = own_part(call, stream, self._context.connection.call(ask))
        return without_outcomes(content).decode("utf-8", "replace")

    def scale(self, workers: int) -> None:
        """Have so many workers at least, from now on; more are started for calls, and idle ones beyond that end."""
        self._target, self._shrinks = workers, self._started_pool is not None
        self._wake.set()

    def workers(self) -> list[WorkerInfo]:
        now = time.monotonic()
        return [
            WorkerInfo(
                worker.number,
                worker.job_id,
                "busy" if worker.chunks else "idle" if worker.nonce else "starting",
                worker.calls,
                now - worker.seen if worker.seen else None,
                worker.requests,
            )
            for worker in list(self._workers.values())
        ]

    def close(self, leave: bool) -> None:
        """End the workers and remove the mailboxes, or leave all to who attaches to the run. Every chunk is settled."""
        self._stopping = True
        self._wake.set()
        if self._started_pool is None:
            return
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._pool.shutdown(wait=True)
        if not self._used or leave:
            return
        try:
            ids = [worker.job_id for worker in self._workers.values() if worker.job_id is not None]
            if self._in_doubt:
                ids = [job["id"] for job in self._jobs()]  # of a POST that went unanswered
            if ids:
                with suppress(NotFoundError):
                    self._context.client.delete_jobs(ids)
            self._context.client.kv_delete(self.place, prefix=True)
        except ProminenceError as error:
            self._context.log.warning("workers of run %s may be left at the service: %s", self._context.run_id, error)

    def threads(self) -> set[threading.Thread]:
        return {self._thread, *(self._started_pool.threads if self._started_pool else ())}

    # -- the scheduler ---------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        run = self._context
        try:
            while not self._stopping:
                self._wake.clear()
                try:
                    self._start_workers()
                    self._deal()
                    if any(worker.chunks or not worker.nonce for worker in self._workers.values()):
                        self._read()
                        self._deal()
                    self._watch()
                    self._retire()
                    if self._workers:
                        run.health.answered()
                except AuthenticationError:
                    raise
                except ProminenceError as error:
                    self._unanswered(error)
                self._wake.wait(self._pause())
        except AuthenticationError as error:
            self._registry.fail(error)
        except BaseException as error:  # noqa: BLE001  a dead scheduler must not leave futures behind
            run.log.exception("the scheduler of run %s failed", run.run_id)
            self._registry.fail(error)

    def _pause(self) -> float | None:
        """Seconds until the next look: short while work flows."""
        now = time.monotonic()
        workers = list(self._workers.values())
        if any(worker.chunks for worker in workers):
            return min(max(_SHORTEST, (now - self._eventful_at) / 20), 1.0)
        if any(not worker.nonce for worker in workers):
            youngest = max(worker.began for worker in workers if not worker.nonce)
            return min(max(_SHORTEST, (now - youngest) / 20), 5.0)
        if self._queue:
            return _SHORTEST  # workers are to be started
        return 5.0 if workers else None

    def _start_workers(self) -> None:
        """One for each queued chunk, up to the limit; at least as many as are wanted anyway."""
        with self._lock:
            queued = list(self._queue)[: self._options.max_workers]
        unserved = [chunk for chunk in queued if not self._has_worker(chunk)]
        if queued:
            first = (unserved or queued)[0]
            self._kind = first.options.of_worker, _modules_of(first)
        if self._kind is None:
            return  # nobody knows yet what they are to be like
        useless = [w for w in self._idle() if not any(self._can_run(w, chunk) for chunk in queued)] if queued else []
        lacking = max(self._needed(len(self._queue)) - len(self._workers) + len(useless), bool(unserved))
        room = self._options.max_workers - len(self._workers)
        long_ago = time.monotonic() - _OTHERS
        self._end([w for w in useless if w.idle_since < long_ago][: max(0, lacking - room)])
        if unserved and len(self._workers) >= self._options.max_workers:
            self._end(useless[:1])
        start = min(max(lacking, self._target - len(self._workers)), self._options.max_workers - len(self._workers))
        for _ in range(0 if self._stopping else start):
            self._used = True
            worker = Worker(self._next_number, self._kind[0], time.monotonic(), self._kind[1])
            if worker.modules is not None:
                worker.known.add(worker.modules.sha256)
            self._next_number += 1
            self._workers[worker.number] = worker
            self._pool.submit(self._create, worker)

    def _needed(self, queued: int) -> int:
        """Workers for what is queued and what they have: as many as there are chunks, unless those are known short."""
        busy = sum(bool(worker.chunks) for worker in self._workers.values())
        if self._seconds is not None and queued:
            queued = min(queued, math.ceil(queued * self._seconds / _BATCH_SECONDS))
        return busy + queued

    def _has_worker(self, chunk: Chunk) -> bool:
        return any(self._can_run(worker, chunk) for worker in self._workers.values())

    def _create(self, worker: Worker) -> None:
        """Create a worker's job; one whose answer is lost shows in the list of jobs."""
        try:
            description = self._described(worker)
            worker.job_id = self._context.client.create_job(description)
            self._ids.add(worker.job_id)
        except ServiceError as error:
            self._failed_starts += getattr(error, "status_code", None) == 500  # that may be the description's fault
            if not getattr(error, "request_sent", True) or self._failed_starts >= _STARTS:
                self._start_failed(worker, error)
            else:
                worker.doubted, self._watch_at = time.monotonic(), 0.0
                self._in_doubt = True
        except BaseException as error:  # noqa: BLE001  whatever happened, no future may hang
            self._start_failed(worker, error)
        self._wake.set()

    def _described(self, worker: Worker) -> dict[str, Any]:
        """The description of its job; what it needs is uploaded first, an image say, which takes its time."""
        limits = self._options
        worker.sending = True
        try:
            return describe_worker(
                self._context,
                worker.number,
                worker.options,
                worker.modules,
                place=self.place,
                room=min(1 << 16, _UNREAD // limits.max_workers),
                shortest=_SHORTEST,
                rate=self._share(),
                patience=limits.idle_timeout + _PATIENCE,
            )
        finally:
            worker.began, worker.sending = time.monotonic(), False

    def _share(self) -> float:
        """Requests per second that a worker may make: those that have calls share one half of all."""
        busy = sum(bool(worker.chunks) for worker in self._workers.values())
        return self._options.max_requests_per_second / 2 / max(1, busy)

    def _start_failed(self, worker: Worker, error: BaseException) -> None:
        self._workers.pop(worker.number, None)
        if (
            isinstance(error, ServiceUnavailableError)
            and self._context.health.unanswered() < self._context.health.timeout
        ):
            self._context.stopping.wait(1.0)
            return
        if isinstance(error, AuthenticationError):
            self._registry.fail(error)
            return
        self._failed_starts += 1
        if self._failed_starts >= _STARTS or not isinstance(error, (ServiceError, TransferError, JobError)):
            with self._lock:  # those that want another image, say, may have more luck
                chunks = [chunk for chunk in self._queue if chunk.options.of_worker == worker.options]
                self._queue = deque(chunk for chunk in self._queue if chunk not in chunks)
            self._failed_starts = 0
            for chunk in chunks:
                chunk.settle_all(error)
                self.release(chunk)

    # -- dealing out -----------------------------------------------------------------------------------------------

    def _can_run(self, worker: Worker, chunk: Chunk) -> bool:
        """Whether the worker's job is as the chunk wants it, has time enough, and its modules or can be given them."""
        options, modules = chunk.options.of_worker, chunk.payload and chunk.payload.modules
        if options is not worker.options and options != worker.options:
            return False
        if modules and len(modules.content) > _MODULES and modules.sha256 not in worker.known:
            return False
        needed = max(self._needs.get(chunk, 0.0), min(_CALLS_LEFT * (self._seconds or 0.0), _WHOLE * worker.total))
        return worker.batch == 0 or worker.until - time.monotonic() > needed

    def _deal(self) -> None:
        for worker in list(self._workers.values()):
            if worker.nonce and not worker.chunks and not worker.sending:
                batch = self._batch_for(worker)
                if batch:
                    worker.chunks = dict(enumerate(chunk for chunk, _ in batch))
                    worker.running = None
                    worker.batch += 1
                    worker.sending = True
                    self._eventful_at = time.monotonic()
                    self._pool.submit(self._send, worker, batch)
                elif worker.unread:
                    worker.unread = False
                    worker.sending = True
                    self._pool.submit(self._clear, worker)

    def _batch_for(self, worker: Worker) -> list[tuple[Chunk, Payload]]:
        """What to give to a worker: some that should take a fraction of a second, and no more than its share."""
        with self._lock:
            if not self._queue:
                return []
            idle = sum(1 for other in self._workers.values() if other.nonce and not other.chunks)
            share = math.ceil(len(self._queue) / max(1, idle))
            most = 1 if self._seconds is None else max(1, int(_BATCH_SECONDS / max(self._seconds, 1e-6)))
            chunks: list[Chunk] = []
            others: list[Chunk] = []
            size = calls = 0
            while self._queue and len(chunks) < share:
                chunk = self._queue[0]
                if not self._can_run(worker, chunk):
                    others.append(self._queue.popleft())
                    continue
                weight = _weight(chunk)
                if chunks and (size + weight > _BATCH or calls + chunk.size > most or chunk.losses or chunks[0].losses):
                    break
                chunks.append(self._queue.popleft())
                size, calls = size + weight, calls + chunk.size
            self._queue.extendleft(reversed(others))
        batch = []
        for chunk in chunks:
            payload = chunk.payload
            if payload is not None:  # else it was cancelled a moment ago
                chunk.job_id, chunk.status = worker.job_id, "idle"
                batch.append((chunk, payload))
        return batch

    def _send(self, worker: Worker, batch: list[tuple[Chunk, Payload]]) -> None:
        """Put a batch into a worker's mailbox; the same again while the service is away."""
        run = self._context
        purpose = f"{worker.nonce}:{worker.batch}"
        try:
            text = sealed(*self._message(worker, batch), run.key, purpose)
            values = divided(text, worker.nonce)
            box = f"{self.place}/i/{worker.number:05d}/{worker.batch}"
            refusals = 0
            for part in reversed(range(len(values))):
                while True:
                    self._pace.wait()
                    try:
                        run.client.kv_set(f"{box}/{part}", values[part])
                        break
                    except ServiceError as error:
                        refusals += not isinstance(error, ServiceUnavailableError)
                        if (
                            refusals > _REFUSALS
                            or run.health.unanswered() > run.health.timeout
                            or run.stopping.wait(1.0)
                        ):
                            raise
        except AuthenticationError as error:
            self._registry.fail(error)
        except BaseException as error:  # noqa: BLE001  whatever happened, no future may hang
            worker.chunks = {}
            for chunk, _ in batch:
                chunk.settle_all(error)
                self.release(chunk)
        finally:
            worker.sending = False
            self._eventful_at = time.monotonic()
            self._wake.set()

    def _message(self, worker: Worker, batch: list[tuple[Chunk, Payload]]) -> tuple[dict[str, Any], bytes]:
        described, extras, bodies = [], [], []
        for chunk, payload in batch:
            wanted = [position for position, call in enumerate(chunk.calls) if not call.done()]
            part = payload.part(range(chunk.size), wanted)
            body = calls_body(part)
            function = payload.function.sha256()
            modules = payload.modules
            if function not in worker.known:
                worker.known.add(function)
                extras.append((function, payload.function.tobytes()))
            if modules is not None and modules.sha256 not in worker.known:
                worker.known.add(modules.sha256)
                extras.append((modules.sha256, modules.content))
            for item in payload.objects:
                if item.sha256 not in worker.known and item.content is not None:
                    worker.known.add(item.sha256)
                    extras.append((item.sha256, item.content.tobytes()))
            described.append(
                {
                    "job": chunk.first,
                    "attempt": chunk.attempt,
                    "size": len(body),
                    "calls": [None if blob is None else blob.size for blob in part.arguments],
                    "function": function,
                    "modules": modules and modules.sha256,
                    "objects": sorted({item.sha256 for item in payload.objects}),
                }
            )
            bodies.append(body)
        header = {
            "rate": self._share(),
            "chunks": described,
            "extras": [{"name": name, "size": len(content)} for name, content in extras],
        }
        return header, b"".join([*bodies, *(content for _, content in extras)])

    def _clear(self, worker: Worker) -> None:
        """Remove what an idle worker has said, once it is read: every look would bring it again."""
        self._remove(f"{self.place}/o/{worker.number:05d}")
        worker.sending = False
        self._wake.set()

    def _empty(self, worker: Worker) -> None:
        """A worker is no more: every look would bring what it has said, for as long as the run goes on."""
        self._pool.submit(self._remove, f"{self.place}/i/{worker.number:05d}", f"{self.place}/o/{worker.number:05d}")

    def _remove(self, *prefixes: str) -> None:
        for prefix in prefixes:
            self._pace.wait()
            with suppress(ProminenceError):
                self._context.client.kv_delete(prefix, prefix=True)

    # -- what the workers say --------------------------------------------------------------------------------------

    def _read(self) -> None:
        """One list request: everything that all workers have said of their batches."""
        self._pace.wait()
        values = self._context.client.kv_list(f"{self.place}/o", values=True)
        for box, (_, text) in gathered(values).items():
            sender = box.rpartition("/")[2]
            number = int(sender) if sender.isdecimal() else 0
            worker = self._workers.get(number)
            if worker is None or text[:60] == worker.heard:
                continue
            try:
                header, body = opened(text, self._context.key, f"o{number}")
            except ValueError as error:
                worker.unsigned += 1
                if worker.unsigned < _UNSIGNED:
                    continue  # it may have been damaged on its way
                raise SignatureError(f"what worker {number} says is not signed with this run's key: {error}") from None
            worker.heard, worker.unsigned = text[:60], 0
            self._hear(worker, header, body)

    def _hear(self, worker: Worker, header: dict[str, Any], body: bytes) -> None:
        now = time.monotonic()
        if header["nonce"] != worker.nonce:  # it has just started; or again, on another machine
            self._take_back(worker, None)
            worker.nonce, worker.batch = header["nonce"], 0
            worker.total = math.inf if header["left"] is None else float(header["left"])
            worker.until = now + worker.total
            worker.known = {worker.modules.sha256} if worker.modules else set()
        worker.seen, worker.unread, worker.requests = now, True, header["requests"]
        self._failed_starts = 0
        self._eventful_at = now
        if "ended" not in header or header["batch"] != worker.batch:
            worker.idle_since = now
            if header.get("ending"):
                self._workers.pop(worker.number, None)
                self._empty(worker)
                chunks, worker.chunks = worker.chunks, {}  # it has not begun with them
                self._requeue(chunks.values())
            return
        items = []
        at = 0
        for number, size, place in header["ended"]:
            records, at = body[at : at + size], at + size
            chunk = worker.chunks.pop(number, None)
            if chunk is not None:
                worker.calls += chunk.size
                items.append((chunk, records, place))
        for number in header["returned"]:
            chunk = worker.chunks.pop(number, None)
            if chunk is not None:
                chunk.job_id = None
                self._requeue([chunk])
        worker.running = header["running"]
        if not header["final"]:
            for chunk in worker.chunks.values():
                chunk.saw("running")
        elif worker.chunks:  # it has not said what became of them
            self._take_back(worker, None)
        if header["final"]:
            worker.idle_since = now
        if items:
            self._pool.submit(self._settle, worker, items)

    def _settle(self, worker: Worker, items: list[tuple[Chunk, bytes, list[int] | None]]) -> None:
        """Verify outcomes and give them to the futures."""
        run, job_id = self._context, worker.job_id
        for chunk, records, place in items:
            if not self._registry.is_open(chunk):
                continue
            try:
                records = self._printed(chunk, job_id, place) if place is not None else records
            except (ProminenceError, OSError) as error:
                chunk.settle_all(error)
            else:
                if not self._settle_from(worker, chunk, records):
                    continue
            chunk.status = "completed"
            run.journal.remove([chunk.name])
            self.release(chunk)
        self._wake.set()

    def _settle_from(self, worker: Worker, chunk: Chunk, records: bytes) -> bool:
        """Settle a chunk from its records; False when it is to run again."""
        again: list[bool] = []

        def is_final(outcomes: Outcomes) -> bool:
            again.append(self._began_too_late(worker, chunk, outcomes))
            return not again[-1]

        outcomes = self._settler.settle_warm(chunk, records, worker.job_id, is_final)
        ended = outcomes.calls.values() if outcomes is not None else ()
        seconds = [float(outcome.header["seconds"]) for outcome in ended]
        if seconds:
            mean = sum(seconds) / len(seconds)
            self._seconds = mean if self._seconds is None else 0.8 * self._seconds + 0.2 * mean
        if any(again):
            self._requeue([chunk])
            return False
        return True

    def _began_too_late(self, worker: Worker, chunk: Chunk, outcomes: Outcomes) -> bool:
        """Whether the worker's walltime has ended a call that would have had more time on a new worker."""
        if outcomes.job is None or outcomes.job.kind != "walltime" or chunk.terminated or not chunk.is_wanted():
            return False
        had = float(outcomes.job.header["seconds"])
        if had > _WHOLE * worker.total:
            return False
        self._needs[chunk], chunk.job_id, chunk.status = had, None, "unsent"
        chunk.losses += 1
        self._context.log.info(
            "run %s: worker %d's walltime was over after %.0f s of call %d, which begins again on another",
            self._context.run_id,
            worker.number,
            had,
            chunk.first,
        )
        return True

    def _printed(self, chunk: Chunk, job_id: int | None, place: list[int]) -> bytes:
        """A large outcome, which the worker has put into its job's standard output; that may be a second behind."""
        offset, size = place
        for attempt in range(100):
            text = self._context.client.stdout(job_id or 0, offset=offset)[:size]
            if len(text) == size:
                for described, records in outcomes_in(text, self._context.key):
                    if (described["job"], described["attempt"]) == (chunk.first, chunk.attempt):
                        return records
                break
            self._context.stopping.wait(min(0.05 * 1.2**attempt, 2.0))
        raise SignatureError(f"the outcome of job {job_id} is not where its worker has put it")

    # -- workers that go -------------------------------------------------------------------------------------------

    def _requeue(self, chunks: Iterable[Chunk]) -> None:
        with self._lock:
            self._queue.extendleft(reversed([chunk for chunk in chunks if self._registry.is_open(chunk)]))

    def _take_back(self, worker: Worker, job: dict[str, Any] | None) -> None:
        """A worker is lost, or has forgotten its batch: what it had goes to another one."""
        chunks, worker.chunks = worker.chunks, {}
        again = []
        for number, chunk in chunks.items():
            if worker.running in (None, number):
                chunk.losses += 1
            if chunk.terminated:
                chunk.settle_all(JobDeletedError("the call was ended by terminate()", job_id=worker.job_id))
            elif chunk.losses >= self._options.max_attempts:
                chunk.settle_all(self._lost(worker, chunk, job))
            elif chunk.losses == self._options.max_attempts - 1 and chunk.size > 1:
                again += self._split(chunk)  # which of them is it?
                continue
            else:
                again.append(chunk)
                continue
            chunk.losses -= 1  # there is no other worker after this one
            self.release(chunk)
        self._requeue(again)

    def _split(self, chunk: Chunk) -> list[Chunk]:
        """Divide a chunk into chunks of one open call each, which take its place."""

        def make() -> list[Chunk]:
            return [chunk.part(range(at, at + 1), [at], chunk.attempt, self) for at in chunk.unsettled()]

        parts = self._registry.replace(chunk, make)
        for part in parts:
            with suppress(OSError):  # the journal's: the call goes on without
                self._context.journal.put(part)
        self._context.journal.remove([chunk.name])
        chunk.release()
        return parts

    def _lost(self, worker: Worker, chunk: Chunk, job: dict[str, Any] | None) -> WorkerLostError:
        stderr = ""
        if job:
            with suppress(ProminenceError):
                stderr = self._context.client.stderr(job["id"]).decode("utf-8", "replace")[-diagnosis.STDERR_TAIL :]
        reason = diagnosis.job_error(job) if job else None
        what = f"call {chunk.first}" if chunk.size == 1 else f"calls {chunk.first} to {chunk.first + chunk.size - 1}"
        return WorkerLostError(
            f"{chunk.losses} worker{'s were' if chunk.losses > 1 else ' was'} lost while running {what} of the run"
            + (f", {chunk.payload.name}" if chunk.payload and chunk.payload.name else "")
            + (f"; the last one: {reason.message}" if reason else ""),
            job_id=worker.job_id,
            status=job["status"] if job else None,
            reason=job.get("statusReason") if job else None,
            stderr=stderr,
        )

    def _jobs(self) -> list[dict[str, Any]]:
        """The workers' jobs that are active."""
        listed = self._context.client.list_jobs(constraint=(WORKER_LABEL, self._context.run_id))
        return [job for job in listed if job["status"] not in ENDED]

    def _watch(self) -> None:
        """Now and then: which workers' jobs are still there?"""
        now = time.monotonic()
        if now < self._watch_at or not self._workers:
            return
        asked = {worker for worker in self._workers.values() if worker.job_id is not None}
        active = {job["id"]: job for job in self._jobs()}
        for worker in list(self._workers.values()):
            if worker.job_id is None and worker.doubted is not None and now - worker.doubted > _LOOKUPS[0]:
                name = worker_name(self._context.run_id, worker.number)
                found = [job["id"] for job in active.values() if job.get("name") == name]
                if found:
                    worker.job_id = found[0]
                    self._ids.add(found[0])
                elif now - worker.doubted > _LOOKUPS[1] and not worker.nonce:
                    self._workers.pop(worker.number)  # another one is started in its place
        self._delete_strays(active)
        gone = [worker for worker in asked if worker.job_id not in active and worker.number in self._workers]
        if gone:
            self._bury(gone)
        for worker in list(self._workers.values()):
            if worker.chunks and not worker.sending and now - max(worker.seen, self._eventful_at) > _SILENT:
                self._context.log.warning("run %s: worker %d is silent", self._context.run_id, worker.number)
                with suppress(NotFoundError):
                    self._context.client.delete_jobs([worker.job_id or 0])
                self._empty(self._workers.pop(worker.number))
                self._take_back(worker, None)
        eventful = now - max([self._eventful_at, *(worker.began for worker in self._workers.values())])
        if any(worker.job_id is None for worker in self._workers.values()):
            eventful = 0.0
        self._watch_at = now + min(max(_WATCH[0], eventful / 10), _WATCH[1])

    def _delete_strays(self, active: dict[int, dict[str, Any]]) -> None:
        """Jobs of POSTs that were carried out long after they had been given up: nobody would give them a call."""
        strays = []
        for job_id, job in active.items():
            number = parse_worker_name(self._context.run_id, str(job.get("name"))) or 0
            worker = self._workers.get(number)
            given_up = worker is None or worker.job_id not in (None, job_id)
            if self.first_number <= number < self._next_number and job_id not in self._ids and given_up:
                strays.append(job_id)
        if strays:
            with suppress(NotFoundError):
                self._context.client.delete_jobs(strays)

    def _bury(self, workers: list[Worker]) -> None:
        """Jobs that have left the active list: only a detailed description says that they have ended."""
        listed = self._context.client.list_jobs(ids=[worker.job_id or 0 for worker in workers], detail=True)
        jobs = {job["id"]: job for job in listed}
        for worker in workers:
            job = jobs.get(worker.job_id)
            if job is None or job["status"] not in ENDED:
                continue
            self._read()  # its last words
            self._workers.pop(worker.number, None)
            self._eventful_at = time.monotonic()
            if worker.nonce:
                self._empty(worker)
                self._take_back(worker, job)
            else:
                self._start_failed(worker, self._why(worker, job))

    def _why(self, worker: Worker, job: dict[str, Any]) -> ProminenceError:
        """Why a worker's job ended before it said a word."""
        url = diagnosis.outcome_url(job)
        try:
            if url is not None:
                file = io.BytesIO(self._context.client.download(url))
                outcomes = read_outcomes(file, self._context.key, Identity(self._context.run_id, worker.number, 0))
                if outcomes.job is not None:
                    return diagnosis.call_error(outcomes, 0, 0, job)
            stderr = self._context.client.stderr(job["id"]).decode("utf-8", "replace")
        except ProminenceError:
            stderr = ""
        return diagnosis.job_error(job, stderr)

    def _retire(self) -> None:
        """End workers that have been idle for long, beyond those that are wanted anyway."""
        now = time.monotonic()
        idle = 0.0 if self._shrinks and not self._queue else self._options.idle_timeout
        self._shrinks = False
        over = [worker for worker in self._idle() if now - worker.idle_since > idle]
        self._end(over[: max(0, len(self._workers) - self._target)])

    def _idle(self) -> list[Worker]:
        return [w for w in self._workers.values() if w.nonce and not w.chunks and not w.sending]

    def _end(self, workers: list[Worker]) -> None:
        """End idle workers."""
        for worker in workers:
            self._workers.pop(worker.number)
            with suppress(NotFoundError):
                self._context.client.delete_jobs([worker.job_id or 0])
            self._clear(worker)

    def _unanswered(self, error: ProminenceError) -> None:
        """The service is away: wait it out, but not for ever."""
        if isinstance(error, SignatureError):
            raise error
        given_up = self._context.health.give_up_after(error)
        if given_up is None:
            return
        with self._lock:
            chunks, self._queue = list(self._queue), deque()
        for worker in self._workers.values():
            chunks += worker.chunks.values()
            worker.chunks = {}
        for chunk in chunks:
            chunk.settle_all(given_up)
            self.release(chunk)


def _modules_of(chunk: Chunk) -> ModuleZip | None:
    return None if chunk.payload is None else chunk.payload.modules


def _weight(chunk: Chunk) -> int:
    payload = chunk.payload
    return 0 if payload is None else sum(blob.size + 100 for blob in payload.arguments if blob is not None)
