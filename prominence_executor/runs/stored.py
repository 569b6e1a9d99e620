"""Deleting what executors have stored at the service, and no run needs any more, without an executor."""

from __future__ import annotations

import logging

from ..client.client import ProminenceClient
from ..run import objects
from ..transports.warm.purge import purge_mailboxes


def purge_stored(client: ProminenceClient, older_than: float, *, images: bool = False) -> list[str]:
    """Delete what is older than so many seconds and is used by no active job; see `ProminenceExecutor.purge`.

    A program of this user's that is about to send jobs may have uploaded what they need a moment ago: an age of an hour
    or more spares that. Returns the names of all that was deleted.

    Raises:
        ValueError: ``older_than`` is negative.
        ProminenceError: the service does not answer, or refuses.
    """
    if older_than < 0:
        raise ValueError(f"older_than must be 0 seconds or more, not {older_than!r}")
    names = objects.purge(client, older_than, set(), images)
    return names + purge_mailboxes(client, older_than, spare="", log=logging.getLogger("prominence_executor"))
