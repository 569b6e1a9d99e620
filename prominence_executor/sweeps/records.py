"""What is known of a sweep's calls: the words for their states, and what has become of one.

Data only; store.py and memory.py keep them, sweep.py makes them of futures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Identity = tuple[str, int]  # a point's key, and the number of the repeat

PENDING, SENT, DONE, FAILED = "pending", "sent", "done", "failed"
ENDED = frozenset({DONE, FAILED})


@dataclass(frozen=True)
class Outcome:
    """What has become of a call.

    Attributes:
        value: of a call that is done.
        error: of one that failed.
        seconds: that the function took, where that is known.
        tail: the end of what a failed call has printed.
        code: the digest of the code that it ran.
    """

    identity: Identity
    status: str
    value: Any = None
    error: BaseException | None = None
    seconds: float | None = None
    attempts: int = 1
    job_id: int | None = None
    run_id: str | None = None
    host: str | None = None
    tail: str = ""
    code: str = ""


@dataclass(frozen=True)
class State:
    """Where a call stands in a store."""

    status: str = PENDING
    run_id: str | None = None  # of a call that was sent: in which run
    call: int | None = None  # and as which call of it
    code: str = ""


@dataclass(frozen=True)
class Plan:
    """What a sweep is, apart from its calls.

    Attributes:
        axes: the names that go together, axis by axis; empty for a sweep by cases.
        parts: of the function's code, by which a difference can be told.
    """

    function: str
    constants: Mapping[str, Any]
    axes: Sequence[Sequence[str]]
    repeat: int
    seed: int | None
    code: str
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """A call as it is entered.

    Attributes:
        params: returns its parameters, those without a canonical form by their labels.
    """

    identity: Identity
    params: Callable[[], Mapping[str, Any]]
    seed: int | None


@dataclass(frozen=True)
class PointRow:
    """A call as tables show it.

    Attributes:
        result: as far as it can be had without unpickling; None of a call that is not done.
        error: one line; empty of one that has not failed.
    """

    identity: Identity
    params: Mapping[str, Any]
    seed: int | None
    status: str
    result: Any = None
    error: str = ""
    seconds: float | None = None
    attempts: int | None = None
    job_id: int | None = None
    run_id: str | None = None
    host: str | None = None
    tail: str | None = None
    code: str = ""


class Rows(Protocol):
    """Where tables come from."""

    def rows(self) -> Iterator[PointRow]:
        """Yield all calls of the sweep in their order."""


class Records(Rows, Protocol):
    """Where a sweep keeps what it knows. Methods may be called from any thread."""

    def states(self) -> dict[Identity, State]:
        """Return where every call stands that it has ever had."""

    def enter(self, plan: Plan, calls: Sequence[Planned], first: int = 0) -> None:
        """Have these calls as the sweep's, in this order; behind so many that it has, or in place of those."""

    def parts(self, code: str) -> Mapping[str, str]:
        """Return what made up the code of this digest."""

    def forget(self, calls: Iterable[Identity]) -> None:
        """Have these calls as pending, whatever became of them."""

    def sending(self, run_id: str | None, code: str, calls: Sequence[tuple[Identity, int | None]]) -> None:
        """Note, before they are sent, as which call of which run these are sent."""

    def ended(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Keep what has become of calls, all of it or nothing; return it as it is kept."""

    def outcome(self, identity: Identity) -> Outcome:
        """Return what has become of a call that is done or failed."""

    def close(self) -> None:
        """Let go of it: another program may write. What is kept can still be read."""
