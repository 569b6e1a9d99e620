"""`Outages`: what is said of a service that does not answer, once for each time that this happens.

A line at WARNING when it has not answered for some seconds, and one at INFO when it answers again. It decides nothing:
who asks again, and for how long, is others' business. No requests, no threads.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable

from ..errors import ProminenceError, ServiceUnavailableError
from ..shown import on_terminal

_SAID_AFTER = 2.0  # seconds without an answer
_SOON = 5.0  # seconds of patience within which the error itself says it
_LONGEST = 160  # characters of a reason

_log = logging.getLogger("prominence_executor")


class Outages:
    """Who does not answer at present, and whether that has been said. Any thread may tell it; a lock guards it.

    Args:
        patience: says for how many seconds the service is asked again.
        clock: what measures seconds.

    Attributes:
        now: that clock.
    """

    def __init__(self, patience: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self.now = clock
        self._lock = threading.Lock()
        self._heard: dict[str, float] = {}  # when each has answered last
        self._away: dict[str, tuple[float, bool]] = {}  # who does not: since when, and whether it has been said

    @property
    def reached(self) -> bool:
        """Whether anything has been answered."""
        return bool(self._heard)

    def silence(self, since: float) -> tuple[float, bool]:
        """Return the seconds since the last answer, counted from ``since`` at most, and whether anybody is away."""
        with self._lock:
            return self.now() - max([since, *self._heard.values()]), bool(self._away)

    def answered(self, place: str) -> None:
        """Note an answer of a service, whose address is ``place``."""
        self._heard[place] = self.now()
        if place in self._away:  # asked without the lock, since each request comes here
            with self._lock:
                since, said = self._away.pop(place, (0.0, False))
            if said:
                _log.info("%s answers again, after %.0f s", place, self.now() - since)

    def unanswered(self, place: str, error: ProminenceError, began: float) -> None:
        """Note that a request had no answer, and say so when that has lasted for a while.

        Args:
            began: when it was made, by the clock.
        """
        now = self.now()
        # What was never sent has met nobody since then; an answer that breaks off came from somebody a moment ago.
        since = now if error.may_have_arrived else max(began, self._heard.get(place, began))
        patience = self._patience()
        with self._lock:
            since, said = self._away.get(place, (since, False))
            says = not said and now - since >= _SAID_AFTER and patience > _SOON
            self._away[place] = since, said or says
        if says:
            _log.warning(
                "no answer from %s (%s): asking again for up to %.0f s; Ctrl-C ends that", place, why(error), patience
            )

    def forget(self, place: str) -> None:
        """Ask no more for an address, which the service has left."""
        with self._lock:
            self._away.pop(place, None)


def is_outage(error: ProminenceError) -> bool:
    """Whether it means that the service is away, rather than that it has answered."""
    return isinstance(error, ServiceUnavailableError) and (error.status_code is None or error.status_code >= 500)


def why(error: ProminenceError) -> str:
    """Return the reason in a few words, without what was asked, nor who: the line names that."""
    text = str(error)
    match = re.fullmatch(r".* does not answer \((.*)\)", text, re.DOTALL)
    return on_terminal(match[1] if match else re.sub(r"^[A-Z]+ /\S*: ", "", text), _LONGEST)
