"""How many warm workers there may be while calls want jobs of their own, and which ones make room for those.

Pure functions, as batches.py: they decide, the scheduler does.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...run.slots import Claim
from .options import WarmOptions
from .state import PoolState, Room, Worker


def room_for(state: PoolState, options: WarmOptions, most: int | None, claim: Claim) -> Room:
    """Compute the room that workers have.

    Args:
        most: jobs and workers together; None: jobs do not count.
        claim: what the jobs want of it.

    Calls that wait for a worker keep one, so that jobs of others do not keep them out for good; of two kinds that share
    a single place, the oldest call has it.
    """
    wanting = claim.waiting + claim.idle
    if most is None:
        return Room(options.max_workers, wanting)
    head = next(iter(state.queue), None)
    keeps = head is not None and (most > 1 or claim.first is None or head.first < claim.first)
    return Room(max(int(keeps), most - min(most, claim.jobs + claim.waiting)), wanting)


def surplus(state: PoolState, needed: int, soon: int = 0) -> list[Worker]:
    """Choose the workers that make room: those that have not begun first, then idle ones.

    Args:
        needed: workers for the calls that there are.
        soon: workers for other calls, which wait for the courier themselves: those that have not begun come behind it.
    """
    room, workers = state.room, list(state.workers.values())
    if room is None:
        return []
    starting = [worker for worker in workers if not worker.nonce]
    spare = [*starting, *state.idle()]
    over = max(0, len(workers) - room.workers)
    if not room.wanting:
        return spare[:over]
    # The service may have fewer places than `max_workers`: whatever waits there before such a job is in its way.
    before = starting[: max(0, len(starting) - soon)]
    unneeded = max(0, len(workers) - needed - (len(starting) - len(before)))
    idle = min(unneeded, len(before) + max(0, room.wanting - state.yielded))
    return [*before, *state.idle()][:idle] if idle > over else spare[:over]


def may_be_dealt_to(state: PoolState, idle: Iterable[Worker]) -> list[Worker]:
    """Leave out the idle workers that are to make room: what they were given would keep them."""
    idle = list(idle)
    over = 0 if state.room is None else max(0, len(state.workers) - state.room.workers)
    starting = sum(not worker.nonce for worker in state.workers.values())
    return idle[max(0, over - starting) :]
