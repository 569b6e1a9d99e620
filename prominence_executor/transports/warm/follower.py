"""The warm workers of a run that another program has begun: finds what they have, and follows it to its end.

The workers of a program that was killed go on with what they had been given, and then wait for it in vain for a while.
What they were given stands in their mailboxes, and what has come of it in the standard output of their jobs. This
reads both; it gives workers nothing new, and never empties a mailbox.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ...client.job import ENDED
from ...errors import (
    AuthenticationError,
    JobDeletedError,
    NotFoundError,
    ProminenceError,
    ServiceUnavailableError,
    WorkerLostError,
)
from ...payload.outcomes import read_outcomes
from ...remote.wire import OUTCOME_MAGIC
from ...run.chunk import RUN_LABEL, WORKER_LABEL
from ...run.names import Calls, parse_worker_name
from ...run.settle import conclude, settle_from
from .mailboxes import ALL_MAILBOXES, gathered, mailboxes, opened, outcomes_in, run_of_mailbox, sealed

if TYPE_CHECKING:
    from ...client.client import ProminenceClient
    from ...executor.run import Run
    from ...run.chunk import Chunk

_PAUSE = (1.0, 30.0)  # seconds between two looks: standard output is a second behind, and costly to ask for
_UNSEEN = 3  # looks in a row without a trace of a chunk, after which it is not to be found any more


class Outcome(NamedTuple):
    """What has come of a chunk."""

    job_id: int
    records: bytes


class Place(NamedTuple):
    """Where a chunk is."""

    worker: int
    job_id: int


class Traces:
    """What the service has of a run's warm workers; each `look` brings it up to date.

    Attributes:
        outcomes: of the chunks that were run; who has no use for one removes it.
        held: the chunks that workers have in their mailboxes, or had when they ended.
        active: status by job id of the workers that have not ended.
    """

    def __init__(self, run_id: str, key: bytes, jobs: list[dict[str, Any]]) -> None:
        self.outcomes: dict[Calls, Outcome] = {}
        self.held: dict[Calls, Place] = {}
        self.active: dict[int, str] = {}
        self._run_id = run_id
        self._key = key
        self._workers = {job["id"]: parse_worker_name(run_id, job["name"]) for job in jobs}
        self._read: dict[int, int] = {}  # bytes of each worker's standard output
        self._ended: set[int] = set()  # whose last words have been read

    @property
    def next_worker(self) -> int:
        """A number that no worker has."""
        return max((number or 0 for number in self._workers.values()), default=0) + 1

    def look(self, client: ProminenceClient) -> None:
        """Two requests, and two for each worker that has not been seen to have ended."""
        listed = client.list_jobs(constraint=(WORKER_LABEL, self._run_id))
        self.active = {job["id"]: job["status"] for job in listed if job["status"] not in ENDED}
        for job in listed:
            self._workers.setdefault(job["id"], parse_worker_name(self._run_id, str(job.get("name"))))
        returned = self._returned(client)
        for job_id in self._workers.keys() - self._ended:
            if self.active.get(job_id) not in ("idle", "pending", "deploying", "waiting"):
                self._look_into_mailbox(client, job_id, returned)
                self._listen(client, job_id)
            if job_id not in self.active:
                self._ended.add(job_id)

    def _look_into_mailbox(
        self, client: ProminenceClient, job_id: int, returned: Mapping[tuple[int, int], list[int]]
    ) -> None:
        worker = self._workers[job_id] or 0
        self.held = {calls: place for calls, place in self.held.items() if place.job_id != job_id}
        boxes = gathered(client.kv_list(f"{mailboxes(self._run_id)}/i/{worker:05d}", values=True))
        for box, (nonce, text) in boxes.items():
            batch = box.rpartition("/")[2]
            with suppress(ValueError):  # it is not signed: nobody will run it
                header, _ = opened(text, self._key, f"{nonce}:{batch}")
                for number, chunk in enumerate(header["chunks"]):
                    if number not in returned.get((worker, int(batch)), ()):
                        self.held[Calls(chunk["job"], len(chunk["calls"]), chunk["attempt"])] = Place(worker, job_id)

    def _returned(self, client: ProminenceClient) -> dict[tuple[int, int], list[int]]:
        """Which chunks of its batch a worker will not run, as they would have waited for a long one."""
        returned = {}
        for box, (_, text) in gathered(client.kv_list(f"{mailboxes(self._run_id)}/o", values=True)).items():
            worker = int(box.rpartition("/")[2])
            with suppress(ValueError):
                header, _ = opened(text, self._key, f"o{worker}")
                returned[worker, header["batch"]] = header.get("returned", [])
        return returned

    def _listen(self, client: ProminenceClient, job_id: int) -> None:
        start = self._read.get(job_id, 0)
        try:
            content = client.stdout(job_id, offset=start)
        except NotFoundError:
            return
        whole = content.rfind(b"\n") + 1
        self._read[job_id] = start + whole
        for chunk, records in outcomes_in(content[:whole], self._key):
            self.outcomes[Calls(chunk["job"], chunk["calls"], chunk["attempt"])] = Outcome(job_id, records)


class Follower:
    """Settles the futures of the chunks that another program's workers have; a thread that ends with the last one.

    Args:
        owns: the other program is no more: what its workers have lost can be sent again, or has an error at once.
    """

    def __init__(self, run: Run, traces: Traces, chunks: Mapping[Calls, Chunk], owns: bool) -> None:
        self._run = run
        self._traces = traces
        self._owns = owns
        self._chunks = dict(chunks)
        for chunk in chunks.values():
            chunk.carrier = self
        self._unseen: dict[Calls, int] = {}
        self._thread = threading.Thread(target=self._loop, name=f"prominence-following-{run.run_id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Wait for the thread's end, the run is stopping; and end workers that nobody else will."""
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()
        if self._owns and not self._run.left:
            try:
                remove(self._run.client, self._run.run_id)
            except ProminenceError as error:
                self._run.log.warning("workers of run %s may be left at the service: %s", self._run.run_id, error)

    def threads(self) -> set[threading.Thread]:
        return {self._thread}

    def discard(self, chunk: Chunk) -> None:
        """All calls of the chunk were cancelled: it may still run, but nobody will know."""
        self._run.forget(chunk)
        self._run.settled(chunk)

    def terminate(self, chunk: Chunk) -> None:
        """Have the process of a running chunk ended."""
        place = self._traces.held.get(_calls(chunk))
        if place is not None:
            text = sealed({"end": [chunk.first, chunk.attempt]}, b"", self._run.key, f"c{place.worker}")
            with suppress(ProminenceError):
                self._run.client.kv_set(f"{mailboxes(self._run.run_id)}/c/{place.worker:05d}", text)

    # -- its thread ------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        run = self._run
        began = time.monotonic()
        try:
            while True:
                self._settle()
                self._chunks = {calls: chunk for calls, chunk in self._chunks.items() if run.is_open(chunk)}
                if not self._chunks:
                    return
                if run.stopping.wait(min(max(_PAUSE[0], (time.monotonic() - began) / 20), _PAUSE[1])):
                    return
                try:
                    self._traces.look(run.client)
                    run.answered()
                except AuthenticationError:
                    raise
                except ProminenceError as error:
                    self._unanswered(error)
        except AuthenticationError as error:
            run.break_off(error)
        except BaseException as error:  # noqa: BLE001  a dead thread must not leave futures behind
            run.log.exception("the thread that follows the workers of run %s failed", run.run_id)
            run.break_off(error)

    def _settle(self) -> None:
        traces = self._traces
        for calls, chunk in list(self._chunks.items()):
            outcome, place = traces.outcomes.get(calls), traces.held.get(calls)
            if outcome is not None:
                self._settle_from(chunk, outcome)
            elif place is not None and place.job_id in traces.active:
                chunk.job_id = place.job_id
                self._unseen.pop(calls, None)
                if traces.active.get(place.job_id) == "running":
                    chunk.saw("running")
            elif self._owns or not traces.active:  # else the other program may have it, to give it to another worker
                self._unseen[calls] = self._unseen.get(calls, 0) + 1
                if self._unseen[calls] >= _UNSEEN:
                    self._lost(chunk)
        traces.outcomes.clear()

    def _settle_from(self, chunk: Chunk, outcome: Outcome) -> None:
        run = self._run
        chunk.job_id = outcome.job_id
        try:
            file = io.BytesIO(OUTCOME_MAGIC + outcome.records)
            outcomes = read_outcomes(file, run.key, chunk.identity)
            settle_from(file, outcomes, chunk, outcome.job_id)
            conclude(run, chunk, outcomes, {"id": outcome.job_id, "status": "running"}, lambda: "")
        except BaseException as error:  # noqa: BLE001  whatever happened, no future may hang
            chunk.settle_all(error)
        chunk.status = "completed"
        run.forget(chunk)
        run.settled(chunk)

    def _lost(self, chunk: Chunk) -> None:
        """Its worker has ended without an outcome of it."""
        del self._chunks[_calls(chunk)]
        if chunk.payload is not None and not chunk.terminated:  # it was in the journal
            self._run.log.info(
                "run %s: call %d had been lost with its worker, and is sent", self._run.run_id, chunk.first
            )
            chunk.losses += 1
            chunk.carrier, chunk.job_id, chunk.status = None, None, "unsent"
            self._run.resubmit(chunk)
            return
        lost = "the warm worker that had the call has ended without an outcome of it"
        error: ProminenceError = WorkerLostError(lost, job_id=chunk.job_id)
        if chunk.terminated:
            error = JobDeletedError("the call was ended by terminate()", job_id=chunk.job_id)
        chunk.settle_all(error)
        self._run.settled(chunk)

    def _unanswered(self, error: ProminenceError) -> None:
        """The service is away: wait it out, but not for ever."""
        away = self._run.unanswered()
        self._run.log.info("run %s: no answer for %.0f s, asking again: %s", self._run.run_id, away, error)
        if away >= self._run.service_timeout:
            for chunk in self._chunks.values():
                chunk.settle_all(ServiceUnavailableError(f"the service has not answered for {away:.0f} s"))
                self._run.settled(chunk)


