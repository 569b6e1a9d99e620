"""How calls have ended, by the signed headers of their outcomes: what no list of jobs says.

A job whose call raised is completed all the same. Few requests and few bytes: outcomes that are large are left alone.
What is not signed by the run's key is not believed, and nothing is unpickled.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..client.client import ProminenceClient
from ..errors import NotFoundError, OutcomeError, ProminenceError, ServiceError, ServiceUnavailableError
from ..payload.calls import Identity
from ..payload.outcomes import OutcomeFile, read_outcomes
from ..remote.wire import OUTCOME_MAGIC
from ..run import diagnosis
from ..run.keys import key_in
from ..run.names import CallRange
from ..transports.warm.mailboxes import outcomes_in
from .listing import JobInfo

LARGEST = 1 << 20  # bytes of an outcome that is read
LARGEST_OF_WORKERS = 1 << 24  # bytes of what a warm worker has printed, its calls' outcomes among them
FEW = 20  # jobs whose outcomes are read without having been asked for
TOGETHER = 50  # jobs that are described in one request: each costs the service 35 ms and more
_MESSAGE = 300  # characters


class WorkerChunk(NamedTuple):
    """What a warm worker has printed of a chunk: its calls, their outcomes, and their function, if it is known."""

    calls: CallRange
    outcomes: OutcomeFile
    function: str = ""


@dataclass(frozen=True)
class CallEnd:
    """How a call has ended.

    Attributes:
        kind: ``"result"``; ``"error"``: it raised; ``"lost"``: its job left no outcome of it.
        seconds: that it took, where that is known.
        message: what it raised, in one line, or why there is no outcome.
        streams: where in the output of its job its own part begins, in bytes of stdout and stderr, and where it ends;
            of a call that is lost with its whole job nobody says where it ends.
    """

    call: int
    kind: str
    job_id: int
    attempt: int = 1
    seconds: float | None = None
    message: str = ""
    streams: tuple[tuple[int, int], tuple[int, int] | None] | None = None


def call_ends(
    client: ProminenceClient, run_id: str, jobs: Iterable[JobInfo], most: int | None = FEW
) -> dict[int, list[CallEnd]]:
    """Return by job how its calls have ended: of the newest ``most`` of these jobs, or of all, that have ended.

    Of warm workers also while they run. Jobs whose outcomes are larger than a megabyte, or not signed by the run, are
    missing, and warm workers that have printed more than 16 MB, unless all are wanted. Blocks for a request for every
    fifty jobs, and one for each.

    Raises:
        ProminenceError: the service does not answer, or refuses.
        ValueError: a newer version has begun the run.
    """
    chosen = readable(jobs)
    chosen = chosen if most is None else chosen[max(0, len(chosen) - most) :]
    found: dict[int, list[CallEnd]] = {}
    for at in range(0, len(chosen), TOGETHER):
        some = {job.id: job for job in chosen[at : at + TOGETHER]}
        wanted = [job.id for job in some.values() if job.worker is None]
        wanted += [job.id for job in some.values() if job.worker is not None][:1]  # all have the same key
        described = client.list_jobs(ids=wanted, detail=True)
        key = next((key for job in described if (key := key_in(job, run_id)) is not None), None)
        for job in described:
            if some[job["id"]].worker is None and (ends := ends_of_job(client, run_id, job, some[job["id"]])):
                found[job["id"]] = ends
        for info in some.values():
            if info.worker is not None and key is not None:
                said = outcomes_of_worker(
                    client, run_id, info.id, key, LARGEST_OF_WORKERS if most is not None else None
                )
                if said is not None:
                    found[info.id] = [end for calls, file, _ in said for end in ends_in(file, calls, {"id": info.id})]
    return found


def readable(jobs: Iterable[JobInfo]) -> list[JobInfo]:
    """List those that may have left outcomes, the newest last."""
    begun = [job for job in jobs if job.started is not None]
    return [job for job in begun if job.worker is not None or (job.calls and not job.active)]


def ends_of_job(client: ProminenceClient, run_id: str, job: dict[str, Any], info: JobInfo) -> list[CallEnd]:
    """Return how the calls of a job have ended that is described in detail; of none where nobody knows."""
    if diagnosis.outcome_url(job) is None:
        why = _line(str(diagnosis.job_error(job)))
        return [CallEnd(number, "lost", info.id, info.attempt, message=why) for number in info.calls]
    calls = CallRange(info.calls.start, len(info.calls), info.attempt)
    outcomes = outcomes_of_job(client, run_id, job, calls)
    return [] if outcomes is None else list(ends_in(outcomes, calls, job))


def outcomes_of_job(client: ProminenceClient, run_id: str, job: dict[str, Any], calls: CallRange) -> OutcomeFile | None:
    """Read the outcomes of a job that is described in detail; None where they do not come, or are not the run's."""
    url, key = diagnosis.outcome_url(job), key_in(job, run_id)
    if url is None or key is None or diagnosis.outcome_size(job) > LARGEST:
        return None
    with suppress(ProminenceError, OutcomeError):
        content = client.download(url, limit=LARGEST)
        return read_outcomes(io.BytesIO(content), key, Identity(run_id, calls.first, calls.attempt))
    return None


