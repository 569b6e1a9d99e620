"""What a run consists of that another program has begun: decided from what the service and a journal have of it.

It asks nobody, and starts nothing: `plan_adoption` decides, `make_chunks` makes, and the run looks after them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..client.status import has_ended, is_held
from ..errors import NotSubmittedError
from ..payload.calls import Payload
from ..run.chunk import HELD, Chunk, Transport
from ..run.future import ProminenceFuture
from ..run.journal import Kept
from ..run.names import ArrayRange, CallRange, parse_job_name
from ..run.needs import found_again
from ..run.options import Options
from ..transports.jobs.array import Array
from ..transports.warm.traces import MailboxScan


@dataclass(frozen=True)
class RunSnapshot:
    """What the service has of a run: its key, its jobs by the calls that they run, and its arrays."""

    run_id: str
    key: bytes = field(repr=False)
    jobs: dict[CallRange, dict[str, Any]]
    job_ids: frozenset[int]
    arrays: dict[ArrayRange, dict[str, Any]]
    scan: MailboxScan | None  # of its warm workers, if it has had any

    @property
    def with_workers(self) -> set[CallRange]:
        """What its warm workers have, or have run."""
        return set() if self.scan is None else {*self.scan.outcomes, *(self.scan.held.keys() - self.jobs)}

    @property
    def is_over(self) -> bool:
        """Whether nothing of it waits or runs, as far as the service knows."""
        jobs = [*self.jobs.values(), *self.arrays.values()]
        return all(map(has_ended, jobs)) and not (self.scan and self.scan.held)

    @property
    def next_worker(self) -> int:
        """A number that no warm worker of it has."""
        return self.scan.next_worker if self.scan else 1

    def in_arrays(self) -> dict[CallRange, Array]:
        """Return for calls that travel in an array that array, which holds no chunk yet."""
        found = {}
        for span, workflow in self.arrays.items():
            begun = 0.0 if has_ended(workflow) else time.monotonic()
            array = Array(self.run_id, span, workflow_id=workflow["id"], accepted_at=begun)
            found.update(dict.fromkeys(span.jobs(), array))
        return found


@dataclass(frozen=True)
class AdoptedChunk:
    """Calls that travel as one job, and where they are."""

    calls: CallRange
    current: frozenset[int]  # the numbers of those whose last attempt this is
    job: dict[str, Any] | None = None  # None in an array whose job has not been made, and where it is not sent
    kept: Kept | None = None  # what the journal has of it
    is_with_worker: bool = False
    is_unsent: bool = False

    @property
    def in_doubt(self) -> bool:
        """Whether its job may exist though the service did not show it."""
        return self.is_unsent and self.kept is not None and self.kept.sending


@dataclass(frozen=True)
class AdoptionPlan:
    """What an attached run consists of.

    Attributes:
        count: how many calls it has.
        missing: by number, those that never reached the service.
        obsolete: names of chunks that the journal need not keep.
    """

    run_id: str
    count: int
    chunks: tuple[AdoptedChunk, ...]
    missing: dict[int, NotSubmittedError]
    obsolete: tuple[str, ...]

    def report(self, complete: bool) -> tuple[int, str]:
        """Return level and text of what to log; ``complete``: there can be no call behind the last one known."""
        if not self.count and complete:
            return logging.WARNING, f"run {self.run_id}: its program ended before it submitted a call"
        parts = [f"{self.count} calls"]
        if self.missing:
            parts.append(f"{len(self.missing)} of them were not submitted")
        unsent = sum(chunk.calls.size for chunk in self.chunks if chunk.is_unsent)
        if unsent:
            parts.append(f"{unsent} of them are submitted now")
        if not complete:
            parts.append(f"only a journal could tell whether there were more after call {self.count - 1}")
        level = logging.INFO if complete and not self.missing else logging.WARNING
        return level, f"run {self.run_id}: " + "; ".join(parts)


def plan_adoption(snapshot: RunSnapshot, kept: Sequence[Kept], next_call: int) -> AdoptionPlan:
    """Decide what a run consists of. A call's last attempt counts.

    A call below the highest one known of which there is no trace was not submitted.

    Args:
        kept: what the journal has.
        next_call: the number of the next call, as far as the journal knows.
    """
    with_workers = snapshot.with_workers
    in_arrays = {calls for span in snapshot.arrays for calls in span.jobs()}
    by_calls = {calls: item for item in kept if (calls := parse_job_name(snapshot.run_id, item.name)) is not None}
    at_service = snapshot.jobs.keys() | in_arrays
    unsent = by_calls.keys() - with_workers - at_service
    every = at_service | unsent | with_workers
    count = max([calls.first + calls.size for calls in every] + [next_call])
    last: dict[int, int] = {}  # attempt by call
    for calls in every:
        for number in calls.numbers():
            last[number] = max(calls.attempt, last.get(number, 0))
    chunks = []
    for calls in sorted(every):
        current = frozenset(number for number in calls.numbers() if last[number] == calls.attempt)
        if current:
            own = by_calls.get(calls) if calls in with_workers or calls in unsent else None
            job = snapshot.jobs.get(calls)
            chunks.append(AdoptedChunk(calls, current, job, own, calls in with_workers, calls in unsent))
    missing = {
        number: NotSubmittedError(
            f"call {number} of run {snapshot.run_id} never reached the service, or was cancelled before; "
            "what waits to be sent, for results of other calls as well, is in a journal only"
        )
        for number in range(count)
        if number not in last
    }
    # The program ended before it heard that the service had accepted these.
    obsolete = tuple(item.name for calls, item in by_calls.items() if calls in at_service - with_workers)
    return AdoptionPlan(snapshot.run_id, count, tuple(chunks), missing, obsolete)


def make_chunks(
    plan: AdoptionPlan,
    futures: Sequence[ProminenceFuture[Any]],
    options: Options,
    carrier: Callable[[AdoptedChunk, Payload | None, Options], Transport],
) -> list[tuple[AdoptedChunk, Chunk]]:
    """Make the chunks of a plan, with the futures of the run's calls.

    Args:
        options: of calls whose own the journal does not have.
        carrier: chooses what is to carry a chunk.
    """
    superseded: ProminenceFuture[Any] = ProminenceFuture()
    superseded.cancel()
    numbered = dict(enumerate(futures))
    made = []
    for item in plan.chunks:
        calls = [futures[number] if number in item.current else superseded for number in item.calls.numbers()]
        payload, own = None, options
        if item.kept is not None:
            payload, own = found_again(item.kept.payload, item.kept.needs, numbered), item.kept.options
        chunk = Chunk(
            plan.run_id,
            item.calls.first,
            calls,
            own,
            payload,
            carrier(item, payload, own),
            item.calls.attempt,
            in_doubt=item.in_doubt,
        )
        if item.job is not None and not item.is_with_worker:
            chunk.job_id = item.job["id"]
            chunk.saw(HELD if is_held(item.job) else item.job["status"])
        made.append((item, chunk))
    return made
