"""Which warm workers to start and to end, which chunk goes to which one in which batch, and when to look again.

Pure functions of what is known (`PoolState`), the options and the time: they decide, scheduler.py does. They change
nothing, ask nobody, and know no clock.

A batch is sized to take a fraction of a second, so that no call waits for long behind others while a worker is idle.
A chunk that has cost a worker goes alone from then on: if it costs another one, it takes no other chunk with it.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from ...errors import JobError, ServiceError, TransferError
from ...payload.calls import Payload
from ...payload.modules import ModuleZip
from ...run.chunk import Chunk
from .loads import BATCH_STORED, is_too_large_for_keys, load_of
from .options import WarmOptions
from .room import may_be_dealt_to
from .state import Kind, PoolState, Worker

SHORTEST = 0.002  # seconds between two looks into a mailbox, and never less than half of those that a look takes
LONGEST = 2.0  # likewise, of an idle worker, if not so many are idle that their looks are too many
BATCH_SIZE = 48 << 10  # bytes of a batch of several chunks
BATCH_SECONDS = 0.25  # that a batch should take,
_TURNS = 8.0  # or so many times what a look takes, if that is more: it waits for two requests before the next one,
_LONGEST_BATCH = 2.0  # but no longer than this
MODULES_SIZE = 32 << 10  # bytes of modules that go through a mailbox; others come with a worker
STARTS = 3  # jobs in a row that may end before they work
WHOLE = 0.8  # of its walltime, what a worker gives to a call that it can begin at once
_CALLS_LEFT = 2.0  # so many times the time of a call must be left of a worker's walltime to give it one
_OTHERS = 10.0  # seconds without calls after which a worker makes room for one that other calls need
_LOOKS = 20  # a look comes after one part in so many of the time for which nothing has happened,
_RESTING = 0.5  # seconds without a batch after which what a worker has said is removed
_UNBOUNDED = 1e6  # requests per second
_QUEUED = 0.02  # seconds between two looks while chunks wait for a worker, or workers start
_LONGEST_BUSY, _LONGEST_STARTING, _LONGEST_IDLE = 1.0, 5.0, 5.0  # and after so many seconds at the latest


def can_run(state: PoolState, worker: Worker, chunk: Chunk, now: float) -> bool:
    """Whether the worker's job is as the chunk wants it, has time enough, and its modules or can be given them."""
    options, modules = chunk.options.of_worker, _modules_of(chunk)
    if options is not worker.options and options != worker.options:
        return False
    if chunk in state.large and not state.stores and is_too_large_for_keys(chunk, worker.known):
        return False
    if modules and len(modules.content) > MODULES_SIZE and modules.sha256 not in worker.known:
        return False
    if worker.batch == 0:
        return True
    needed = max(state.needs.get(chunk, 0.0), min(_CALLS_LEFT * (state.seconds or 0.0), WHOLE * worker.total))
    return worker.until - now > needed


def request_share(state: PoolState, options: WarmOptions) -> float:
    """Compute the requests per second that a worker may make: those that have calls share one half of all.

    Where the service lets requests wait, they are as many as calls need, unless a user has said something else.
    """
    if state.listening and not options.bounded:
        return _UNBOUNDED
    busy = sum(bool(worker.chunks) for worker in state.workers.values())
    return options.max_requests_per_second / 2 / max(1, busy)


# -- workers -----------------------------------------------------------------------------------------------------------


class WorkerPlan(NamedTuple):
    """Idle workers that are to end, and how many of which kind are to be started."""

    end: list[Worker]
    start: int
    kind: Kind | None