def remove(client: ProminenceClient, run_id: str) -> None:
    """End all warm workers of a run, and remove their mailboxes."""
    ids = [job["id"] for job in client.list_jobs(constraint=(WORKER_LABEL, run_id)) if job["status"] not in ENDED]
    if ids:
        with suppress(NotFoundError):  # they have ended meanwhile
            client.delete_jobs(ids)
    client.kv_delete(mailboxes(run_id), prefix=True)


def purge_mailboxes(client: ProminenceClient, older_than: float, spare: str) -> list[str]:
    """Remove the mailboxes of runs, but for one, that have no active job, and whose workers ended so many seconds ago.

    Returns what the keys of each began with.
    """
    runs = {run_of_mailbox(key) for key in client.kv_list(ALL_MAILBOXES)} - {None, spare}
    removed = []
    for run_id in sorted(run for run in runs if run):
        if any(job["status"] not in ENDED for job in client.list_jobs(constraint=(RUN_LABEL, run_id))):
            continue
        workers = client.list_jobs(constraint=(WORKER_LABEL, run_id), all=True)
        ended = [float((job.get("events") or {}).get("endTime") or time.time()) for job in workers]
        if any(job["status"] not in ENDED for job in workers) or max(ended, default=0.0) > time.time() - older_than:
            continue
        client.kv_delete(mailboxes(run_id), prefix=True)
        removed.append(mailboxes(run_id))
    return removed


def _calls(chunk: Chunk) -> Calls:
    return Calls(chunk.first, chunk.size, chunk.attempt)
