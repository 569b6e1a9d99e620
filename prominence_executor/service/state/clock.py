"""What time it is, in the three meanings that a service needs. Nothing else in the service asks the machine's clocks.

The clock on the wall can be set: by hand, by NTP, after a suspension. So nothing is measured by it; it is shown only.
"""

from __future__ import annotations

import time


class Clock:
    """This machine's clocks. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._began = self.time() - self.monotonic()

    def time(self) -> float:
        """Return seconds since 1970 as they are shown to users: when something happened."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds by which durations are measured: walltimes, times in the queue, pauses."""
        return time.monotonic()

    def steady(self) -> float:
        """Return seconds since 1970 as if nobody had set the clock since the start: when what is signed expires."""
        return self._began + self.monotonic()
