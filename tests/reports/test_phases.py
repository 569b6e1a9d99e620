"""Where a job's time went: pure arithmetic, and what is made of descriptions that make no sense."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prominence_executor.run.names import CallRange
from prominence_executor.run.phases import ON_SLOT, PHASES, JobSeen, Sums, clock_offset, phases_of, seen_of

CALLS = CallRange(0, 4, 1)
DETAIL: dict[str, Any] = {  # as the real service describes a job
    "id": 24,
    "status": "completed",
    "events": {"createTime": 1000, "startTime": 1010, "endTime": 1020},
    "execution": {
        "provisionedResources": {"cpus": 2, "disk": 2, "memory": 1, "nodes": 3},
        "stageInTime": 1.5,
        "stageOutTime": 0.5,
        "retries": 2,
        "tasks": [{"cpuTimeUsage": 3.0, "exitCode": 0, "imagePullTime": 2.0, "wallTimeUsage": 6.0}],
    },
    "resources": {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 10},
}
seconds = st.floats(0, 1e6)
maybe = st.none() | seconds


def job(**facts: Any) -> JobSeen:
    return JobSeen(**{"job_id": 1, "first": 0, "size": 1, "status": "completed", **facts})


def test_a_description_is_read_as_the_service_gives_it() -> None:
    seen = seen_of(DETAIL, CALLS)
    assert (seen.job_id, seen.cpus, seen.walltime, seen.reruns) == (24, 6, 600.0, 2)
    assert (seen.image, seen.stage_in, seen.task, seen.stage_out, seen.cpu) == (2.0, 1.5, 6.0, 0.5, 3.0)
    assert (seen.created, seen.started, seen.ended) == (1000, 1010, 1020)


def test_the_times_of_a_job_are_divided_into_phases_that_are_all_of_it() -> None:
    from_elsewhere = phases_of(seen_of(DETAIL, CALLS))
    assert from_elsewhere == {
        "client": 0.0, "queue": 10.0, "image": 2.0, "stage_in": 1.5, "start": 0.0, "call": 6.0, "idle": 0.0,
        "stage_out": 0.5, "other": 0.0,
    }  # fmt: skip
    ours = phases_of(job(began=995.0, sent=998.0, settled=1030.0, created=1000, started=1010, ended=1020, image=2.0,
                         task=7.0, calls=4.0))  # fmt: skip
    assert (ours["call"], ours["start"]) == (4.0, 3.0)
    assert ours["client"] == 3.0 + 9.5  # before the service had it, and until its outcome was here
    assert sum(ours.values()) == pytest.approx(1030.0 - 995.0)


def test_time_that_nobody_tells_of_is_not_hidden_but_rounding_makes_none() -> None:
    assert phases_of(job(created=0, started=10, ended=60, task=20.0))["other"] == 30.0
    assert phases_of(job(created=0, started=10, ended=11, task=0.2))["other"] == 0.0


def test_what_calls_had_that_left_no_outcome_is_not_taken_for_the_start_of_python() -> None:
    crashed = phases_of(job(size=2, lost=1, started=10, ended=16, task=5.0, calls=2.0))
    assert (crashed["call"], crashed["start"], crashed["other"]) == (2.0, 0.0, 3.0)
    assert phases_of(job(lost=1, started=10, ended=11, task=0.4))["other"] == 0.4


def test_a_worker_whose_time_is_told_in_whole_seconds_has_had_its_calls_all_the_same() -> None:
    worker = phases_of(job(is_worker=True, started=100, ended=100, calls=0.3))
    assert (worker["call"], worker["idle"]) == (0.3, 0.0)


def test_a_job_that_never_ran_has_waited() -> None:
    assert phases_of(job(created=100, ended=160, status="deleted")) == {**dict.fromkeys(PHASES, 0.0), "queue": 60.0}


def test_a_warm_worker_has_calls_and_is_idle() -> None:
    worker = job(is_worker=True, created=100.0, started=103.0, ended=133.0, calls=12.0)
    phases = phases_of(worker)
    assert (phases["queue"], phases["call"], phases["idle"]) == (3.0, 12.0, 18.0)
    assert phases_of(job(is_worker=True, started=100, ended=130))["other"] == 30.0  # of another program's nobody tells


@given(
    began=seconds, lasts=seconds, sending=seconds, waits=seconds, runs=seconds, parts=st.tuples(*[maybe] * 5),
    offset=st.floats(-1e5, 1e5),
)  # fmt: skip
def test_phases_are_never_negative_and_together_what_the_job_took(
    began: float, lasts: float, sending: float, waits: float, runs: float, parts: tuple[Any, ...], offset: float
) -> None:
    created = math.floor(began + sending + offset)
    started = created + math.floor(waits)
    image, stage_in, task, stage_out, calls = parts
    one = job(
        began=began, sent=began + min(sending, lasts), settled=began + lasts, created=created, started=started,
        ended=started + math.floor(runs), image=image, stage_in=stage_in, task=task, stage_out=stage_out, calls=calls,
    )  # fmt: skip
    phases = phases_of(one, offset)
    assert all(value >= 0 for value in phases.values())
    known = sum(phases[name] for name in ON_SLOT)
    whole = max(lasts, known + phases["client"] + phases["queue"])
    assert sum(phases.values()) == pytest.approx(whole, abs=1e-6)  # a small difference of large floats is not exact
    assert sum(phases.values()) >= lasts - 1e-6 * max(1.0, began, lasts)


@given(st.lists(st.tuples(seconds, seconds, seconds), min_size=1, max_size=20), st.floats(-1e4, 1e4))
def test_the_difference_of_two_clocks_is_found_within_what_jobs_can_tell(
    jobs: list[tuple[float, float, float]], offset: float
) -> None:
    seen = [
        job(began=t, settled=t + waits + more, created=math.floor(t + offset), ended=math.floor(t + waits + offset))
        for t, waits, more in jobs
    ]
    found = clock_offset(seen)
    for one in seen:
        assert one.ended is not None
        assert one.settled is not None
        assert one.created is not None
        assert one.began is not None
        assert one.ended <= one.settled + found + 1e-6
        assert one.created + 1.0 >= one.began + found - 1e-6


def test_clocks_that_agree_are_believed() -> None:
    assert clock_offset([job(began=10.5, created=10, ended=12, settled=13.0)]) == 0.0
    assert clock_offset([]) == 0.0


@pytest.mark.parametrize("odd", [None, True, -1.0, math.nan, math.inf, 1e300, "12", [], {}])
def test_what_makes_no_sense_is_left_out(odd: Any) -> None:
    described = {
        "id": 1, "status": "completed", "statusReason": None,
        "events": {"createTime": odd, "startTime": odd, "endTime": odd},
        "resources": odd,
        "execution": {
            "tasks": [odd, {"wallTimeUsage": odd, "imagePullTime": odd, "cpuTimeUsage": odd}], "stageInTime": odd,
            "stageOutTime": odd, "provisionedResources": odd, "retries": odd,
        },
    }  # fmt: skip
    seen = seen_of(described, CALLS)
    assert sum(phases_of(seen).values()) == 0.0
    assert (seen.cpus, seen.task, seen.created, seen.reruns) == (None, None, None, 0)
    assert sum(phases_of(seen_of({"execution": odd, "events": odd}, CALLS)).values()) == 0.0


def test_sums_count_what_was_lost_and_what_was_busy() -> None:
    sums = Sums()
    for one in (
        job(started=0, ended=3600, task=3600.0, cpu=1800.0, cpus=2),
        job(status="killed", started=0, ended=3600, task=3600.0, attempt=2, failed=1, reruns=1),
    ):
        sums.add(one, phases_of(one))
    assert (sums.jobs, sums.calls, sums.failed, sums.lost, sums.repeated, sums.reruns) == (2, 2, 1, 1, 1, 1)
    assert (sums.asked, sums.asked_known, sums.used) == (3 * 3600, 2 * 3600, 1800.0)
