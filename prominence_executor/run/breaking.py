"""The one place that catches what nobody foresaw in a thread of a run: the run breaks by a sentence, and never hangs.

A thread that is no more would leave futures behind that nobody settles. What is foreseen is caught where it happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ProminenceError
from .context import LOG
from .registry import ChunkRegistry


@contextmanager
def breaking(registry: ChunkRegistry, part: str) -> Iterator[None]:
    """Break the run by whatever is raised inside the block; ``part``: of the run, for the sentence."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001  somebody's futures wait for this thread
        break_down(registry, part, error)


def break_down(registry: ChunkRegistry, part: str, error: BaseException) -> None:
    """Break the run by an error that a part of it has met: every open future gets to know, and the next submit."""
    if isinstance(error, ProminenceError):  # such as a token that is refused: it says itself what is wrong
        registry.fail(error)
        return
    LOG.error("the %s of run %s failed", part, registry.run_id, exc_info=error)
    sentence = ProminenceError(
        f"its {part} failed unexpectedly ({type(error).__name__}: {error}); what the service has of the run is still "
        f"there, and ProminenceExecutor.attach({registry.run_id!r}) finds it again"
    )
    sentence.__cause__ = error
    registry.fail(sentence)
