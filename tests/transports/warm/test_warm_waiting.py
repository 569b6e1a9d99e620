"""What warm workers and their client ask of a service that lets requests wait, and of one that does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from prominence_executor import JobDeletedError, ProminenceExecutor
from prominence_executor.service import LocalService

Until = Callable[..., None]


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
