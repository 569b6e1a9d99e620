"""A worker's standard output, where it puts what has come of chunks: read until a chunk's outcome is there.

It blocks, and has no threads.
"""

from __future__ import annotations

from ...errors import SignatureError
from ...run.chunk import Chunk
from ...run.context import RunContext
from .mailboxes import outcomes_in

_LOOKS = 100  # for an outcome in a job's standard output, which may be a second behind


def read_printed(context: RunContext, chunk: Chunk, job_id: int | None, start: int, size: int) -> bytes:
    """Fetch the records of a chunk.

    Args:
        start, size: where they are, in bytes; without a size, they begin there or somewhere behind it.

    Raises:
        SignatureError: they are not there.
        ProminenceError: nothing came.
    """
    for attempt in range(_LOOKS):
        content = context.client.stdout(job_id or 0, offset=start)
        text = content[:size] if size else content[: content.rfind(b"\n") + 1]
        if text and (len(text) == size or not size):
            for described, records in outcomes_in(text, context.key):
                if (described["job"], described["attempt"]) == (chunk.first, chunk.attempt):
                    return records
            if size:
                break
        if context.stopping.wait(min(0.05 * 1.2**attempt, 2.0)):
            break
    raise SignatureError(f"the outcome of job {job_id} is not where its worker has put it")
