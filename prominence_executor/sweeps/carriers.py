"""How a sweep's calls reach an executor, and are found again: any executor, or one whose calls outlive the program.

It uses what executors offer to everybody, and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any, Literal, Protocol

from .. import ProminenceExecutor, RunNotFoundError
from .calling import Measured, MeasuredCall, travelling
from .records import Identity

Calls = Sequence[tuple[Identity, Mapping[str, Any]]]  # whose, and with which arguments
Note = Callable[[Sequence[tuple[Identity, int | None]]], None]  # called before they are sent, with their numbers


class Carrier(Protocol):
    """Where a sweep's calls go."""

    @property
    def run_id(self) -> str | None:
        """By which what was sent can be found again, in another program too."""

    def send(self, calls: Calls, note: Note) -> list[Future[Measured]]:
        """Send these calls; return their futures in the same order. Raises what the executor's ``submit`` raises."""

    def find(self, run_id: str) -> dict[int, Future[Measured]] | None:
        """Return the calls of an earlier run by their numbers; None when nobody knows it. Blocks for some requests."""


class PlainCarrier:
    """Any ``concurrent.futures.Executor``: what it has ends with the program."""

    run_id = None

    def __init__(self, executor: Executor, function: Callable[..., Any]) -> None:
        self._executor = executor
        self._call = MeasuredCall(function)

    def send(self, calls: Calls, note: Note) -> list[Future[Measured]]:
        """Send these calls; return their futures in the same order."""
        note([(identity, None) for identity, _ in calls])
        return [self._executor.submit(self._call, identity, arguments) for identity, arguments in calls]

    def find(self, run_id: str) -> dict[int, Future[Measured]] | None:
        """Find nothing."""
        return None


class RunCarrier:
    """A `ProminenceExecutor`: what it has sent stays at the service, where another program finds it."""

    def __init__(
        self,
        executor: ProminenceExecutor,
        function: Callable[..., Any],
        chunksize: int | Literal["auto"],
        *,
        keeps: bool,
    ) -> None:
        self._executor = executor
        self._call = travelling(function)
        self._chunksize = chunksize
        if keeps:
            executor.leave_on_interrupt("start the same program again to go on")

    @property
    def run_id(self) -> str | None:
        """The id of the executor's run."""
        return self._executor.run_id

    def send(self, calls: Calls, note: Note) -> list[Future[Measured]]:
        """Send these calls; return their futures in the same order."""
        identities = [identity for identity, _ in calls]

        def before(futures: Sequence[Future[Any]]) -> None:
            note([(identity, future.index) for identity, future in zip(identities, futures, strict=True)])  # type: ignore[attr-defined]

        arguments = [given for _, given in calls]
        return list(
            self._executor.submit_many(
                self._call, identities, arguments, chunksize=self._chunksize, before_sending=before
            )
        )

    def find(self, run_id: str) -> dict[int, Future[Measured]] | None:
        """Return the calls of an earlier run by their numbers; None when the service does not know it.

        Raises:
            ServiceUnavailableError: the service does not answer.
        """
        if run_id == self._executor.run_id:
            return {future.index: future for future in self._executor.futures()}
        try:
            earlier = self._executor.attach_beside(run_id, takeover=True)  # only one program has the store
        except RunNotFoundError:
            return None
        found: dict[int, Future[Measured]] = {future.index: future for future in earlier.futures()}
        earlier.shutdown(wait=False)  # it goes on until they are done
        return found
