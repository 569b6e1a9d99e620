"""What the rooms of one service share: its state, its objects, its keys and its slots. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..containers.base import Containers
from ..state.objects import ObjectStore
from ..state.store import Store
from ..state.tokens import Signer


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

    def log_file(self, job: int, stream: str, node: int = 0) -> Path:
        return node_log(self.directory / "logs" / f"{job}.{stream}", node)


def node_log(first: Path, node: int) -> Path:
    """Where a node's log lies, beside that of the first node."""
    return first.with_name(f"{first.name}.{node}") if node else first
