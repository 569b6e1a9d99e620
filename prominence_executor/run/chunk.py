"""A `Chunk`: what travels as one job, one call or the several that ``map(chunksize=n)`` puts together.

The numbers of its calls in the run follow one another. It holds state and does nothing itself: no HTTP, no threads;
what a future asks for (to end the job, its output) it passes on to the transport that carries it. Only that transport
writes ``job_id`` and ``status``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

from ..client.model import Resources
from ..payload.calls import Identity, Payload
from .future import ProminenceFuture, bind, is_needed, note_attempt, settle
from .names import CallRange, job_name
from .options import Options

# Seconds that a job must have run before it is deleted: on the real service, deleted in its first ones, it blocks its
# slot for ten minutes, since its worker has not laid out the directories that are copied back.
YOUNG = 2.0
REFUSED = "refused"  # the status of a future whose job the service would not have
HELD = "held"  # the status of a future whose job the service lists as failed, and holds

Observer = Callable[[Mapping[str, Any], Sequence[float]], None]


class Transport(Protocol):
    """How calls reach the service and come back.

    Its methods may be called from any thread, and block for no request but `output` and `close`.
    """

    def submit(self, chunk: Chunk) -> None:
        """Have an open chunk sent."""

    def discard(self, chunk: Chunk) -> None:
        """Let go of a chunk all of whose calls were cancelled."""

    def terminate(self, chunk: Chunk) -> bool:
        """End a running chunk in the background; its futures learn of it later. False if it is over."""

    def output(self, chunk: Chunk, call: ProminenceFuture[Any], stream: Literal["stdout", "stderr"]) -> str:
        """Fetch a call's part of what its job has printed."""

    def release(self, chunk: Chunk) -> None:
        """Let go of a chunk all of whose calls are settled, and of what was stored for it alone."""

    def threads(self) -> set[threading.Thread]:
        """Return those in which callbacks of futures may run."""

    def close(self, leave: bool) -> None:
        """End the threads; every chunk is settled. ``leave``: what is at the service stays for who attaches."""


class Ran(NamedTuple):
    """What the verified outcomes of a chunk say of its calls; seconds."""

    calls: int
    seconds: float  # of all of them
    longest: float  # of one


