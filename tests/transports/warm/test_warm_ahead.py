"""Short calls of a warm worker, which its process has ahead of the one that runs: none runs twice, or too late."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from prominence_executor import CallCrashedError, JobDeletedError, ProminenceExecutor, TimeLimitExceededError
from prominence_executor.local import LocalService

Until = Callable[..., None]


def negative(n: int) -> int:
    return -n


@pytest.fixture
def warm(service: LocalService) -> Iterator[ProminenceExecutor]:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=2) as executor:
        assert list(executor.map(negative, range(200)))[-1] == -199  # it has learned that calls are short
        yield executor


def noted(n: int, path: str, long: tuple[int, ...] = (), seconds: float = 1.0, deadly: tuple[int, ...] = ()) -> int:
    """Note that a call has begun."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, b"%d\n" % n)
    os.close(file)
    print("call", n)
    if n in long:
        time.sleep(seconds)
    if n in deadly:
        os._exit(3)
    return n


def begun(path: Path) -> list[int]:
    return sorted(int(line) for line in path.read_text().split())


def test_each_call_runs_once_though_some_are_long_and_some_crash(warm: ProminenceExecutor, tmp_path: Path) -> None:
    path, deadly = tmp_path / "begun", (41, 42, 170, 299)
    futures = [warm.submit(noted, n, str(path), (60, 61, 200), 0.7, deadly) for n in range(300)]
    for n, future in enumerate(futures):
        if n in deadly:
            with pytest.raises(CallCrashedError, match="exit code 3"):
                future.result(60)
        else:
            assert future.result(60) == n
    assert begun(path) == list(range(300))


def test_what_is_ahead_of_a_long_call_goes_elsewhere(warm: ProminenceExecutor, tmp_path: Path) -> None:
    path = tmp_path / "begun"
    futures = [warm.submit(noted, n, str(path), (100,), 60.0) for n in range(200)]
    began = time.monotonic()
    assert [future.result(30) for future in futures if future is not futures[100]][-1] == 199
    assert time.monotonic() - began < 20
    assert futures[100].terminate()
    with pytest.raises(JobDeletedError, match="terminate"):
        futures[100].result(30)
    assert begun(path) == list(range(200))


def test_calls_that_are_terminated_among_others_cost_these_nothing(
    warm: ProminenceExecutor, tmp_path: Path, until: Until
) -> None:
    path, long = tmp_path / "begun", (5, 60, 61)
    futures = [warm.submit(noted, n, str(path), long, 60.0) for n in range(120)]
    for n in long:
        until(lambda n=n: path.exists() and n in begun(path), 30)
        assert futures[n].terminate()
    assert [future.result(30) for n, future in enumerate(futures) if n not in long][-1] == 119
    assert begun(path) == list(range(120))


def test_the_output_of_a_call_is_its_own_among_short_ones(warm: ProminenceExecutor, tmp_path: Path) -> None:
    futures = [warm.submit(noted, n, str(tmp_path / "begun"), (), 0.0, (50,)) for n in range(100)]
    assert [n for n, future in enumerate(futures) if future.exception(30) is not None] == [50]
    assert [futures[n].stdout() for n in (0, 49, 50, 51, 99)] == [f"call {n}\n" for n in (0, 49, 50, 51, 99)]


def test_large_results_of_short_calls_come_whole(warm: ProminenceExecutor) -> None:
    futures = [warm.submit(os.urandom, 100_000 if n % 3 else 10) for n in range(90)]
    assert [len(future.result(60)) for future in futures] == [100_000 if n % 3 else 10 for n in range(90)]


def test_a_chunk_that_goes_on_behind_a_time_limit_does_not_begin_again(service: LocalService, tmp_path: Path) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        assert executor.submit(negative, 1).result(30) == -1
        for n in range(10):  # the first report comes after 0.2 s, just when a new process starts
            path = tmp_path / str(n)
            limited = executor.with_options(time_limit=0.18 + 0.002 * n)
            call = partial(noted, path=str(path), long=(0,), seconds=60.0)
            results = list(limited.map(call, range(4), chunksize=4, return_exceptions=True))
            assert isinstance(results[0], TimeLimitExceededError)
            assert results[1:] == [1, 2, 3]
            assert begun(path) == [0, 1, 2, 3]


def test_a_process_that_dies_between_calls_costs_none(service: LocalService) -> None:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        for _ in range(3):
            os.kill(executor.submit(os.getpid).result(30), signal.SIGKILL)
            assert executor.submit(abs, -3).result(30) == 3


def test_all_that_a_worker_has_can_be_terminated_at_once(service: LocalService, tmp_path: Path, until: Until) -> None:
    path = tmp_path / "begun"
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        assert list(executor.map(negative, range(100)))[-1] == -99
        futures = [executor.submit(noted, n, str(path), (n,), 60.0) for n in range(200)]
        until(path.exists, 30)
        before = executor.client.requests_sent["POST /kv"]
        assert all(future.terminate() for future in futures)
        assert executor.submit(negative, 3).result(30) == -3
        assert executor.client.requests_sent["POST /kv"] - before < 20  # not one for each
    assert begun(path) == [0]
