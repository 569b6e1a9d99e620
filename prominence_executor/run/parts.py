"""Dividing a chunk: its parts take its place in the run and in the journal, at once. No requests."""

from __future__ import annotations

from collections.abc import Callable

from ..payload.calls import Payload
from .chunk import Chunk
from .journal import Journal, NullJournal
from .registry import ChunkRegistry


def put_in_parts(
    journal: Journal | NullJournal, registry: ChunkRegistry, chunk: Chunk, make: Callable[[], list[Chunk]]
) -> tuple[list[Chunk], OSError | None]:
    """Open parts of a chunk in its place, in the run and in the journal; nothing if it is not open any more.

    At once: whoever goes on from a journal with a part and the whole would run calls twice, and from one with
    neither, never. Returns what kept the journal from it, too: it has the whole then.
    """
    kept: list[tuple[Chunk, Payload]] = []

    def made() -> list[Chunk]:
        parts = make()
        kept.extend((part, part.payload) for part in parts if part.payload is not None)
        return parts

    parts = registry.replace(chunk, made)
    try:
        if parts:
            journal.put_all(kept, instead_of=[chunk.name])
            journal.remove(registry.closed_names(parts))  # those that were cancelled meanwhile
    except OSError as error:
        return parts, error
    return parts, None
