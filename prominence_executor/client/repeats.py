"""`Repeats`: tries again what time may heal, with pauses that grow, until somebody says that nobody needs it any more.

It knows nothing of requests but the errors that they raise.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import NotFoundError, ServiceError, ServiceUnavailableError, TransferError

T = TypeVar("T")

_log = logging.getLogger("prominence_executor")
_jitter = random.SystemRandom()  # it has no state: neither the program's own, nor one that a fork would copy


class Repeats:
    """Any number of threads may use it.

    Attributes:
        seconds: for which `call` tries again.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._impatient = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether `stop` has been called."""
        return self._impatient.is_set()

    def stop(self) -> None:
        """Try nothing again from now on, and end the waits of all threads that would have."""
        self._impatient.set()

    def call(self, once: Callable[[], T], repeat: bool = True) -> T:
        """Call ``once`` until it returns, or its failure is not one that time heals, or the ``seconds`` are over.

        Blocks. Without ``repeat`` it is called once.
        """
        deadline = time.monotonic() + self.seconds
        for attempt in itertools.count():
            try:
                return once()
            except (ServiceError, TransferError) as error:
                # A 500 may well be the request's own fault, so it gets two more chances and not the whole time.
                heals = attempt < 2 or isinstance(error, ServiceUnavailableError | TransferError)
                wait = max(_backoff(attempt), error.retry_after or 0.0)
                if not (repeat and heals) or time.monotonic() + wait > deadline or self.stopped:
                    raise
                _log.info("trying again in %.1f s: %s", wait, error)
                failed = error
            # Not in the handler: Ctrl-C here is to show no failures of requests, which say nothing about it.
            if self._impatient.wait(wait):
                raise failed
        raise AssertionError("unreachable")

    def while_not_found(self, seconds: float, call: Callable[[], T]) -> T:
        """Call again for some seconds while the service says that there is no such thing: it may just be ending."""
        deadline = time.monotonic() + seconds
        for attempt in itertools.count():
            try:
                return call()
            except NotFoundError:
                wait = _backoff(attempt)
                if time.monotonic() + wait > deadline or self._impatient.wait(wait):
                    raise
        raise AssertionError("unreachable")


def _backoff(attempt: int) -> float:
    """Return seconds: 0.1 and twice as long each time, up to 5, less up to a half, so that clients come apart."""
    return min(5.0, 0.1 * 2.0 ** min(attempt, 10)) * _jitter.uniform(0.5, 1.0)
