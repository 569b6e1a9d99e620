"""The order in which jobs are created, so that calls of one loop start in their order where the service has a queue.

Several requests are on their way at once, and none waits for long for one before it: an upload, say, or a service that
is slow to answer. It makes no requests itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

_APART = 0.1  # seconds from one request to the next, if it is not answered before
_PREPARING = 1.0  # seconds for which one waits for the one before to begin


class Turn:
    """The place of one request behind another one; each is used by one thread."""

    def __init__(self, before: Turn | None = None) -> None:
        self._before = before
        self._began = threading.Event()
        self._answered = threading.Event()
        self._at = 0.0  # time.monotonic() when it began

    def post(self, create: Callable[[dict[str, Any]], int]) -> Callable[[dict[str, Any]], int]:
        """Return ``create`` with a wait before it; blocks for a moment when it is first called."""

        def once(description: dict[str, Any]) -> int:
            self._wait()
            try:
                return create(description)
            finally:
                self.end()

        return once

    def end(self) -> None:
        """Let the next one go on: this one has been answered, or there is nothing to send."""
        self._before = None
        self._began.set()
        self._answered.set()

    def _wait(self) -> None:
        before, self._before = self._before, None
        if before is not None and before._began.wait(_PREPARING):
            before._answered.wait(max(0.0, before._at + _APART - time.monotonic()))
        self._at = time.monotonic()
        self._began.set()
