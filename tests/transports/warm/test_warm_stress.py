"""Warm workers that come, go and are killed while many threads submit: no call has an error that is not its own."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

import pytest
from job_processes import processes_of
from warm_world import MemoryService, Pool, pickled

from prominence_executor import JobDeletedError, ProminenceExecutor, ProminenceFuture, WorkerLostError
from prominence_executor.local import LocalService
from prominence_executor.transports.warm.options import WarmOptions

pytestmark = pytest.mark.once

WORKERS = 200
SUBMITTERS = 8
SECONDS = 2.5  # at least; on a busy machine until enough has happened
PATIENCE = 90.0


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads give way to each other a thousand times as often as usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def work(n: int, seconds: float) -> bytes:
    time.sleep(seconds)
    return str(n).encode() * (2000 if n % 50 == 0 else 1)  # some are too large for a mailbox


class Submitter(threading.Thread):
    """Submits calls until it is told to end, and cancels or ends a few of them."""

    def __init__(self, pool: Pool, seed: int, ended: threading.Event) -> None:
        super().__init__()
        self.calls: list[tuple[int, ProminenceFuture[Any], bool]] = []  # and whether it was interfered with
        self.error: BaseException | None = None
        self._pool = pool
        self._chance = random.Random(seed)
        self._ended = ended

    def run(self) -> None:
        try:
            function = pickled(work)
            while not self._ended.is_set():
                size = self._chance.choice((1, 1, 1, 4))
                numbers = [self._chance.randrange(10_000) for _ in range(size)]
                futures = self._pool.submit(function, [(n, self._chance.uniform(0, 0.02)) for n in numbers])
                way = self._chance.random()
                if way < 0.03:
                    futures[0].cancel()
                elif way < 0.06:
                    futures[0].terminate()
                self.calls += [(n, future, way < 0.06) for n, future in zip(numbers, futures, strict=True)]
                time.sleep(self._chance.uniform(0, 0.02))
        except BaseException as error:  # noqa: BLE001  the test raises it
            self.error = error


def disturb(service: MemoryService, pool: Pool, seed: int, submitters: list[Submitter]) -> None:
    """Scale up and down, and kill workers."""
    chance = random.Random(seed)
    began = time.monotonic()

    def enough() -> bool:
        return killed(service) > 10 and sum(len(submitter.calls) for submitter in submitters) > 800

    while (passed := time.monotonic() - began) < SECONDS or (passed < PATIENCE and not enough()):
        pool.scale(chance.choice((20, 100, WORKERS, WORKERS)))
        begun = [worker for worker in pool.workers() if worker.state != "starting"]
        running = service.running() if len(begun) > 4 else []  # when none ever begins, calls may have that error
        for job_id in chance.sample(running, min(len(running), chance.randrange(4))):
            service.end(job_id, "failed")
        numbers = [worker.number for worker in pool.workers()]
        assert len(set(numbers)) == len(numbers) <= WORKERS
        time.sleep(chance.uniform(0.01, 0.15))


def killed(service: MemoryService) -> int:
    return sum(job["status"] == "failed" for job in service.jobs())


def test_calls_have_no_error_but_their_own_while_workers_come_and_go(hurried: None) -> None:
    service = MemoryService()
    options = WarmOptions(min_workers=WORKERS, max_workers=WORKERS, max_requests_per_second=1e6)
    became: Counter[str] = Counter()
    with Pool(service, options) as pool:
        ended = threading.Event()
        submitters = [Submitter(pool, seed, ended) for seed in range(SUBMITTERS)]
        for submitter in submitters:
            submitter.start()
        try:
            disturb(service, pool, SUBMITTERS, submitters)
        finally:
            ended.set()
        for submitter in submitters:
            submitter.join()
        for submitter in submitters:
            assert submitter.error is None
            for number, future, interfered in submitter.calls:
                try:
                    assert future.result(30) == work(number, 0)
                    became["returned"] += 1
                except WorkerLostError:
                    became["lost"] += 1
                except (CancelledError, JobDeletedError):
                    assert interfered
                    became["ended"] += 1
    print(
        dict(became), f"{service.most_running} workers at once, {len(service.jobs())} in all, {killed(service)} killed"
    )
    assert became["returned"] > 500
    assert became["lost"] < became["returned"] / 100  # it takes three
    assert service.most_running > WORKERS / 2
    assert killed(service) > 10
    assert service.running() == []
    assert service.under("") == {}


def test_scaling_and_submitting_return_at_once_while_the_service_does_not_answer() -> None:
    service = MemoryService()
    with Pool(service, WarmOptions(max_workers=4)) as pool:
        function = pickled(work)
        assert pool.submit(function, [(3, 0.0)])[0].result(30) == b"3"
        with service.stalled():
            began = time.monotonic()
            futures = [pool.submit(function, [(n, 0.0)])[0] for n in range(1, 20)]
            pool.scale(4)
            assert len(pool.workers()) == 1
            assert futures[18].cancel()
            futures[17].terminate()
            assert time.monotonic() - began < 1.0
            assert not futures[0].done()
        assert [future.result(30) for future in futures[:17]] == [work(n, 0) for n in range(1, 18)]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_twenty_real_workers_of_which_some_are_killed(until: Callable[..., None]) -> None:
    chance = random.Random(5)
    with (
        LocalService(cpus=24, memory=64) as service,
        ProminenceExecutor(
            service.url, service.token, workers="warm", min_workers=20, max_workers=20, max_attempts=6
        ) as executor,
    ):
        assert executor.submit(work, 1, 0.0).result(60) == b"1"
        until(lambda: sum(worker.state == "idle" for worker in executor.workers()) >= 15, 60)
        calls = [(n, executor.submit(work, n, chance.uniform(0, 0.1))) for n in range(1, 400)]
        killed = 0
        for wanted in (12, 20, 8, 20):
            executor.scale(wanted)
            ids = [worker.job_id for worker in executor.workers() if worker.state != "starting"]
            for job_id in chance.sample(ids, min(2, len(ids))):
                victims = processes_of(service.url, job_id)
                killed += bool(victims)
                for how in (signal.SIGSTOP, signal.SIGKILL):  # all at once: none may still say that another has died
                    for pid in victims:
                        with suppress(ProcessLookupError):
                            os.kill(pid, how)
            calls += [(n, executor.submit(work, n, chance.uniform(0, 0.1))) for n in range(1, 100)]
            time.sleep(0.5)
        assert all(future.result(120) == work(n, 0) for n, future in calls)
        assert killed >= 4
