"""`RateLimiter`: bounds how often something is done in a second."""

from __future__ import annotations

import threading
import time


class RateLimiter:
    """Bounds a rate, counted over a second; used by several threads.

    Args:
        rate: so many times a second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0

    def wait(self) -> None:
        """Wait for one's turn."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - 1.0) + 1.0 / self._rate
            pause = self._free_at - now
        if pause > 0:
            time.sleep(pause)
