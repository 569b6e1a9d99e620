"""`RunContext`: what all parts of a run have in common, and none of them may replace."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from ..client.client import ProminenceClient
from .connection import Connection, ServiceHealth
from .environments import Environments
from .history import History
from .images import LocalImages
from .journal import Journal, NullJournal
from .lazy import Deferred
from .objects import Objects
from .uploads import UploadCache

LOG = logging.getLogger("prominence_executor")


@dataclass(frozen=True)
class RunContext:
    """A run's identity, and what it shares between its transports. Each part says itself what guards its state."""

    run_id: str
    key: bytes = field(repr=False)  # that its outcomes are signed with
    connection: Connection
    health: ServiceHealth
    journal: Journal | NullJournal
    objects: Objects
    images: LocalImages
    environments: Environments
    uploads: UploadCache
    lazy: bool  # large results stay at the service until they are asked for
    attached: bool  # it reads and cancels what another program has submitted
    stopping: threading.Event  # set when nothing more is to be waited for
    history: History
    log: logging.Logger = LOG
    lasts: bool = True  # the service outlives this program
    cancel_running: bool = False  # who cancels a call wants it ended, too, if it runs
    name: str | None = None  # what the user calls it; several runs may have the same
    deferred: Deferred = field(default_factory=lambda: Deferred(keeps=False))

    @property
    def client(self) -> ProminenceClient:
        """The run's client, which is closed when the run ends."""
        return self.connection.client

    def log_left(self, text: str, error: Exception) -> None:
        """Log that something may be left at the service; at INFO where an interrupted program has said so already.

        ``text``: with a place for the run's id and one for the error.
        """
        level = logging.INFO if self.connection.given_up else logging.WARNING
        self.log.log(level, text, self.run_id, error)


def new_context(
    connect: Callable[[], ProminenceClient],
    run_id: str,
    key: bytes,
    service_timeout: float,
    lazy: bool,
    journal: Journal | None,
    *,
    attached: bool,
    clock: Callable[[], float],
    lasts: bool = True,
    cancel_running: bool = False,
    name: str | None = None,
    revive: Callable[[], None] | None = None,
    patient: bool = False,
) -> RunContext:
    """Make the context of a run.

    Args:
        connect: makes a client.
        service_timeout: seconds for which the service may be away.
        clock: what measures them.
        revive: starts the service again.
        patient: it is also awaited for so long when it has never answered.
    """
    uploads = UploadCache()
    at_first = service_timeout if patient else None
    health = ServiceHealth(run_id, service_timeout, LOG, clock, lasts=lasts, revive=revive, at_first=at_first)
    return RunContext(
        run_id=run_id,
        key=key,
        connection=Connection(connect, health.patience),
        health=health,
        journal=journal or NullJournal(),
        objects=Objects(uploads),
        images=LocalImages(uploads),
        environments=Environments(uploads),
        uploads=uploads,
        history=History(run_id, LOG),
        deferred=Deferred(keeps=not (lazy or lasts)),
        lazy=lazy,
        attached=attached,
        lasts=lasts,
        cancel_running=cancel_running,
        name=name,
        stopping=threading.Event(),
    )