@dataclass(eq=False, slots=True)
class Chunk:
    """The calls that travel in one job, and what has become of it."""

    run_id: str
    first: int  # the number in the run of the first call
    calls: list[ProminenceFuture[Any]]  # empty once the chunk is over, so that no future keeps another's result
    options: Options
    payload: Payload | None  # None once it is at the service, and cannot be needed for another attempt
    transport: Transport  # that carries it
    attempt: int = 1
    losses: int = 0  # warm workers that were lost with it
    in_doubt: bool = False  # a POST of it may have been carried out before this program began
    observer: Observer | None = None  # told of the job, and of the seconds of its calls, when it has ended
    job_id: int | None = None  # of a job in an array known once the job has been seen
    status: str = "unsent"
    running_since: float | None = None  # time.monotonic() when a poll first showed that it runs
    ended: bool = False  # all calls are settled
    terminated: bool = False  # by `ProminenceFuture.terminate`
    raised: dict[int, BaseException] = field(default_factory=dict)  # by position: for which calls are to run again
    began: float | None = field(default_factory=time.time)  # when it was made; None: by another program
    sent_at: float | None = None  # time.time() when the service had taken its job
    ran: Ran | None = None
    logged: Literal["", "started", "ended"] = ""  # what the run's history has heard of its job
    function: str = field(init=False)  # its name, as far as it is known
    size: int = field(init=False)  # how many calls it has, or had
    name: str = field(init=False)  # the job's, or the one that it would have outside of an array

    def __post_init__(self) -> None:
        self.size = len(self.calls)
        self.name = job_name(self.run_id, self.numbers)
        function = self.payload.name if self.payload is not None else ""
        self.function = function.removeprefix("__main__.").removeprefix("builtins.")
        for call in self.calls:
            if not call.done():
                bind(call, self)

    @property
    def identity(self) -> Identity:
        """Which attempt of which job of which run: what its outcome is signed for."""
        return Identity(self.run_id, self.first, self.attempt)

    @property
    def numbers(self) -> CallRange:
        """Which calls of the run it has."""
        return CallRange(self.first, self.size, self.attempt)

    def part(
        self,
        positions: range,
        wanted: Iterable[int],
        attempt: int,
        transport: Transport,
        resources: Resources | None = None,
    ) -> Chunk:
        """Make a chunk of some of its calls, which belong to that one from now on.

        This one has not been sent, or may be repeated. ``resources``: those of the part, if they are other ones.
        """
        payload = self.payload
        assert payload is not None  # noqa: S101  kept for as long as `may_repeat`
        calls = self.calls[positions.start : positions.stop]
        first = self.first + positions.start
        part = payload.part(positions, wanted)
        options = self.options
        if resources is not None and resources != options.resources:
            options = replace(options, resources=resources)
        return Chunk(self.run_id, first, calls, options, part, transport, attempt, self.losses)

    # -- what its transport says -----------------------------------------------------------------------------------

    def accepted(self, job_id: int | None) -> None:
        """Note that the service has taken the job: the payload stays here only if it may be sent again."""
        self.job_id, self.sent_at = job_id, time.time()
        self.status = "idle"
        if not self.may_repeat():
            self.payload = None

    def saw(self, status: str) -> None:
        """Note the status that a poll has shown."""
        if status != self.status:
            self.running_since = time.monotonic() if status == "running" else None
        self.status = status
        if status == "running":
            for call in self.calls:
                call.set_running_or_notify_cancel()

    def runs(self) -> None:
        """Note that its job runs, before a poll of the run's has shown it: for who is about to delete it."""
        if self.running_since is None:
            self.running_since = time.monotonic()

    def settle_all(self, error: BaseException) -> None:
        """Give the same exception to every call that has no outcome yet, but for those that have raised their own."""
        for position, call in enumerate(self.calls):
            settle(call, False, self.raised.get(position, error))

    def release(self) -> None:
        """Let go of payload and results: the chunk is over."""
        self.calls, self.payload, self.observer, self.raised = [], None, None, {}

    def lost(self, error: BaseException) -> None:
        """Note that a warm worker was lost with it, or had no time left: its calls have another one."""
        self.losses += 1
        for position in self.unsettled():
            note_attempt(self.calls[position], error, None)

    # -- what is to be known of it ---------------------------------------------------------------------------------

    def too_young_for(self) -> float:
        """Return for how many seconds its job is to run before it may be deleted."""
        since = self.running_since
        return 0.0 if since is None or self.ended else max(0.0, since + YOUNG - time.monotonic())

    def may_repeat(self) -> bool:
        """Return whether the calls may have another attempt."""
        return self.payload is not None and self.attempt <= self.options.most_retries and not self.terminated

    def cancelled(self) -> bool:
        """Return whether no call of the chunk is wanted any more."""
        return all(call.cancelled() for call in self.calls)

    def is_wanted(self) -> bool:
        """Return whether a call is not done; False whatever became of them."""
        return not all(call.done() for call in self.calls)

    def stays(self) -> bool:
        """Return whether other calls need the results of all that are open: large ones may stay at the service."""
        return all(is_needed(call) for call in self.calls if not call.done())

    def unsettled(self) -> list[int]:
        """Return the positions of the calls that have no outcome."""
        return [position for position, call in enumerate(self.calls) if not call.done()]

    # -- what a future asks for (see future.CallHandle) ------------------------------------------------------------

    @property
    def attempts(self) -> int:
        """How many jobs, or workers, its calls have had."""
        return self.attempt + self.losses

    @property
    def resources(self) -> Resources:
        """What its job asks for."""
        return self.options.resources

    def call_cancelled(self, *, terminated: bool = False) -> None:
        """Have the job deleted when the last future of the chunk was cancelled."""
        if self.cancelled():
            self.terminated = self.terminated or terminated
            self.transport.discard(self)

    def terminate(self) -> bool:
        """End the running job, and with it all calls of the chunk."""
        return self.transport.terminate(self)

    def output(self, call: ProminenceFuture[Any], stream: Literal["stdout", "stderr"]) -> str:
        """Fetch a call's part of the job's stdout or stderr."""
        return "" if self.job_id is None else self.transport.output(self, call, stream)
