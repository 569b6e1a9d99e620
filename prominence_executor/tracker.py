"""One thread asks after all jobs in flight, a small pool fetches their outcomes, and both settle the futures.

Each tick is one list request for the run's active jobs, whatever their number, and one detailed request for those
that have left that list. Absence from the list is a question, not an answer: only a detailed description says that a
job has ended, and only the outcome file says how its calls did; the job's status merely explains its absence.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from . import diagnosis
from .chunk import RUN_LABEL, Chunk
from .errors import (
    AuthenticationError,
    JobError,
    JobFailedError,
    OutcomeLostError,
    ProminenceError,
    ServiceUnavailableError,
    SignatureError,
    TransferError,
)
from .job import ENDED
from .payload import read_outcomes, unpack
from .pool import started_pool

if TYPE_CHECKING:
    from .run import Run

_FETCHERS = 4  # downloads at once
_TOGETHER = 100  # jobs in one detailed request: each costs the service 35 ms and repeats its inputs
_IN_MEMORY = 1 << 22  # bytes of an outcome file that are held in memory, not in a temporary file
_ATTEMPTS = 4  # fetches of an outcome before its failure is believed
_LOST_AFTER = 60.0  # seconds without a trace of a job that was accepted
_LOST_MISSES = 5  # answers in a row that do not know it
_SHARE = 9.0  # the pause is at least this many times as long as the requests took: a tenth of the service's time


class Tracker:
    """The reading half of a run."""

    def __init__(self, run: Run, poll_interval: tuple[float, float]) -> None:
        self._run = run
        self._shortest, self._longest = poll_interval
        self._wake = threading.Event()
        self._eventful_at = time.monotonic()  # when a job was last accepted or seen to end
        self._answered_at = time.monotonic()
        self._fetching: set[int] = set()  # indexes of the chunks whose outcome is under way
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
                in_flight = [c for c in self._run.in_flight() if c.index not in self._fetching]
                took = self._tick(in_flight, pool) if in_flight else 0.0
                self._wake.wait(self._pause(took) if in_flight else None)
                self._wake.clear()
        except AuthenticationError as error:
            self._run.break_off(error)
        except BaseException as error:  # noqa: BLE001  a dead tracker must not leave futures behind
            self._run.log.exception("the tracker of run %s failed", self._run.run_id)
            self._run.break_off(error)
        finally:
            pool.shutdown(wait=True)
            self._run.end()

    def _pause(self, took: float) -> float:
        """Seconds until the next tick: short while things happen, a tenth of the quiet time after, with jitter."""
        quiet = time.monotonic() - self._eventful_at
        pause = max(self._shortest, 0.1 * quiet, _SHARE * took)
        return min(pause, self._longest) * random.uniform(0.9, 1.1)  # noqa: S311  not for secrets

    def _tick(self, in_flight: list[Chunk], pool: ThreadPoolExecutor) -> float:
        """Ask once after all jobs; returns the seconds that the requests took."""
        began = time.monotonic()
        try:
            active = {job["id"]: job["status"] for job in self._active() if job["status"] not in ENDED}
            gone = []
            for chunk in in_flight:
                if chunk.job_id in active:
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
            self._answered_at = time.monotonic()
            self._run.reached = True
        return time.monotonic() - began

    def _active(self) -> list[dict[str, Any]]:
        return self._run.client.list_jobs(constraint=(RUN_LABEL, self._run.run_id))

    def _ask_about(self, chunks: list[Chunk], pool: ThreadPoolExecutor) -> None:
        """One detailed request for the jobs that have left the active list."""
        jobs = self._run.client.list_jobs(ids=[cast(int, chunk.job_id) for chunk in chunks], detail=True)
        by_id = {job["id"]: job for job in jobs}
        for chunk in chunks:
            job = by_id.get(chunk.job_id)
            if job is None:
                self._missing(chunk)
            elif job["status"] in ENDED:
                chunk.status = job["status"]
                self._eventful_at = time.monotonic()
                self._fetching.add(chunk.index)
                pool.submit(self._resolve, chunk, job)
            else:
                chunk.saw(job["status"])

    def _missing(self, chunk: Chunk) -> None:
        """The service does not know the job: for a moment around its end that is normal, for a minute it is not."""
        now = time.monotonic()
        chunk.missed_since = chunk.missed_since or now
        chunk.misses += 1
        if chunk.misses >= _LOST_MISSES and now - chunk.missed_since > _LOST_AFTER:
            chunk.settle_all(
                OutcomeLostError(
                    f"the service has not known the job for {now - chunk.missed_since:.0f} s", job_id=chunk.job_id
                )
            )
            self._run.close(chunk)

    def _unanswered(self, in_flight: list[Chunk], error: ProminenceError) -> None:
        """The service is away: wait it out, but not for ever."""
        away = time.monotonic() - self._answered_at
        if away < self._run.service_timeout:
            self._run.log.info("run %s: no answer for %.0f s, asking again: %s", self._run.run_id, away, error)
            return
        for chunk in in_flight:
            chunk.settle_all(
                ServiceUnavailableError(
                    f"the service has not answered for {away:.0f} s; the jobs of run {self._run.run_id} are still there"
                )
            )
            self._run.close(chunk)

    # -- in the pool -----------------------------------------------------------------------------------------------

    def _resolve(self, chunk: Chunk, job: dict[str, Any]) -> None:
        """Fetch the outcome of an ended job and settle its calls; called again after a failed fetch."""
        try:
            url = diagnosis.outcome_url(job)
            if url is None:
                chunk.settle_all(self._job_error(chunk, job))
            else:
                self._settle_from(url, chunk, job)
        except (ProminenceError, OSError) as error:
            chunk.fetches += 1
            if chunk.fetches < _ATTEMPTS and not isinstance(error, AuthenticationError):
                self._fetching.discard(chunk.index)  # the next tick asks for a fresh URL
                self._wake.set()
                return
            chunk.settle_all(self._fetch_failed(chunk, error))
        except BaseException as error:  # noqa: BLE001  whatever happened, no future may hang
            chunk.settle_all(error)
        self._fetching.discard(chunk.index)
        self._run.settled(chunk)

    def _job_error(self, chunk: Chunk, job: dict[str, Any]) -> JobError:
        error = diagnosis.job_error(job, self._stderr_of(chunk))
        if chunk.terminated:
            indexes = [call.index for call in chunk.calls]
            others = f"; the calls {indexes[0]} to {indexes[-1]} of the run ended with it" if indexes[1:] else ""
            error.message = f"the job was deleted by terminate(){others}"
        return error

    def _settle_from(self, url: str, chunk: Chunk, job: dict[str, Any]) -> None:
        """Download the outcome file, verify it, and settle call by call."""
        with _spool(diagnosis.outcome_size(job)) as file:
            self._run.client.download(url, file)
            file.seek(0)
            outcomes = read_outcomes(file, self._run.key, chunk.identity)
            where = f"in job {chunk.job_id}"
            stderr: str | None = None
            for position, call in enumerate(chunk.calls):
                outcome = outcomes.calls.get(position)
                if outcome is not None:
                    call.streams = outcome.header.get("streams")
                    call.future._settle(*unpack(file, outcome, where))
                else:
                    stderr = self._stderr_of(chunk) if stderr is None else stderr
                    call.future._settle(False, diagnosis.call_error(outcomes, position, job, stderr))

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


def _spool(size: int) -> BinaryIO:
    """Where an outcome file is kept while it is read: memory for a small one, a temporary file for a large one."""
    if size < _IN_MEMORY:
        return cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115  closed by its user
    return cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