def plan_workers(state: PoolState, options: WarmOptions, now: float) -> WorkerPlan:
    """One worker for each queued chunk, up to the limit; at least as many as are wanted anyway.

    An idle worker that can run nothing of what waits makes room for another one: at once for a chunk that no worker
    can run, else after a while.
    """
    workers, claimed = state.workers, state.room
    most = options.max_workers if claimed is None else min(options.max_workers, claimed.workers)
    queued = list(islice(state.queue, most))
    ripe = [chunk for chunk in queued if state.stores or chunk not in state.large]
    unserved = [chunk for chunk in ripe if not any(can_run(state, worker, chunk, now) for worker in workers.values())]
    kind = state.kind
    if queued:
        first = (unserved or queued)[0]
        kind = Kind(first.options.of_worker, _modules_of(first))
    if kind is None:
        return WorkerPlan([], 0, None)  # nobody knows yet what they are to be like
    useless = []
    if ripe:
        useless = [w for w in state.idle() if not any(can_run(state, w, chunk, now) for chunk in queued)]
    lacking = max(workers_needed(state) - len(workers) + len(useless), bool(unserved))
    room = most - len(workers)
    end = [worker for worker in useless if worker.idle_since < now - _OTHERS][: max(0, lacking - room)]
    if unserved and len(workers) - len(end) >= most:
        end = useless[:1]
    left = len(workers) - len(end)
    wanted = 0 if claimed is not None and claimed.wanting else state.target - left
    return WorkerPlan(end, max(0, min(max(lacking, wanted), most - left)), kind)


def workers_needed(state: PoolState, *, soon: bool = True) -> int:
    """Workers for what is queued and what they have: as many as there are chunks, unless those are known short.

    Args:
        soon: also for what can go to a worker once the courier has run whose job is at the service; before that it is,
            a worker would only be in its way.
    """
    queued = len(state.queue)
    if not state.stores and not (soon and state.coming):
        queued -= len(state.large)
    if state.seconds is not None and queued:
        queued = min(queued, math.ceil(queued * state.seconds / BATCH_SECONDS))
    return sum(bool(worker.chunks) for worker in state.workers.values()) + queued


def retire(state: PoolState, options: WarmOptions, now: float) -> list[Worker]:
    """Choose the workers that have been idle for long, beyond those that are wanted anyway."""
    timeout = 0.0 if state.shrinks and not state.queue else options.idle_timeout
    over = [worker for worker in state.idle() if now - worker.idle_since > timeout]
    return over[: max(0, len(state.workers) - state.target)]


def resting(state: PoolState, now: float) -> list[Worker]:
    """Choose the idle workers of which what they have said, and was read, is to be removed: a look brings it again."""
    return [worker for worker in state.idle() if worker.unread and now - worker.idle_since > _RESTING]


def longest_pause(options: WarmOptions) -> float:
    """Compute the seconds between two looks of an idle worker: those of all are half of the requests that may be."""
    return max(LONGEST, 2 * options.max_workers / options.max_requests_per_second)


def pause(state: PoolState, now: float) -> float | None:
    """Seconds until the next look, short while work flows; None when only an event can bring something to do.

    While what workers say is heard at once, a look asks the service nothing.
    """
    workers = state.workers.values()
    if state.listening and workers:
        return _RESTING if any(worker.chunks or worker.unread or not worker.nonce for worker in workers) else 5.0
    if any(worker.chunks for worker in workers):
        # Where others wait, the next look finds several reports at once.
        shortest = max(state.took / 2, _QUEUED if state.queue else SHORTEST)
        return _pause_since(state.eventful_at, now, (shortest, _LONGEST_BUSY))
    starting = [worker.began for worker in workers if not worker.nonce]
    if starting:
        return _pause_since(max(starting), now, (max(state.took / 2, _QUEUED), _LONGEST_STARTING))
    if state.queue and (state.room is None or not state.room.wanting):
        return _QUEUED  # workers are to be started
    if any(worker.unread for worker in workers):
        return _RESTING
    return _LONGEST_IDLE if workers or state.queue else None


def _pause_since(since: float, now: float, bounds: tuple[float, float]) -> float:
    return min(max(bounds[0], (now - since) / _LOOKS), bounds[1])


