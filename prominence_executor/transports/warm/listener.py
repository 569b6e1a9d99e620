"""The thread that hears what warm workers say at once, where the service lets requests wait.

It reads, and posts what it has read to the scheduler, whose business the rest is. Where the service does not let a
request wait, or none is answered, it says so and rests: then the scheduler looks by itself, until it finds that waiting
is possible again. It keeps nothing, and decides nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from ...client.watching import Watch
from ...errors import ProminenceError
from .events import Deaf, Event, Heard
from .mailboxes import Mailboxes

_AFTER = 0.02  # seconds after which it asks again though it was not told to: no worker has a call
_WAIT = 50.0  # seconds that a request may wait; the service, or half the client's timeout, may make it less


class Listener:
    """Hears a run's workers between `listen` and `rest`.

    Args:
        post: tells the scheduler of something.
        guard: what the thread lives in.
    """

    def __init__(
        self,
        run_id: str,
        mailboxes: Mailboxes,
        post: Callable[[Event], None],
        guard: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._mailboxes = mailboxes
        self._post = post
        self._guard = guard
        self._watch = Watch()
        self._lock = threading.Lock()  # of the next two together: who rests may still be ended
        self._wanted = threading.Event()
        self._stopping = False
        self._goes_on = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"prominence-hearing-{run_id}", daemon=True)

    def start(self) -> None:
        """Start the thread, which rests."""
        self._thread.start()

    def listen(self) -> None:
        """Hear the workers from now on."""
        self._wanted.set()

    def rest(self) -> None:
        """Ask no more once the present request is answered."""
        with self._lock:
            if not self._stopping:
                self._wanted.clear()

    def go_on(self) -> None:
        """Ask again: a worker has something to say soon, and this thread's work is in nobody's way."""
        self._goes_on.set()

    def stop(self) -> None:
        """End the thread, and the request that it makes."""
        with self._lock:
            self._stopping = True
            self._wanted.set()
        self._goes_on.set()
        self._watch.interrupt()
        if self._thread.ident is not None:
            self._thread.join()

    def _loop(self) -> None:
        with self._guard():
            while self._wanted.wait() and not self._stopping:
                try:
                    said = self._mailboxes.reports(self._watch, _WAIT)
                    self._goes_on.clear()
                    self._post(Heard(said, time.monotonic()))
                    hears = self._watch.waits
                    self._goes_on.wait(_AFTER)
                except ProminenceError:  # the scheduler finds out what is wrong
                    hears = False
                if not hears and not self._stopping:
                    self.rest()
                    self._post(Deaf())
