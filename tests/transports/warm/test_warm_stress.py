"""Warm workers that come, go and are killed while many threads submit: no call has an error that is not its own."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest
from warm_world import MemoryService, Pool, pickled

from prominence_executor import JobDeletedError, ProminenceFuture, WorkerLostError
from prominence_executor.transports.warm.options import WarmOptions

pytestmark = pytest.mark.once

WORKERS = 200
SUBMITTERS = 8
SECONDS = 5.0


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
    """Submits calls until it is time to end, and cancels or ends a few of them."""

    def __init__(self, pool: Pool, seed: int, until: float) -> None:
        super().__init__()
        self.calls: list[tuple[int, ProminenceFuture[Any], bool]] = []  # and whether it was interfered with
        self.error: BaseException | None = None
        self._pool = pool
        self._chance = random.Random(seed)
        self._until = until

    def run(self) -> None:
        try:
            function = pickled(work)
            while time.monotonic() < self._until:
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


def disturb(service: MemoryService, pool: Pool, seed: int, until: float) -> None:
    """Scale up and down, and kill workers."""
    chance = random.Random(seed)
    while time.monotonic() < until:
        pool.scale(chance.choice((20, 100, WORKERS, WORKERS)))
        running = service.running()
        for job_id in chance.sample(running, min(len(running), chance.randrange(4))):
            service.end(job_id, "failed")
        numbers = [worker.number for worker in pool.workers()]
        assert len(set(numbers)) == len(numbers) <= WORKERS
        time.sleep(chance.uniform(0.01, 0.15))


def test_calls_have_no_error_but_their_own_while_workers_come_and_go(hurried: None) -> None:
    service = MemoryService()
    options = WarmOptions(min_workers=WORKERS, max_workers=WORKERS, max_requests_per_second=1e6)
    pool = Pool(service, options)
    until = time.monotonic() + SECONDS
    submitters = [Submitter(pool, seed, until) for seed in range(SUBMITTERS)]
    for submitter in submitters:
        submitter.start()
    disturb(service, pool, SUBMITTERS, until)
    for submitter in submitters:
        submitter.join()
    became: Counter[str] = Counter()
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
    ended_early = sum(job["status"] == "failed" for job in service.jobs())
    pool.close()
    service.join()
    print(dict(became), f"{service.most_running} workers at once, {len(service.jobs())} in all, {ended_early} killed")
    assert became["returned"] > 500
    assert became["lost"] < became["returned"] / 100  # it takes three
    assert service.most_running > WORKERS / 2
    assert ended_early > 10
    assert service.running() == []
    assert service.under("") == {}
