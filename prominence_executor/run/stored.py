"""Large results at the service that other calls need: where they are, and what the jobs of those calls are told.

Only `told` asks the service, for addresses that may have expired until the job starts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from ..client.certificates import trust_elsewhere
from ..client.client import ProminenceClient
from ..errors import DependencyError
from ..payload.dependencies import StoredResult, head_of
from ..payload.outcomes import Outcome
from ..remote.wire import LARGE_RESULT, PREFIX
from . import diagnosis
from .context import RunContext
from .future import ProminenceFuture, stored_result

_FRESH = 3600.0  # seconds for which an address is passed on; it is good for seven days, in which the job has to start


def reference_to(
    context: RunContext, call: ProminenceFuture[Any], outcome: Outcome, job_id: int | None, url: str | None
) -> StoredResult | None:
    """Say where a call's result is, if it is one that need not travel through this program to those who need it.

    ``url``: the signed one of the outcome file, which the service has given just now.
    """
    header = outcome.header
    if outcome.kind != "result" or job_id is None or header["size"] <= LARGE_RESULT or "modules" not in header:
        return None
    return StoredResult(
        service=context.client.url,
        run=context.run_id,
        key=context.key,
        call=call.index,
        job_id=job_id,
        offset=outcome.offset - PREFIX.size,
        size=outcome.end - outcome.offset + PREFIX.size,
        sha256=header["sha256"],
        head=head_of(header),
        modules=frozenset(header["modules"]),
        url=url or "",
        url_since=time.time() if url else 0.0,
    )


def stored_at(service: str, future: Future[Any]) -> StoredResult | None:
    """Return where the result of a future that is done lies at this service; None if it has to be taken from here."""
    stored = stored_result(future) if isinstance(future, ProminenceFuture) else None
    return stored if stored is not None and stored.service == service else None


def told(context: RunContext, results: Iterable[StoredResult]) -> dict[str, Any]:
    """Return what jobs are told of the results that they fetch, by digest. Blocks for a request at most.

    Raises:
        DependencyError: the service does not have one any more.
        ProminenceError: the service does not answer.
    """
    wanted = {item.sha256: item for item in results}
    addresses = _addresses(context.client, wanted.values()) if wanted else {}
    return {
        sha256: {
            "name": f"pxresult-{sha256[:32]}",
            "url": addresses[sha256],
            "id": item.job_id,
            "run": item.run,
            "offset": item.offset,
            "size": item.size,
            "head": item.head,
            "what": _what(context.run_id, item),
        }
        for sha256, item in wanted.items()
    }


def how_to_fetch(context: RunContext, results: Iterable[StoredResult]) -> dict[str, Any]:
    """Return what tells jobs how to fetch: the keys of other runs, and which certificates this program trusts."""
    extras: dict[str, Any] = {}
    if keys := {item.run: item.key.hex() for item in results if item.run != context.run_id}:
        extras["keys"] = keys
    if context.client.url.startswith("https:") and (tls := trust_elsewhere(context.client.api.verify)):
        extras["tls"] = tls
    return extras


def _addresses(client: ProminenceClient, results: Iterable[StoredResult]) -> dict[str, str]:
    """Return signed addresses by digest: those that are known if they are fresh, else what the service says now."""
    now = time.time()
    results = list(results)
    found = {item.sha256: item.url for item in results if item.url and 0 <= now - item.url_since < _FRESH}
    old = [item for item in results if item.sha256 not in found]
    ids = sorted({item.job_id for item in old})
    jobs = {job["id"]: job for job in client.list_jobs(ids=ids, detail=True)} if ids else {}
    for item in old:
        url = diagnosis.outcome_url(jobs.get(item.job_id, {}))
        if url is None:
            raise DependencyError(
                f"the result of call {item.call} of run {item.run}, which the call was to have, is not at the service "
                f"any more (job {item.job_id})",
                item.call,
            )
        found[item.sha256] = url
    return found


def _what(run_id: str, item: StoredResult) -> str:
    run = "" if item.run == run_id else f" {item.run}"
    return f"the result of call {item.call} of the run{run}, of job {item.job_id},"
