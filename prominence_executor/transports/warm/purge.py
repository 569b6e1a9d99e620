"""Ending the warm workers of a run, and removing what nobody reads any more: mailboxes, and large messages.

It blocks; no threads.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from ...client.client import ProminenceClient
from ...client.request_parts import object_path
from ...client.responses import read_keys
from ...client.status import ENDED, has_ended
from ...errors import NotFoundError, ServiceUnavailableError
from ...run.chunk import YOUNG
from ...run.names import COURIER, worker_name
from ...run.options import RUN_LABEL, WORKER_LABEL
from .mailboxes import ALL_MAILBOXES, mailboxes, run_of_mailbox
from .places import empty_places

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


def purge_mailboxes(client: ProminenceClient, older_than: float, spare: str, log: logging.Logger) -> list[str]:
    """Remove the mailboxes of runs, but for one, that have no active job, and whose workers ended so many seconds ago.

    What they have left of large messages is emptied before.

    The service lists nothing where there is too much: then those runs are looked at whose jobs it knows, and ``log``
    has a warning of what could not be looked at. Returns what the keys of each began with.
    """
    whole = _runs_below(client, ALL_MAILBOXES)
    runs = _runs_with_workers(client) if whole is None else whole
    removed = []
    for run_id in sorted(runs - {spare}):
        if not all(has_ended(job) for job in client.list_jobs(constraint=(RUN_LABEL, run_id))):
            continue
        workers = client.list_jobs(constraint=(WORKER_LABEL, run_id), all=True)
        ended = [float((job.get("events") or {}).get("endTime") or time.time()) for job in workers]
        if any(job["status"] not in ENDED for job in workers) or max(ended, default=0.0) > time.time() - older_than:
            continue
        for job in workers:
            if job["name"] == worker_name(run_id, COURIER):
                empty_places(client, run_id, job["id"])
        client.kv_delete(mailboxes(run_id), prefix=True)
        removed.append(mailboxes(run_id))
    if whole is None and _runs_below(client, ALL_MAILBOXES) is None:
        log.warning(
            "the service cannot list the keys below %s/, which are too many: mailboxes of runs that go on were kept, "
            "and of runs whose jobs it knows no more, none could be found",
            ALL_MAILBOXES,
        )
    return removed


def _runs_below(client: ProminenceClient, prefix: str) -> set[str] | None:
    """Find the runs that have mailboxes below a prefix; None: there is more than the service can list."""
    path = "/kv" + object_path(prefix, "prefix")
    try:  # once: no time heals it, though the service says the same when its store is away
        keys = client.api.call("GET", path, read_keys, params={"list": "true"}, repeat=False)
    except ServiceUnavailableError as error:
        if error.status_code != 400:
            raise
        return None
    return {run_id for key in keys if (run_id := run_of_mailbox(key))}


def _runs_with_workers(client: ProminenceClient) -> set[str]:
    """Find the runs that have mailboxes among those whose workers' jobs the service knows, active or not."""
    names = (str(job.get("name")) for job in client.list_jobs(all=True))
    known = {match[1] for name in names if (match := re.fullmatch(r"(.+)\.w[0-9]+", name))}
    return {run_id for run_id in known if _runs_below(client, mailboxes(run_id)) != set()}
