"""`Point`: one call of a sweep, as its user sees it.

It asks its sweep for everything; it decides and keeps nothing.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Protocol

from ..public import public
from .points import Spec
from .records import Identity, Outcome
from .values import assignments


class Owner(Protocol):
    """The sweep, as its points see it."""

    has_repeats: bool

    def status_of(self, identity: Identity) -> str:
        """Return where a call stands."""

    def future_of(self, identity: Identity) -> Future[Any] | None:
        """Return the executor's future of a call."""

    def outcome_of(self, identity: Identity, timeout: float | None) -> Outcome:
        """Wait for a call and return what has become of it."""


@public
class Point:
    """A call of a sweep: its parameters, and what has become of it."""

    def __init__(self, owner: Owner, spec: Spec) -> None:
        self._sweep = owner
        self._spec = spec

    @property
    def params(self) -> dict[str, Any]:
        """The parameters by name, constants and seed not among them."""
        return dict(self._spec.params)

    @property
    def repeat(self) -> int:
        """Which repeat of the point it is, from 0."""
        return self._spec.repeat

    @property
    def seed(self) -> int | None:
        """What the function got as its seed."""
        return self._spec.seed

    @property
    def status(self) -> str:
        """Pending, sent, running, done, failed, or lost: it has ended in this program without an outcome."""
        return self._sweep.status_of(self._spec.identity)

    @property
    def future(self) -> Future[Any] | None:
        """The executor's future of the call, if this program has it: of `ProminenceExecutor`, with job and output.

        Its result is not the point's: it has seconds and host with it.
        """
        return self._sweep.future_of(self._spec.identity)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the point, and return what the function returned, or raise what it raised.

        Raises:
            TimeoutError: it has not ended within ``timeout`` seconds.
            StoreError: its result is in the store, but cannot be read.
            Exception: what became of it; see `exception`.
        """
        outcome = self._sweep.outcome_of(self._spec.identity, timeout)
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the point, and return what `result` would raise, or None.

        That is what the function raised, with the remote traceback as its cause, or what the platform did to the job.
        """
        return self._sweep.outcome_of(self._spec.identity, timeout).error

    @property
    def outcome(self) -> Outcome:
        """All that is known of a point that has ended: seconds, attempts, job_id, run_id, host, tail, code."""
        return self._sweep.outcome_of(self._spec.identity, None)

    def __repr__(self) -> str:
        which = f", repeat {self.repeat}" if self._sweep.has_repeats else ""
        return f"<Point {assignments(self._spec.params)}{which}: {self.status}>"
