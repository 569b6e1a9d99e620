"""What requests cost on the real platform, where the service is to behave so: they take their time, a few at once."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable
from typing import Any

from ..node.platform import Platform
from ..state.store import Store


class RequestCosts:
    """Its methods block, and may be called from any thread; they cost nothing unless that is wanted."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._at_once = threading.Semaphore(platform.requests_at_once)

    def create(self) -> None:
        """Take as long as a request that creates a job, or a workflow."""
        self._take(self._platform.create_seconds)

    def describe(self, store: Store, rows: Iterable[sqlite3.Row]) -> None:
        """Take as long as the description of these jobs in detail."""
        if self._platform.detail_seconds:
            outputs = sum(_outputs(store.body(row)) for row in rows if row["ended"] is not None)
            self._take(outputs * self._platform.detail_seconds)

    def _take(self, seconds: float) -> None:
        if seconds:
            with self._at_once:
                time.sleep(seconds)


def _outputs(body: dict[str, Any]) -> int:
    return len(body.get("outputFiles", ())) + len(body.get("outputDirs", ()))
