"""Places in the object store that fail, or never come: large calls go another way, and not for longer than needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from proxy import FaultProxy, held, relisted

from prominence_executor import ProminenceExecutor
from prominence_executor.client.status import has_ended
from prominence_executor.errors import ProminenceError
from prominence_executor.local import LocalService
from prominence_executor.remote.courier import seal
from prominence_executor.run.names import COURIER, worker_name
from prominence_executor.transports.warm import courier
from prominence_executor.transports.warm.places import _PAUSE, Places

pytestmark = pytest.mark.once


@pytest.fixture
def executor(service: LocalService) -> Iterator[ProminenceExecutor]:
    with ProminenceExecutor(service.url, service.token, workers="warm", max_workers=1) as executor:
        yield executor


def opened(executor: ProminenceExecutor, group: str, places: Places | None = None) -> Places:
    """Places that nothing can be stored in: no job has left them."""
    context = executor._run.context
    places = places or Places(context)
    names = [f"{group}-{number:02d}" for number in range(5)]
    addresses = {name: f"{executor.client.url}/nowhere/{name}" for name in names}
    places.open(1, seal("a token that nobody knows", context.key), addresses)
    return places


def test_several_failures_at_once_count_as_one(executor: ProminenceExecutor) -> None:
    places = opened(executor, "first")
    names = [places.take() or "" for _ in range(4)]

    def put(name: str) -> None:
        with pytest.raises(ProminenceError):
            places.put(name, b"content")

    threads = [threading.Thread(target=put, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not places.ready
    assert places._failures == 1
    assert places._closed_until < time.monotonic() + _PAUSE[0]


def test_a_place_of_an_earlier_courier_that_fails_closes_no_other(executor: ProminenceExecutor) -> None:
    places = opened(executor, "first")
    name = places.take() or ""
    places.fail("nobody can reach it", [name])
    opened(executor, "second", places)
    with pytest.raises(ProminenceError):
        places.put(name, b"content")
    with pytest.raises(ProminenceError):
        places.fetch({"name": name, "size": 7, "sha256": ""})
    assert places.ready
    places.fail("nobody can reach it", [None, places.take()])
    assert not places.ready


@pytest.mark.parametrize("what", ["held", "unknown"])
def test_large_calls_do_not_wait_for_a_courier_that_may_never_end(
    service: LocalService, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "_PATIENCE", 0.5)
    with FaultProxy(service.url) as proxy:
        with ProminenceExecutor(proxy.url, service.token, workers="warm", max_workers=1) as executor:
            name = worker_name(executor.run_id, COURIER)
            unknown = relisted("unknown", lambda jobs: [job for job in jobs if job["name"] != name])
            proxy.inject(held(name) if what == "held" else unknown, method="GET", path=r"^/jobs")
            assert executor.submit(len, bytes(2_000_000)).result(60) == 2_000_000
            proxy.heal()
            jobs = executor.client.list_jobs(all=True)
            assert not any(job["name"] == name for job in jobs if not has_ended(job))
            assert sum(job["name"].startswith(executor.run_id) and ".w" not in job["name"] for job in jobs) == 1
