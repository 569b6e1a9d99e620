"""What an attached run consists of, decided from what the service and a journal have of it."""

from __future__ import annotations

import logging
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prominence_executor.executor.adoption import AdoptionPlan, RunSnapshot, plan_adoption
from prominence_executor.payload.blob import Blob
from prominence_executor.payload.calls import Payload
from prominence_executor.run.journal import Kept
from prominence_executor.run.names import job_name, parse_array_name, parse_job_name
from prominence_executor.run.options import Options


def snapshot(*names: str, arrays: tuple[str, ...] = ()) -> RunSnapshot:
    jobs: dict[Any, dict[str, Any]] = {}
    for job_id, name in enumerate(names, 1):
        calls = parse_job_name("run", name)
        assert calls is not None
        jobs[calls] = {"id": job_id, "name": name, "status": "running"}
    spans = {}
    for number, name in enumerate(arrays, 1):
        span = parse_array_name("run", name)
        assert span is not None
        spans[span] = {"id": 100 + number, "name": name, "status": "running"}
    return RunSnapshot("run", b"key", jobs, frozenset(job["id"] for job in jobs.values()), spans, None)


def kept(name: str, sending: bool = False) -> Kept:
    calls = parse_job_name("run", name)
    assert calls is not None
    payload = Payload(Blob([b"f"]), [Blob([b"x"])] * calls.size)
    return Kept(name, payload, Options(), sending)


def names_of(plan: AdoptionPlan) -> list[str]:
    return [job_name("run", chunk.calls) for chunk in plan.chunks]


def test_a_gap_below_the_highest_call_was_not_submitted() -> None:
    plan = plan_adoption(snapshot("run/0", "run/3-4"), [], 0)
    assert plan.count == 5
    assert sorted(plan.missing) == [1, 2]
    assert names_of(plan) == ["run/0", "run/3-4"]
    assert plan.report(complete=True)[0] == logging.WARNING
    assert "2 of them were not submitted" in plan.report(complete=True)[1]


def test_a_journal_knows_how_many_calls_there_were_and_what_was_not_sent() -> None:
    plan = plan_adoption(snapshot("run/0"), [kept("run/1", sending=True), kept("run/2")], 4)
    assert plan.count == 4
    assert sorted(plan.missing) == [3]
    assert [(chunk.is_unsent, chunk.in_doubt) for chunk in plan.chunks] == [(False, False), (True, True), (True, False)]
    assert plan.obsolete == ()


def test_what_the_service_has_is_not_sent_again_and_leaves_the_journal() -> None:
    plan = plan_adoption(snapshot("run/0", arrays=("run.1-4.2.1",)), [kept("run/0", sending=True), kept("run/1-2")], 5)
    assert [chunk.is_unsent for chunk in plan.chunks] == [False, False, False]
    assert sorted(plan.obsolete) == ["run/0", "run/1-2"]
    assert names_of(plan) == ["run/0", "run/1-2", "run/3-4"]


def test_the_last_attempt_counts() -> None:
    plan = plan_adoption(snapshot("run/0-1", "run/1.2"), [], 0)
    assert [(chunk.calls, sorted(chunk.current)) for chunk in plan.chunks] == [((0, 2, 1), [0]), ((1, 1, 2), [1])]
    plan = plan_adoption(snapshot("run/0", "run/0.2"), [], 0)
    assert names_of(plan) == ["run/0.2"]


def test_nothing_known_is_no_call() -> None:
    plan = plan_adoption(snapshot(), [], 0)
    assert (plan.count, plan.chunks, plan.missing) == (0, (), {})
    assert plan.report(complete=True) == (logging.WARNING, "run run: its program ended before it submitted a call")
    assert plan.report(complete=False)[1].startswith("run run: 0 calls")


jobs_and_attempts = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 4), st.integers(1, 3)), max_size=12, unique=True
)


@given(jobs_and_attempts, jobs_and_attempts, st.integers(0, 30))
def test_every_call_is_in_one_chunk_or_missing(
    at_service: list[tuple[int, int, int]], journal: list[tuple[int, int, int]], next_call: int
) -> None:
    def name(calls: tuple[int, int, int]) -> str:
        first, size, attempt = calls
        numbers = f"{first}-{first + size - 1}" if size > 1 else f"{first}"
        return f"run/{numbers}" + (f".{attempt}" if attempt > 1 else "")

    plan = plan_adoption(snapshot(*map(name, at_service)), [kept(name(calls)) for calls in journal], next_call)
    current = {number for chunk in plan.chunks for number in chunk.current}
    assert current.isdisjoint(plan.missing)
    assert current | set(plan.missing) == set(range(plan.count))
    assert plan.count >= next_call
    for chunk in plan.chunks:
        assert chunk.current <= set(chunk.calls.numbers())
        assert (chunk.job is None) == chunk.is_unsent
