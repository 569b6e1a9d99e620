"""What the journal of a run has that the service may not have: read from the file, which stays as it is.

It asks nobody, and unpickles nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import RunExistsError
from ..run.journal import names_kept
from ..run.names import CallRange, parse_job_name
from .outcomes import CallEnd
from .state import RunState


@dataclass(frozen=True)
class JournalKept:
    """What a journal has kept.

    Attributes:
        chunks: the calls of each job, or message to a warm worker, that is in it.
        note: why nothing can be said of it; "" where it was read.
    """

    chunks: tuple[CallRange, ...] = ()
    note: str = ""


def kept_in_journal(path: str | os.PathLike[str], run_id: str) -> JournalKept:
    """Read which calls of a run its journal has.

    Raises:
        ValueError: the journal is another run's, or a newer version has begun the run, or the file is none.
    """
    if not os.path.exists(path):
        gone = f"there is no journal {os.fspath(path)}: all that was submitted was accepted, or it is elsewhere"
        return JournalKept(note=gone)
    try:
        owner, names = names_kept(path)
    except RunExistsError:
        return JournalKept(note="the program that began the run goes on, and holds the journal")
    if owner != run_id:
        raise ValueError(f"the journal {os.fspath(path)} is one of run {owner!r}, not of {run_id!r}")
    return JournalKept(tuple(calls for name in names if (calls := parse_job_name(run_id, name)) is not None))


def only_kept(kept: JournalKept, state: RunState, ends: Iterable[CallEnd]) -> list[int]:
    """List the calls of a journal whose present attempt neither has a job at the service, nor a known end.

    What a warm worker has and has not ended does not show: those calls are among them.
    """
    latest: dict[int, float] = {
        call: math.inf if job is None else job.attempt for call, job in state.calls().items()
    }  # one whose array has not made its job yet is there
    for end in ends:
        latest[end.call] = max(end.attempt, latest.get(end.call, 0))
    kept_calls = ((call, calls.attempt) for calls in kept.chunks for call in calls.numbers())
    return sorted({call for call, attempt in kept_calls if latest.get(call, 0) < attempt})
