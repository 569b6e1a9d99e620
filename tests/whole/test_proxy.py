"""The fault-injecting proxy: what it forwards is what the service said, and each fault is the one it is named for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from proxy import (
    ODD_PAUSES,
    Fault,
    FaultProxy,
    away,
    bomb,
    corrupted,
    dripped,
    dropped,
    edited,
    endless,
    hang,
    html,
    late,
    misshapen,
    naming_twice,
    omitting,
    refused_token,
    reset_after,
    reset_before,
    shortened,
    status,
    told_to_wait,
    too_deep,
    truncated,
    unknown_status,
)

from prominence_executor.local import LocalService

pytestmark = pytest.mark.once

JOB = {
    "name": "through-the-proxy",
    "labels": {"place": "proxytest"},
    "tasks": [{"image": "x", "runtime": "singularity", "cmd": "true"}],
    "resources": {"cpus": 1000, "memory": 1, "disk": 1, "nodes": 1, "walltime": 1},  # no slot is that large: it waits
}


@pytest.fixture
def proxy(service: LocalService) -> Iterator[FaultProxy]:
    with FaultProxy(service.url, seed=7) as proxy:
        yield proxy
    assert not [thread.name for thread in threading.enumerate() if "fault-proxy" in thread.name]


@pytest.fixture
def session(service: LocalService) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {service.token}"
        yield session
        ids = jobs_of(session, service.url)
        if ids:
            session.delete(f"{service.url}/jobs?id={','.join(map(str, ids))}")


def jobs_of(session: requests.Session, url: str) -> list[int]:
    return [job["id"] for job in session.get(f"{url}/jobs?constraint=place=proxytest", timeout=10).json()]


def test_without_rules_it_changes_nothing_but_the_address_of_signed_urls(
    service: LocalService, proxy: FaultProxy, session: requests.Session
) -> None:
    for path in ("/health", "/resources", "/jobs?all=true&num=3", "/nowhere"):
        direct, through = (session.get(url + path, timeout=10) for url in (service.url, proxy.url))
        assert (through.status_code, through.text) == (direct.status_code, direct.text)
        assert through.headers["Content-Type"] == direct.headers["Content-Type"]
    asked = session.post(f"{proxy.url}/data/upload", json={"filename": "a", "checksum": None}, timeout=10).json()
    assert asked["url"].startswith(proxy.url.removesuffix(proxy.base) + "/prominence-objects/")


def test_bodies_stream_through_with_a_length_and_in_chunks(proxy: FaultProxy, session: requests.Session) -> None:
    content = bytes(range(256)) * 20_000

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]

    for body in (content, pieces()):
        url = session.post(f"{proxy.url}/data/upload", json={"filename": "streamed", "checksum": None}).json()["url"]
        assert requests.put(url, data=body, timeout=10).status_code == 200
        listed = {item["name"]: item["size"] for item in session.get(f"{proxy.url}/data", timeout=10).json()}
        assert listed["streamed"] == len(content)
    assert session.delete(f"{proxy.url}/data/streamed", timeout=10).status_code == 204
    assert sum(n for kind, n in proxy.forwarded.items() if "prominence-objects" in kind) == 2


def test_many_requests_go_through_one_connection(proxy: FaultProxy, session: requests.Session) -> None:
    for _ in range(5):
        session.get(f"{proxy.url}/health", timeout=10)
        session.post(f"{proxy.url}/kv/a", data=b"value", timeout=10)
    assert len(proxy._connections) == 1
    assert proxy.forwarded["GET /health"] == 5


@pytest.mark.parametrize(
    ("fault", "made"),
    [(reset_before(), 0), (reset_after(), 1), (dropped(), 1), (hang(0.1), 0), (away(0.1), 0)],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_lost_answer_is_no_answer_and_the_job_is_made_or_not(
    service: LocalService, proxy: FaultProxy, session: requests.Session, fault: Fault, made: int
) -> None:
    session.get(f"{proxy.url}/health", timeout=10)  # so that the fault meets a connection that is kept alive
    rule = proxy.inject(fault, method="POST", path="^/jobs$")
    with pytest.raises(requests.ConnectionError):
        session.post(f"{proxy.url}/jobs", json=JOB, timeout=10)
    assert len(jobs_of(session, service.url)) == made
    assert (rule.matched, rule.injected, proxy.injected[fault.name]) == (1, 1, 1)


def test_a_late_request_arrives_after_its_client_has_gone(
    service: LocalService, proxy: FaultProxy, session: requests.Session
) -> None:
    proxy.inject(late(0.3), method="POST")
    with pytest.raises(requests.ConnectionError):
        session.post(f"{proxy.url}/jobs", json=JOB, timeout=10)
    assert jobs_of(session, service.url) == []
    deadline = time.monotonic() + 10
    while not jobs_of(session, service.url):
        assert time.monotonic() < deadline


@pytest.mark.parametrize("forwarded", [False, True])
@pytest.mark.parametrize("code", [500, 502, 503, 429])
def test_a_status_comes_in_place_of_the_answer(
    service: LocalService, proxy: FaultProxy, session: requests.Session, code: int, forwarded: bool
) -> None:
    proxy.inject(status(code, retry_after=2, forwarded=forwarded), times=1)
    answer = session.post(f"{proxy.url}/jobs", json=JOB, timeout=10)
    assert (answer.status_code, answer.headers["Retry-After"]) == (code, "2")
    assert "<html>" in answer.text
    assert len(jobs_of(session, service.url)) == forwarded
    assert session.get(f"{proxy.url}/health", timeout=10).json() == {}  # the same connection goes on


def test_answers_are_replaced_cut_bent_and_delayed(proxy: FaultProxy, session: requests.Session) -> None:
    def resources() -> requests.Response:
        return session.get(f"{proxy.url}/resources", timeout=10)

    whole = resources().content
    checks: list[tuple[Fault, Callable[[requests.Response], bool]]] = [
        (html(), lambda answer: answer.status_code == 200 and "<html>" in answer.text),
        (refused_token(), lambda answer: answer.status_code == 401 and "error" in answer.json()),
        (shortened(), lambda answer: answer.content == whole[: len(whole) // 2]),
        (corrupted(0), lambda answer: answer.content == bytes([whole[0] ^ 0x80]) + whole[1:]),
        (edited("added", lambda value: {**value, "more": 1}), lambda answer: answer.json()["more"] == 1),
        (misshapen("[null]"), lambda answer: answer.json() == [None]),
        (told_to_wait(), lambda answer: (answer.status_code, answer.headers["Retry-After"]) == (503, ODD_PAUSES[0])),
        (too_deep(), lambda answer: answer.content.startswith(b"[" * 1000)),
        (dripped(0.2), lambda answer: answer.content == whole and answer.elapsed.total_seconds() < 5),
    ]
    for fault, check in checks:
        rule = proxy.inject(fault)
        assert check(resources()), fault.name
        proxy.heal(rule)
    proxy.inject(truncated(), times=1)
    with session.get(f"{proxy.url}/resources", timeout=10, stream=True) as answer:
        assert int(answer.headers["Content-Length"]) == len(whole)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            assert len(answer.content) < len(whole)
            raise requests.exceptions.ChunkedEncodingError  # before urllib3 2 nobody minds the length
    for fault, size in ((bomb(), 300_000_000), (endless(), 10_000_000)):
        proxy.inject(fault, times=1)
        with session.get(f"{proxy.url}/resources", timeout=10, stream=True) as answer:
            came = 0
            for piece in answer.iter_content(1 << 20):
                came += len(piece)
                if came >= size:
                    break
            assert came >= size
    proxy.inject(corrupted(), times=1)
    with pytest.raises(ValueError):
        json.loads(resources().content)
    assert resources().content == whole


def test_lists_lack_jobs_or_have_them_twice(
    service: LocalService, proxy: FaultProxy, session: requests.Session
) -> None:
    ids = [session.post(f"{proxy.url}/jobs", json=JOB, timeout=10).json()["id"] for _ in range(3)]

    def listed(fault: Fault) -> list[dict[str, Any]]:
        proxy.inject(fault, path=r"^/jobs\?constraint=", times=1)
        answer: list[dict[str, Any]] = session.get(f"{proxy.url}/jobs?constraint=place=proxytest", timeout=10).json()
        return answer

    everything = sorted(job["id"] for job in listed(edited("nothing", lambda jobs: jobs)))
    assert everything == ids
    assert len(listed(omitting())) == 1
    assert sorted(job["id"] for job in listed(naming_twice())) == sorted(ids * 2)
    assert {job["status"] for job in listed(unknown_status())} == {"pondering"}


def test_a_refusing_proxy_cuts_what_is_open_and_comes_back_on_its_port(
    proxy: FaultProxy, session: requests.Session
) -> None:
    assert session.get(f"{proxy.url}/health", timeout=10).status_code == 200
    with proxy.refusing():
        for _ in range(2):
            with pytest.raises(requests.ConnectionError):
                session.get(f"{proxy.url}/health", timeout=10)
    assert session.get(f"{proxy.url}/health", timeout=10).status_code == 200
    proxy.refuse(0.2)
    with pytest.raises(requests.ConnectionError, match="refused"):
        requests.get(f"{proxy.url}/health", timeout=10)
    time.sleep(0.4)
    assert session.get(f"{proxy.url}/health", timeout=10).status_code == 200


def test_rules_choose_by_method_path_count_and_seeded_dice(service: LocalService) -> None:
    def codes(seed: int, **rule: Any) -> list[int]:
        with FaultProxy(service.url, seed=seed) as proxy, requests.Session() as session:
            proxy.inject(status(503), **rule)
            return [session.get(f"{proxy.url}/health", timeout=10).status_code for _ in range(12)]

    assert codes(0, method="POST") == codes(0, path="^/jobs") == [200] * 12
    assert codes(0, path="^/health$", every=3) == [200, 200, 503] * 4
    assert codes(0, every=2, times=3) == [200, 503] * 3 + [200] * 6
    assert codes(0, every=2, times_each=2) == [200, 503] * 2 + [200] * 8
    assert codes(1, probability=0.5) == codes(1, probability=0.5) != codes(2, probability=0.5)
    assert 503 in codes(1, probability=0.5)
    assert 200 in codes(1, probability=0.5)


def test_it_stops_at_once_though_connections_hang(service: LocalService) -> None:
    outcome: list[Exception] = []

    def ask(url: str) -> None:
        try:
            requests.get(url, timeout=30)
        except requests.ConnectionError as error:
            outcome.append(error)

    with FaultProxy(service.url) as proxy:
        rule = proxy.inject(hang())
        thread = threading.Thread(target=ask, args=(f"{proxy.url}/health",))
        thread.start()
        deadline = time.monotonic() + 10
        while not rule.injected:
            assert time.monotonic() < deadline
        began = time.monotonic()
    thread.join()
    assert time.monotonic() - began < 2
    assert outcome