# -- batches -----------------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """What a worker is to be given."""

    worker: Worker
    parts: list[tuple[Chunk, Payload]]


class _Line:
    """The queue while it is dealt out: what is taken is gone, what is put back comes first again."""

    def __init__(self, queue: Iterable[Chunk]) -> None:
        self._front: deque[Chunk] = deque()
        self._rest = iter(queue)  # read only as far as needed: the queue may be long

    def take(self) -> Chunk | None:
        return self._front.popleft() if self._front else next(self._rest, None)

    def put_back(self, chunks: list[Chunk]) -> None:
        self._front.extendleft(reversed(chunks))


def dispatch_batches(state: PoolState, now: float) -> list[Batch]:
    """Deal out the queue to idle workers.

    Each is given some chunks that should take a fraction of a second, and no more than its share.
    """
    batches: list[Batch] = []
    if not state.queue:
        return batches
    line, left = _Line(state.queue), len(state.queue)
    idle = sum(1 for worker in state.workers.values() if worker.nonce and not worker.chunks)
    for worker in may_be_dealt_to(state, state.idle()):
        if left:
            parts = _batch_for(state, worker, line, math.ceil(left / max(1, idle)), now)
            if parts:
                batches.append(Batch(worker, parts))
                left, idle = left - len(parts), idle - 1
    return batches


def _batch_for(state: PoolState, worker: Worker, line: _Line, share: int, now: float) -> list[tuple[Chunk, Payload]]:
    took = 0.0 if state.listening else state.took
    should_take = max(BATCH_SECONDS, min(_TURNS * took, _LONGEST_BATCH))
    most = 1 if state.seconds is None else max(1, int(should_take / max(state.seconds, 1e-6)))
    parts: list[tuple[Chunk, Payload]] = []
    passed: list[Chunk] = []
    size = calls = losses = 0
    has = set(worker.known)
    while len(parts) < share and (chunk := line.take()) is not None:
        payload = chunk.payload
        if payload is None:
            continue  # it is over: an event that says so is on its way
        if not can_run(state, worker, chunk, now):
            passed.append(chunk)
            continue
        weight = load_of(payload, has)
        too_much = size + weight > (BATCH_STORED if state.stores else BATCH_SIZE) or calls + chunk.size > most
        if parts and (too_much or chunk.losses or losses):
            passed.append(chunk)
            break
        parts.append((chunk, payload))
        has.update([item.sha256 for item in payload.objects])
        size, calls, losses = size + weight, calls + chunk.size, chunk.losses
    line.put_back(passed)
    return parts


def _modules_of(chunk: Chunk) -> ModuleZip | None:
    payload = chunk.payload
    return None if payload is None else payload.modules


# -- what is lost ------------------------------------------------------------------------------------------------------


class Fate(enum.Enum):
    """What becomes of a chunk whose worker is lost."""

    AGAIN = enum.auto()
    SPLIT = enum.auto()  # again, each call alone: which of them costs workers?
    TERMINATED = enum.auto()
    GIVEN_UP = enum.auto()


def fate_of(chunk: Chunk, losses: int, max_attempts: int) -> Fate:
    """Decide what becomes of a chunk that has lost so many workers, the last one included if it was to blame."""
    if chunk.terminated:
        return Fate.TERMINATED
    if losses >= max_attempts:
        return Fate.GIVEN_UP
    return Fate.SPLIT if losses == max_attempts - 1 and chunk.size > 1 else Fate.AGAIN


def is_doubtful(error: BaseException, failed_starts: int) -> bool:
    """Whether a worker's job may have been created though the POST failed, and is to be looked for."""
    return isinstance(error, ServiceError) and error.may_have_arrived and failed_starts < STARTS


def ends_calls(error: BaseException, failed_starts: int) -> bool:
    """Whether calls are to have this error of a worker that did not start, as another one would fare no better."""
    return failed_starts >= STARTS or not isinstance(error, (ServiceError, TransferError, JobError))
