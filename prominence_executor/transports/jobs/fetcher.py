"""Outcomes of ended jobs to settled futures: downloads, verifies, and tries again what did not come.

A small pool of threads does it. The outcome file says how the calls did; the job's description only explains why there
is none. Whatever happens here, no future may hang.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, cast

from ...client.status import ENDED
from ...errors import (
    AuthenticationError,
    JobError,
    JobFailedError,
    NotFoundError,
    OutcomeError,
    ProminenceError,
    ServiceUnavailableError,
    TransferError,
)
from ...payload.outcomes import OutcomeFile, read_outcomes
from ...remote.wire import FILES_FILE
from ...run import diagnosis
from ...run.chunk import Chunk
from ...run.context import RunContext
from ...run.lazy import LARGE, RemoteFile
from ...run.settle import Settler
from ...run.threads import StartedPool, start_thread_pool
from .progress import Progress

_FETCHERS = 4  # downloads at once
_MORE = 1 << 16  # bytes beyond the described size: what is no outcome file is seen as such, and not waited for
_IN_MEMORY = 1 << 22  # bytes of an outcome file that are held in memory, not in a temporary file


class Fetcher:
    """Fetches the outcomes of one run's jobs.

    Args:
        guard: see `start_thread_pool`.
        release: called with each chunk that is settled.
        wake: called when the tracker should look again.
    """

    def __init__(
        self,
        context: RunContext,
        settler: Settler,
        *,
        guard: Callable[[], AbstractContextManager[None]],
        release: Callable[[Chunk], None],
        wake: Callable[[], None],
    ) -> None:
        self._context = context
        self._guard = guard
        self._settler = settler
        self._release = release
        self._wake = wake
        self.progress = Progress(context.health.now)
        self._pool: StartedPool | None = None

    def start(self) -> None:
        """Start the threads."""
        self._pool = start_thread_pool(_FETCHERS, f"prominence-fetch-{self._context.run_id}", self._guard)

    def stop(self) -> None:
        """Wait for what is under way, and end the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def threads(self) -> set[threading.Thread]:
        """Return those in which callbacks of futures may run."""
        return set(self._pool.threads) if self._pool else set()

    # -- the tracker's thread --------------------------------------------------------------------------------------

    def fetch(self, chunk: Chunk, job: dict[str, Any]) -> None:
        """Fetch the outcome of an ended job and settle its calls; return at once."""
        self.progress.begin(chunk)
        cast(StartedPool, self._pool).submit(self._resolve, chunk, job)

    def describe(self, ids: list[int]) -> Future[list[dict[str, Any]]]:
        """Describe jobs in detail; return at once."""
        return cast(StartedPool, self._pool).submit(self._context.client.list_jobs, ids=ids, detail=True)

    def give_up(self, chunk: Chunk, error: JobError) -> None:
        """Wait no longer for a job that has not ended, as far as the service says; return at once.

        It is deleted first, so that no call of it runs twice.
        """
        self.progress.begin(chunk)
        cast(StartedPool, self._pool).submit(self._resolve_unended, chunk, error)

    # -- in the pool -----------------------------------------------------------------------------------------------

    def _resolve(self, chunk: Chunk, job: dict[str, Any]) -> None:
        try:
            url = diagnosis.outcome_url(job)
            if url is None:
                self._settler.without_outcome(chunk, self._job_error(chunk, job), job)
            else:
                self._settle_from(url, chunk, job)
        except (ProminenceError, OSError) as error:
            if self._is_worth_another(chunk, error):
                self._put_back(chunk)  # for a fresh URL
                return
            chunk.settle_all(self._fetch_failed(chunk, error))
        except Exception as error:  # noqa: BLE001  whatever happened, no future may hang
            chunk.settle_all(error)
        self._done(chunk, job)

    def _resolve_unended(self, chunk: Chunk, error: JobError) -> None:
        try:
            job = self._delete_unended(chunk, error)
        except (ProminenceError, OSError) as problem:
            if self._is_worth_another(chunk, problem):
                self._put_back(chunk)
                return
            error.message += ", and could not be deleted"
            error.__cause__ = problem
            chunk.settle_all(error)  # and not sent again
        except Exception as problem:  # noqa: BLE001  whatever happened, no future may hang
            chunk.settle_all(problem)
        else:
            if job is None:
                self._settler.without_outcome(chunk, error)
            elif job["status"] in ENDED:
                self._resolve(chunk, job)
                return
            else:
                self._put_back(chunk)
                return
        self._done(chunk, None)

    def _delete_unended(self, chunk: Chunk, error: JobError) -> dict[str, Any] | None:
        """Delete a job that may still be there; return its description when the service says that it has ended."""
        job_id = cast(int, chunk.job_id)
        if self._context.attached and not chunk.may_repeat():
            return None  # it is another program's
        try:
            self._context.client.delete_job(job_id)
        except NotFoundError:
            return next(iter(self._context.client.list_jobs(ids=[job_id], detail=True)), None)
        chunk.status = "deleted"
        error.message += ", and has been deleted"
        return None

    def _put_back(self, chunk: Chunk) -> None:
        """Let the next tick ask after the job again."""
        self.progress.put_back(chunk)
        self._wake()

    def _done(self, chunk: Chunk, job: dict[str, Any] | None) -> None:
        self._context.history.ended(chunk, job)
        self._release(chunk)
        self.progress.forget(chunk)  # not before: the tracker would find it in flight, and nobody about it

    def _is_worth_another(self, chunk: Chunk, error: BaseException) -> bool:
        """Return whether to try again: a silent store is waited for like the service, all else gets a few chances."""
        if isinstance(error, AuthenticationError):
            return False
        unanswered = isinstance(error, (TransferError, ServiceUnavailableError)) and not isinstance(error, _Damaged)
        return self.progress.failed(chunk, self._context.health.timeout if unanswered else 0.0)

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
        stays = self._context.lazy or chunk.stays()
        lazily = stays and size > LARGE and self.progress.is_first(chunk)
        with RemoteFile.buffered(client, url, size) if lazily else _spool(size) as file:
            if not lazily:
                client.download(url, file, limit=size + _MORE if size else None)
            came = size if lazily else file.tell()
            outcomes = self._settle_those_in(file, chunk, stays, url, diagnosis.output_url(job, FILES_FILE))
            observer, chunk.observer = chunk.observer, None
            if observer is not None:
                seconds = [call.header.get("seconds") for call in outcomes.calls.values()]
                observer(job, [second for second in seconds if second is not None])
            if size and came != size:
                raise _Damaged(f"{came} of the {size} bytes of an outcome file came")
            if outcomes.job is None:
                self._believe(file, chunk, lazily)
        self._settler.finish_unsettled(chunk, outcomes, job, lambda: self._stderr_of(chunk))

    def _settle_those_in(
        self, file: BinaryIO, chunk: Chunk, lazily: bool, url: str, files_url: str | None
    ) -> OutcomeFile:
        """Verify an outcome file, and settle the calls that have one in it; ``lazily``: large results stay there."""
        file.seek(0)
        outcomes = read_outcomes(file, self._context.key, chunk.identity)
        self._settler.settle_from(file, outcomes, chunk, chunk.job_id, lazily=lazily, url=url, files_url=files_url)
        return outcomes

    def _believe(self, file: BinaryIO, chunk: Chunk, lazily: bool) -> None:
        """Have a file without an end come twice alike: its runner was killed, or it was damaged on its way."""
        if lazily:
            raise _Damaged("the outcome file has no end")
        file.seek(0)
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        if not self.progress.came_twice(chunk, digest.digest()):
            raise _Damaged("the outcome file has no end")

    def _stderr_of(self, chunk: Chunk) -> str:
        """Fetch the job's standard error for a message, or nothing: its absence must not prevent the message."""
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
    """Open what keeps an outcome file while it is read: memory for a small one, a temporary file for a large one."""
    if size < _IN_MEMORY:
        return cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # closed by its user
    return cast(BinaryIO, tempfile.TemporaryFile())
