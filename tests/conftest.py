"""Fixtures: the real embedded service and executors on it. Nothing here stands in for the project's own code.

At the end of the session nothing may be left: no job, thread, socket or process (see leftovers.py).
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import leftovers
import one_node_slurm
import pytest
import recorded
from hypothesis import HealthCheck, settings
from one_node_slurm import OneNodeSlurm

from prominence_executor import ProminenceExecutor
from prominence_executor.local import LocalService
from prominence_executor.service.serving import who_serves

# How long an example takes says how busy the machine is, and nothing about what is tested.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have what a test file defines travel by value, as what a script defines does.

    By name each job would import pytest and the whole package, a second of its processor's time, to find one function.
    How functions travel by name is tested with modules that are written for it.
    """
    for module in {item.module for item in items if isinstance(item, pytest.Function)}:
        cloudpickle.register_pickle_by_value(module)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record", action="store_true", help="write down in tests/data what is compared with it, instead of comparing"
    )


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fails the session's last test when tests have left threads, sockets or processes behind."""
    sockets = leftovers.sockets()
    yield
    leftovers.check(
        threads=leftovers.threads,
        sockets=lambda: leftovers.sockets() - sockets,
        processes=leftovers.processes,
    )


@pytest.fixture(autouse=True)
def noted(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Lets that failure say which test it was; what pytest remembers of its log is none of its leftovers."""
    yield
    caplog.get_records("call").clear()  # tracebacks hold connections
    leftovers.note(request.node.nodeid)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Programs that a test starts can be interrupted, also where this one was told to ignore SIGINT.

    A shell does that to what it runs in the background, and children inherit it: they would ignore it, too.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def compare(request: pytest.FixtureRequest) -> Callable[[Path, str, str], None]:
    """Compare a text with the file that it was recorded in; see `recorded.compare`."""
    recording: bool = request.config.getoption("--record")
    return lambda path, text, meaning: recorded.compare(path, text, meaning, recording=recording)


@pytest.fixture(scope="session")
def service(nothing_is_left: None) -> Iterator[LocalService]:
    """One embedded service for all tests; more slots than the machine has, since most jobs only wait."""
    with LocalService(cpus=8, memory=64) as running:
        yield running
        leftovers.check(jobs=lambda: leftovers.jobs(running.dir), workflows=lambda: leftovers.workflows(running.dir))


@pytest.fixture(scope="session")
def slurm(nothing_is_left: None) -> Iterator[OneNodeSlurm]:
    """A Slurm of one node, found by its variables alone."""
    reason = one_node_slurm.missing()
    if reason:
        pytest.skip(reason)
    running = OneNodeSlurm()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in running.variables.items():
            patch.setenv(name, value)
        try:
            running.start()
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="session")
def on_slurm(slurm: OneNodeSlurm) -> Iterator[LocalService]:
    """One service for all tests whose jobs run on that Slurm; a minute of walltime is two seconds."""
    with tempfile.TemporaryDirectory(prefix="on-slurm-") as folder:
        options = {"poll_seconds": "0.5"}
        with LocalService(folder, engine="slurm", engine_options=options, seconds_per_minute=2) as running:
            yield running


@pytest.fixture
def stays(slurm: OneNodeSlurm, tmp_path: Path) -> Iterator[Path]:
    """The directory of a service that programs start; it is ended afterwards."""
    yield tmp_path / "stays"
    serving = who_serves(tmp_path / "stays")
    if serving is not None:
        os.kill(serving.pid, signal.SIGTERM)
        deadline = time.monotonic() + 30
        while who_serves(tmp_path / "stays") and time.monotonic() < deadline:
            time.sleep(0.05)


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
