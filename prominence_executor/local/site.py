"""What the rooms of one service share: its state, its objects, its keys and its slots. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .containers import Containers
from .objects import ObjectStore
from .store import Store
from .tokens import Signer


@dataclass(frozen=True)
class Site:
    """One service on this machine."""

    directory: Path
    store: Store
    objects: ObjectStore
    signer: Signer
    url: str
    cpus: int
    memory: int
    seconds_per_minute: float
    containers: Containers

    def log_file(self, job: int, stream: str) -> Path:
        return self.directory / "logs" / f"{job}.{stream}"
