"""What jobs of a run have printed, and print: in pieces, as they come.

Bytes as the service has them: whoever shows them on a terminal has to make escapes harmless. Of warm workers what their
calls have printed only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from ..client.client import ProminenceClient
from ..errors import NotFoundError
from ..run.options import RUN_LABEL
from ..transports.warm.mailboxes import without_outcomes
from .listing import JobInfo, job_info

_NOT_BEGUN = ("idle", "pending", "deploying", "waiting")
Stream = Literal["stdout", "stderr"]


class LogPiece(NamedTuple):
    """Some bytes that a job has printed."""

    job: JobInfo
    stream: Stream
    content: bytes


def read_logs(
    client: ProminenceClient,
    jobs: Sequence[JobInfo],
    streams: Sequence[Stream] = ("stdout", "stderr"),
    *,
    follow: bool = False,
    pause: float = 1.0,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[LogPiece]:
    """Yield what jobs have printed, job by job; with ``follow``, what they print until they have ended.

    Blocks for a request for each job and stream; while it follows, for one more a round, ``pause`` seconds after each
    other. Running jobs are about a second ahead.

    Raises:
        ProminenceError: the service does not answer, or refuses.
    """
    readers = [_Reader(client, job, stream) for job in jobs for stream in streams]
    waiting = {job.id for job in jobs if job.active and job.status in _NOT_BEGUN}
    ended = {job.id for job in jobs if not job.active}
    while True:
        for reader in readers:
            if reader.job.id in waiting:
                continue  # the service would be asked for seconds what a job has printed that it does not know
            content = reader.read(is_last=not follow or reader.job.id in ended)
            if content:
                yield LogPiece(reader.job, reader.stream, content)
        readers = [reader for reader in readers if reader.job.id not in ended]
        if not follow or not readers:
            return
        wait(pause)
        active = _active(client, readers)
        waiting = {number for number, job in active.items() if job.status in _NOT_BEGUN}
        ended |= {reader.job.id for reader in readers} - active.keys()


def _active(client: ProminenceClient, readers: Sequence[_Reader]) -> dict[int, JobInfo]:
    run_ids = {reader.job.run_id for reader in readers}
    run_id = run_ids.pop() if len(run_ids) == 1 else None
    constraint = None if run_id is None else (RUN_LABEL, run_id)
    return {job.id: job for job in map(job_info, client.list_jobs(constraint=constraint)) if job.active}


class _Reader:
    """Reads one stream of one job on from where it was."""

    def __init__(self, client: ProminenceClient, job: JobInfo, stream: Stream) -> None:
        self.job = job
        self.stream = stream
        self._fetch = client.stdout if stream == "stdout" else client.stderr
        self._at = 0
        self._held = b""  # the beginning of a worker's line: it may be one of its own

    def read(self, is_last: bool) -> bytes:
        try:
            content = self._fetch(self.job.id, offset=self._at)
        except NotFoundError:  # it is ending, or has left nothing
            content = b""
        self._at += len(content)
        if self.job.worker is None or self.stream == "stderr":
            return content
        content = self._held + content
        whole = len(content) if is_last else content.rfind(b"\n") + 1
        self._held = content[whole:]
        return without_outcomes(content[:whole])
