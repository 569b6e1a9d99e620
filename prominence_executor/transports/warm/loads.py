"""How many bytes a batch moves, which way they go, and what a worker lets go of for it. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ...client.model import Resources
from ...payload.calls import Payload
from ...run.chunk import Chunk
from .state import Worker

BY_KEYS = 48 << 10  # bytes of a batch that goes through a mailbox in any case
MOST_BY_KEYS = 384 << 10  # likewise at most, also where there is no other way: a mailbox is listed, 4 MB at once
MOST_STORED = 256 << 20  # bytes of a chunk that goes to a warm worker at most
_SHARE = 8  # a chunk is at most one part in so many of a job's memory: it is there a few times on its way to its call
BATCH_STORED = 4 << 20  # bytes of a batch of several chunks that goes through the object store
KEPT = 64 << 20  # bytes of objects that a worker keeps for calls that may come
_FUNCTION = 16 << 10  # bytes of a function whose way does not matter


def load_of(payload: Payload, known: Collection[str] = ()) -> int:
    """Return how many bytes go to a worker for a chunk.

    Args:
        known: digests of what it has.
    """
    size = sum([blob.size + 100 for blob in payload.arguments if blob is not None])
    size += sum([item.size for item in payload.objects if item.sha256 not in known])
    function = payload.function
    if function.size > _FUNCTION and not (known and function.sha256() in known):
        size += function.size
    return size


def most_stored(resources: Resources) -> int:
    """Return how many bytes of a chunk may go to a worker with such resources."""
    wire = resources.json()
    gigabytes = wire.get("memory") or wire.get("memoryPerCpu", 1) * wire.get("cpus", 1)
    return min(MOST_STORED, (int(gigabytes) << 30) // _SHARE)


def is_too_large_for_keys(chunk: Chunk, known: Collection[str] = ()) -> bool:
    """Whether a chunk can only go through the object store."""
    return chunk.payload is not None and load_of(chunk.payload, known) > MOST_BY_KEYS


def make_room_for(worker: Worker, payloads: Iterable[Payload]) -> list[str]:
    """Note the objects that a worker is about to be sent; return those that it can let go of."""
    needed = {item.sha256: item.size for payload in payloads for item in payload.objects}
    for name, size in needed.items():
        worker.objects[name] = size
        worker.objects.move_to_end(name)
    forgotten = []
    over = sum(worker.objects.values()) - KEPT
    for name in list(worker.objects):
        if over <= 0 or name in needed:
            break  # those that are needed now are the last ones
        over -= worker.objects.pop(name)
        worker.known.discard(name)
        forgotten.append(name)
    return forgotten
