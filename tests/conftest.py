"""Fixtures: the real embedded service and executors on it. Nothing here stands in for the project's own code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from prominence_executor import ProminenceExecutor
from prominence_executor.local import LocalService


@pytest.fixture(scope="session")
def service() -> Iterator[LocalService]:
    """One embedded service for all tests; more slots than the machine has, since most jobs only wait."""
    with LocalService(cpus=8, memory=64) as running:
        yield running


@pytest.fixture
def executor(service: LocalService) -> Iterator[ProminenceExecutor]:
    with ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)) as executor:
        yield executor


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for a condition, with a deadline."""

    def wait(condition: Callable[[], object], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            time.sleep(0.02)

    return wait
