"""The jobs of a run's warm workers: creating and deleting them, and what a list of jobs says of them.

`WorkerJobs` makes requests, keeps nothing, and may be used from any thread. `compare` is pure: it decides what a list
means for the workers that are known; scheduler.py does what follows from that.
"""

from __future__ import annotations

import io
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from ...client.status import ENDED, has_ended, is_held
from ...errors import NotFoundError, ProminenceError, ServiceUnavailableError
from ...payload.calls import Identity
from ...payload.outcomes import read_outcomes
from ...run import diagnosis
from ...run.context import RunContext
from ...run.names import parse_worker_name, worker_name
from ...run.options import WORKER_LABEL
from .batches import SHORTEST, longest_pause
from .describe import describe_worker
from .events import EndFailed, Event, WorkerCreated, WorkerNotCreated
from .mailboxes import mailboxes
from .options import WarmOptions
from .state import Kind, PoolState, Worker

_UNREAD = 700 << 10  # bytes of records not yet read of all workers; a worker has up to twice its part, in base64
_PATIENCE = 120.0  # seconds beyond idle_timeout for which a worker waits for a client at least
_RESTART = 1.0  # seconds until another one is started in the place of one that the service has not seen
_SILENT = 60.0  # seconds without a word of a worker that has a batch
_WATCH = (1.0, 30.0)  # seconds between two looks at the jobs
_IDLE = 120.0  # likewise while no worker has anything to do, and what they say is heard
_LOOKUPS = (0.5, 3.0)  # seconds after an unanswered POST at which its job is looked for, and given up


class WorkerJobs:
    """The jobs of the workers of one run."""

    def __init__(self, context: RunContext, options: WarmOptions) -> None:
        self._context = context
        self._client = context.client
        self._options = options

    def create(self, number: int, kind: Kind, rate: float) -> list[Event]:
        """Create a worker's job; what it needs is uploaded first, an image say, which takes its time.

        Args:
            rate: requests per second that it may make until it has a batch.
        """
        health = self._context.health
        try:
            description = describe_worker(
                self._context,
                number,
                kind.options,
                kind.modules,
                place=mailboxes(self._context.run_id),
                room=min(1 << 16, _UNREAD // self._options.max_workers),
                shortest=SHORTEST,
                longest=longest_pause(self._options),
                rate=rate,
                patience=max(self._options.idle_timeout + _PATIENCE, health.timeout),
            )
            began = time.monotonic()
            return [WorkerCreated(number, self._client.create_job(description), began)]
        except Exception as error:  # noqa: BLE001  whatever happened, no future may hang
            never_seen = isinstance(error, ServiceUnavailableError) and not error.may_have_arrived
            if never_seen and health.unanswered() < health.timeout:
                self._context.stopping.wait(_RESTART)
            return [WorkerNotCreated(number, error)]

    def active(self) -> dict[int, dict[str, Any]]:
        """Fetch the jobs that have not ended, by their ids."""
        listed = self._client.list_jobs(constraint=(WORKER_LABEL, self._context.run_id))
        return {job["id"]: job for job in listed if not has_ended(job)}

    def ended(self, workers: Iterable[Worker]) -> dict[int, dict[str, Any]]:
        """Fetch those of these workers' jobs that have ended, in detail: only that says so for certain."""
        ids = [worker.job_id for worker in workers if worker.job_id is not None]
        return {job["id"]: job for job in self._client.list_jobs(ids=ids, detail=True) if job["status"] in ENDED}

    def why(self, number: int, job: dict[str, Any]) -> ProminenceError:
        """Find out why a worker's job ended before it said a word."""
        url = diagnosis.outcome_url(job)
        try:
            if url is not None:
                file = io.BytesIO(self._client.download(url, limit=diagnosis.outcome_size(job) or None))
                outcomes = read_outcomes(file, self._context.key, Identity(self._context.run_id, number, 0))
                if outcomes.job is not None:
                    return diagnosis.call_error(outcomes, 0, 0, job)
            stderr = self._client.stderr(job["id"]).decode("utf-8", "replace")
        except ProminenceError:
            stderr = ""
        return diagnosis.job_error(job, stderr)

    def end(self, job_ids: Collection[int]) -> list[Event]:
        """Delete jobs of workers."""
        try:
            with suppress(NotFoundError):  # they have ended meanwhile
                self._client.delete_jobs(job_ids)
        except ProminenceError as error:
            self._context.log.info("run %s: workers were not deleted: %s", self._context.run_id, error)
            return [EndFailed()]
        return []


class Comparison(NamedTuple):
    """What a list of the active jobs means for the workers that are known."""

    found: dict[int, int]  # job ids, by number, of workers of which a POST went unanswered
    given_up: list[Worker]  # such that have not shown
    gone: list[Worker]  # whose job is active no more
    strays: list[int]  # ids of jobs of POSTs that were carried out long after they had been given up
    silent: list[Worker]  # that have a batch, and have said nothing for long
    held: dict[int, Mapping[str, Any]]  # jobs, by the numbers of their workers, that the service holds


def compare(
    state: PoolState, active: Mapping[int, Mapping[str, Any]], run_id: str, numbers: range, now: float
) -> Comparison:
    """Compare the workers that are known with the jobs that are active.

    Args:
        active: the jobs by their ids, fetched at ``now``.
        numbers: those of the workers that this program has started.
    """
    by_name = {str(job.get("name")): job_id for job_id, job in active.items()}
    found, given_up = {}, []
    for worker in state.workers.values():
        if worker.job_id is None and worker.doubted is not None and now - worker.doubted > _LOOKUPS[0]:
            job_id = by_name.get(worker_name(run_id, worker.number))
            if job_id is not None:
                found[worker.number] = job_id
            elif now - worker.doubted > _LOOKUPS[1] and not worker.nonce:
                given_up.append(worker)
    gone = [w for w in state.workers.values() if w.job_id is not None and w.job_id not in active]
    expected = {  # the POST is on its way, or it is too early to look
        worker.number
        for worker in state.workers.values()
        if worker.job_id is None and worker.number not in found and worker not in given_up
    }
    known = state.job_ids | set(found.values())
    strays = []
    for job_id, job in active.items():
        number = parse_worker_name(run_id, str(job.get("name"))) or 0
        if number in numbers and number not in expected and job_id not in known:
            strays.append(job_id)
    silent = [
        worker
        for worker in state.workers.values()
        if worker.chunks and not worker.sending and now - max(worker.seen, state.eventful_at) > _SILENT
    ]
    jobs = {worker.number: active.get(worker.job_id or 0) for worker in state.workers.values()}
    held = {number: job for number, job in jobs.items() if job is not None and is_held(job)}
    return Comparison(found, given_up, gone, strays, silent, held)


def watch_pause(state: PoolState, now: float) -> float:
    """Seconds until the next look at the jobs: a part of the time for which nothing has happened."""
    workers = state.workers.values()
    if state.listening and not any(worker.chunks or not worker.nonce for worker in workers):
        return _IDLE  # one that is lost meanwhile is missed when it has calls
    quiet = now - max([state.eventful_at, *(worker.began for worker in workers)])
    if any(worker.job_id is None for worker in workers):
        quiet = 0.0
    return min(max(_WATCH[0], quiet / 10), _WATCH[1])
