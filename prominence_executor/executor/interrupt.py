"""What becomes of outstanding jobs when their program is interrupted: they are left at the service, or deleted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from ..errors import JobDeletedError
from ..run.chunk import Chunk, Transport
from ..run.context import RunContext

_INTERRUPTED = 30.0  # seconds in which an interrupted program's jobs are deleted
_ENDING = 2.0  # seconds in which the threads of a run end that has no service any more
_LOOK = 0.25  # seconds between two looks for calls that have another attempt by now


def report_left(
    context: RunContext, chunks: Sequence[Chunk], jobs: Transport, has_workers: bool, how_to_go_on: str = ""
) -> str:
    """Say what is left at the service, and what continues it; ``jobs`` carries those that no warm worker has."""
    if not context.lasts:
        return _ends_with_service(chunks)
    sent = [chunk for chunk in chunks if is_sent(chunk)]
    count = sum(chunk.transport is jobs for chunk in sent)
    said = f"its {count} outstanding jobs are left at the service"
    if has_workers:
        calls = sum(chunk.size for chunk in sent if chunk.transport is not jobs)
        said = f"its warm workers are left at the service with {calls} calls, and {count} other jobs"
    unsent = sum(chunk.size for chunk in chunks if not is_sent(chunk))
    if unsent:
        said += f", {unsent} calls had not been sent" + (" and are in the journal" if context.journal else "")
    journal = ", journal=..." if context.journal else ""
    return said + "; " + (how_to_go_on or f"ProminenceExecutor.attach({context.run_id!r}{journal}) continues it")


def _ends_with_service(chunks: Iterable[Chunk]) -> str:
    calls = sum(chunk.size for chunk in chunks)
    return f"its {calls} outstanding calls end with the service, which this program has started"


def is_sent(chunk: Chunk) -> bool:
    """Return whether the service has what a chunk's calls travel in; of an array, the job may still be to come."""
    return chunk.job_id is not None or chunk.sent_at is not None


def delete(context: RunContext, open_now: Callable[[], list[Chunk]], ended: threading.Event) -> str:
    """Cancel or end all calls, and delete their jobs; blocks for that for a while. Says what came of it.

    A service that does not answer is not waited for: what it has is left there. So it is on a second Ctrl-C.

    Args:
        open_now: returns the chunks that are open.
        ended: set when nothing is left of the run.
    """
    chunks = dict.fromkeys(open_now())
    calls = sum(chunk.size for chunk in chunks)
    for chunk in chunks:
        _give_up(chunk)

    def look() -> None:
        for chunk in open_now():  # such as another attempt, which has come into being meanwhile
            if chunk not in chunks:
                chunks[chunk] = None
                _give_up(chunk)

    why = await_end(context, ended, look)
    if why is None:
        return f"its {calls} outstanding calls were given up, and their jobs deleted"
    if not context.lasts:
        return _ends_with_service(chunks)
    left = f"what the service has of it, up to {calls} calls, is left there"
    return f"{why}: {left}; prominence-executor cancel {context.run_id} deletes it later"


def await_end(context: RunContext, ended: threading.Event, look: Callable[[], None] = lambda: None) -> str | None:
    """Wait until nothing is left of a run; give its service up that does not answer, or when Ctrl-C comes again.

    Returns why something is left, if it is. ``look``: called now and then.
    """
    began = time.monotonic()
    try:
        while not ended.wait(_LOOK):
            look()
            if context.connection.is_silent(began) or time.monotonic() > began + _INTERRUPTED:
                return "the service does not answer"
    except KeyboardInterrupt:  # whoever waits here raises the first one again
        return "Ctrl-C came again"
    finally:
        if not ended.is_set():
            context.connection.give_up()
            ended.wait(_ENDING)
    return None


def _give_up(chunk: Chunk) -> None:
    for call in list(chunk.calls):
        call.cancel()
    if not chunk.cancelled():
        chunk.terminated = True
        chunk.settle_all(JobDeletedError("the program was interrupted", job_id=chunk.job_id))
        chunk.transport.discard(chunk)
