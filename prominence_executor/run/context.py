"""`RunContext`: what all parts of a run have in common, and none of them may replace."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from ..client.client import ProminenceClient
from .connection import Connection, ServiceHealth
from .images import LocalImages
from .journal import Journal, NullJournal
from .objects import Objects
from .uploads import UploadCache

LOG = logging.getLogger("prominence_executor")


@dataclass(frozen=True)
class RunContext:
    """A run's identity, and what it shares between its transports. Each part says itself what guards its state."""

    run_id: str
    key: bytes  # that its outcomes are signed with
    connection: Connection
    health: ServiceHealth
    journal: Journal | NullJournal
    objects: Objects
    images: LocalImages
    uploads: UploadCache
    lazy: bool  # large results stay at the service until they are asked for
    attached: bool  # it reads and cancels what another program has submitted
    stopping: threading.Event  # set when nothing more is to be waited for
    log: logging.Logger = LOG

    @property
    def client(self) -> ProminenceClient:
        """The run's client, which is closed when the run ends."""
        return self.connection.client
