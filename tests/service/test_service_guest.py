"""The service as a guest of the user's program and network: what is not its own stays as it was."""

from __future__ import annotations

import logging
import random
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from people import Person

from prominence_executor.service import LocalService
from prominence_executor.service.containers.images import Images
from prominence_executor.service.sandbox.downloads import is_loopback, proxy_variables
from prominence_executor.service.state.objects import ObjectStore


class Proxy(socketserver.ThreadingTCPServer):
    """Notes what it is asked for, and sends everybody on to `target`."""

    daemon_threads = True
    target = "http://127.0.0.1:9/"

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Redirects)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Redirects(socketserver.StreamRequestHandler):
    server: Proxy

    def handle(self) -> None:
        self.server.asked.append(self.rfile.readline().split()[1].decode())
        while self.rfile.readline().strip():
            pass
        self.wfile.write(f"HTTP/1.1 302 Found\r\nLocation: {self.server.target}\r\nContent-Length: 0\r\n\r\n".encode())


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The proxy that the environment names for everything, without exception."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Proxy() as running:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, running.url)
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def direct(person: Person) -> str:
    """A signed URL of the service, whose object says "text"."""
    url: str = person.ended(person.create("sh -c 'echo text > o'", outputFiles=["o"]))["outputFiles"][0]["url"]
    return url


def fetched(service: LocalService, person: Person, url: str) -> str:
    """What an artifact's URL gives; the description is handed over without a request that would need a proxy itself."""
    import requests

    with requests.Session() as session:
        session.trust_env = False
        headers = {"Authorization": f"Bearer {service.token_for('person')}"}
        body = person.described("cat o", artifacts=[{"url": url}])
        job = session.post(service.url + "/jobs", json=body, headers=headers, timeout=60).json()["id"]
        while True:
            (described,) = session.get(f"{service.url}/jobs/{job}", headers=headers, timeout=60).json()
            if "endTime" in described["events"]:
                break
        assert described.get("statusReason") is None
        return session.get(f"{service.url}/jobs/{job}/stdout", headers=headers, timeout=60).text


def test_an_artifact_on_this_machine_is_never_asked_for_through_a_proxy(
    service: LocalService, person: Person, direct: str, proxy: Proxy
) -> None:
    assert fetched(service, person, direct) == "text\n"
    assert fetched(service, person, direct.replace("127.0.0.1", "localhost")) == "text\n"
    assert proxy.asked == []


def test_a_redirect_to_this_machine_leaves_the_proxy(
    service: LocalService, person: Person, direct: str, proxy: Proxy
) -> None:
    proxy.target = direct
    assert fetched(service, person, "http://elsewhere.invalid/o") == "text\n"
    assert proxy.asked == ["http://elsewhere.invalid/o"]  # which others are asked through, as before


def test_an_image_on_this_machine_is_never_asked_for_through_a_proxy(direct: str, proxy: Proxy, tmp_path: Path) -> None:
    images = Images(tmp_path / "images", ObjectStore(tmp_path / "objects"))
    image = images.get(direct, "person", lambda: False)
    assert image.file is not None
    assert image.file.read_text() == "text\n"
    assert proxy.asked == []


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True), ("LOCALHOST:80", True), ("a.localhost", True), ("localhost.", True), ("127.0.0.1:1", True),
        ("127.8.9.10", True), ("127.1", True), ("[::1]:80", True), ("0.0.0.0:80", True),
        ("localhost.example.org", False), ("127.0.0.1.example.org", False), ("10.0.0.1", False), ("[fe80::1]", False),
    ],
)  # fmt: skip
def test_this_machine_is_known_by_name_and_number(host: str, here: bool) -> None:
    assert is_loopback(host) is here


def test_the_programs_of_runtimes_ask_this_machine_without_a_proxy(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert proxy_variables()["no_proxy"] == proxy_variables()["NO_PROXY"] == "localhost,127.0.0.1,::1"
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert proxy_variables()["no_proxy"] == "example.org,localhost,127.0.0.1,::1"
    assert proxy_variables()["HTTP_PROXY"] == proxy.url


def test_a_service_in_the_users_process_leaves_its_random_numbers_and_loggers_alone(tmp_path: Path) -> None:
    queued = logging.getLogger("aiohttp.server")
    random.seed(11)
    state, level = random.getstate(), queued.level
    with LocalService(tmp_path / "state") as service:
        person = Person(service.url, service.token)
        job = person.create("true", notifications=[{"event": "jobFinished", "type": "email"}])
        person.ended(job)
    assert (service.dir / "mail" / f"{job}.eml").exists()
    assert queued.level == level
    assert random.getstate() == state
