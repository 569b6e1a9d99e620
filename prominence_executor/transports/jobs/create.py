"""Creating a job, or a workflow, exactly once, by a service that has no idempotency key.

A POST whose answer was lost may have been carried out: what it would have made is looked up by its name, which is
unique, before it is repeated. `Attempts` decides, `create_once` does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...client.client import ProminenceClient
from ...errors import InvalidRequestError, NotFoundError, ServiceError, ServiceUnavailableError, TransferError
from ...run.chunk import Chunk
from ...run.context import RunContext
from .table import JobTable

LOOKUPS = (0.5, 3.0)  # seconds after an unanswered POST at which what it made is looked for
_REFUSALS = 3  # answers that say that the request is wrong, before that is believed
_UNKNOWN = "; nobody has ever answered there: is the URL right? service_timeout= says how long to wait all the same"
_LONGEST = 30.0  # seconds between two attempts


@dataclass
class Attempts:
    """What has come of the POSTs so far, and so what to do next.

    Attributes:
        in_doubt: one of them may have been carried out.
        patience: seconds for which the service may be away.
    """

    in_doubt: bool
    patience: float
    refusals: int = 0
    pause: float = 0.25  # seconds

    @property
    def refused(self) -> bool:
        """Whether the service has said often enough that the request is wrong."""
        return self.refusals >= _REFUSALS

    def after_refusal(self, mendable: bool) -> bool:
        """Return whether to try again after a POST that was refused; ``mendable``: the next one will be another."""
        self.refusals += 1
        return mendable and not self.refused

    def after_failure(self, error: ServiceError | TransferError, away: float) -> float | None:
        """Return the seconds to wait before the next attempt; None when the service has been away for too long.

        Args:
            away: seconds for which the service has not answered.
        """
        self.in_doubt = self.in_doubt or error.may_have_arrived
        self.refusals += error.is_server_fault  # it may be the request's own fault
        if away > self.patience:
            return None
        asked = min(error.retry_after or 0.0, _LONGEST, self.patience)  # whatever the service dictates
        left = max(self.patience - away, 0.1)  # a pause that has grown goes not far beyond the patience
        wait = asked or (0.0 if self.in_doubt else min(self.pause, left))
        self.pause = min(self.pause * 2, _LONGEST)
        return wait


class Unwanted(Exception):
    """Nobody wants what was to be created, and it does not exist."""


def create_once(
    context: RunContext,
    table: JobTable,
    chunks: list[Chunk],
    *,
    describe: Callable[[], dict[str, Any]],
    post: Callable[[dict[str, Any]], int],
    find: Callable[[], int | None],
    sending: Callable[[], None],
) -> int:
    """Create what runs these chunks; return its id. Blocks while the service is away, for as long as it may be.

    Where nobody wants them any more, it looks once more for what may have been created, and ends.

    Args:
        describe: makes its description, and uploads what that needs; called again when that is missing there.
        find: looks for what an unanswered POST has made.
        sending: called before each POST.

    Raises:
        Unwanted: nothing was created, and nobody wants it.
        ProminenceError: nothing was created, as far as is known.
    """
    attempts = Attempts(bool(table.in_doubt(chunks)), context.health.patience())
    description = None
    while True:
        unwanted = not table.are_wanted(chunks)  # so that this is the last attempt
        try:
            description = description or describe()
            if attempts.in_doubt and (found := find()) is not None:
                return found
            attempts.in_doubt = False
            if unwanted:
                raise Unwanted
            sending()
            created = post(description)
            context.health.answered()
            return created
        except InvalidRequestError as error:
            if not attempts.after_refusal(mendable=_was_purged(context, str(error))):
                raise
            description, wait = None, 0.0
        except (ServiceError, TransferError) as error:
            away = context.health.unanswered(error)
            attempts.patience = context.health.patience()
            next_in = attempts.after_failure(error, away)
            if attempts.in_doubt:
                table.doubt()
            nobody = unwanted or not (attempts.in_doubt or table.are_wanted(chunks))
            if attempts.refused or nobody or context.stopping.is_set():
                raise
            if next_in is None:
                hint = _UNKNOWN if context.health.is_unknown else ""
                raise ServiceUnavailableError(
                    f"run {context.run_id}: the service has not accepted the call, and not answered for "
                    f"{away:.0f} s: {error}{hint}"
                ) from error
            wait = next_in
        table.wait_while_wanted(chunks, wait)


def _was_purged(context: RunContext, refusal: str) -> bool:
    """Return whether the service has refused a job because an object is there no longer; it is uploaded again then."""
    parts = (context.objects, context.images, context.environments)
    return any(part.missing(refusal) for part in parts)


def find_job(context: RunContext, name: str) -> int | None:
    """Find the job that an unanswered POST made, if it did; a second one of the same name is deleted."""

    def jobs(client: ProminenceClient) -> list[dict[str, Any]]:
        return client.list_jobs(name=name, all=True)

    return _find(context, name, jobs, lambda client, twins: client.delete_jobs(twins))


def find_workflow(context: RunContext, name: str) -> int | None:
    """Find the workflow that an unanswered POST made, as `find_job` finds a job."""

    def workflows(client: ProminenceClient) -> list[dict[str, Any]]:
        return client.list_workflows(name=name, all=True)

    def delete(client: ProminenceClient, twins: list[int]) -> None:
        for twin in twins:
            with suppress(NotFoundError):
                client.delete_workflow(twin)

    return _find(context, name, workflows, delete)


def _find(
    context: RunContext,
    name: str,
    listed: Callable[[ProminenceClient], list[dict[str, Any]]],
    delete: Callable[[ProminenceClient, list[int]], None],
) -> int | None:
    for wait in LOOKUPS:
        context.stopping.wait(wait)
        ids = sorted({int(item["id"]) for item in listed(context.client) if item.get("name") == name})
        if ids[1:]:
            with suppress(NotFoundError):  # it has ended meanwhile
                delete(context.client, ids[1:])
        if ids:
            return ids[0]
    return None
