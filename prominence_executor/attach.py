"""Finds a run again that another program began: by the label and the names of its jobs, and by its journal.

It asks the service a few questions once and then is done; looking after what was found is the run's own business.
"""

from __future__ import annotations

import base64
import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .chunk import RUN_LABEL, Chunk, Options, parse_name
from .errors import NotSubmittedError, RunExistsError, RunNotFoundError
from .futures import ProminenceFuture
from .payload import JOB_FILE

if TYPE_CHECKING:
    from .client import ProminenceClient
    from .journal import Journal, Kept
    from .run import Run

_RECENT = 60.0  # seconds, enough for two clocks that differ a little
_ON_THE_WAY = 1.5  # seconds that a request may take which a program sent before it was killed

Calls = tuple[int, int, int]  # first, size, attempt: see chunk.py


@dataclass
class Found:
    """What is left of a run: its key, and its jobs by the calls that they run."""

    run_id: str
    key: bytes
    jobs: dict[Calls, dict[str, Any]]
    job_ids: set[int]

    def adopt(self, run: Run, journal: Journal | None, complete: bool) -> list[ProminenceFuture[Any]]:
        """Hand everything to a run that has not started; returns the futures of all calls, in their order.

        A call's last attempt counts. A call below the highest one known of which there is no trace was not submitted.
        ``complete``: there can be none behind that one.
        """
        unsent: dict[Calls, Kept] = {}
        for item in journal.kept() if journal else ():
            calls = parse_name(self.run_id, item.name)
            if calls in self.jobs and journal:
                journal.remove(item.name)  # the program ended before it heard that the service had accepted it
            elif calls:
                unsent[calls] = item
        every = [*self.jobs, *unsent]
        count = max([first + size for first, size, _ in every] + [journal.next_call if journal else 0])
        last: dict[int, int] = {}  # attempt by call
        for first, size, attempt in every:
            for index in range(first, first + size):
                last[index] = max(attempt, last.get(index, 0))
        futures: list[ProminenceFuture[Any]] = [ProminenceFuture(index) for index in range(count)]
        superseded: ProminenceFuture[Any] = ProminenceFuture()
        superseded.cancel()
        chunks = []
        for calls in sorted(every):
            first, size, attempt = calls
            mine = [futures[n] if last[n] == attempt else superseded for n in range(first, first + size)]
            if all(future is superseded for future in mine):
                continue
            if calls in unsent:
                item = unsent[calls]
                chunk = Chunk(run, first, mine, item.options, item.payload, attempt, in_doubt=item.sending)
            else:
                job = self.jobs[calls]
                chunk = Chunk(run, first, mine, Options(), None, attempt, job_id=job["id"])
                chunk.saw(job["status"])
            chunks.append(chunk)
        missing = [future for future in futures if future._index not in last]
        for future in missing:
            text = f"call {future._index} of run {self.run_id} never reached the service, or was cancelled before"
            future._settle(False, NotSubmittedError(text))
        report = [f"{count} calls"]
        if missing:
            report.append(f"{len(missing)} of them were not submitted")
        if unsent:
            report.append(f"{sum(size for _, size, _ in unsent)} of them are submitted now")
        if not complete:
            report.append(f"whether there were more behind number {count - 1}, only a journal knows")
        level = logging.INFO if complete and not missing else logging.WARNING
        run.log.log(level, "run %s: %s", self.run_id, "; ".join(report))
        run.adopt(chunks, self.job_ids, count)
        return futures


def find(client: ProminenceClient, run_id: str, journal: Journal | None) -> Found:
    """Find the jobs of a run, active and ended, and its key: two or three requests.

    When the run was submitting a moment ago, its last requests may still be on their way, and a job that has just ended
    may be missing from one answer: this waits and looks again.

    Raises:
        RunNotFoundError: there is no such run.
    """
    jobs: dict[Calls, dict[str, Any]] = {}
    listed = _ours(client, run_id)
    newest = max(((job.get("events") or {}).get("createTime", 0) for job in listed), default=time.time())
    if newest > time.time() - _RECENT:
        time.sleep(_ON_THE_WAY)
        listed = list({job["id"]: job for job in [*listed, *_ours(client, run_id)]}.values())
    # Of two jobs of one attempt the later has been, or will be, deleted.
    for job in sorted(listed, key=lambda job: (job["status"] == "deleted", job["id"]), reverse=True):
        calls = parse_name(run_id, job["name"])
        if calls is not None:
            jobs[calls] = job
    if journal is None and not jobs:
        raise RunNotFoundError(f"the service has no jobs of a run {run_id!r}")
    key = journal.key if journal else _key_of(client, run_id, [job["id"] for job in jobs.values()])
    return Found(run_id, key, jobs, {job["id"] for job in listed})


def _ours(client: ProminenceClient, run_id: str) -> list[dict[str, Any]]:
    return [job for job in list_run(client, run_id) if parse_name(run_id, str(job.get("name") or ""))]


def list_run(client: ProminenceClient, run_id: str) -> list[dict[str, Any]]:
    """All jobs that carry the run's label, active and ended: one request."""
    return client.list_jobs(constraint=(RUN_LABEL, run_id), all=True)


def check_new(client: ProminenceClient, run_id: str) -> None:
    """Raise RunExistsError when the service has jobs of a run of this id."""
    jobs = list_run(client, run_id)
    if jobs:
        raise RunExistsError(
            f"run {run_id!r} exists: the service has {len(jobs)} jobs of it. "
            f"ProminenceExecutor.attach({run_id!r}) continues it; a new run needs another id"
        )


def _key_of(client: ProminenceClient, run_id: str, job_ids: list[int]) -> bytes:
    """The key stands in the description of each of the run's jobs."""
    for job_id in job_ids[:3]:
        for job in client.list_jobs(ids=[job_id], detail=True):
            for item in job.get("inputs") or ():
                if item.get("filename") == JOB_FILE:
                    instructions = json.loads(base64.b64decode(item["content"]))
                    if instructions["run"] == run_id:
                        return bytes.fromhex(instructions["key"])
    raise RunNotFoundError(f"the jobs that carry the label of run {run_id!r} are not an executor's")
