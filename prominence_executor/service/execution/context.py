"""What the rooms of one service share: its state, its objects, its keys and where its jobs run. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..containers.base import Containers
from ..engines.base import Engine
from ..node.logs import node_log
from ..node.platform import Platform
from ..state.clock import Clock
from ..state.objects import ObjectStore
from ..state.store import Store
from ..state.tokens import Signer
from ..state.vital import VitalThreads


@dataclass(frozen=True)
class ServiceContext:
    """One running service."""

    directory: Path
    store: Store
    objects: ObjectStore
    signer: Signer
    url: str
    engine: Engine
    containers: Containers
    seconds_per_minute: float
    platform: Platform
    clock: Clock
    url_for_jobs: str
    vital: VitalThreads
    only_user: str | None = None  # None: any user whom a token of this service names
    cafile: Path | None = None  # the authority behind the service's certificate, if no public one

    def is_open(self, job: int) -> bool:
        """Return whether there is such a job that has not ended: its token is good for so long."""
        row = self.store.job(job)
        return row is not None and row["ended"] is None

    def log_file(self, job: int, stream: str, node: int = 0) -> Path:
        """Return where a log of a job lies; the stream is `out` or `err`."""
        return node_log(self.directory / "logs" / f"{job}.{stream}", node)
