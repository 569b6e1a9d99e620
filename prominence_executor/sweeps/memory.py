"""A sweep without a store: what it knows lives as long as its object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from .records import PENDING, Identity, Outcome, Plan, Planned, PointRow, State


class Memory:
    """Keeps outcomes as the objects that they are; see `Records`."""

    def __init__(self) -> None:
        self._outcomes: dict[Identity, Outcome] = {}
        self._calls: list[Planned] = []

    def states(self) -> dict[Identity, State]:
        """Return where every call stands."""
        return {identity: State(outcome.status, code=outcome.code) for identity, outcome in self._outcomes.items()}

    def enter(self, plan: Plan, calls: Sequence[Planned], first: int = 0) -> None:
        """Have these calls as the sweep's, in this order."""
        self._calls[first:] = calls

    def parts(self, code: str) -> Mapping[str, str]:
        """Return nothing: the code does not change while a program runs."""
        return {}

    def forget(self, calls: Iterable[Identity]) -> None:
        """Have these calls as pending."""
        for identity in calls:
            self._outcomes.pop(identity, None)

    def sending(self, run_id: str | None, code: str, calls: Sequence[tuple[Identity, int | None]]) -> None:
        """Note nothing: nobody could read it."""

    def ended(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Keep what has become of calls."""
        self._outcomes.update({outcome.identity: outcome for outcome in outcomes})
        return list(outcomes)

    def outcome(self, identity: Identity) -> Outcome:
        """Return what has become of a call."""
        return self._outcomes[identity]

    def rows(self) -> Iterator[PointRow]:
        """Yield all calls of the sweep in their order."""
        for call in self._calls:
            params = {name: getattr(value, "label", value) for name, value in call.params().items()}
            outcome = self._outcomes.get(call.identity)
            if outcome is None:
                yield PointRow(call.identity, params, call.seed, PENDING)
                continue
            error = "" if outcome.error is None else f"{type(outcome.error).__qualname__}: {outcome.error}"
            facts = (outcome.seconds, outcome.attempts, outcome.job_id, outcome.run_id, outcome.host, outcome.tail)
            line = error.partition("\n")[0]
            yield PointRow(call.identity, params, call.seed, outcome.status, outcome.value, line, *facts, outcome.code)

    def close(self) -> None:
        """Do nothing."""
