"""`Array`: chunks whose calls follow one another, and that become one workflow; and which chunks those may be.

State and arithmetic only. The lock of the `JobTable` guards what is not said otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from ...payload.pickling import ObjectRef
from ...run.chunk import Chunk
from ...run.names import ArrayRange, array_name

MOST = 500  # jobs in one array
# A workflow makes its first job after 3.5 s, and then two a second; four side by side make seven. POSTs by eight
# threads make eight a second at once, but each of them costs the service a request.
_FEWEST = 20  # jobs for which arrays are worth it
_SIDE_BY_SIDE = 4  # arrays of a run that make jobs at the same time
_EACH = 10  # jobs for which one more of them is worth its four requests
_SMALL = 1 << 18  # bytes of a chunk's payload that may travel in an array: each of its jobs fetches all payloads
_BUNDLE = 1 << 22  # bytes of all of them together


@dataclass(eq=False)
class Array:
    """Chunks equal in size, but for the last, of which each is one job of a workflow."""

    run_id: str
    span: ArrayRange
    left: dict[int, Chunk] = field(default_factory=dict)  # the chunks that are not over, by their position
    wanted: set[int] = field(default_factory=set)  # positions of those with a call that still needs its job
    workflow_id: int | None = None
    accepted_at: float = 0.0  # time.monotonic() of the answer to the POST
    seen: int = -1  # the highest position whose job has been seen
    ask_at: float = 0.0  # when the workflow itself is to be asked about; the tracker's thread alone uses it
    asked: int = 0  # how often it has been; likewise
    held_since: float | None = None  # on the run's clock, when it was first seen to be held itself; likewise
    bundle: str = ""  # the object that its jobs share; written by its sender before there is a workflow

    @property
    def name(self) -> str:
        """The workflow's."""
        return array_name(self.run_id, self.span)

    @classmethod
    def of(cls, chunks: list[Chunk]) -> Array:
        """Make the array of these chunks, which `groups_for_arrays` has found to fit."""
        first, last = chunks[0], chunks[-1]
        array = cls(first.run_id, ArrayRange(first.first, last.first + last.size - 1, first.size, first.attempt))
        for chunk in chunks:
            array.add(chunk)
        return array

    def add(self, chunk: Chunk) -> None:
        """Have the chunk's job as one of this array's."""
        position = self.position(chunk)
        self.left[position] = chunk
        if chunk.is_wanted():  # else it was cancelled a moment ago
            self.wanted.add(position)

    def is_wanted(self) -> bool:
        """Return whether a call of it needs a job."""
        return bool(self.wanted)

    def is_making_jobs(self) -> bool:
        """Return whether a job of it is still to be seen, as far as is known: they appear in their order."""
        return self.seen < (self.span.last - self.span.first) // self.span.size

    def position(self, chunk: Chunk) -> int:
        """Return the place of a chunk's job in it."""
        return (chunk.first - self.span.first) // self.span.size


def groups_for_arrays(chunks: Iterable[Chunk], in_doubt: Collection[Chunk] = ()) -> list[list[Chunk]]:
    """Divide chunks into those that can travel together: calls that follow one another, alike in all but the last size.

    Several threads may have submitted them, so that they are not quite in order.

    Args:
        in_doubt: those whose job may exist; they go alone.
    """
    groups: list[list[Chunk]] = []
    room = 0
    for chunk in sorted(chunks, key=lambda chunk: (chunk.attempt, chunk.first)):
        size = _bytes_of(chunk)
        if groups and chunk not in in_doubt and size <= min(_SMALL, room) and _continues(groups[-1], chunk):
            groups[-1].append(chunk)
            room -= size
        else:
            groups.append([chunk])
            room = 0 if chunk in in_doubt or size > _SMALL else _BUNDLE - size
    return groups


def arrays_of(group: list[Chunk], making: int) -> list[list[Chunk]]:
    """Divide a group into those that become an array each; nothing when its jobs are better created one by one.

    Args:
        making: arrays of the run that are making jobs.
    """
    if len(group) < _FEWEST:
        return []
    arrays = max(1, min(_SIDE_BY_SIDE - making, len(group) // _EACH))
    size = -(-len(group) // arrays)
    return [group[at : at + size] for at in range(0, len(group), size)]


def _continues(group: list[Chunk], chunk: Chunk) -> bool:
    last = group[-1]
    return (
        len(group) < MOST
        and chunk.first == last.first + last.size
        and chunk.size <= last.size == group[0].size
        and chunk.attempt == last.attempt
        and chunk.options == last.options
        and _objects_of(chunk) == _objects_of(last)
    )


def _bytes_of(chunk: Chunk) -> int:
    return 0 if chunk.payload is None else sum(len(blob) for blob in chunk.payload.arguments if blob is not None)


def _objects_of(chunk: Chunk) -> frozenset[ObjectRef]:
    return frozenset() if chunk.payload is None else chunk.payload.objects
