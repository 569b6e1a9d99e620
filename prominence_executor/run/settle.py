"""From an outcome file to settled futures: what the tracker and the warm workers have in common.

It makes no requests itself; whoever calls it says where the file came from and how a job's standard error is fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import JobDeletedError, JobError, ProminenceError
from ..payload.outcomes import Outcomes
from ..payload.results import unpack
from . import diagnosis
from .outputs import CallFiles

if TYPE_CHECKING:
    from ..executor.run import Run
    from ..payload.outcomes import Outcome
    from .chunk import Chunk
    from .future import ProminenceFuture


def settle_from(
    file: BinaryIO,
    outcomes: Outcomes,
    chunk: Chunk,
    job_id: int | None,
    later: Callable[[Outcome], Any] | None = None,
    files_url: str | None = None,
) -> None:
    """Settle the calls of a chunk that have a verified outcome.

    ``files_url``: where their output files are; they are fetched now, unless the run is lazy.
    ``later``: makes of an outcome what stands for its result until somebody asks, or None if it is to come now.
    """
    where = f"in job {job_id}"
    for position, call in enumerate(chunk.calls):
        outcome = outcomes.calls.get(position)
        if outcome is not None:
            call._streams = outcome.header.get("streams")
            _take_files(call, outcome, chunk, job_id, files_url)
            stand_in = later(outcome) if later else None
            succeeded, value = unpack(file, outcome, where) if stand_in is None else (True, stand_in)
            if not succeeded and isinstance(value, ImportError):
                diagnosis.note_import(value, chunk.run.image_of(chunk), job_id)
            call._settle(succeeded, value)
    if outcomes.job is not None and outcomes.running is not None:
        _take_files(chunk.calls[outcomes.running], outcomes.job, chunk, job_id, files_url)
    if outcomes.job is not None and outcomes.job.kind == "initializer":
        _, cause = unpack(file, outcomes.job, where)
        for call in chunk.calls:
            call._settle(False, diagnosis.initializer_error(cause, job_id))


def _take_files(
    call: ProminenceFuture[Any], outcome: Outcome, chunk: Chunk, job_id: int | None, url: str | None
) -> None:
    """The call's output files, if it was to write some; those that do not come now may come when they are asked for."""
    facts = outcome.header.get("files")
    if facts is None or call.done():
        return
    run = chunk.run
    call._files = CallFiles(run, call._index, job_id, facts, chunk.options.outputs_dir)
    if url is not None and not run.lazy:
        try:
            call._files.fetch(url)
        except (ProminenceError, OSError) as error:
            run.log.info("run %s: the output files of job %s did not come: %s", run.run_id, job_id, error)


def conclude(run: Run, chunk: Chunk, outcomes: Outcomes, job: dict[str, Any], stderr: Callable[[], str]) -> None:
    """The chunk is over: its calls without an outcome get another attempt, or the reason why they have none."""
    missing = [position for position, call in enumerate(chunk.calls) if not call.done()]
    if not missing:
        return
    text = stderr()
    errors = {p: diagnosis.call_error(outcomes, p, chunk.first, job, text) for p in missing}
    if chunk.terminated and chunk.warm:
        chunk.settle_all(JobDeletedError("the call was ended by terminate()", job_id=job.get("id")))
    elif chunk.may_repeat() and all(isinstance(error, JobError) for error in errors.values()):
        run.repeat(chunk, _apart(missing, outcomes.running))
    else:
        for position, reason in errors.items():
            chunk.calls[position]._settle(False, reason)


def _apart(missing: list[int], running: int | None) -> list[list[int]]:
    """The call that was running when its job ended may have ended it: it goes alone from now on."""
    if running not in missing:
        return [missing]
    others = [position for position in missing if position != running]
    return [[running], others] if others else [[running]]
