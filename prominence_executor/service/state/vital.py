"""The threads that must live as long as the service: one place that goes on with them, and knows how they do.

A thread is given as its turn, which is taken again and again. What a turn raises that nobody foresaw is caught here,
and nowhere else; it is said loudly, and the next turn is taken. Nothing here knows what the turns do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger("prominence_executor.local")

_PAUSE = (0.05, 2.0)  # seconds before the next turn after one that failed: at first, and at most
_DEAD = 3  # turns that failed in a row, after which a thread is as good as dead


class VitalThreads:
    """Every method may be called from any thread. `_lock` guards what is known of the threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: dict[str, tuple[int, str]] = {}  # turns in a row that failed, and the last reason
        self._ended: dict[str, str] = {}  # threads that are gone and should not be
        self._closing = threading.Event()

    def make(self, name: str, turn: Callable[[], bool]) -> threading.Thread:
        """Make a thread that takes turns until one returns False; whoever starts it has to end and join it."""
        return threading.Thread(target=self._live, args=(name, turn), name=name, daemon=True)

    def problem(self) -> str | None:
        """Return what is wrong with a thread that should live, as a sentence, or None."""
        with self._lock:
            for name, reason in self._ended.items():
                return f"the thread {name} has ended: {reason}"
            for name, (count, reason) in self._failures.items():
                if count >= _DEAD:
                    return f"the thread {name} fails again and again: {reason}"
        return None

    def close(self) -> None:
        """Have no thread wait before its next turn: the service ends."""
        self._closing.set()

    def _live(self, name: str, turn: Callable[[], bool]) -> None:
        reason = "nobody knows why"
        try:
            while self._taken(name, turn):
                pass
            reason = ""
        except BaseException as error:  # SystemExit, or no memory for the handling itself
            reason = _told(error)
            raise
        finally:
            if reason:
                log.critical("the thread %s has ended: %s", name, reason)
                with self._lock:
                    self._ended[name] = reason

    def _taken(self, name: str, turn: Callable[[], bool]) -> bool:
        """Take one turn; whether to go on."""
        try:
            goes_on = turn()
        except Exception as error:
            with self._lock:
                count = self._failures.get(name, (0, ""))[0] + 1
                self._failures[name] = count, _told(error)
            if count & (count - 1) == 0:  # the first, second, fourth, eighth: not thousands of tracebacks
                log.exception("the thread %s goes on after failure %d", name, count)
            self._closing.wait(min(_PAUSE[0] * 2 ** min(count, 10), _PAUSE[1]))
            return True
        with self._lock:
            self._failures.pop(name, None)
        return goes_on


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
