"""`AwakeClock`: the time as a run counts its patience, in which neither a laptop's sleep nor a stopped program counts.

One thread looks at the time again and again. What lies between two looks counts only as far as the thread may have been
late: whoever was asleep has asked nobody, and must not give up for that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_STEPS = 10  # looks in the time for which a run is patient, at least
_LONGEST = 1.0  # seconds between two looks
_SHORTEST = 0.05
_LATE = 3  # times a step: what counts of a longer time between two looks


class AwakeClock:
    """Seconds, of which only differences mean something. Any thread may ask it; a lock guards it.

    Args:
        run_id: for the thread's name.
        patience: seconds that it is to measure.
        clock: what it looks at, in seconds.
    """

    def __init__(self, run_id: str, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._step = min(max(patience / _STEPS, _SHORTEST), _LONGEST)
        self._lock = threading.Lock()
        self._counted = 0.0
        self._looked_at = clock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"prominence-clock-{run_id}", daemon=True)

    def now(self) -> float:
        """Return the seconds for which the program has been awake."""
        with self._lock:
            looked_at, self._looked_at = self._looked_at, self._clock()
            self._counted += min(max(0.0, self._looked_at - looked_at), _LATE * self._step)
            return self._counted

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, if it was started."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _loop(self) -> None:
        while not self._ended.wait(self._step):
            self.now()
