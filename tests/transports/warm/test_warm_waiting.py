"""What warm workers and their client ask of a service that lets requests wait, and of one that does not."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from itertools import pairwise
from typing import Any

import pytest
from network_faults import Fault
from proxy import FaultProxy

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
            # A call, its report, both heard, mailboxes emptied; a message that is read in pieces is asked for again.
            assert asked <= 20 * 6
        time.sleep(1.5)  # what it has said is removed
        before = sum(executor.client.requests_sent.values())
        time.sleep(3)
        if waits:
            assert sum(executor.client.requests_sent.values()) - before <= 1
        assert executor.submit(pow, 3, 2).result(60) == 9


def test_nobody_looks_for_what_comes_of_a_batch_that_is_on_its_way(service_without_waiting: LocalService) -> None:
    asked: list[int] = []

    def act(exchange: Any) -> None:
        before = executor.client.requests_sent["GET /kv"]
        exchange.pause(0.7)
        asked.append(executor.client.requests_sent["GET /kv"] - before)
        exchange.answer(exchange.forward())

    token = service_without_waiting.token
    with FaultProxy(service_without_waiting.url) as proxy:
        with ProminenceExecutor(proxy.url, token, workers="warm", max_workers=1) as executor:
            assert executor.submit(pow, 2, 2).result(60) == 4
            proxy.inject(Fault("slow", act), method="POST", path="^/kv/.*/i/")
            assert [executor.submit(pow, n, 2).result(60) for n in range(3)] == [0, 1, 4]
    assert asked == [0, 0, 0]


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


def test_the_thread_that_hears_ends_though_it_is_told_to_rest_then(service: LocalService) -> None:
    """As by a scheduler whose last worker ends while the run does."""
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        assert executor.submit(pow, 2, 2).result(60) == 4
        pool = executor._run.dispatch.pool
        assert pool is not None
        listener = pool._scheduler._listener
        stopping = threading.Thread(target=listener.stop, daemon=True)
        stopping.start()
        until = time.monotonic() + 10
        while stopping.is_alive() and time.monotonic() < until:
            listener.rest()
        ended = not stopping.is_alive()
        listener._wanted.set()  # else the executor would not end either
        assert ended


def test_a_callback_may_wait_for_the_executor_and_fail(
    service: LocalService, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        for n in range(10):  # alone each time: settled where nothing may wait
            told: list[object] = []

            def asks(future: Future[int], told: list[object] = told) -> None:
                told.append(executor.submit(pow, future.result(), 2).result(60))

            def fails(future: Future[int], told: list[object] = told) -> None:
                told.append("fails")
                raise LookupError("in a callback")

            future = executor.submit(slowly, n)
            future.add_done_callback(asks)
            future.add_done_callback(fails)
            future.add_done_callback(told.append)
            assert future.result(60) == n
            until(lambda told=told: len(told) == 3)
            assert told == [n * n, "fails", future]
        later: list[object] = []
        future.add_done_callback(later.append)
        assert later == [future]
    assert "exception calling callback" in caplog.text
    assert "in a callback" in caplog.text


def test_a_callback_that_exits_does_not_break_the_run(
    service: LocalService, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        for n in range(4):  # alone each time, as above
            told: list[object] = []

            def exits(future: Future[int], told: list[object] = told) -> None:
                told.append(future.result())
                sys.exit("in a callback")

            future = executor.submit(slowly, n)
            future.add_done_callback(exits)
            until(lambda told=told: bool(told))
        assert executor.submit(pow, 2, 2).result(60) == 4
    assert "in a callback" in caplog.text


def slowly(n: int) -> int:
    time.sleep(0.05)
    return n


def test_a_mailbox_is_empty_a_moment_after_its_last_batch(service: LocalService, until: Until) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        assert [executor.submit(pow, n, 2).result(60) for n in range(3)] == [0, 1, 4]
        until(lambda: not [key for key in executor.client.kv_list("", values=False) if executor.run_id in str(key)])
        assert executor.submit(pow, 3, 2).result(60) == 9


def test_mailboxes_of_small_batches_are_emptied_together(service: LocalService, request: pytest.FixtureRequest) -> None:
    waits = request.node.callspec.params["service"] == "waits"
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        kept = []
        for n in range(25):
            assert executor.submit(pow, n, 2).result(60) == n * n
            kept.append(len(executor.client.kv_list(f"pxwarm/{executor.run_id}/box/i")))
        assert max(kept) <= 10
        if waits:
            assert max(kept) >= 5
            assert sum(after < before for before, after in pairwise(kept)) <= 8  # ten at a time, or after a pause


def test_a_batch_that_was_given_back_does_not_stay_in_its_mailbox(service: LocalService, until: Until) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        assert executor.submit(pow, 2, 2).result(60) == 4
        futures = executor.submit_many(slowly, range(12))  # those that wait for a slow one are given back
        assert [future.result(60) for future in futures] == list(range(12))
        with ProminenceExecutor.attach(executor.run_id, service.url, service.token) as other:
            assert [future.result(20) for future in other.futures()] == [4, *range(12)]


def test_what_has_been_done_is_found_though_it_lies_in_a_mailbox(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        assert [executor.submit(pow, n, 2).result(60) for n in range(4)] == [0, 1, 4, 9]
        with ProminenceExecutor.attach(executor.run_id, service.url, service.token) as other:
            assert [future.result(20) for future in other.futures()] == [0, 1, 4, 9]
            assert {future.attempts for future in other.futures()} == {1}


def test_a_worker_that_is_started_again_does_not_find_what_the_one_before_has_left(
    service: LocalService, request: pytest.FixtureRequest
) -> None:
    run_id = f"run-{uuid.uuid4()}"
    inbox = f"pxwarm/{run_id}/box/i/00001"
    with ProminenceExecutor(service.url, service.token, run_id=run_id, workers="warm", max_workers=1) as executor:
        for batch in range(1, 9):
            executor.client.kv_set(f"{inbox}/{batch:09d}/0", "0123456789abcdef:1:left")
        assert executor.submit(pow, 2, 2).result(60) == 4
        assert len(executor.client.kv_list(inbox)) <= 1
        if request.node.callspec.params["service"] == "waits":
            time.sleep(1.5)
            before = executor.workers()[0].requests
            time.sleep(2)
            assert executor.submit(pow, 3, 2).result(60) == 9
            assert executor.workers()[0].requests - before <= 6
