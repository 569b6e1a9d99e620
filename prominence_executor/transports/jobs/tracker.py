"""One thread asks after all jobs in flight, a small pool fetches their outcomes, and both settle the futures.

Each tick is one list request for the run's active jobs, whatever their number, and one detailed request for those
that have left that list. Absence from the list is a question, not an answer: only a detailed description says that a
job has ended, and only the outcome file says how its calls did; the job's status merely explains its absence.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ...client.job import ENDED
from ...errors import (
    AuthenticationError,
    JobDeletedError,
    JobError,
    JobFailedError,
    NotFoundError,
    OutcomeLostError,
    ProminenceError,
    ServiceUnavailableError,
    SignatureError,
    TransferError,
)
from ...payload.outcomes import Outcome, Outcomes, read_outcomes
from ...remote.wire import FILES_FILE
from ...run import diagnosis
from ...run.chunk import RUN_LABEL, Array, Chunk
from ...run.lazy import LARGE, PartsOfFile, Unfetched
from ...run.names import workflow_of
from ...run.settle import conclude, settle_from
from ...run.threads import started_pool

if TYPE_CHECKING:
    from ...executor.run import Run

_FETCHERS = 4  # downloads at once
_TOGETHER = 100  # jobs in one detailed request: each costs the service 35 ms and repeats its inputs
_IN_MEMORY = 1 << 22  # bytes of an outcome file that are held in memory, not in a temporary file
_ATTEMPTS = 4  # fetches of an outcome before its failure is believed
_LOST_AFTER = 60.0  # seconds without a trace of a job that was accepted
_LOST_MISSES = 5  # answers in a row that do not know it
_ALL_EVERY = 2.0  # seconds between two lists with the ended jobs
_ARRAY_STARTS = 5.0  # seconds in which the service should have made the first job of an array
_ASK_WORKFLOW = 60.0  # seconds between two questions after an array whose jobs do not appear, at most
_RELEASE = 1.0  # seconds between two looks at calls that are held while nothing is in flight
_SHARE = 9.0  # the pause is at least this many times as long as the requests took: a tenth of the service's time


class Tracker:
    """The reading half of a run."""

    def __init__(self, run: Run, poll_interval: tuple[float, float]) -> None:
        self._run = run
        self._shortest, self._longest = poll_interval
        self._wake = threading.Event()
        self._eventful_at = time.monotonic()  # when a job was last accepted or seen to end
        self._fetching: set[Chunk] = set()  # those whose outcome is under way
        self._asks_for_all = False  # the next list is to show ended jobs, too
        self._all_at = 0.0  # when that may be asked for again
        self._pool: ThreadPoolExecutor | None = None
        self._thread = threading.Thread(target=self._loop, name=f"prominence-track-{run.run_id}", daemon=True)

    def start(self) -> None:
        self._pool = started_pool(_FETCHERS, f"prominence-fetch-{self._run.run_id}")
        self._thread.start()

    def look_soon(self) -> None:
        """A job was accepted, or the run is to end: do not sleep on."""
        self._eventful_at = time.monotonic()
        self._wake.set()

    def threads(self) -> set[threading.Thread]:
        return {self._thread, *(self._pool._threads if self._pool else ())}

    def _loop(self) -> None:
        pool = cast(ThreadPoolExecutor, self._pool)  # made just before this thread was started
        try:
            while not self._run.finished_with():
                in_flight = [c for c in self._run.in_flight() if c not in self._fetching]
                took = self._tick(in_flight, pool) if in_flight else 0.0
                pause = self._pause(took, in_flight) if in_flight else None
                until = self._run.release()
                if until is not None:
                    pause = min(pause or _RELEASE, max(0.0, until - time.monotonic()))
                self._wake.wait(pause)
                self._wake.clear()
        except AuthenticationError as error:
            self._run.break_off(error)
        except BaseException as error:  # noqa: BLE001  a dead tracker must not leave futures behind
            self._run.log.exception("the tracker of run %s failed", self._run.run_id)
            self._run.break_off(error)
        finally:
            pool.shutdown(wait=True)
            self._last_look()
            self._run.end()

    def _pause(self, took: float, in_flight: list[Chunk]) -> float:
        """Seconds until the next tick, with jitter: short while things happen, longer with all that lasts longer.

        A tenth of the time in which nothing happened; a thirtieth of the age of the youngest job.
        """
        now = time.monotonic()
        age = now - max(chunk.accepted_at for chunk in in_flight)
        pause = max(self._shortest, 0.1 * (now - self._eventful_at), age / 30)
        if not self._run.away:
            pause = max(pause, _SHARE * took)
        return min(pause, self._longest) * random.uniform(0.9, 1.1)  # noqa: S311  not for secrets

    def _tick(self, in_flight: list[Chunk], pool: ThreadPoolExecutor) -> float:
        """Ask once after all jobs; returns the seconds that the requests took."""
        began = time.monotonic()
        try:
            listed = self._list()
            active = {job["id"]: job["status"] for job in listed if job["status"] not in ENDED}
            self._run.meet(listed)
            self._delete_doubles([job for job in listed if job["id"] in active])
            self._look_for_unseen([chunk for chunk in in_flight if chunk.job_id is None], listed)
            gone = []
            for chunk in in_flight:
                if chunk.job_id is None:
                    pass  # of an array that has not made it yet
                elif chunk.job_id in active:
                    chunk.saw(active[chunk.job_id])
                elif chunk.accepted_at < began:
                    gone.append(chunk)
            for start in range(0, len(gone), _TOGETHER):
                self._ask_about(gone[start : start + _TOGETHER], pool)
        except AuthenticationError:
            raise
        except ProminenceError as error:
            self._unanswered(in_flight, error)
        else:
            self._run.answered()
        return time.monotonic() - began

    def _last_look(self) -> None:
        """A POST that was given up may have made a second job after all."""
        if self._run.in_doubt and not self._run.broken:
            try:
                self._delete_doubles(self._active())
                self._run.delete_arrays()
            except ProminenceError as error:
                self._run.log.info("run %s: not looked for jobs that exist twice: %s", self._run.run_id, error)

    def _active(self) -> list[dict[str, Any]]:
        return self._run.client.list_jobs(constraint=(RUN_LABEL, self._run.run_id))

    def _list(self) -> list[dict[str, Any]]:
        """The active jobs; now and then all of them, which costs the service more."""
        if not self._asks_for_all:
            return self._active()
        began = time.monotonic()
        listed = self._run.client.list_jobs(constraint=(RUN_LABEL, self._run.run_id), all=True)
        now = time.monotonic()
        self._asks_for_all, self._all_at = False, now + max(_ALL_EVERY, _SHARE * (now - began))
        return listed

    def _look_for_unseen(self, unseen: list[Chunk], listed: list[dict[str, Any]]) -> None:
        """The jobs of an array appear one after the other; one that is not there yet may also have ended already.

        That is so when a later one has been seen, or when none is active though the array has had the time to start.
        """
        arrays: dict[Array, list[Chunk]] = {}
        for chunk in unseen:
            if chunk.array is not None:
                arrays.setdefault(chunk.array, []).append(chunk)
        if not arrays:
            return
        active = {workflow_of(str(job.get("name"))) for job in listed if job["status"] not in ENDED}
        now = time.monotonic()
        for array, mine in arrays.items():
            quiet = now - array.accepted_at > _ARRAY_STARTS and array.name not in active
            if now >= self._all_at and (quiet or array.position(mine[0]) < array.seen):
                self._asks_for_all = True
            if quiet and now >= array.ask_at:
                array.ask_at = now + min(_ARRAY_STARTS * 2**array.asked, _ASK_WORKFLOW)
                array.asked += 1
                if array.asked > 1:  # the list of all jobs comes first
                    self._ask_about_workflow(array, mine)

    def _ask_about_workflow(self, array: Array, unseen: list[Chunk]) -> None:
        """No job of the array is active, and these have not been seen: has it ended without making them?"""
        try:
            workflow = self._run.client.describe_workflow(cast(int, array.workflow_id))
        except NotFoundError:
            workflow = {"status": "unknown"}
        status = workflow["status"]
        if status not in ENDED and (status != "unknown" or time.monotonic() - array.accepted_at < _LOST_AFTER):
            return
        self._run.meet(self._run.client.list_jobs(workflow_id=array.workflow_id, all=True))
        text = f"workflow {array.workflow_id} ended before it made a job of the call"
        kind = JobDeletedError if status == "deleted" else JobFailedError
        for chunk in unseen:
            if chunk.job_id is None:
                self._without_outcome(chunk, kind(text, status=status, reason=workflow.get("statusReason")))
                self._run.settled(chunk)

    def _delete_doubles(self, jobs: list[dict[str, Any]]) -> None:
        """Two jobs of one attempt, because a POST was carried out long after its answer was given up: one goes."""
        doubles = self._run.doubles(jobs)
        if doubles:
            self._run.log.info("run %s: deleting jobs %s, which exist twice", self._run.run_id, doubles)
            with suppress(NotFoundError):  # they have ended meanwhile
                self._run.client.delete_jobs(doubles)

    def _ask_about(self, chunks: list[Chunk], pool: ThreadPoolExecutor) -> None:
        """One detailed request for the jobs that have left the active list."""
        jobs = self._run.client.list_jobs(ids=[cast(int, chunk.job_id) for chunk in chunks], detail=True)
        by_id = {job["id"]: job for job in jobs}
        for chunk in chunks:
            job = by_id.get(chunk.job_id)
            if job is None:
                self._missing(chunk)
            elif time.monotonic() < chunk.fetch_at:
                pass  # its outcome could not be fetched a moment ago
            elif job["status"] in ENDED:
                chunk.status = job["status"]
                self._eventful_at = time.monotonic()
                self._fetching.add(chunk)
                pool.submit(self._resolve, chunk, job)
            else:
                chunk.saw(job["status"])

    def _missing(self, chunk: Chunk) -> None:
        """The service does not know the job: for a moment around its end that is normal, for a minute it is not."""
        now = time.monotonic()
        chunk.missed_since = chunk.missed_since or now
        chunk.misses += 1
        if chunk.misses >= _LOST_MISSES and now - chunk.missed_since > _LOST_AFTER:
            text = f"the service has not known the job for {now - chunk.missed_since:.0f} s"
            self._without_outcome(chunk, OutcomeLostError(text, job_id=chunk.job_id))
            self._run.settled(chunk)

    def _unanswered(self, in_flight: list[Chunk], error: ProminenceError) -> None:
        """The service is away: wait it out, but not for ever."""
        away = self._run.unanswered()
        if away < self._run.service_timeout:
            self._run.log.info("run %s: no answer for %.0f s, asking again: %s", self._run.run_id, away, error)
            return
        for chunk in in_flight:
            chunk.settle_all(
                ServiceUnavailableError(
                    f"the service has not answered for {away:.0f} s; what it has of run {self._run.run_id} is still "
                    f"there, and ProminenceExecutor.attach({self._run.run_id!r}) finds it again"
                )
            )
            self._run.close(chunk)

    # -- in the pool -----------------------------------------------------------------------------------------------

    def _resolve(self, chunk: Chunk, job: dict[str, Any]) -> None:
        """Fetch the outcome of an ended job and settle its calls; called again after a failed fetch."""
        try:
            url = diagnosis.outcome_url(job)
            if url is None:
                self._without_outcome(chunk, self._job_error(chunk, job))
            else:
                self._settle_from(url, chunk, job)
        except (ProminenceError, OSError) as error:
            if self._worth_another_fetch(chunk, error):
                self._fetching.discard(chunk)  # the next tick asks for a fresh URL
                self._wake.set()
                return
            chunk.settle_all(self._fetch_failed(chunk, error))
        except BaseException as error:  # noqa: BLE001  whatever happened, no future may hang
            chunk.settle_all(error)
        self._fetching.discard(chunk)
        self._run.settled(chunk)

    def _worth_another_fetch(self, chunk: Chunk, error: BaseException) -> bool:
        """A store that does not answer is waited for like the service; anything else gets a few more chances."""
        if isinstance(error, AuthenticationError):
            return False
        now = time.monotonic()
        chunk.fetches += 1
        chunk.fetching_since = chunk.fetching_since or now
        chunk.fetch_at = now + min(0.1 * 2.0**chunk.fetches, 30.0)
        unanswered = isinstance(error, (TransferError, ServiceUnavailableError)) and not isinstance(error, _Damaged)
        return chunk.fetches < _ATTEMPTS or (unanswered and now - chunk.fetching_since < self._run.service_timeout)

    def _job_error(self, chunk: Chunk, job: dict[str, Any]) -> JobError:
        error = diagnosis.job_error(job, self._stderr_of(chunk))
        if chunk.terminated:
            last = chunk.first + chunk.size - 1
            others = f"; the calls {chunk.first} to {last} of the run ended with it" if chunk.size > 1 else ""
            error.message = f"the job was deleted by terminate(){others}"
        return error

    def _settle_from(self, url: str, chunk: Chunk, job: dict[str, Any]) -> None:
        """Download the outcome file, verify it, and settle call by call."""
        size = diagnosis.outcome_size(job)
        lazily = self._run.lazy and size > LARGE and not chunk.fetches
        with PartsOfFile.buffered(self._run.client, url, size) if lazily else _spool(size) as file:
            if not lazily:
                self._run.client.download(url, file)
            came = size if lazily else file.tell()
            outcomes = self._outcomes_in(file, chunk, diagnosis.output_url(job, FILES_FILE))
            if chunk.held is not None:
                seconds = [call.header.get("seconds") for call in outcomes.calls.values()]
                chunk.held.tell(job, [second for second in seconds if second is not None])
                chunk.held = None
                self._wake.set()
            if size and came != size:
                raise _Damaged(f"of an outcome file of {size} bytes came {came}")
            if outcomes.job is None:
                self._believe(file, chunk, lazily)
        conclude(self._run, chunk, outcomes, job, lambda: self._stderr_of(chunk))

    def _outcomes_in(self, file: BinaryIO, chunk: Chunk, files_url: str | None) -> Outcomes:
        """Verify an outcome file, and settle the calls that have one in it."""
        job_id = cast(int, chunk.job_id)

        def later(outcome: Outcome) -> Unfetched | None:
            large = outcome.kind == "result" and outcome.header["size"] > LARGE
            return Unfetched(self._run, job_id, outcome) if large else None

        file.seek(0)
        outcomes = read_outcomes(file, self._run.key, chunk.identity)
        settle_from(file, outcomes, chunk, job_id, later if self._run.lazy else None, files_url)
        return outcomes

    def _believe(self, file: BinaryIO, chunk: Chunk, lazily: bool) -> None:
        """A file without an end is of a runner that was killed, or was damaged on its way: it must come twice alike."""
        if lazily:
            raise _Damaged("the outcome file has no end")
        file.seek(0)
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        if chunk.damaged != digest.digest():
            chunk.damaged = digest.digest()
            raise _Damaged("the outcome file has no end")

    def _without_outcome(self, chunk: Chunk, error: JobError) -> None:
        """The job is over and has left nothing: its calls get another one, or the error."""
        missing = [position for position, call in enumerate(chunk.calls) if not call.done()]
        if missing and chunk.may_repeat():
            self._run.repeat(chunk, [missing])
        else:
            chunk.settle_all(error)

    def _stderr_of(self, chunk: Chunk) -> str:
        """The job's standard error for a message, or nothing: it must not stand in the way of the message."""
        try:
            return self._run.client.stderr(cast(int, chunk.job_id)).decode("utf-8", "replace")
        except (ProminenceError, OSError):
            return ""

    def _fetch_failed(self, chunk: Chunk, error: BaseException) -> BaseException:
        if isinstance(error, SignatureError):
            return error
        problem: ProminenceError
        if isinstance(error, OSError):
            problem = TransferError(
                f"the outcome of job {chunk.job_id} could not be stored in {tempfile.gettempdir()}: {error}; "
                "it is still at the service"
            )
        else:
            problem = JobFailedError(
                f"the outcome could not be fetched: {error}", job_id=chunk.job_id, status=chunk.status
            )
        problem.__cause__ = error
        return problem


class _Damaged(TransferError):
    """What came is not what the runner wrote; a few more fetches will tell."""


def _spool(size: int) -> BinaryIO:
    """Where an outcome file is kept while it is read: memory for a small one, a temporary file for a large one."""
    if size < _IN_MEMORY:
        return cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115  closed by its user
    return cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
