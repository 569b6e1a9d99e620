"""Ending the warm workers of a run, and removing mailboxes that nobody reads any more. It blocks; no threads."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from ...client.client import ProminenceClient
from ...client.status import ENDED, has_ended
from ...errors import NotFoundError
from ...run.chunk import YOUNG
from ...run.options import RUN_LABEL, WORKER_LABEL
from .mailboxes import ALL_MAILBOXES, mailboxes, run_of_mailbox

_LOOK = 0.2  # seconds between two looks at whether young workers have ended


def remove_workers(
    client: ProminenceClient, run_id: str, ids: Collection[int] | None = None, young: Collection[int] = ()
) -> None:
    """End all warm workers of a run, and remove their mailboxes.

    Args:
        ids: those of their jobs; None when only the service knows them.
        young: those of jobs that have just begun, if they run at all; they may end by themselves, or a moment later.
    """

    def active() -> dict[int, dict[str, Any]]:
        listed = client.list_jobs(constraint=(WORKER_LABEL, run_id))
        return {job["id"]: job for job in listed if not has_ended(job)}

    running: set[int] = set()
    if ids is None or young:
        jobs = active()
        ids = jobs if ids is None else ids
        running = {job_id for job_id, job in jobs.items() if _has_just_begun(job, job_id in young)}
    _delete(client, set(ids) - running)
    deadline = time.monotonic() + YOUNG
    while running and time.monotonic() < deadline:
        time.sleep(_LOOK)
        running &= active().keys()
    _delete(client, running)
    client.kv_delete(mailboxes(run_id), prefix=True)


def _has_just_begun(job: dict[str, Any], is_young: bool) -> bool:
    if job["status"] != "running":
        return False
    began = (job.get("events") or {}).get("startTime")
    return is_young or (isinstance(began, int) and abs(time.time() - began) < 2 * YOUNG)


def _delete(client: ProminenceClient, ids: Collection[int]) -> None:
    if ids:
        with suppress(NotFoundError):  # they have ended meanwhile
            client.delete_jobs(sorted(ids))


def purge_mailboxes(client: ProminenceClient, older_than: float, spare: str) -> list[str]:
    """Remove the mailboxes of runs, but for one, that have no active job, and whose workers ended so many seconds ago.

    Returns what the keys of each began with.
    """
    runs = {run_of_mailbox(key) for key in client.kv_list(ALL_MAILBOXES)} - {None, spare}
    removed = []
    for run_id in sorted(run for run in runs if run):
        if not all(has_ended(job) for job in client.list_jobs(constraint=(RUN_LABEL, run_id))):
            continue
        workers = client.list_jobs(constraint=(WORKER_LABEL, run_id), all=True)
        ended = [float((job.get("events") or {}).get("endTime") or time.time()) for job in workers]
        if any(job["status"] not in ENDED for job in workers) or max(ended, default=0.0) > time.time() - older_than:
            continue
        client.kv_delete(mailboxes(run_id), prefix=True)
        removed.append(mailboxes(run_id))
    return removed
