"""Users of the session's embedded service, and a service that runs tasks in containers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import container_images
import pytest
from people import Person

from prominence_executor.service import LocalService


@pytest.fixture
def person(service: LocalService) -> Person:
    return Person(service.url, service.token_for("person"))


@pytest.fixture(scope="session", params=container_images.RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    reason = container_images.missing(request.param)
    if reason:
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    folder = tmp_path_factory.getbasetemp()
    return container_images.built(folder if worker_id == "master" else folder.parent)


@contextmanager
def secret() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(container_images.SECRET, "of the host")
        yield


@pytest.fixture(scope="session")
def one_for_all_modules(nothing_is_left: None, runtime: str) -> Iterator[LocalService]:
    """A service that runs tasks in containers; of all modules, so that an image is unpacked once."""
    with ExitStack() as stack:
        with secret():
            service = LocalService(cpus=4, memory=16, seconds_per_minute=10, containers="real")
            stack.enter_context(service)
        yield service


@pytest.fixture(scope="module")
def containers(one_for_all_modules: LocalService) -> Iterator[LocalService]:
    """That service, on a host with a secret."""
    with secret():
        yield one_for_all_modules
