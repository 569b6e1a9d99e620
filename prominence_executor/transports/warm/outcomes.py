"""From what warm workers say to settled futures, and to what calls have printed.

It runs in the threads that work for the scheduler: it may block, and what it finds out it says in events. It knows
no worker, and changes nothing but the chunks that it settles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from ...errors import JobError, ProminenceError, SignatureError, WorkerLostError
from ...payload.outcomes import OutcomeFile
from ...run import diagnosis
from ...run.chunk import Chunk
from ...run.connection import Connection
from ...run.context import RunContext
from ...run.future import ProminenceFuture, own_part
from ...run.registry import ChunkRegistry
from ...run.settle import Settler
from .batches import WHOLE
from .events import ChunkReturned, ChunkSettled, ChunkUnread, Event
from .mailboxes import outcomes_in, without_outcomes
from .messages import Ended
from .places import Places

_LOOKS = 100  # for an outcome in a job's standard output, which may be a second behind
_LOOKS_FOR_STORED = 20  # likewise, which its worker puts there when the next call has ended: ten seconds
_UNREAD = 2  # workers that may be lost with a chunk before it has an error of what cannot be read


class Ran(NamedTuple):
    """The worker that has run chunks, as it was then."""

    number: int
    job_id: int | None
    had: float  # seconds of walltime at its start
    place: str | None = None  # in the object store, to be given back when what lies there has been read


class OutcomeSettler:
    """Settles the chunks of one run's workers."""

    def __init__(self, context: RunContext, registry: ChunkRegistry, settler: Settler, places: Places) -> None:
        self._context = context
        self._registry = registry
        self._settler = settler
        self._places = places

    def settle(self, worker: Ran, items: Sequence[tuple[Chunk, Ended]]) -> Iterator[Event]:
        """Verify outcomes and give them to the futures."""
        fetched: dict[str, bytes] = {}
        for chunk, ended in items:
            if not self._registry.is_open(chunk):
                continue
            try:
                records = self._records(chunk, ended, worker.job_id, fetched)
            except (ProminenceError, OSError) as error:
                if isinstance(ended.place, dict) and self._may_run_again(chunk, error):
                    yield ChunkUnread(chunk, error)
                    continue
                chunk.settle_all(error)
                yield self._close(chunk)
            else:
                yield self._settle_from(worker, chunk, records)
        self._places.release([worker.place])

    def _may_run_again(self, chunk: Chunk, error: BaseException) -> bool:
        """Whether a chunk runs once more rather than wait for its worker, which may have a long call now."""
        is_missing = isinstance(error, SignatureError) and not self._context.stopping.is_set()
        return is_missing and not chunk.terminated and chunk.is_wanted() and chunk.losses < _UNREAD

    def _settle_from(self, worker: Ran, chunk: Chunk, records: bytes) -> Event:
        needed: list[float] = []

        def is_final(outcomes: OutcomeFile) -> bool:
            needed.extend(_needed(chunk, outcomes, worker.had))
            return not needed

        outcomes = self._settler.settle_warm(chunk, records, worker.job_id, is_final)
        ended = outcomes.calls.values() if outcomes is not None else ()
        seconds = tuple([float(outcome.header["seconds"]) for outcome in ended])
        self._context.history.worker_did(worker.number, chunk, seconds)
        if not needed:
            return self._close(chunk, seconds)
        self._context.log.info(
            "run %s: worker %d's walltime was over after %.0f s of call %d, which begins again on another",
            self._context.run_id,
            worker.number,
            needed[0],
            chunk.first,
        )
        return ChunkReturned(chunk, needed[0], seconds)

    def _close(self, chunk: Chunk, seconds: tuple[float, ...] = ()) -> ChunkSettled:
        chunk.status = "completed"
        with suppress(OSError):  # the journal's: what stays in it could at worst run again
            self._context.journal.remove(self._registry.open_names([chunk]))
        release(self._registry, chunk)
        return ChunkSettled(chunk, seconds)

    def _records(self, chunk: Chunk, ended: Ended, job_id: int | None, fetched: dict[str, bytes]) -> bytes:
        """Find the records of an outcome, wherever they are; ``fetched``: what has come of the object store already."""
        place = ended.place
        if place is None:
            return ended.records
        if isinstance(place, list):
            return read_printed(self._context, chunk, job_id, *place)
        try:
            if place["name"] not in fetched:
                fetched[place["name"]] = self._places.fetch(place)
            return fetched[place["name"]][place["at"] : place["at"] + place["length"]]
        except ProminenceError as error:
            text = "run %s: the outcome of call %d comes from its worker's standard output: %s"
            self._context.log.info(text, self._context.run_id, chunk.first, error)
            return read_printed(self._context, chunk, job_id, place["printed"], 0)

    def repeat(self, chunk: Chunk, error: JobError, job: dict[str, Any]) -> Iterator[Event]:
        """Have a chunk run again with more of what its worker had too little of; ``job``: the worker's, in detail."""
        self._settler.without_outcome(chunk, error, job)
        yield self._close(chunk)

    def give_up(self, chunk: Chunk, losses: int, job_id: int | None, job: dict[str, Any] | None) -> Iterator[Event]:
        """Settle a chunk that has cost too many workers; the journal keeps it.

        Args:
            job_id, job: of the last one; in detail, where it is known to have ended.
        """
        stderr = ""
        if job:
            try:
                stderr = self._context.client.stderr(job["id"]).decode("utf-8", "replace")[-diagnosis.STDERR_TAIL :]
            except ProminenceError as error:
                self._context.log.info("the standard error of job %s did not come: %s", job_id, error)
        chunk.settle_all(lost_error(chunk, losses, job_id, job, stderr))
        release(self._registry, chunk)
        yield ChunkSettled(chunk)


