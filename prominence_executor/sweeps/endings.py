"""What the end of a future means for a point: an outcome to keep, a reason to send it again, or neither.

It decides, and fetches what a failed call has printed; it keeps nothing.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import suppress
from typing import Any

from .. import (
    InitializerError,
    JobDeletedError,
    JobError,
    NotSubmittedError,
    OutcomeError,
    OutcomeLostError,
    ProminenceError,
    ProminenceFuture,
    RemoteEnvironmentError,
    WorkerLostError,
)
from .calling import Measured
from .records import DONE, FAILED, Identity, Outcome

_TAILS = 50  # failed calls whose output is fetched, at two requests each

# What the platform says of a call itself; all else that this package raises says something of the program or its run.
_OUTCOMES = (JobError, OutcomeError, RemoteEnvironmentError, InitializerError)
# What says, of a call that an earlier program has sent, that it has to be sent again.
_NOT_THERE = (NotSubmittedError, WorkerLostError, OutcomeLostError)


class Endings:
    """Reads the futures of one sweep that are done; for one thread at a time.

    Args:
        code: the digest of the code that the calls run.
    """

    def __init__(self, code: str) -> None:
        self._code = code
        self._tails = _TAILS

    def of(self, identity: Identity, future: Future[Measured], *, is_found: bool) -> Outcome | BaseException | None:
        """Return what has become of a call, or what kept it from having an outcome; None, if it is to be sent again.

        ``is_found``: an earlier program has sent it.
        """
        facts: dict[str, Any] = {"code": self._code}
        if isinstance(future, ProminenceFuture):
            facts.update(attempts=future.attempts, job_id=future.job_id)
        try:
            whose, value, seconds, host = future.result()
        except CancelledError as error:
            return error
        except BaseException as error:  # noqa: BLE001  what a call raised, or what became of its job
            if is_found and isinstance(error, _NOT_THERE):
                return None
            if not _is_outcome(error):
                return error
            return Outcome(identity, FAILED, error=error, tail=self._tail(future, error), **facts)
        if tuple(whose) != identity:
            return None  # the number that was noted for it is another's
        return Outcome(identity, DONE, value, seconds=seconds, host=host, **facts)

    def _tail(self, future: Future[Any], error: BaseException) -> str:
        if not isinstance(future, ProminenceFuture):
            return ""
        if isinstance(error, JobError) and error.stderr:
            return error.stderr
        self._tails -= 1
        if self._tails >= 0:
            with suppress(ProminenceError, OSError):
                return future.stdout() + future.stderr()
        return ""


def _is_outcome(error: BaseException) -> bool:
    """Whether an exception says what became of the call itself: it is the function's own, or its job's end."""
    if isinstance(error, JobDeletedError):
        return False  # somebody, or an interrupted program, has deleted it
    if isinstance(error, (ProminenceError, BrokenExecutor)):
        return isinstance(error, _OUTCOMES)
    return True
