"""The report of a run of this program: what its history has, and what is open. It makes no requests."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..run.chunk import Chunk
from ..run.context import RunContext
from ..run.phases import JobSeen
from ..run.registry import ChunkRegistry
from ..shown import facts
from .report import Report, make_report

_SETTLING = 2.0  # seconds for which a job may take after its calls have ended until it is in the history
_LOOK = 0.01


def report_of_run(context: RunContext, registry: ChunkRegistry) -> Report:
    """Make the report of a run as it is now; waits a moment for jobs whose calls have just ended."""
    until = time.monotonic() + _SETTLING
    while any(map(_is_settling, chunks := registry.chunks())) and time.monotonic() < until:
        time.sleep(_LOOK)
    seen = context.history.seen()
    waiting = [chunk for chunk in chunks if chunk.logged != "ended" and chunk.is_wanted()]
    return make_report(context.run_id, seen, open_jobs(waiting))


def facts_of_run(context: RunContext, registry: ChunkRegistry, workers: Sequence[Any]) -> str:
    """Return what a notebook shows of an executor, at once and without a request."""
    chunks = [chunk for chunk in registry.chunks() if chunk.is_wanted()]
    calls: Counter[str] = Counter()
    for chunk in chunks:
        calls[chunk.status] += chunk.size
    report = make_report(context.run_id, context.history.seen())
    return facts(
        f"ProminenceExecutor, run {context.run_id}",
        [
            ("service", context.client.url),
            ("calls that have ended", report.calls),
            ("of those failed", report.failed_calls or None),
            ("calls that are open", ", ".join(f"{number} {word}" for word, number in calls.items()) or "none"),
            ("warm workers", ", ".join(f"job {one.job_id} {one.state}" for one in workers) or None),
            ("broken", registry.broken and str(registry.broken)),
            ("suggestion", report.suggestion or None),
        ],
    )


def _is_settling(chunk: Chunk) -> bool:
    return chunk.logged != "ended" and bool(chunk.calls) and not chunk.is_wanted() and not chunk.cancelled()


def open_jobs(chunks: Sequence[Chunk]) -> list[JobSeen]:
    """Return the jobs of open chunks, as far as they have been seen; several chunks may be with one worker."""
    now = time.time() - time.monotonic()
    return [
        JobSeen(
            job_id=chunk.job_id,
            first=chunk.first,
            size=chunk.size,
            attempt=chunk.attempt,
            status=chunk.status,
            function=chunk.function,
            cpus=None,
            began=chunk.began,
            sent=chunk.sent_at,
            started=None if chunk.running_since is None else chunk.running_since + now,
        )
        for chunk in chunks
    ]
