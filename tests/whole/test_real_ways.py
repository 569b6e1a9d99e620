"""What an executor does for the real platform's sake, on a service that behaves as that does where it matters here."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from dataclasses import replace
from typing import Any

import pytest

from prominence_executor import InvalidRequestError, JobDeletedError, OutOfMemoryError, ProminenceExecutor, Resources
from prominence_executor.runs import cancel_run
from prominence_executor.service import LocalService, Platform

pytestmark = [pytest.mark.once, pytest.mark.slow]

Until = Callable[..., None]
BLOCKED = 60.0
REAL = Platform(
    memory_enforced=True, young_seconds=1.9, blocked_seconds=BLOCKED, workflow_pace=20.0, workflow_starts=0.5,
    splits_env=True, without_sshd=True, hold_every=17, held_seconds=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def real() -> Iterator[LocalService]:
    with LocalService(cpus=2, memory=8, platform=REAL) as service:
        yield service


@pytest.fixture
def far() -> Iterator[LocalService]:
    """One whose answers take as long as a network does."""
    with LocalService(cpus=2, memory=8, platform=replace(REAL, answer_seconds=0.15, hold_every=0)) as service:
        yield service


@pytest.fixture
def executor(real: LocalService) -> Iterator[ProminenceExecutor]:
    with ProminenceExecutor(real.url, real.token, poll_interval=(0.05, 0.2)) as executor:
        yield executor
        assert_slots_are_free(executor)


def assert_slots_are_free(executor: ProminenceExecutor) -> None:
    """A call that needs all slots runs soon."""
    began = time.monotonic()
    executor.with_options(resources=Resources(cpus=2)).submit(abs, 1).result(BLOCKED + 60)
    assert time.monotonic() - began < BLOCKED / 3


def test_a_young_job_is_ended_without_blocking_its_slot(executor: ProminenceExecutor, until: Until) -> None:
    futures = [executor.submit(time.sleep, 60) for _ in range(2)]
    until(futures[0].running)
    assert futures[0].terminate()
    until(futures[1].running)
    time.sleep(0.7)
    assert futures[1].terminate()
    for future in futures:
        with pytest.raises(JobDeletedError):
            future.result(20)


def test_an_interrupted_program_leaves_no_blocked_slot(real: LocalService, until: Until) -> None:
    executor = ProminenceExecutor(real.url, real.token, poll_interval=(0.05, 0.2))
    with pytest.raises(KeyboardInterrupt), executor:
        futures = [executor.submit(time.sleep, 60) for _ in range(4)]
        until(lambda: any(future.running() for future in futures))
        raise KeyboardInterrupt
    with ProminenceExecutor(real.url, real.token, poll_interval=(0.05, 0.2)) as other:
        assert_slots_are_free(other)


@pytest.mark.parametrize("who", ["the program", "cancel"])
def test_arrays_that_are_deleted_leave_no_blocked_slot(far: LocalService, until: Until, who: str) -> None:
    """What waits in one must not begin where the jobs of another have just ended."""
    executor = ProminenceExecutor(far.url, far.token, poll_interval=(0.05, 0.2))
    with pytest.raises(KeyboardInterrupt), executor:
        futures = executor.submit_many(time.sleep, [60] * 45)
        until(lambda: sum(future.running() for future in futures) == 2)
        until(lambda: sum(future.job_id is not None for future in futures) > 25)
        time.sleep(2)
        if who == "cancel":
            cancel_run(executor.client, executor.run_id)
        raise KeyboardInterrupt
    with ProminenceExecutor(far.url, far.token, poll_interval=(0.05, 0.2)) as other:
        assert_slots_are_free(other)


def test_warm_workers_that_have_just_begun_block_no_slot(real: LocalService) -> None:
    for calls in (1, 20):
        with ProminenceExecutor(real.url, real.token, workers="warm", max_workers=2, min_workers=2) as warm:
            assert list(warm.map(abs, range(calls))) == list(range(calls))
    with ProminenceExecutor(real.url, real.token, workers="warm", max_workers=2) as warm:
        assert list(warm.map(abs, range(20))) == list(range(20))
        warm.scale(0)  # ends those that are idle, young as they are
        time.sleep(0.5)
    with ProminenceExecutor(real.url, real.token, poll_interval=(0.05, 0.2)) as other:
        assert_slots_are_free(other)


def test_arrays_whose_jobs_come_one_after_the_other_lose_nothing(executor: ProminenceExecutor) -> None:
    assert list(executor.map(abs, range(45))) == list(range(45))
    sent = executor.client.requests_sent
    assert (sent["POST /workflows"], sent["POST /jobs"]) == (4, 0)


def test_a_call_that_uses_too_much_memory_says_so(executor: ProminenceExecutor) -> None:
    def greedy() -> None:
        wasted = bytearray(1 << 30)
        wasted[::4096] = b"x" * len(wasted[::4096])
        time.sleep(60)

    with pytest.raises(OutOfMemoryError, match="more memory than it asked for"):
        executor.submit(greedy).result(60)


def test_the_environment_arrives_under_udocker(executor: ProminenceExecutor) -> None:
    texts = {"A": "x y", "B": 'x"y"z', "C": "a\\b", "D": "it's", "E": "tab\tend"}
    udocker = executor.with_options(runtime="udocker", env=texts)
    assert udocker.submit(lambda: {name: os.environ[name] for name in texts}).result(60) == texts


def test_where_nothing_can_look_into_a_job_the_error_says_why(executor: ProminenceExecutor, until: Until) -> None:
    future = executor.submit(time.sleep, 60)
    until(future.running)
    client, job_id = executor.client, future.job_id or 0
    for look in (lambda: client.execute(job_id, ["ls"]), lambda: client.create_snapshot(job_id, "x")):
        with pytest.raises(InvalidRequestError, match="Unable to .* no sshd"):
            look()
    future.terminate()


def test_many_are_terminated_together(executor: ProminenceExecutor, until: Until) -> None:
    futures = [executor.submit(time.sleep, 60) for _ in range(10)]
    until(lambda: sum(future.running() for future in futures) == 2)
    before, began = executor.client.requests_sent.total(), time.monotonic()
    threads = [threading.Thread(target=future.terminate) for future in futures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait(futures, 30)
    assert time.monotonic() - began < 10
    deletions = {kind: n for kind, n in executor.client.requests_sent.items() if kind.startswith("DELETE")}
    assert sum(deletions.values()) <= 6, (before, deletions)


def test_details_that_cost_the_service_much_are_asked_for_by_several_requests_at_once() -> None:
    slow = Platform(detail_seconds=0.02, requests_at_once=4)
    with (
        LocalService(cpus=8, memory=8, platform=slow) as service,
        ProminenceExecutor(service.url, service.token, poll_interval=(3.0, 3.0)) as executor,
    ):
        executor.submit(abs, 0).result(60)  # tells what a job costs
        passed: list[int] = []
        list_jobs = executor.client.list_jobs

        def counted(**options: Any) -> list[dict[str, Any]]:
            passed.append(len(options.get("ids", ()))) if options.get("detail") else None
            return list_jobs(**options)

        executor.client.list_jobs = counted  # type: ignore[method-assign]  # to see, not to change
        assert list(executor.map(abs, range(40))) == list(range(40))
        assert sum(passed) >= 40
        assert max(passed) <= 25