def _needed(chunk: Chunk, outcomes: OutcomeFile, had: float) -> list[float]:
    """Find the seconds that a call needs more than, if it is to run again.

    That is so when the worker's walltime has ended it, and it would have had more time on a new worker.
    """
    if outcomes.job is None or outcomes.job.kind != "walltime" or chunk.terminated or not chunk.is_wanted():
        return []
    seconds = float(outcomes.job.header["seconds"])
    return [seconds] if seconds <= WHOLE * had else []


def lost_error(
    chunk: Chunk, losses: int, job_id: int | None, job: dict[str, Any] | None, stderr: str
) -> WorkerLostError:
    """Make the error of calls that have cost too many workers; the call that was running is named."""
    reason = diagnosis.job_error(job) if job else None
    what = f"call {chunk.first}" if chunk.size == 1 else f"calls {chunk.first} to {chunk.first + chunk.size - 1}"
    return WorkerLostError(
        f"{losses} worker{'s were' if losses > 1 else ' was'} lost while running {what} of the run"
        + (f", {chunk.payload.name}" if chunk.payload and chunk.payload.name else "")
        + (f"; the last one: {reason.message}" if reason else ""),
        job_id=job_id,
        status=job["status"] if job else None,
        reason=job.get("statusReason") if job else None,
        stderr=stderr,
    )


def release(registry: ChunkRegistry, chunk: Chunk) -> None:
    """Close a chunk all of whose calls are settled, or cancelled."""
    chunk.ended = True
    registry.close(chunk)


def read_output(
    connection: Connection, chunk: Chunk, call: ProminenceFuture[Any], stream: Literal["stdout", "stderr"]
) -> str:
    """Fetch a call's part of what its worker's job has printed, without outcomes; one request."""
    content = connection.read_stream(chunk.job_id or 0, stream)
    return without_outcomes(own_part(call, stream, content)).decode("utf-8", "replace")


def read_printed(context: RunContext, chunk: Chunk, job_id: int | None, start: int, size: int) -> bytes:
    """Fetch the records of a chunk from its worker's standard output; blocks until they are there.

    Args:
        start, size: where they are, in bytes; without a size, they begin there or somewhere behind it.

    Raises:
        SignatureError: they are not there.
        ProminenceError: nothing came.
    """
    held = b""  # what has come and may not be whole yet; what is behind it comes with the next look
    for attempt in range(_LOOKS if size else _LOOKS_FOR_STORED):
        held += context.client.stdout(job_id or 0, offset=start + len(held))
        whole = size if size else held.rfind(b"\n") + 1
        if 0 < whole <= len(held):
            for described, records in outcomes_in(held[:whole], context.key):
                if (described["job"], described["attempt"]) == (chunk.first, chunk.attempt):
                    return records
            if size:
                break
            start, held = start + whole, held[whole:]
        if context.stopping.wait(min(0.05 * 1.2**attempt, 2.0)):
            break
    raise SignatureError(f"the outcome of job {job_id} is not where its worker has put it")