def outcomes_of_worker(
    client: ProminenceClient, run_id: str, job_id: int, key: bytes, limit: int | None = LARGEST_OF_WORKERS
) -> list[WorkerChunk] | None:
    """Read what a warm worker has printed of the calls that it has run; one request. None: that is too much."""
    try:
        content = client.stdout(job_id, retry_for=0.0, limit=limit)
    except NotFoundError:
        return []
    except ServiceUnavailableError:
        raise
    except ServiceError:
        return None
    found = []
    for chunk, records in outcomes_in(content, key):
        calls = CallRange(chunk["job"], chunk["calls"], chunk["attempt"])
        with suppress(OutcomeError):
            identity = Identity(run_id, calls.first, calls.attempt)
            outcomes = read_outcomes(io.BytesIO(OUTCOME_MAGIC + records), key, identity)
            found.append(WorkerChunk(calls, outcomes, str(chunk.get("function") or "")))
    return found


def ends_in(outcomes: OutcomeFile, calls: CallRange, job: dict[str, Any]) -> Iterator[CallEnd]:
    """Say of each call how it has ended; ``job``: what is known of the job."""
    for position, number in enumerate(calls.numbers()):
        outcome, found = outcomes.calls.get(position), outcomes.streams(position, calls.size)
        streams = None if found is None else (_pair(found[0]), None if found[1] is None else _pair(found[1]))
        if outcome is None:
            why = str(diagnosis.call_error(outcomes, position, calls.first, job))
            yield CallEnd(number, "lost", job["id"], calls.attempt, message=_line(why), streams=streams)
        else:
            seconds, kind = outcome.header.get("seconds"), kind_of(outcome.kind)
            message = message_of(outcome.header) if kind == "error" else ""
            yield CallEnd(number, kind, job["id"], calls.attempt, seconds, message, streams)


def _pair(position: Sequence[int]) -> tuple[int, int]:
    return position[0], position[1]


def kind_of(record: str) -> str:
    """Return what the kind of a call's record says to people."""
    return "result" if record in ("result", "ranks") else "error"


def message_of(header: Mapping[str, Any]) -> str:
    """Return what a call has raised, in one line."""
    name, text = str(header.get("type") or header.get("kind") or ""), str(header.get("error") or "")
    return _line(f"{name}: {text}" if text else name)


def counted_ends(ends: Iterable[CallEnd]) -> Counter[str]:
    """Count calls by how their last attempt has ended."""
    last: dict[int, CallEnd] = {}
    for end in ends:
        if end.call not in last or end.attempt >= last[end.call].attempt:
            last[end.call] = end
    return Counter(end.kind for end in last.values())


def failures_in(ends: Sequence[CallEnd]) -> str:
    """Say which of a job's calls have failed, and how the first one did; "" where none has."""
    failed = [end for end in ends if end.kind != "result"]
    if not failed or len(ends) == 1:
        return failed[0].message if failed else ""
    listed = ", ".join(str(end.call) for end in failed[:5]) + (", ..." if len(failed) > 5 else "")
    return f"{len(failed)} of {len(ends)} calls failed ({listed}): {failed[0].message}"


def _line(text: str) -> str:
    return (text.splitlines() or [""])[0][:_MESSAGE]
