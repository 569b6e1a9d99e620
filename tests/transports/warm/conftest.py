"""Warm workers on a service that lets requests wait, and on one that does not, as the real one.

Every test of them that uses the service runs both ways, but for those that take long or are of one version of Python
(`slow`, `once`): they wait.
"""

from __future__ import annotations

from collections.abc import Iterator

import leftovers
import pytest

from prominence_executor.service import LocalService
from prominence_executor.service.node.platform import Platform

_ONCE = ("slow", "once")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "service" in metafunc.fixturenames:
        ways = ["waits"] if any(map(metafunc.definition.get_closest_marker, _ONCE)) else ["waits", "looks"]
        metafunc.parametrize("service", ways, indirect=True)


@pytest.fixture(scope="session")
def service_without_waiting() -> Iterator[LocalService]:
    with LocalService(cpus=8, memory=64, platform=Platform(without_waiting=True)) as running:
        yield running
        leftovers.check(jobs=lambda: leftovers.jobs(running.dir), workflows=lambda: leftovers.workflows(running.dir))


@pytest.fixture
def service(request: pytest.FixtureRequest, service: LocalService) -> LocalService:
    found: LocalService = request.getfixturevalue("service_without_waiting") if request.param == "looks" else service
    return found
