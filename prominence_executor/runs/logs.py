"""What jobs of a run have printed, and print: in pieces, as they come.

Bytes as the service has them: whoever shows them on a terminal has to make escapes harmless. Of warm workers what their
calls have printed only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Literal, NamedTuple

from ..client.client import ProminenceClient
from ..errors import NotFoundError
from ..run.options import RUN_LABEL
from ..transports.warm.mailboxes import without_outcomes
from .listing import JobInfo, job_info, list_arrays
from .outcomes import CallEnd, call_ends
from .state import QUIET_LOOKS, RunState

_NOT_BEGUN = ("idle", "pending", "deploying", "waiting")
_ENDING = 3.0  # seconds around a job's end during which the service may not know what it has printed
_JUST = 5.0  # seconds ago: an end that this is about
_SHARE = 2.0  # times what a round has taken, the next one waits
Stream = Literal["stdout", "stderr"]


class LogPiece(NamedTuple):
    """Some bytes that a job has printed, or one call of it."""

    job: JobInfo
    stream: Stream
    content: bytes
    call: int | None = None  # None: nobody knows which of its calls has


def read_logs(
    client: ProminenceClient,
    jobs: Sequence[JobInfo],
    streams: Sequence[Stream] = ("stdout", "stderr"),
    *,
    follow: bool = False,
    run_id: str | None = None,
    calls: Collection[int] = (),
    pause: float = 1.0,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[LogPiece]:
    """Yield what jobs have printed, job by job; with ``follow``, what they print until they have ended.

    Blocks for a request for each job and stream; while it follows, for one or two more a round, ``pause`` seconds after
    each other, or twice what the last one took. Running jobs are about a second ahead.

    Args:
        run_id: follow the jobs that this run has later, too, until for two looks none is active, nor is to be made.
        calls: of these only those that run one of these calls.

    Raises:
        ProminenceError: the service does not answer, or refuses.
    """
    readers = [_Reader(client, job, stream) for job in jobs if may_have_printed(job) for stream in streams]
    newest, quiet = max((job.id for job in jobs), default=0), int(not any(job.active for job in jobs))
    unmade = {call for call in calls if not any(call in job.calls for job in jobs)}
    while True:
        took = 0.0
        for reader in readers:
            if reader.job.active and reader.job.status in _NOT_BEGUN:
                continue  # the service would be asked for seconds what a job has printed that it does not know
            began = time.monotonic()
            content = reader.read(is_last=not follow or not reader.job.active)
            took += time.monotonic() - began
            if content:
                yield LogPiece(reader.job, reader.stream, content)
        readers = [reader for reader in readers if reader.job.active]
        if not follow or (not readers and (run_id is None or quiet > QUIET_LOOKS)):
            return
        wait(max(pause, _SHARE * took))
        listed = _listed(client, run_id, readers, all=bool(quiet))
        for reader in readers:
            reader.job = listed[reader.job.id]
        readers = [reader for reader in readers if may_have_printed(reader.job)]
        if run_id is not None:
            new = [job for job in listed.values() if job.id > newest and _runs(job, calls)]
            newest = max([newest, *listed])
            readers += [_Reader(client, job, stream) for job in new if may_have_printed(job) for stream in streams]
            unmade = {call for call in unmade if not any(call in job.calls for job in new)}
            active = any(reader.job.active for reader in readers)
            busy = active or ((not calls or bool(unmade)) and _is_to_make(client, run_id, unmade))
            quiet = 0 if busy else quiet + 1


def read_calls(
    client: ProminenceClient, state: RunState, calls: Collection[int], streams: Sequence[Stream] = ("stdout", "stderr")
) -> dict[int, list[LogPiece]]:
    """Return by call what some have printed that have ended, and share a job with others, or were a warm worker's.

    Where in the output of its job a call's own lies, its outcome says; the others are missing, but that of a warm
    worker has then all that this has printed. Blocks for a request for each such job, and one for each of its streams.

    Raises:
        ProminenceError: the service does not answer, or refuses.
        ValueError: a newer version has begun the run.
    """
    last = {call: jobs[-1] for call in calls if (jobs := state.jobs_of(call))}
    sharing = {job.id: job for job in last.values() if len(job.calls) > 1 and not job.active}
    workers = {job.id: job for job in state.jobs if job.worker is not None} if len(last) < len(set(calls)) else {}
    several_calls = {**sharing, **workers}
    ends = call_ends(client, state.run_id, several_calls.values(), most=None)
    printed: dict[tuple[int, Stream], bytes] = {}
    found: dict[int, list[LogPiece]] = {}
    for end in sorted(chain.from_iterable(ends.values()), key=lambda end: end.attempt):
        known = last.get(end.call)
        if end.call not in calls or (known is not None and (known.id != end.job_id or end.streams is None)):
            continue
        pieces = []
        begun, ended = end.streams or ((0, 0), None)
        for stream in streams:
            if (end.job_id, stream) not in printed:
                printed[end.job_id, stream] = _whole(client, several_calls[end.job_id], stream)
            column = 0 if stream == "stdout" else 1
            until = ended[column] if ended else _next(ends[end.job_id], begun, column) if end.streams else None
            part = printed[end.job_id, stream][begun[column] : until]
            pieces.append(
                LogPiece(several_calls[end.job_id], stream, without_outcomes(part), end.call if end.streams else None)
            )
        found[end.call] = pieces
    return dict(sorted(found.items()))


def _next(ends: Sequence[CallEnd], begun: tuple[int, int], column: int) -> int | None:
    """Return where in the output of a job the call behind this one begins; None where there is none."""
    return min((end.streams[0] for end in ends if end.streams and end.streams[0] > begun), default=(None, None))[column]


def _whole(client: ProminenceClient, job: JobInfo, stream: Stream) -> bytes:
    fetch = client.stdout if stream == "stdout" else client.stderr
    try:
        return fetch(job.id, retry_for=patience(job, time.time()))
    except NotFoundError:
        return b""


def may_have_printed(job: JobInfo) -> bool:
    """Return whether there can be anything: of a job that has ended before it began the service knows nothing."""
    return job.active or job.started is not None


def patience(job: JobInfo, now: float) -> float:
    """Return for how many seconds the service may still come to know what the job has printed: around its end alone."""
    return _ENDING if job.active or job.ended is None or now - job.ended < _JUST else 0.0


def _listed(
    client: ProminenceClient, run_id: str | None, readers: Sequence[_Reader], *, all: bool
) -> dict[int, JobInfo]:
    """List the active jobs, or all, by their numbers, and those that are read and have ended."""
    run_ids = {reader.job.run_id for reader in readers} if run_id is None else {run_id}
    only = run_ids.pop() if len(run_ids) == 1 else None
    constraint = None if only is None else (RUN_LABEL, only)
    found = {job.id: job for job in map(job_info, client.list_jobs(constraint=constraint, all=all))}
    gone = {reader.job.id: reader.job for reader in readers if reader.job.id not in found}
    ended = map(job_info, client.list_jobs(ids=sorted(gone))) if gone else ()
    unknown = {number: replace(job, active=False) for number, job in gone.items()}
    return {**unknown, **found, **{job.id: job for job in ended}}


def _runs(job: JobInfo, calls: Collection[int]) -> bool:
    return not calls or any(call in job.calls for call in calls)


def _is_to_make(client: ProminenceClient, run_id: str, calls: Collection[int]) -> bool:
    """Return whether an active array of the run is to make jobs of these calls; none: of any."""
    spans = [array.span for array in list_arrays(client, constraint=(RUN_LABEL, run_id)) if array.active]
    return any(not calls or any(span.first <= call <= span.last for call in calls) for span in spans)


class _Reader:
    """Reads one stream of one job on from where it was."""

    def __init__(self, client: ProminenceClient, job: JobInfo, stream: Stream) -> None:
        self.job = job
        self.stream = stream
        self._fetch = client.stdout if stream == "stdout" else client.stderr
        self._was_active = job.active  # so that its end is about now, whatever its clock says
        self._at = 0
        self._held = b""  # the beginning of a worker's line: it may be one of its own

    def read(self, is_last: bool) -> bytes:
        retry_for = _ENDING if self._was_active else patience(self.job, time.time())
        try:
            content = self._fetch(self.job.id, offset=self._at, retry_for=retry_for)
        except NotFoundError:  # it is ending, or has left nothing
            content = b""
        self._at += len(content)
        if self.job.worker is None or self.stream == "stderr":
            return content
        content = self._held + content
        whole = len(content) if is_last else content.rfind(b"\n") + 1
        self._held = content[whole:]
        return without_outcomes(content[:whole])
