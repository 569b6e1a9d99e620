"""`Prefer: wait`: a request comes when something has changed after a revision, and nothing is missed between two."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from prominence_executor import ProminenceClient, ServiceUnavailableError, Watch
from prominence_executor.service import LocalService
from prominence_executor.service.node.platform import Platform

LONG = 50  # seconds: a wait that ends before has been answered


@pytest.fixture
def client(service: LocalService) -> Iterator[ProminenceClient]:
    with ProminenceClient(service.url, service.token_for("waits"), timeout=(10, 200)) as client:
        yield client
        client.kv_delete("w", prefix=True)


def later(work: Any, *values: Any) -> threading.Timer:
    timer = threading.Timer(0.2, work, values)
    timer.start()
    return timer


def ask(service: LocalService, path: str, wait: str | None = None) -> requests.Response:
    headers = {"Authorization": f"Bearer {service.token_for('waits')}"}
    return requests.get(service.url + path, headers=headers | ({"Prefer": wait} if wait else {}), timeout=100)


def test_a_request_for_a_key_comes_when_there_is_one(client: ProminenceClient) -> None:
    timer, began = later(client.kv_set, "w/key", "value"), time.monotonic()
    seen = Watch()
    assert client.kv_get("w/key", wait=LONG, since=seen) == "value"
    assert seen.waits
    assert time.monotonic() - began < LONG / 2
    timer.join()
    timer = later(client.kv_set, "w/key", "another")
    assert client.kv_get("w/key", wait=LONG, since=seen) == "another"
    timer.join()


def test_an_answer_without_a_key_tells_that_it_has_waited(service: LocalService) -> None:
    answer = ask(service, "/kv/w/none", "wait=0")
    assert answer.status_code == 404
    assert answer.headers["Preference-Applied"] == "wait"
    assert int(answer.headers["X-Revision"]) > 0
    assert "Preference-Applied" not in ask(service, "/kv/w/none").headers
    assert "Preference-Applied" not in ask(service, "/kv/w/none", "respond-async").headers


@pytest.mark.parametrize("prefer", ["wait=0", "respond-async, WAIT = 0", 'wait="0"; a=b'])
def test_the_header_is_read_as_it_is_defined(service: LocalService, prefer: str) -> None:
    assert ask(service, "/kv/w?list=true", prefer).headers["Preference-Applied"] == "wait"


def test_a_revision_that_makes_no_sense_is_refused_in_a_sentence(service: LocalService) -> None:
    answer = ask(service, "/kv/w?list=true&since=soon", "wait=0")
    assert (answer.status_code, answer.json()) == (400, {"error": "since must be an integer of at least 0"})


def test_a_list_comes_when_something_below_it_has_changed_and_not_before(client: ProminenceClient) -> None:
    seen = Watch()
    client.kv_set("w/a/1", "x")
    assert client.kv_list("w/a", values=True, wait=LONG, since=seen) == {"/w/a/1": "x"}
    client.kv_set("w/b/1", "x")
    began = time.monotonic()
    assert client.kv_list("w/a", values=True, wait=1, since=seen) == {"/w/a/1": "x"}  # read, and not emptied
    assert time.monotonic() - began > 0.9
    for change in (
        lambda: client.kv_set("w/a/2", "y"),
        lambda: client.kv_set("w/a/2", "z", prev="y"),
        lambda: client.kv_delete("w/a/2"),
        lambda: client.kv_delete("w", prefix=True),
    ):
        timer, began = later(change), time.monotonic()
        client.kv_list("w/a", values=True, wait=LONG, since=seen)
        assert time.monotonic() - began < LONG / 2
        timer.join()


def test_what_changes_between_two_waits_is_not_missed(client: ProminenceClient) -> None:
    """One that waits all the time hears of each of many changes, the last one included."""
    seen, heard = Watch(), set()
    client.kv_list("w/n", wait=0, since=seen)

    def write() -> None:
        for number in range(60):
            client.kv_set("w/n/last", str(number))

    thread = threading.Thread(target=write)
    thread.start()
    began = time.monotonic()
    while "59" not in heard:
        heard |= set(client.kv_list("w/n", values=True, wait=LONG, since=seen).values())
    assert time.monotonic() - began < LONG
    thread.join()


def test_the_list_of_jobs_of_a_label_comes_when_one_of_them_changes(client: ProminenceClient) -> None:
    resources = {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 10}
    task = {"image": "any", "runtime": "singularity", "cmd": "sleep 0.3"}
    job = {"tasks": [task], "resources": resources, "labels": {"of": "ours"}}
    seen, other = Watch(), Watch()
    assert client.list_jobs(constraint=("of", "ours"), wait=LONG, since=seen) == []
    client.list_jobs(constraint=("of", "theirs"), wait=LONG, since=other)
    timer = later(client.create_job, job)
    states: list[list[str]] = []
    while not states or states[-1]:
        listed = client.list_jobs(constraint=("of", "ours"), wait=LONG, since=seen)
        states.append([each["status"] for each in listed])
    timer.join()
    assert states[0] in (["idle"], ["running"])
    assert len(states) <= 4  # it has come, runs, and has ended
    revision = other.revision
    client.list_jobs(constraint=("of", "theirs"), wait=0.0, since=other)
    began = time.monotonic()
    client.list_jobs(constraint=("of", "theirs"), wait=1, since=other)
    assert time.monotonic() - began > 0.9
    assert revision is not None


def test_one_that_waits_can_be_interrupted(client: ProminenceClient) -> None:
    seen, began = Watch(), time.monotonic()
    client.kv_list("w", since=seen)
    timer = later(seen.interrupt)
    with pytest.raises(ServiceUnavailableError):
        client.kv_list("w", wait=LONG, since=seen)
    timer.join()
    seen.interrupt()  # before the next one has begun: that does not wait
    client.kv_list("w", wait=LONG, since=seen)
    assert time.monotonic() - began < LONG / 2


def test_a_hundred_wait_at_once_and_who_is_gone_leaves_room(
    service: LocalService, client: ProminenceClient, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    monkeypatch.setattr("prominence_executor.service.http.waiting._MOST", 100)
    url = urlsplit(service.url)
    headers = {"Authorization": f"Bearer {service.token_for('waits')}", "Prefer": f"wait={LONG}"}

    def has_room() -> bool:
        return "Preference-Applied" in ask(service, "/kv/w?list=true", "wait=0").headers

    with ExitStack() as stack:

        def wait() -> HTTPConnection:
            connection = stack.enter_context(closing(HTTPConnection(url.hostname or "", url.port, timeout=100)))
            connection.request("GET", f"{url.path}/kv/w/{len(waiting)}", headers=headers)
            return connection

        waiting: list[HTTPConnection] = []
        while len(waiting) < 100:
            waiting.append(wait())
        until(lambda: not has_room())
        for gone in waiting[:40]:
            gone.close()
        until(has_room)
        waiting[:40] = [wait()]
        client.kv_set("w/50", "here")
        answer = waiting[11].getresponse()  # each hears of its own key only
        assert (answer.status, answer.read()) == (200, b"here")
        began = time.monotonic()
        for number in [number for number in range(40, 101) if number != 50]:
            client.kv_set(f"w/{number}", "here")
        assert [one.getresponse().status for one in waiting if one is not waiting[11]] == [200] * 60
        assert time.monotonic() - began < LONG / 2


def test_no_user_has_all_the_requests_that_wait(client: ProminenceClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prominence_executor.service.http.waiting._MOST", 0)
    seen, began = Watch(), time.monotonic()
    assert client.kv_list("w", wait=LONG, since=seen) == []
    assert not seen.waits
    assert time.monotonic() - began < LONG / 2


@pytest.mark.parametrize("ends", [True, False])
def test_a_service_that_ends_or_lets_nobody_wait_answers_at_once(ends: bool) -> None:
    with LocalService(platform=Platform(without_waiting=not ends)) as service:
        with ProminenceClient(service.url, service.token, timeout=(10, 200)) as client:
            seen, began = Watch(), time.monotonic()
            client.kv_list("w", wait=LONG, since=seen)
            assert seen.waits is ends
            timer = later(service.stop) if ends else None
            client.kv_list("w", wait=LONG, since=seen)
            assert time.monotonic() - began < LONG / 2
            if timer is not None:
                timer.join()
