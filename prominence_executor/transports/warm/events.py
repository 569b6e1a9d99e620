"""What the scheduler of the warm workers is told: by users' threads, and by the threads that work for it.

Frozen values only. A worker is named by its number, since it may be no more when the event is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ...run.chunk import Chunk


@dataclass(frozen=True)
class Submitted:
    """A chunk is to be run."""

    chunk: Chunk


@dataclass(frozen=True)
class Discarded:
    """All calls of a chunk were cancelled; it is closed."""

    chunk: Chunk


@dataclass(frozen=True)
class Terminated:
    """The process that runs a chunk is to be ended."""

    chunk: Chunk


@dataclass(frozen=True)
class Scaled:
    """So many workers are wanted at least."""

    workers: int


@dataclass(frozen=True)
class Stopped:
    """Every chunk is settled, and there will be no more."""


@dataclass(frozen=True)
class WorkerCreated:
    """The service has taken a worker's job."""

    number: int
    job_id: int
    began: float  # time.monotonic() when what it needs had been uploaded


@dataclass(frozen=True)
class WorkerNotCreated:
    """A worker's job was refused, or nobody knows whether it was taken."""

    number: int
    error: BaseException


@dataclass(frozen=True)
class BatchSent:
    """A batch stands in its worker's mailbox."""

    number: int
    nonce: str
    names: frozenset[str]  # of what went with it: functions, modules, objects


@dataclass(frozen=True)
class BatchFailed:
    """A batch could not be put there."""

    number: int
    chunks: tuple[Chunk, ...]
    error: BaseException


@dataclass(frozen=True)
class BatchUnstored:
    """A batch that was too large for a mailbox could not be put into the object store either: nothing was sent."""

    number: int
    nonce: str


@dataclass(frozen=True)
class CourierCreated:
    """The service has taken the job that leaves places in the object store."""

    job_id: int


@dataclass(frozen=True)
class CourierLooked:
    """Somebody has looked whether it has ended."""

    over: bool
    doubtful: bool = False  # the service holds it, or does not know it


@dataclass(frozen=True)
class MailboxCleared:
    """What an idle worker had said has been removed."""

    number: int


@dataclass(frozen=True)
class EndsTold:
    """A worker has been told which of its chunks are to end."""

    number: int


@dataclass(frozen=True)
class RoomChanged:
    """Calls want jobs of their own, or no longer do."""


@dataclass(frozen=True)
class WorkersEnded:
    """So many workers that were to end do not count any more."""

    count: int


@dataclass(frozen=True)
class EndFailed:
    """Jobs of workers may not have been deleted."""


@dataclass(frozen=True)
class ChunkSettled:
    """A chunk is over: its calls have their outcomes."""

    chunk: Chunk
    seconds: tuple[float, ...] = ()  # that its calls have taken


@dataclass(frozen=True)
class ChunkReturned:
    """A worker's walltime has ended a call that would have had more time on a new worker."""

    chunk: Chunk
    needed: float  # seconds, more than it had there
    seconds: tuple[float, ...] = ()  # that its calls have taken that have ended


@dataclass(frozen=True)
class ChunkUnread:
    """What came of a chunk has ended where nobody can read it."""

    chunk: Chunk
    error: BaseException


@dataclass(frozen=True)
class Heard:
    """What all workers have said, by their numbers, has been read."""

    said: dict[int, str]
    at: float  # time.monotonic() when it came


@dataclass(frozen=True)
class Deaf:
    """Nobody hears the workers any more: the service does not let requests wait, or does not answer."""


Event: TypeAlias = (
    Submitted
    | Discarded
    | Terminated
    | Scaled
    | Stopped
    | WorkerCreated
    | WorkerNotCreated
    | BatchSent
    | BatchFailed
    | BatchUnstored
    | CourierCreated
    | CourierLooked
    | MailboxCleared
    | EndsTold
    | RoomChanged
    | WorkersEnded
    | EndFailed
    | ChunkSettled
    | ChunkReturned
    | ChunkUnread
    | Heard
    | Deaf
)
