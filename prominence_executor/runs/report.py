"""`report_of`: the report of a run that another program has begun, by what the service and its journal tell.

It makes few requests, whatever the number of jobs: one list in the short form, which has the times of all jobs; one
detailed one of some of them; the outcomes of a few of those, and of a few warm workers, verified before anything of
them is believed. What those tell of the inside of jobs is taken for all.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..client.client import ProminenceClient
from ..client.status import has_ended, is_held
from ..errors import RunNotFoundError
from ..payload.outcomes import Outcome, OutcomeFile
from ..public import public
from ..reports.report import Report, make_report
from ..run import diagnosis
from ..run.chunk import HELD
from ..run.history import Seen
from ..run.keys import key_in
from ..run.names import COURIER, MOST_CALLS, CallRange, function_in, function_word, parse_job_name, parse_worker_name
from ..run.options import RUN_LABEL
from ..run.phases import ON_SLOT, JobSeen, Sums, phases_of, seen_of
from .journals import JournalKept, kept_in_journal
from .outcomes import FEW, LARGEST, kind_of, outcomes_of_job, outcomes_of_worker

IN_DETAIL = 100  # jobs that are described in detail
_LONG = 10_000  # calls of a job beyond which none is looked for in others: a name may say anything
_GONE = ("killed", "deleted")  # jobs that leave no outcomes
_PARTS = ("image", "stage_in", "task", "stage_out")


@public
def report_of(
    client: ProminenceClient, run: str, *, journal: str | os.PathLike[str] | None = None, sample: int = IN_DETAIL
) -> Report:
    """Report where the time of a run went, from any program, while it goes on or after its end.

    What happened at the program that began the run (its waiting, uploads and downloads) the service cannot tell;
    `ProminenceExecutor.report` can, there. Blocks for two requests, and for one for each of at most 20 outcomes; of a
    run with warm workers for one more, and one for each of at most 20 of these.

    Args:
        run: the run's id.
        journal: the file that the run was begun with, if it is here: it has what the service has not accepted.
        sample: jobs that are described in detail; the inside of the others is estimated. 0: of none.

    Raises:
        RunNotFoundError: the service has no jobs of such a run, nor has the journal.
        ServiceUnavailableError: the service does not answer.
        ValueError: the journal is another run's, or a newer version has begun the run.
    """
    kept = JournalKept() if journal is None else kept_in_journal(journal, run)
    notes, unsent = [kept.note] * bool(kept.note), len(kept.chunks)
    listed = [job for job in client.list_jobs(constraint=(RUN_LABEL, run), all=True) if _calls_of(run, job) is not None]
    if not listed and not unsent:
        raise RunNotFoundError(f"the service has no jobs of a run {run!r}")
    ended = [job for job in listed if has_ended(job) and not _is_worker(run, job)]
    chosen = [int(job["id"]) for job in _spread(ended, sample)]
    details = {job["id"]: job for job in client.list_jobs(ids=chosen, detail=True)} if chosen else {}
    read = _with_outcomes(client, run, details)
    jobs = _repeated(
        [read.get(job["id"]) or _seen(run, details.get(job["id"], job)) for job in ended],
        [calls for job in listed if (calls := parse_job_name(run, str(job.get("name") or ""))) is not None],
    )
    if 0 < len(details) < len(ended):
        notes.append(f"{len(details)} of {len(ended)} jobs were described in detail, and stand for the others")
    if 0 < len(read) < len(ended):
        notes.append(
            f"the outcomes of {len(read)} jobs were read: those alone tell of failed calls, and of their share"
        )
    notes.append("the service does not tell what happened at the program that began the run")
    workers = _workers(client, run, [job for job in listed if _is_worker(run, job)], sample)
    if silent := sum(worker.calls is None for worker in workers):
        notes.append(f"which calls {silent} of {len(workers)} warm workers have run was not asked, or not told")
    seen = Seen(tuple(completed(jobs)), tuple(workers), Sums(), 0.0)
    running = [_running(run, job) for job in listed if not has_ended(job) and not _is_worker(run, job)]
    whole = all(job["id"] in read or job.get("status") in _GONE for job in ended)
    return make_report(run, seen, running, unsent=unsent, notes=notes, failures_known=whole)


def _calls_of(run: str, job: Mapping[str, Any]) -> CallRange | None:
    """Return the calls of a job of the run, or the number of a worker; None of what is none."""
    name = str(job.get("name") or "")
    worker = parse_worker_name(run, name)
    calls = parse_job_name(run, name) if worker is None else CallRange(worker, 0, 1)
    return calls if calls is not None and calls.first + calls.size <= MOST_CALLS else None


def _is_worker(run: str, job: Mapping[str, Any]) -> bool:
    return parse_worker_name(run, str(job.get("name") or "")) is not None


def _seen(run: str, job: Mapping[str, Any]) -> JobSeen:
    calls = _calls_of(run, job)
    assert calls is not None  # noqa: S101  others have been left out
    tasks = job.get("tasks")
    command = tasks[0].get("cmd") if isinstance(tasks, list) and tasks and isinstance(tasks[0], dict) else ""
    seen = replace(seen_of(job, calls), function=function_in(str(command or "")))
    return replace(seen, failed=seen.size) if seen.status in _GONE else seen


def _repeated(jobs: Sequence[JobSeen], known: Sequence[CallRange]) -> list[JobSeen]:
    """Note how many calls of each job have had another one; ``known``: the calls of all jobs."""
    again = [calls for calls in known if calls.attempt > 1 and calls.size <= _LONG]
    later = {(number, calls.attempt - 1) for calls in again for number in calls.numbers()}
    if not later:
        return list(jobs)
    counts = [sum((job.first + at, job.attempt) in later for at in range(min(job.size, _LONG))) for job in jobs]
    return [
        replace(job, again=count, failed=max(0, job.failed - count)) for job, count in zip(jobs, counts, strict=True)
    ]


def _running(run: str, job: Mapping[str, Any]) -> JobSeen:
    seen = _seen(run, job)
    return replace(seen, status=HELD, ended=None) if is_held(job) else seen


def _workers(client: ProminenceClient, run: str, listed: Sequence[Mapping[str, Any]], sample: int) -> list[JobSeen]:
    """Return the warm workers, some of them with what they have printed of the calls that they ran."""
    listed = [job for job in listed if parse_worker_name(run, str(job.get("name") or "")) != COURIER]
    begun = [job for job in listed if _seen(run, job).started is not None]
    chosen = {int(job["id"]) for job in _spread(begun, min(sample, FEW))}
    key = None
    if chosen:
        key = next((key_in(job, run) for job in client.list_jobs(ids=[min(chosen)], detail=True)), None)
    asked = {number: outcomes_of_worker(client, run, number, key) for number in chosen} if key is not None else {}
    said = {number: files for number, files in asked.items() if files is not None}
    again = {
        (number, calls.attempt - 1) for files in said.values() for calls, _, _ in files for number in calls.numbers()
    }
    found = []
    for job in listed:
        worker, number = _worker(run, job), int(job["id"])
        if number in said:
            seconds, failed = _seconds([call for _, file, _ in said[number] for call in file.calls.values()])
            ran = [(call, calls.attempt) for calls, _, _ in said[number] for call in calls.numbers()]
            size = len(ran) - len(again.intersection(ran))
            lost = max(0, size - sum(len(file.calls) for _, file, _ in said[number]))
            longest = max(seconds, default=0.0)
            function = function_word(chunk.function for chunk in said[number])
            worker = replace(
                worker, size=size, failed=failed + lost, calls=sum(seconds), longest=longest, function=function
            )
        found.append(worker)
    return found


def _worker(run: str, job: Mapping[str, Any]) -> JobSeen:
    """Return a warm worker, as a list shows it."""
    seen = replace(_seen(run, job), failed=0, function="")
    until = seen.ended if seen.ended is not None or seen.started is None else time.time()
    status = "completed" if seen.status == "deleted" else seen.status  # as its program ends it
    return replace(seen, is_worker=True, status=status, ended=until)


def _spread(jobs: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """Choose jobs of the whole run, the same ones each time; by chance, since what repeats in a run would deceive."""
    ordered = sorted(jobs, key=lambda job: int(job["id"]))
    if len(ordered) <= most:
        return ordered
    chosen = random.Random(len(ordered)).sample(range(len(ordered)), most)  # noqa: S311  nothing secret
    return [ordered[at] for at in sorted(chosen)]


def _with_outcomes(client: ProminenceClient, run: str, details: Mapping[int, Mapping[str, Any]]) -> dict[int, JobSeen]:
    """Read the outcomes of some jobs; those that do not come, or are not signed by the run, say nothing."""
    good = [
        job
        for job in details.values()
        if diagnosis.outcome_url(dict(job)) is not None and diagnosis.outcome_size(dict(job)) <= LARGEST
    ]
    found = {}
    for job in _spread(good, FEW):
        seen = _seen(run, job)
        outcomes = outcomes_of_job(client, run, dict(job), CallRange(seen.first, seen.size, seen.attempt))
        if outcomes is not None:
            found[int(job["id"])] = _with_outcome(seen, outcomes)
    return found


def _with_outcome(seen: JobSeen, outcomes: OutcomeFile) -> JobSeen:
    """Return a job with what its outcomes say; of calls that have none, nobody knows how long they took."""
    seconds, failed = _seconds(outcomes.calls.values())
    missing = seen.size - len(outcomes.calls)
    calls, longest = (sum(seconds), max(seconds)) if seconds else (None, None)
    return replace(seen, failed=failed + missing, lost=missing, calls=calls, longest=longest)


def _seconds(outcomes: Collection[Outcome]) -> tuple[list[float], int]:
    """Return how long calls took, and how many have failed."""
    said = [outcome.header.get("seconds") for outcome in outcomes]
    failed = sum(kind_of(outcome.kind) != "result" for outcome in outcomes)
    return [float(second) for second in said if isinstance(second, (int, float))], failed


def completed(jobs: Sequence[JobSeen]) -> list[JobSeen]:
    """Fill in, for jobs whose inside is not known, what it is on average where it is.

    The times of the service are fractions inside of jobs and whole seconds around them, so those of very short jobs
    are estimated by their means, those of the others by their shares.
    """
    detailed = [job for job in jobs if job.task is not None]
    read = [job for job in detailed if job.calls is not None]
    of_tasks = sum(job.task or 0.0 for job in read)
    share = sum(min(job.calls or 0.0, job.task or 0.0) for job in read) / of_tasks if of_tasks else None
    spans = sum(phases_of(job)[name] for job in detailed for name in ON_SLOT)
    typical = {name: sum(getattr(job, name) or 0.0 for job in detailed) for name in _PARTS}
    cpus = [job.cpus for job in detailed if job.cpus is not None]
    walltimes = [job.walltime for job in detailed if job.walltime is not None]
    filled = []
    for job in jobs:
        if job.task is None and job.started is not None and job.ended is not None and detailed:
            mean = spans / len(detailed)
            span = job.ended - job.started
            span = mean if abs(span - mean) < 1.0 else span
            known = {name: seconds * span / spans if spans else 0.0 for name, seconds in typical.items()}
            asked = {"cpus": job.cpus or _middle(cpus), "walltime": job.walltime or _middle(walltimes)}
            job = replace(job, **known, **asked)  # type: ignore[arg-type]
        is_told = job.status == "completed" and not job.lost
        if job.calls is None and job.task is not None and share is not None and is_told:
            job = replace(job, calls=job.task * share)
        filled.append(job)
    return filled


def _middle(values: Iterable[float]) -> Any:
    found = sorted(values)
    return found[len(found) // 2] if found else None
