"""``map(chunksize="auto")``: the first calls go out alone and tell how to divide the rest."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from calls import Gate, square

from prominence_executor import ProminenceExecutor
from prominence_executor.client.client import ProminenceClient
from prominence_executor.executor import auto_chunks as sizing
from prominence_executor.local import LocalService
from prominence_executor.run.names import parse_job_name

pytestmark = pytest.mark.once

Until = Callable[..., None]


def sleeps(seconds: float, n: int) -> int:
    time.sleep(seconds)
    return n


def sizes_of(service: LocalService, executor: ProminenceExecutor) -> list[int]:
    """How many calls each job had, in the order of their first call."""
    with ProminenceClient(service.url, service.token) as client:
        jobs = client.list_jobs(constraint=("pxrun", executor.run_id), all=True)
    found = [parse_job_name(executor.run_id, job["name"]) for job in jobs]
    return [calls.size for calls in sorted(calls for calls in found if calls)]


def test_short_calls_go_in_few_jobs(service: LocalService, executor: ProminenceExecutor) -> None:
    assert list(executor.map(square, range(1000), chunksize="auto")) == [n * n for n in range(1000)]
    sizes = sizes_of(service, executor)
    assert sizes[:8] == [1] * 8
    assert sum(sizes) == 1000
    assert len(sizes) < 24


def test_long_calls_go_alone(service: LocalService, executor: ProminenceExecutor) -> None:
    call = functools.partial(sleeps, 1.5)
    assert list(executor.map(call, range(16), chunksize="auto")) == list(range(16))
    assert max(sizes_of(service, executor)) <= 2


def test_all_futures_are_there_at_once_and_the_rest_waits_for_the_first(
    service: LocalService, tmp_path: Path, until: Until
) -> None:
    gate = Gate(tmp_path)
    with ProminenceExecutor(service.url, service.token, max_workers=3, poll_interval=(0.05, 0.5)) as executor:
        results = executor.map(gate.hold, map(str, range(30)), chunksize="auto")
        assert len(executor.futures()) == 30
        until(lambda: len(gate.begun()) == 3)
        time.sleep(0.5)  # the others do not come
        assert gate.begun() == {"0", "1", "2"}
        cancelled = executor.futures()[-1]
        assert cancelled.cancel()
        gate.open()
        assert [next(results) for _ in range(29)] == [str(n) for n in range(29)]


def test_after_the_time_limit_the_rest_goes_anyway(service: LocalService, tmp_path: Path, until: Until) -> None:
    gate = Gate(tmp_path)
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
        results = executor.map(gate.hold, map(str, range(40)), chunksize="auto", probe_timeout=0.5)
        until(lambda: len([future for future in executor.futures() if future.job_id]) == 40)
        gate.open()
        assert list(results) == [str(n) for n in range(40)]


def test_first_calls_that_fail_or_are_cancelled_hold_nobody_up(executor: ProminenceExecutor) -> None:
    results = executor.map(square, ["a"] * 8 + [3] * 12, chunksize="auto")
    with pytest.raises(TypeError):
        next(results)
    held = executor.map_unordered(functools.partial(sleeps, 0.0), range(30), chunksize="auto")
    for future in executor.futures():
        future.cancel()
    with pytest.raises(CancelledError):
        list(held)
    executor.shutdown()
    assert executor.futures() == []


def test_shutdown_waits_for_what_is_held(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
        results = executor.map(square, range(100), chunksize="auto")
    assert list(results) == [n * n for n in range(100)]
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
        executor.map(square, range(100), chunksize="auto")
        executor.shutdown(cancel_futures=True)
    assert executor.futures() == []


def test_a_journal_keeps_what_is_held(service: LocalService, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with ProminenceExecutor(service.url, service.token, journal=path, poll_interval=(0.05, 0.5)) as executor:
        assert list(executor.map(square, range(100), chunksize="auto")) == [n * n for n in range(100)]
    assert not path.exists()


def test_wrong_arguments(executor: ProminenceExecutor) -> None:
    with pytest.raises(ValueError, match="buffersize"):
        executor.map(square, [1], chunksize="auto", buffersize=2)
    with pytest.raises(ValueError, match="auto"):
        executor.map(square, [1], chunksize="largest")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("seconds", "overhead", "left", "slots", "walltime", "size"),
    [
        ([0.005], 0.1, 10_000, 2, 600, 231),  # 92 % of 1.25 s
        ([10.0], 1.0, 10_000, 2, 36_000, 2),
        ([100.0], 1.0, 10_000, 2, 36_000, 1),
        ([0.01], 0.1, 100, 8, 600, 12),  # no slot stays empty
        ([0.001], 0.1, 100, 8, 600, 100),  # but when the whole rest takes no longer than the start of a job
        ([0.1], 0.1, 5, 8, 600, 1),
        ([1.0, 30.0], 60.0, 10_000, 2, 600, 10),  # ten of the longest fit into half of the walltime
    ],
)
def test_how_many_calls_go_into_a_job(
    seconds: list[float], overhead: float, left: int, slots: int, walltime: float, size: int
) -> None:
    assert sizing.chunk_size(seconds, overhead, left, slots, walltime) == size


def test_no_slot_that_the_service_says_is_free_stays_empty(tmp_path: Path) -> None:
    with LocalService(tmp_path / "large", cpus=24, memory=64) as large:
        with ProminenceExecutor(large.url, large.token, poll_interval=(0.05, 0.5)) as executor:
            short = functools.partial(sleeps, 0.05)
            assert list(executor.map(short, range(240), chunksize="auto")) == list(range(240))
            assert len(sizes_of(large, executor)) >= 8 + 24 - 8  # of the first ones some may still have theirs


def test_free_slots_are_those_of_all_sites() -> None:
    sites = [{"free": {"cpus": 8, "memory": 64}, "site": "a"}, {"free": {"cpus": 5, "memory": 3}, "site": "b"}]
    assert sizing.free_slots({"existing": sites}, {"cpus": 2, "memory": 2}) == 4 + 1
    assert sizing.free_slots({"existing": [{"site": "c"}]}, {"cpus": 1, "memory": 1}) == 0
    assert sizing.free_slots({}, {"cpus": 1, "memory": 1}) == 0


def test_a_jobs_overhead_is_what_its_calls_did_not_need() -> None:
    job = {
        "events": {"startTime": 100, "endTime": 104},
        "execution": {"stageInTime": 1.0, "stageOutTime": 0.1, "tasks": [{"wallTimeUsage": 1.5, "imagePullTime": 0.2}]},
    }
    assert sizing.overhead(job, 0.5) == pytest.approx(2.5)  # four whole seconds, give or take one
    del job["events"]
    assert sizing.overhead(job, 0.5) == pytest.approx(2.3)
    assert sizing.overhead({}, 0.5) == 0.05
