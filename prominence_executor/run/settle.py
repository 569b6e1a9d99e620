"""From an outcome to settled futures: what all transports have in common.

It makes no requests but for output files that are to come now; whoever calls it says where an outcome came from, and
how a job's standard error is fetched.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

from ..errors import JobDeletedError, JobError, ProminenceError
from ..payload.outcomes import Outcome, OutcomeFile, read_outcomes
from ..payload.results import unpack
from ..remote.wire import OUTCOME_MAGIC
from . import diagnosis
from .chunk import Chunk
from .context import RunContext
from .future import ProminenceFuture, set_files, set_stored, set_streams, settle
from .lazy import LARGE, LazyResult
from .outputs import DownloadedFiles
from .stored import reference_to

Resend = Callable[[Chunk, list[list[int]]], None]


class Settler:
    """Settles the calls of chunks; may be used from any thread.

    Args:
        resend: sends calls of a chunk once more, in groups of their positions.
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
        where = f"in job {job_id}"
        for position, call in enumerate(chunk.calls):
            outcome = outcomes.calls.get(position)
            if outcome is not None:
                set_streams(call, outcome.header.get("streams"))
                self._take_files(call, outcome, chunk, job_id, files_url)
                stored = None if url is None else reference_to(self._context, call, outcome, job_id, url)
                if stored is not None:
                    set_stored(call, stored)
                if lazily and job_id is not None and outcome.kind == "result" and outcome.header["size"] > LARGE:
                    deferred = LazyResult(self._context.connection, job_id, outcome)
                    settle(call, True, self._context.deferred.add(deferred))
                    continue
                succeeded, value = unpack(file, outcome, where)
                if not succeeded and isinstance(value, ImportError):
                    diagnosis.note_import(value, self._image_of(chunk), job_id)
                settle(call, succeeded, value)
        if outcomes.job is not None and outcomes.running is not None:
            self._take_files(chunk.calls[outcomes.running], outcomes.job, chunk, job_id, files_url)
        if outcomes.job is not None and outcomes.job.kind == "initializer":
            _, cause = unpack(file, outcomes.job, where)
            for call in chunk.calls:
                settle(call, False, diagnosis.initializer_error(cause, job_id))

    def _image_of(self, chunk: Chunk) -> str | None:
        """Return the image of a chunk's job; None when another program has chosen it."""
        unknown = self._context.attached and chunk.payload is None
        return None if unknown else self._context.images.name_of(chunk.options.image)

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
        text = stderr()
        errors = {p: diagnosis.call_error(outcomes, p, chunk.first, dict(job), text) for p in missing}
        if chunk.terminated and alone:
            chunk.settle_all(JobDeletedError("the call was ended by terminate()", job_id=job.get("id")))
        elif chunk.may_repeat() and all(isinstance(error, JobError) for error in errors.values()):
            self._resend(chunk, _groups(missing, outcomes.running))
        else:
            for position, reason in errors.items():
                settle(chunk.calls[position], False, reason)

    def without_outcome(self, chunk: Chunk, error: BaseException) -> None:
        """Give the calls of a job that has left nothing another one, or the error."""
        missing = chunk.unsettled()
        if missing and chunk.may_repeat():
            self._resend(chunk, [missing])
        else:
            chunk.settle_all(error)

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
            if is_final(outcomes):
                job = {"id": job_id, "status": "running", "tasks": [{"image": self._image_of(chunk)}]}
                self.finish_unsettled(chunk, outcomes, job, lambda: "", alone=True)
        except Exception as error:  # noqa: BLE001  whatever happened, no future may hang
            chunk.settle_all(error)
        return outcomes


def _groups(missing: Iterable[int], running: int | None) -> list[list[int]]:
    """Send the call alone that was running when its job ended: it may have ended it."""
    alone = [[position] for position in missing if position == running]
    others = [position for position in missing if position != running]
    return [*alone, *([others] if others else [])]
