"""What warm workers and their client ask of a service that lets requests wait, and of one that does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from prominence_executor import JobDeletedError, ProminenceExecutor
from prominence_executor.service import LocalService

Until = Callable[..., None]


def test_where_requests_wait_a_call_needs_few_and_nobody_asks_meanwhile(
    service: LocalService, request: pytest.FixtureRequest
) -> None:
    waits = request.node.callspec.params["service"] == "waits"
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        assert [executor.submit(pow, n, 2).result(60) for n in range(5)] == [n * n for n in range(5)]

        def made() -> int:
            return sum(executor.client.requests_sent.values()) + sum(one.requests for one in executor.workers())

        before, watched = made(), executor.client.requests_sent["GET /jobs"]
        assert [executor.submit(pow, n, 2).result(60) for n in range(20)] == [n * n for n in range(20)]
        asked = made() - before - executor.client.requests_sent["GET /jobs"] + watched
        if waits:
            # A call, its report, both heard, the mailbox emptied; a message that is read in pieces is asked for again.
            assert asked <= 20 * 7
        time.sleep(1.5)  # what it has said is removed
        before = sum(executor.client.requests_sent.values())
        time.sleep(3)
        if waits:
            assert sum(executor.client.requests_sent.values()) - before <= 1
        assert executor.submit(pow, 3, 2).result(60) == 9


def test_a_busy_worker_hears_of_a_call_that_is_to_end(service: LocalService, until: Until) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        for _ in range(2):
            future = executor.submit(time.sleep, 60)
            until(future.running)
            began = time.monotonic()
            future.terminate()
            with pytest.raises(JobDeletedError):
                future.result(60)
            assert time.monotonic() - began < 30
        assert executor.submit(pow, 2, 2).result(60) == 4


def test_the_thread_that_hears_ends_with_the_executor(service: LocalService, until: Until) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        assert executor.submit(pow, 2, 2).result(60) == 4
        began = time.monotonic()
    assert time.monotonic() - began < 30
    until(lambda: not [thread for thread in threading.enumerate() if "hearing" in thread.name])
