"""Deleting what executors have stored at the service, and no run needs any more. It blocks, and has no threads."""

from __future__ import annotations

from ..run import objects
from ..run.context import RunContext
from ..transports.warm.purge import purge_mailboxes


def purge(context: RunContext, older_than: float, images: bool) -> list[str]:
    """Delete objects and mailboxes of this user's runs that are as old; see `ProminenceExecutor.purge`."""
    spare = context.objects.names() | context.images.names() | context.environments.names()
    names = objects.purge(context.client, older_than, spare, images)
    return names + purge_mailboxes(context.client, older_than, spare=context.run_id, log=context.log)
