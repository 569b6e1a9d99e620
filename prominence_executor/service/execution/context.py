"""What the rooms of one service share: its state, its objects, its keys and where its jobs run. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..containers.base import Containers
from ..engines.local import LocalEngine
from ..state.objects import ObjectStore
from ..state.store import Store
from ..state.tokens import Signer
from .logs import node_log


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
    url_for_jobs: str

    def log_file(self, job: int, stream: str, node: int = 0) -> Path:
        """Return where a log of a job lies; the stream is `out` or `err`."""
        return node_log(self.directory / "logs" / f"{job}.{stream}", node)
