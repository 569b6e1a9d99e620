"""Outcomes of ended jobs to settled futures: downloads, verifies, and tries again what did not come.

A small pool of threads does it. The outcome file says how the calls did; the job's description only explains why there
is none. Whatever happens here, no future may hang.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from ...errors import (
    AuthenticationError,
    JobError,
    JobFailedError,
    OutcomeError,
    OutcomeLostError,
    ProminenceError,
    ServiceUnavailableError,
    TransferError,
)
from ...payload.outcomes import Outcomes, read_outcomes
from ...remote.wire import FILES_FILE
from ...run import diagnosis
from ...run.chunk import Chunk
from ...run.context import RunContext
from ...run.lazy import LARGE, RemoteFile
from ...run.settle import Settler
from ...run.threads import StartedPool, start_thread_pool

_FETCHERS = 4  # downloads at once
_IN_MEMORY = 1 << 22  # bytes of an outcome file that are held in memory, not in a temporary file
_ATTEMPTS = 4  # fetches of an outcome before its failure is believed
_LONGEST = 30.0  # seconds between two of them
_LOST_AFTER = 60.0  # seconds without a trace of a job that was accepted
_LOST_MISSES = 5  # answers in a row that do not know it


@dataclass
class _Progress:
    """How far the outcome of a chunk has come."""

    missed_since: float | None = None  # time.monotonic() when the service first did not know the job any more
    misses: int = 0
    under_way: bool = False
    fetches: int = 0  # that failed
    failing_since: float | None = None  # time.monotonic() when the first one did
    again_at: float = 0.0  # when the next one may be tried
    damaged: bytes | None = None  # digest of an outcome file without an end


class Fetcher:
    """Fetches the outcomes of one run's jobs.

    Args:
        release: called with each chunk that is settled.
        wake: called when the tracker should look again.
    """

    def __init__(
        self,
        context: RunContext,
        settler: Settler,
        *,
        release: Callable[[Chunk], None],
        wake: Callable[[], None],
    ) -> None:
        self._context = context
        self._settler = settler
        self._release = release
        self._wake = wake
        self._lock = threading.Lock()
        self._progress: dict[Chunk, _Progress] = {}  # guarded by the lock
        self._pool: StartedPool | None = None

    def start(self) -> None:
        """Start the threads."""
        self._pool = start_thread_pool(_FETCHERS, f"prominence-fetch-{self._context.run_id}")

    def stop(self) -> None:
        """Wait for what is under way, and end the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def threads(self) -> set[threading.Thread]:
        """Return those in which callbacks of futures may run."""
        return set(self._pool.threads) if self._pool else set()

    # -- the tracker's thread --------------------------------------------------------------------------------------

    def is_under_way(self, chunk: Chunk) -> bool:
        """Whether its outcome is being fetched."""
        with self._lock:
            return chunk in self._progress and self._progress[chunk].under_way

    def may_fetch(self, chunk: Chunk) -> bool:
        """Whether it did not fail a moment ago."""
        with self._lock:
            return chunk not in self._progress or time.monotonic() >= self._progress[chunk].again_at

    def seen(self, chunk: Chunk) -> None:
        """The service knows the job."""
        with self._lock:
            if chunk in self._progress:
                self._progress[chunk].missed_since, self._progress[chunk].misses = None, 0

    def missed(self, chunk: Chunk) -> None:
        """The service does not know the job: for a moment around its end that is normal, for a minute it is not."""
        now = time.monotonic()
        with self._lock:
            progress = self._progress.setdefault(chunk, _Progress())
            progress.missed_since = progress.missed_since or now
            progress.misses += 1
            seconds = now - progress.missed_since
            if progress.misses < _LOST_MISSES or seconds <= _LOST_AFTER:
                return
        text = f"the service has not known the job for {seconds:.0f} s"
        self._settler.without_outcome(chunk, OutcomeLostError(text, job_id=chunk.job_id))
        self._done(chunk)

    def fetch(self, chunk: Chunk, job: dict[str, Any]) -> None:
        """Fetch the outcome of an ended job and settle its calls; returns at once."""
        with self._lock:
            self._progress.setdefault(chunk, _Progress()).under_way = True
        cast(StartedPool, self._pool).submit(self._resolve, chunk, job)

    # -- in the pool -----------------------------------------------------------------------------------------------

    def _resolve(self, chunk: Chunk, job: dict[str, Any]) -> None:
        try:
            url = diagnosis.outcome_url(job)
            if url is None:
                self._settler.without_outcome(chunk, self._job_error(chunk, job))
            else:
                self._settle_from(url, chunk, job)
        except (ProminenceError, OSError) as error:
            if self._is_worth_another(chunk, error):
                self._wake()  # the next tick asks for a fresh URL
                return
            chunk.settle_all(self._fetch_failed(chunk, error))
        except BaseException as error:  # noqa: BLE001  whatever happened, no future may hang
            chunk.settle_all(error)
        self._done(chunk)

    def _done(self, chunk: Chunk) -> None:
        with self._lock:
            self._progress.pop(chunk, None)
        self._release(chunk)

    def _is_worth_another(self, chunk: Chunk, error: BaseException) -> bool:
        """A store that does not answer is waited for like the service; anything else gets a few more chances."""
        if isinstance(error, AuthenticationError):
            return False
        now = time.monotonic()
        unanswered = isinstance(error, (TransferError, ServiceUnavailableError)) and not isinstance(error, _Damaged)
        with self._lock:
            progress = self._progress[chunk]
            progress.fetches += 1
            progress.failing_since = progress.failing_since or now
            progress.again_at = now + min(0.1 * 2.0**progress.fetches, _LONGEST)
            patient = unanswered and now - progress.failing_since < self._context.health.timeout
            again = progress.fetches < _ATTEMPTS or patient
            progress.under_way = not again
            return again

    def _job_error(self, chunk: Chunk, job: dict[str, Any]) -> JobError:
        error = diagnosis.job_error(job, self._stderr_of(chunk))
        if chunk.terminated:
            last = chunk.first + chunk.size - 1
            others = f"; the calls {chunk.first} to {last} of the run ended with it" if chunk.size > 1 else ""
            error.message = f"the job was deleted by terminate(){others}"
        return error

    def _settle_from(self, url: str, chunk: Chunk, job: dict[str, Any]) -> None:
        """Download the outcome file, verify it, and settle call by call."""
        client, size = self._context.client, diagnosis.outcome_size(job)
        with self._lock:
            first_time = not self._progress[chunk].fetches
        lazily = self._context.lazy and size > LARGE and first_time
        with RemoteFile.buffered(client, url, size) if lazily else _spool(size) as file:
            if not lazily:
                client.download(url, file)
            came = size if lazily else file.tell()
            outcomes = self._settle_those_in(file, chunk, diagnosis.output_url(job, FILES_FILE))
            observer, chunk.observer = chunk.observer, None
            if observer is not None:
                seconds = [call.header.get("seconds") for call in outcomes.calls.values()]
                observer(job, [second for second in seconds if second is not None])
            if size and came != size:
                raise _Damaged(f"of an outcome file of {size} bytes came {came}")
            if outcomes.job is None:
                self._believe(file, chunk, lazily)
        self._settler.finish_unsettled(chunk, outcomes, job, lambda: self._stderr_of(chunk))

    def _settle_those_in(self, file: BinaryIO, chunk: Chunk, files_url: str | None) -> Outcomes:
        """Verify an outcome file, and settle the calls that have one in it."""
        file.seek(0)
        outcomes = read_outcomes(file, self._context.key, chunk.identity)
        lazily = self._context.lazy
        self._settler.settle_from(file, outcomes, chunk, chunk.job_id, lazily=lazily, files_url=files_url)
        return outcomes

    def _believe(self, file: BinaryIO, chunk: Chunk, lazily: bool) -> None:
        """A file without an end is of a runner that was killed, or was damaged on its way: it must come twice alike."""
        if lazily:
            raise _Damaged("the outcome file has no end")
        file.seek(0)
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        with self._lock:
            before, self._progress[chunk].damaged = self._progress[chunk].damaged, digest.digest()
        if before != digest.digest():
            raise _Damaged("the outcome file has no end")

    def _stderr_of(self, chunk: Chunk) -> str:
        """The job's standard error for a message, or nothing: it must not stand in the way of the message."""
        try:
            return self._context.client.stderr(cast(int, chunk.job_id)).decode("utf-8", "replace")
        except (ProminenceError, OSError):
            return ""

    def _fetch_failed(self, chunk: Chunk, error: BaseException) -> BaseException:
        if isinstance(error, OutcomeError):
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
