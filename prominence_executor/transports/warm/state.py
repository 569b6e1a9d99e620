"""What is known of the warm workers of a run: `Worker`, `PoolState`, and what a user is shown, `WorkerInfo`.

Plain values: no HTTP, no threads. The thread of scheduler.py alone writes a `Worker` and a `PoolState`; batches.py and
workers.py read them, in the same thread.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ...payload.modules import ModuleZip
from ...run.chunk import YOUNG, Chunk
from ...run.options import Options


@dataclass
class WorkerInfo:
    """One worker, as `ProminenceExecutor.workers` shows it."""

    number: int
    job_id: int | None
    state: str  # "starting", "idle" or "busy"
    calls: int  # done by it
    last_seen: float | None  # seconds since it said something
    requests: int  # that it had made by then


class Kind(NamedTuple):
    """What a worker is like: calls that want another kind need another worker."""

    options: Options
    modules: ModuleZip | None  # that it has from its start


class Room(NamedTuple):
    """What calls with jobs of their own leave to workers."""

    workers: int  # that there may be
    wanting: int  # jobs that have not begun


@dataclass(eq=False)
class Worker:
    """A warm worker, from the decision to start it."""

    number: int
    options: Options
    began: float
    modules: ModuleZip | None = None  # that it has from its start
    job_id: int | None = None
    doubted: float | None = None  # time.monotonic() when the POST of its job went unanswered
    held_since: float | None = None  # on the clock of the run's patience, when its job was first seen to be held
    spoke_at: float = 0.0  # time.monotonic() when it said its first word
    nonce: str = ""  # known once it has said something
    batch: int = 0  # number of the last one that was sent
    missed_batch: int = 0  # number of the last one that it could not take
    chunks: dict[int, Chunk] = field(default_factory=dict)  # of the batch that it has, by their place in it
    known: set[str] = field(default_factory=set)  # functions, modules and objects that were sent to it
    heard: str = ""  # the beginning of what was read last: its signature
    seen: float = 0.0  # time.monotonic() of it
    idle_since: float = 0.0
    until: float = math.inf  # time.monotonic() at which its walltime is over
    total: float = math.inf  # seconds that it had at its start
    running: int | None = None
    calls: int = 0
    requests: int = 0
    unsigned: int = 0  # times in a row that what it says was not signed
    unread: bool = False  # its mailbox still holds what has been read
    objects: OrderedDict[str, int] = field(default_factory=OrderedDict)  # that it has: bytes; oldest use first
    places: list[str] = field(default_factory=list)  # in the object store, for the batch that it has
    result_place: str | None = None  # that of them which its results may go to
    sending: bool = False  # a thread writes its mailbox, or clears it
    ends: bool = False  # it is to be told which of its chunks are to end
    telling: bool = False  # a thread tells it that

    def begin(self, nonce: str, left: float, now: float) -> None:
        """Note that its job has started, or has been started again: it has what it was born with.

        ``left``: seconds of its walltime.
        """
        self.nonce, self.batch, self.missed_batch, self.spoke_at = nonce, 0, 0, now
        self.total, self.until = left, now + left
        self.known = self.brought
        self.objects.clear()

    def missed(self) -> None:
        """Note that the batch was not taken: what it has of things that were sent is uncertain, and they go again.

        ``objects`` stay: it is to let go of those that it has.
        """
        self.missed_batch = self.batch
        self.known = self.brought

    def take(self, chunks: Iterable[Chunk]) -> None:
        """Note the next batch, which is about to be sent."""
        self.chunks = dict(enumerate(chunks))
        self.batch += 1
        self.running, self.sending = None, True

    def is_young(self, now: float) -> bool:
        """Return whether its job may have begun so recently that it is better not deleted."""
        return not self.nonce or now - self.spoke_at < YOUNG

    @property
    def brought(self) -> set[str]:
        """What it knows from its start."""
        return {self.modules.sha256} if self.modules is not None else set()

    @property
    def is_idle(self) -> bool:
        """Whether it can be given a batch now."""
        return bool(self.nonce) and not self.chunks and not self.sending

    @property
    def state(self) -> str:
        """Return the word that a user is shown."""
        return "busy" if self.chunks else "idle" if self.nonce else "starting"


@dataclass
class PoolState:
    """The workers of a run and the chunks that wait for them, at one moment."""

    target: int  # workers that are wanted anyway
    workers: dict[int, Worker] = field(default_factory=dict)
    queue: OrderedDict[Chunk, None] = field(default_factory=OrderedDict)  # taken from its beginning
    large: set[Chunk] = field(default_factory=set)  # of those that wait: they can only go through the object store
    needs: dict[Chunk, float] = field(default_factory=dict)  # seconds a worker must have left, as one had not enough
    kind: Kind | None = None  # of the next worker: what calls asked for last
    seconds: float | None = None  # of a call, a moving average
    listening: bool = False  # what workers say is heard at once: the service lets requests wait
    took: float = 0.0  # seconds that the last look into their mailboxes has taken
    shrinks: bool = False  # idle workers beyond the target end at once
    failed_starts: int = 0  # in a row
    room: Room | None = None  # None: all that there is
    stores: bool = False  # there are places in the object store
    coming: bool = False  # the courier's job, which leaves some, is at the service
    heavy: int = 0  # bytes that have gone other ways, for lack of them
    yielded: int = 0  # workers that have made room for jobs that have not begun
    ending: int = 0  # workers whose jobs are being deleted, and count until then
    job_ids: set[int] = field(default_factory=set)  # of all workers that were created
    eventful_at: float = field(default_factory=time.monotonic)

    def requeue(self, chunks: Iterable[Chunk]) -> None:
        """Put chunks before all others, in their order."""
        for chunk in reversed(list(chunks)):
            self.queue[chunk] = None
            self.queue.move_to_end(chunk, last=False)

    def take(self, chunk: Chunk) -> None:
        """Note that a chunk waits no more."""
        self.queue.pop(chunk, None)
        self.large.discard(chunk)

    def forget(self, chunk: Chunk) -> None:
        """Let go of a chunk that is over, and waits no more."""
        self.take(chunk)
        self.needs.pop(chunk, None)

    def learn(self, seconds: Iterable[float]) -> None:
        """Take in how long calls have taken that were settled together."""
        taken = list(seconds)
        if taken:
            mean = sum(taken) / len(taken)
            self.seconds = mean if self.seconds is None else 0.8 * self.seconds + 0.2 * mean

    def is_busy(self) -> bool:
        """Return whether a worker has calls."""
        return any(worker.chunks for worker in self.workers.values())

    def idle(self) -> list[Worker]:
        """Return the workers that can be given a batch now."""
        return [worker for worker in self.workers.values() if worker.is_idle]
