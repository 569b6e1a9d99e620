"""The service as a run sees it: `Connection`, by which it is asked, and `ServiceHealth`, whether it answers.

No threads of its own; what is asked here blocks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal, TypeVar

from ..client.client import ProminenceClient
from ..client.outages import Outages
from ..errors import ProminenceError, ServiceUnavailableError

T = TypeVar("T")

_REFUSED = 1.5  # seconds of an interrupted program without an answer, where requests fail
_SILENT = 5.0  # where nothing says that the service is away; it may only be slow
_FIRST_CONTACT = 10.0  # seconds to wait for a service that has never answered: the URL may be wrong


class Connection:
    """One client while the run goes on, and a new one for what futures ask afterwards.

    Args:
        connect: makes a client.
        patience: says for how many seconds the run asks a service again that does not answer; None: so long as the
            client does.
    """

    def __init__(self, connect: Callable[[], ProminenceClient], patience: Callable[[], float] | None = None) -> None:
        self.client = connect()
        self._outages = None if patience is None else Outages(patience)
        if self._outages is not None:
            self.client.api.outages = self._outages
        self._connect = connect
        self._closed = threading.Event()
        self._given_up = False

    def call(self, question: Callable[[ProminenceClient], T]) -> T:
        """Ask the service something, also after the run has ended."""
        if not self._closed.is_set():
            return question(self.client)
        with self._connect() as client:
            return question(client)

    def read_stream(self, job_id: int, stream: Literal["stdout", "stderr"]) -> bytes:
        """Fetch what a job has printed, also after the run has ended; one request."""

        def fetch(client: ProminenceClient) -> bytes:
            return client.stdout(job_id) if stream == "stdout" else client.stderr(job_id)

        return self.call(fetch)

    @property
    def reached(self) -> bool:
        """Whether anybody has answered any request of the run, as far as that is known."""
        return self._outages is None or self._outages.reached

    def stop_repeating(self) -> None:
        """Have no request of the run's client tried again, and the waits end that are for that."""
        self.client.api.repeats.stop()

    def is_silent(self, since: float) -> bool:
        """Return whether there has been no answer for so long that an interrupted program waits for none.

        Args:
            since: when it was interrupted, by time.monotonic().
        """
        if self._outages is None:
            return False
        seconds, away = self._outages.silence(since)
        return seconds > (_REFUSED if away else _SILENT)

    @property
    def given_up(self) -> bool:
        """Whether `give_up` has been called."""
        return self._given_up

    def give_up(self) -> None:
        """Close the run's client, and have requests fail that wait for an answer."""
        self._given_up = True
        self._closed.set()
        self.client.api.abandon()

    def close(self) -> None:
        """Close the run's client: what still waits for an answer ends."""
        self._closed.set()
        self.client.close()


class ServiceHealth:
    """Since when the service has not answered, and when a run gives it up. Any thread may tell it; a lock guards it.

    Args:
        timeout: seconds for which the service may be away.
        clock: what measures them; see awake.py.
        lasts: it outlives this program, so another one can go on with the run.
        revive: starts it again, blocking, or does nothing when it answers; called in a thread while it is away.
        at_first: seconds for which it may be away before it has ever answered, if that is less than ``timeout``.

    Attributes:
        now: that clock, for what else may take as long.
    """

    def __init__(
        self,
        run_id: str,
        timeout: float,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
        *,
        lasts: bool = True,
        revive: Callable[[], None] | None = None,
        at_first: float | None = None,
    ) -> None:
        self.timeout = timeout
        self._at_first = min(_FIRST_CONTACT if at_first is None else at_first, timeout)
        self.now = clock
        self._lasts, self._revive = lasts, revive
        self._reviving: threading.Thread | None = None
        self._run_id = run_id
        self._log = log
        self._lock = threading.Lock()
        self._reached = False  # True once the service has answered anything in this run, or somebody in its place
        self._away_since: float | None = None  # on that clock, of the first request without an answer

    def patience(self) -> float:
        """Return the seconds for which the service may be away at present: fewer before it has answered anything."""
        with self._lock:
            return self.timeout if self._reached else self._at_first

    @property
    def away(self) -> bool:
        """Whether the service does not answer at present."""
        with self._lock:
            return self._away_since is not None

    def answered(self) -> None:
        """Note that the service has answered."""
        with self._lock:
            self._reached, self._away_since = True, None

    @property
    def is_unknown(self) -> bool:
        """Whether nobody has ever answered at the service's address: that may be wrong."""
        with self._lock:
            return not self._reached

    def unanswered(self, error: ProminenceError | None = None) -> float:
        """Note that a request got no answer, or an error; return the seconds for which that has been so."""
        now = self.now()
        with self._lock:
            # An error page, or a connection that was made, comes from somebody: the address is right.
            self._reached = self._reached or (error is not None and error.may_have_arrived)
            if self._away_since is None:
                self._away_since = now
            if self._revive is not None and (self._reviving is None or not self._reviving.is_alive()):
                name = f"prominence-revive-{self._run_id}"
                self._reviving = threading.Thread(target=self._bring_back, args=(self._revive,), name=name, daemon=True)
                self._reviving.start()
            return now - self._away_since

    def _bring_back(self, revive: Callable[[], None]) -> None:
        try:
            revive()
        except (ProminenceError, OSError) as error:  # it is tried again when the next request gets no answer
            self._log.warning("run %s: the service could not be started again: %s", self._run_id, error)

    def give_up_after(self, error: ProminenceError) -> ServiceUnavailableError | None:
        """Note that a request got no answer; return what open futures are to raise when the patience is over."""
        away = self.unanswered(error)
        if away < self.timeout:
            self._log.info("run %s: no answer for %.0f s, asking again: %s", self._run_id, away, error)
            return None
        found = f"ProminenceExecutor.attach({self._run_id!r}) finds it again"
        left = f"what it has of run {self._run_id} is still there, and {found}"
        hope = left if self._lasts else "it was started by this program, and ends with it"
        given_up = ServiceUnavailableError(f"the service has not answered for {away:.0f} s; {hope}")
        given_up.__cause__ = error
        return given_up
