"""From an outcome to settled futures: what all transports have in common.

It makes no requests but for what a call has printed or written that is to come now; whoever calls it says where an
outcome came from, and how a job's standard error is fetched.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, BinaryIO

from ..client.model import Resources
from ..errors import JobDeletedError, JobError, ProminenceError
from ..payload.outcomes import Outcome, OutcomeFile, read_outcomes
from ..payload.results import unpack
from ..remote.wire import OUTCOME_MAGIC
from . import diagnosis, retry
from .advice import advice, task_seconds
from .chunk import Chunk, Ran
from .context import RunContext
from .future import ProminenceFuture, note_attempt, set_files, set_seconds, set_stored, set_streams, settle
from .lazy import LARGE, LazyResult
from .outputs import DownloadedFiles
from .stored import reference_to

Resend = Callable[[Chunk, list[retry.Again]], None]


class Settler:
    """Settles the calls of chunks; may be used from any thread.

    Args:
        resend: sends calls of a chunk once more, in groups.
    """

    def __init__(self, context: RunContext, resend: Resend) -> None:
        self._context = context
        self._resend = resend

    def settle_from(
        self,
        file: BinaryIO,
        outcomes: OutcomeFile,
        chunk: Chunk,
        job_id: int | None,
        *,
        lazily: bool = False,
        url: str | None = None,
        files_url: str | None = None,
    ) -> None:
        """Settle the calls of a chunk that have a verified outcome.

        Args:
            lazily: large results stay where they are until somebody asks.
            url: where the outcome file is, which other jobs can fetch it from; None: they cannot.
            files_url: where the calls' output files are; they are fetched now, unless the run is lazy.
        """
        chunk.ran = _ran(outcomes)
        for position, call in enumerate(chunk.calls):
            outcome = outcomes.calls.get(position)
            if outcome is not None:
                set_streams(call, outcomes.streams(position, chunk.size))
                set_seconds(call, outcome.header.get("seconds"))
                self._take_files(call, outcome, chunk, job_id, files_url)
                stored = None if url is None else reference_to(self._context, call, outcome, job_id, url)
                if stored is not None:
                    set_stored(call, stored)
                if lazily and job_id is not None and outcome.kind == "result" and outcome.header["size"] > LARGE:
                    deferred = LazyResult(self._context.connection, job_id, outcome)
                    settle(call, True, self._context.deferred.add(deferred))
                    continue
                succeeded, value = self._unpacked(file, outcome, chunk, job_id)
                if not succeeded and self._is_to_run_again(chunk, call, value):
                    chunk.raised[position] = value
                    continue
                settle(call, succeeded, value)
        if outcomes.job is not None and outcomes.running is not None:
            self._take_files(chunk.calls[outcomes.running], outcomes.job, chunk, job_id, files_url)
        if outcomes.job is not None and outcomes.job.kind == "initializer":
            _, cause = unpack(file, outcomes.job, f"in job {job_id}")
            for position, call in enumerate(chunk.calls):
                if position not in chunk.raised:
                    settle(call, False, diagnosis.initializer_error(cause, job_id))

    def _unpacked(self, file: BinaryIO, outcome: Outcome, chunk: Chunk, job_id: int | None) -> tuple[bool, Any]:
        """Make the result, or exception, of a call's verified outcome."""
        if outcome.kind == "timelimit":
            call = chunk.calls[outcome.call]
            error = diagnosis.time_limit_error(outcome.header, chunk.first + outcome.call, job_id)
            if outcome.header["printed"] is None:
                with suppress(ProminenceError, OSError):
                    error.stdout, error.stderr = (
                        read()[-diagnosis.STDERR_TAIL :] for read in (call.stdout, call.stderr)
                    )
            return False, error
        succeeded, value = unpack(file, outcome, f"in job {job_id}")
        if not succeeded and isinstance(value, ImportError):
            diagnosis.note_import(value, self._image_of(chunk), job_id)
        return succeeded, value

    @staticmethod
    def _is_to_run_again(chunk: Chunk, call: ProminenceFuture[Any], error: BaseException) -> bool:
        """Return whether a call that raised is to have another attempt, since its `Retry` names the exception."""
        if call.done() or not chunk.may_repeat() or not retry.repeats_raised(chunk.options.retries, error):
            return False
        options = chunk.options
        return retry.resources_after(options.retries, options.resources, error, is_culprit=True) is not None

    def _image_of(self, chunk: Chunk) -> str | None:
        """Return the image of a chunk's job; None when another program has chosen it."""
        unknown = self._context.attached and chunk.payload is None
        return None if unknown else self._context.images.name_of(chunk.options.image, chunk.options.runtime)

    def _take_files(
        self, call: ProminenceFuture[Any], outcome: Outcome, chunk: Chunk, job_id: int | None, url: str | None
    ) -> None:
        """Keep the call's output files, if it was to write some; those that do not come now may come when asked for."""
        facts = outcome.header.get("files")
        if facts is None or call.done():
            return
        context = self._context
        folder = chunk.options.outputs_dir
        files = DownloadedFiles(context.connection, context.run_id, call.index, job_id, facts, folder)
        set_files(call, files)
        if url is not None and not context.lazy:
            try:
                files.fetch(url)
            except (ProminenceError, OSError) as error:
                text = "run %s: the output files of job %s could not be fetched: %s"
                context.log.info(text, context.run_id, job_id, error)

    def finish_unsettled(
        self,
        chunk: Chunk,
        outcomes: OutcomeFile,
        job: Mapping[str, Any],
        stderr: Callable[[], str],
        *,
        alone: bool = False,
    ) -> None:
        """End a chunk: its calls without an outcome get another attempt, or the reason why they have none.

        ``alone``: the calls were ended without their job (which goes on), so `terminate` need not explain the others.
        """
        missing = chunk.unsettled()
        if not missing:
            return
        raised, chunk.raised = chunk.raised, {}
        text = stderr() if len(raised) < len(missing) else ""
        errors: dict[int, BaseException] = {
            p: raised[p] if p in raised else diagnosis.call_error(outcomes, p, chunk.first, dict(job), text)
            for p in missing
        }
        for position in set(missing) - raised.keys():
            set_streams(chunk.calls[position], outcomes.streams(position, chunk.size))
        if chunk.terminated and alone:
            chunk.settle_all(JobDeletedError("the call was ended by terminate()", job_id=job.get("id")))
        else:
            self._repeat_or_settle(chunk, errors, outcomes.running, job, raised)

    def without_outcome(self, chunk: Chunk, error: BaseException, job: Mapping[str, Any] | None = None) -> None:
        """Give the calls of a job that has left nothing another one, or the error; ``job``: in detail, if known."""
        raised, chunk.raised = chunk.raised, {}  # an earlier outcome of the same job may have said so
        errors = {position: raised.get(position, error) for position in chunk.unsettled()}
        self._repeat_or_settle(chunk, errors, None, job, raised)

    def _repeat_or_settle(
        self,
        chunk: Chunk,
        errors: Mapping[int, BaseException],
        running: int | None,
        job: Mapping[str, Any] | None,
        raised: Collection[int] = (),
    ) -> None:
        """Give calls another attempt, or their error.

        Args:
            errors: of the calls without an outcome, by position, and of those that ``raised`` what they are to run
                again for.
            running: the one that was running when the job ended, if that is known: the others are not to blame.
        """
        retries, resources, seconds = chunk.options.retries, chunk.options.resources, task_seconds(job)
        after: dict[int, Resources] = {}
        for position, error in errors.items():
            call, blamed = chunk.calls[position], running in (None, position) or position in raised
            wanted = None
            if chunk.may_repeat():
                wanted = retry.resources_after(retries, resources, error, is_culprit=blamed)
            if wanted is not None:
                after[position] = wanted
                note_attempt(call, error, None if position in raised else seconds)
                continue
            if isinstance(error, JobError):
                error.advice = advice(error, resources, retries, chunk.attempt, job) if blamed else ""
            if position not in raised:
                set_seconds(call, seconds)
            settle(call, False, error)
        if after:
            delay = retries.pause(chunk.attempt) if isinstance(retries, retry.Retry) else 0.0
            calls = chunk.calls
            again = retry.groups(
                after, alone=running, cancelled=lambda position: calls[position].cancelled(), delay=delay
            )
            self._resend(chunk, again)

    def settle_warm(
        self,
        chunk: Chunk,
        records: bytes,
        job_id: int | None,
        is_final: Callable[[OutcomeFile], bool] = lambda outcomes: True,
    ) -> OutcomeFile | None:
        """Settle a chunk from the records that a warm worker has made of it; verifies them first.

        Args:
            is_final: whether the chunk is over with them; else its other calls stay open.

        Returns:
            None where no verified outcome came, and all calls have that error.
        """
        outcomes = None
        try:
            file = io.BytesIO(OUTCOME_MAGIC + records)
            outcomes = read_outcomes(file, self._context.key, chunk.identity)
            chunk.job_id = job_id
            self.settle_from(file, outcomes, chunk, job_id)
            if is_final(outcomes) and chunk.is_wanted():
                job = {"id": job_id, "status": "running", "tasks": [{"image": self._image_of(chunk)}]}
                self.finish_unsettled(chunk, outcomes, job, lambda: "", alone=True)
        except Exception as error:  # noqa: BLE001  whatever happened, no future may hang
            chunk.settle_all(error)
        return outcomes


def _ran(outcomes: OutcomeFile) -> Ran | None:
    """Return how long the calls of a job took; None where no record says."""
    seconds = [
        float(said)
        for outcome in outcomes.calls.values()
        if isinstance(said := outcome.header.get("seconds"), (int, float)) and 0 <= said < math.inf
    ]
    return Ran(len(seconds), sum(seconds), max(seconds)) if seconds else None
