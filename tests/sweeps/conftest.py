"""Sweeps run on each kind of executor, and count how often their function has run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sweeping import Marks, Start, compute

from prominence_executor import ProminenceExecutor, Sweep, sweep
from prominence_executor.local import LocalService


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    return Marks(tmp_path / "marks")


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    return tmp_path / "failing"


@pytest.fixture(params=["threads", "processes", "jobs", "warm"])
def any_executor(request: pytest.FixtureRequest, service: LocalService) -> Iterator[Executor]:
    """One of each kind."""
    plain: dict[str, Callable[[], Executor]] = {
        "threads": lambda: ThreadPoolExecutor(4),
        "processes": lambda: ProcessPoolExecutor(2),
        "jobs": lambda: ProminenceExecutor(service.url, service.token, poll_interval=(0.05, 0.5)),
        "warm": lambda: ProminenceExecutor(
            service.url, service.token, poll_interval=(0.05, 0.5), workers="warm", max_workers=2
        ),
    }
    with plain[request.param]() as executor:
        yield executor


@pytest.fixture
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


@pytest.fixture
def start(marks: Marks, failing: Path) -> Start:
    """Begin a sweep of `compute`."""

    def begin(axes: Any, executor: Executor, constants: dict[str, Any] | None = None, **more: Any) -> Sweep:
        own = {"marks": str(marks.path), "fails": str(failing), **(constants or {})}
        return sweep(compute, axes, executor=executor, constants=own, **more)

    return begin
