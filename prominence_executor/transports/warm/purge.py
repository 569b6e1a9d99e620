"""Ending the warm workers of a run, and removing mailboxes that nobody reads any more. It blocks; no threads."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress

from ...client.client import ProminenceClient
from ...client.status import ENDED, has_ended
from ...errors import NotFoundError
from ...run.options import RUN_LABEL, WORKER_LABEL
from .mailboxes import ALL_MAILBOXES, mailboxes, run_of_mailbox


def remove_workers(client: ProminenceClient, run_id: str, ids: Collection[int] | None = None) -> None:
    """End all warm workers of a run, and remove their mailboxes.

    ``ids``: those of their jobs; None when only the service knows them.
    """
    if ids is None:
        ids = [job["id"] for job in client.list_jobs(constraint=(WORKER_LABEL, run_id)) if not has_ended(job)]
    if ids:
        with suppress(NotFoundError):  # they have ended meanwhile
            client.delete_jobs(ids)
    client.kv_delete(mailboxes(run_id), prefix=True)


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
