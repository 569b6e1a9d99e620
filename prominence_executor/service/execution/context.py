"""What the rooms of one service share: its state, its objects, its keys and where its jobs run. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..containers.base import Containers
from ..engines.local import LocalEngine
from ..state.clock import Clock
from ..state.objects import ObjectStore
from ..state.store import Store
from ..state.tokens import Identity, Signer
from .logs import node_log
from .vital import VitalThreads


@dataclass(frozen=True)
class ServiceContext:
    """One running service."""

    directory: Path
    store: Store
    objects: ObjectStore
    signer: Signer
    url: str
    engine: LocalEngine
    containers: Containers
    seconds_per_minute: float
    clock: Clock
    vital: VitalThreads = field(default_factory=VitalThreads)

    def identify(self, authorization: str | None) -> Identity | None:
        """Return whom an Authorization header speaks for; a job's token ends with its job."""
        identity = self.signer.identify(authorization)
        if identity is not None and identity.job is not None:
            row = self.store.job(identity.job)
            if row is None or row["ended"] is not None:
                return None
        return identity

    def log_file(self, job: int, stream: str, node: int = 0) -> Path:
        """Return where a log of a job lies; the stream is `out` or `err`."""
        return node_log(self.directory / "logs" / f"{job}.{stream}", node)
