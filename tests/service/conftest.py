"""Users of the session's embedded service, and a service that runs tasks in containers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import container_images
import pytest
from people import Person

from prominence_executor.service import LocalService


@pytest.fixture
def person(service: LocalService) -> Person:
    return Person(service.url, service.token_for("person"))


@pytest.fixture(scope="module", params=container_images.RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    reason = container_images.missing(request.param)
    if reason:
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    folder = tmp_path_factory.getbasetemp()
    return container_images.built(folder if worker_id == "master" else folder.parent)


@pytest.fixture(scope="module")
def containers(nothing_is_left: None, runtime: str) -> Iterator[LocalService]:
    os.environ[container_images.SECRET] = "of the host"
    try:
        with LocalService(cpus=4, memory=16, seconds_per_minute=10, containers="real") as service:
            yield service
    finally:
        del os.environ[container_images.SECRET]
