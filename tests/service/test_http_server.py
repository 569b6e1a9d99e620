"""The HTTP server: what it refuses before it reads it, what clients leave behind, and that none blocks the others."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from paths import ROOT
from people import Person

from prominence_executor import ProminenceClient, ProminenceExecutor
from prominence_executor.service import LocalService
from prominence_executor.service.http import app
from prominence_executor.service.http.context import Answer, Ask, jsonify
from prominence_executor.service.http.routes import Routes
from prominence_executor.service.http.waiting import Changes, Topic
from prominence_executor.service.state.clock import Clock
from prominence_executor.service.state.tokens import Signer, load_secret

pytestmark = pytest.mark.once

BASE = "/prominence/v1"
Until = Callable[..., None]
TOPIC = Topic("room", "topic")


class Raw:
    """A connection on which anything can be said."""

    def __init__(self, url: str) -> None:
        self.parts = urlsplit(url)
        self._socket = socket.create_connection((self.parts.hostname or "", self.parts.port or 80), timeout=20)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def head(self, method: str, path: str, *headers: str) -> None:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.parts.netloc}", *headers, "", ""]
        self.send("\r\n".join(lines).encode())

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def line(self) -> str:
        """The first line of what is answered."""
        said = b""
        while not said.endswith(b"\r\n") and (more := self._socket.recv(1)):
            said += more
        return said.decode().strip()

    def answer(self) -> bytes:
        """The body of the answer that comes next."""
        length = 0
        while line := self.line():
            if line.lower().startswith("content-length:"):
                length = int(line.partition(":")[2])
        body = b""
        while len(body) < length and (more := self._socket.recv(length - len(body))):
            body += more
        return body

    def close(self) -> None:
        self._socket.close()

    def closed(self) -> bool:
        """Whether the service ends the connection, after whatever it still says."""
        while self._socket.recv(1 << 16):
            pass
        return True


@pytest.fixture(scope="module")
def own() -> Iterator[LocalService]:
    """A service whose folder of incoming files nobody else uses."""
    with LocalService(cpus=8, memory=64) as service:
        yield service


def incoming(service: LocalService) -> list[str]:
    return os.listdir(service.dir / "objects" / "incoming")


TAKING = [
    ("POST", "/jobs"), ("POST", "/workflows"), ("POST", "/data"), ("POST", "/data/upload"), ("POST", "/data/output"),
    ("POST", "/kv/a"), ("PUT", "/jobs/1/clone"), ("POST", "/jobs/1/exec?command=true"), ("PUT", "/workflows/1"),
    ("DELETE", "/jobs?id=1"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), TAKING)
def test_a_body_is_refused_before_it_is_read(method: str, path: str, own: LocalService) -> None:
    good = f"Authorization: Bearer {own.token}"
    for headers, status in (
        (["Content-Length: 1000000"], "401"),
        (["Content-Length: 1000000", "Authorization: Bearer x.y.z"], "401"),
        (["Transfer-Encoding: chunked"], "401"),
        (["Content-Length: 1048577", good], "413"),
        (["Content-Length: 1048577", good, "Expect: 100-continue"], "413"),
    ):
        with Raw(own.url) as raw:
            raw.head(method, BASE + path, *headers)
            assert raw.line().startswith(f"HTTP/1.1 {status} ")


def test_a_client_is_told_to_go_on_only_where_its_body_will_be_read(own: LocalService) -> None:
    with Raw(own.url) as raw:
        raw.head(
            "POST", f"{BASE}/kv/told", "Content-Length: 1", f"Authorization: Bearer {own.token}", "Expect: 100-continue"
        )
        assert raw.line() == "HTTP/1.1 100 Continue"
        raw.send(b"1")
        assert raw.line() == ""
        assert raw.line() == "HTTP/1.1 201 Created"


def test_a_body_without_a_length_is_read_up_to_the_limit(own: LocalService) -> None:
    person = Person(own.url, own.token)

    def pieces() -> Iterator[bytes]:
        for _ in range(17):
            yield b" " * (1 << 16)

    answer = person("POST", "/jobs", data=pieces())
    assert answer.status_code == 413
    assert person("POST", "/kv/chunked", data=iter([b"a", b"b"])).status_code == 201
    assert person("GET", "/kv/chunked").content == b"ab"


def test_a_refused_upload_finds_its_answer_though_it_is_still_being_sent(own: LocalService) -> None:
    refused = requests.put(
        f"{own.url.removesuffix(BASE)}/prominence-objects/uploads/x/y", data=bytes(30_000_000), timeout=30
    )
    assert refused.status_code == 403
    assert requests.post(f"{own.url}/jobs", data=bytes(30_000_000), timeout=30).status_code == 413


def form(own: LocalService, name: str, content: bytes) -> tuple[str, dict[str, str]]:
    ask = {"filename": name, "checksum": hashlib.sha256(content).hexdigest()}
    answer = Person(own.url, own.token)("POST", "/data/upload", json=ask).json()
    return answer["url"], answer["fields"]


def encoded(parts: list[tuple[str, bytes]], end: bytes = b"--B--\r\n") -> bytes:
    body = b""
    for name, content in parts:
        disposition = f'form-data; name="{name}"' + ('; filename="f"' if name == "file" else "")
        body += f"--B\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"
    return body + end


CONTENT = b"content" * 50_000
FORMS: list[tuple[str, Callable[[list[tuple[str, bytes]]], bytes], int]] = [
    ("good", lambda fields: encoded([*fields, ("file", CONTENT)]), 204),
    ("two files", lambda fields: encoded([*fields, ("file", CONTENT), ("file", CONTENT)]), 400),
    ("two other files", lambda fields: encoded([*fields, ("other", CONTENT), ("file", CONTENT)]), 400),
    ("two keys", lambda fields: encoded([*fields, ("key", b"x"), ("file", CONTENT)]), 400),
    ("the file first", lambda fields: encoded([("file", CONTENT), *fields]), 403),
    ("no fields", lambda _: encoded([("file", CONTENT)]), 403),
    ("no file", lambda fields: encoded(fields), 400),
    ("another file", lambda fields: encoded([*fields, ("file", CONTENT + b"x")]), 400),
    ("something after the file", lambda fields: encoded([*fields, ("file", CONTENT), ("after", b"x")]), 400),
    ("many fields", lambda fields: encoded([*fields, *((f"f{i}", b"x") for i in range(100))]), 400),
    ("no end", lambda fields: encoded([*fields, ("file", CONTENT)], b""), 400),
    ("no part", lambda _: b"nothing", 400),
    ("no name", lambda _: b"--B\r\n\r\nx\r\n--B--\r\n", 400),
    ("no text", lambda fields: encoded([("field", b"\xff"), *fields]), 400),
    ("a part of parts", lambda _: b"--B\r\nContent-Type: multipart/mixed; boundary=C\r\n\r\n--C\r\n\r\n--B--\r\n", 400),
]


@pytest.mark.parametrize(("name", "body", "status"), FORMS, ids=[name for name, _, _ in FORMS])
def test_a_form_is_kept_whole_or_leaves_nothing(
    name: str, body: Callable[[list[tuple[str, bytes]]], bytes], status: int, own: LocalService
) -> None:
    object_name = f"form-{name.replace(' ', '-')}"
    url, fields = form(own, object_name, CONTENT)
    data = body([(key, value.encode()) for key, value in fields.items()])
    answer = requests.post(url, data=data, headers={"Content-Type": "multipart/form-data; boundary=B"}, timeout=30)
    assert answer.status_code == status, answer.text
    assert incoming(own) == []
    listed = {item["name"]: item["size"] for item in Person(own.url, own.token)("GET", "/data").json()}
    assert listed.get(object_name) == (len(CONTENT) if status == 204 else None)


@pytest.mark.parametrize("kind", ["form", "object", "chunked object"])
def test_an_upload_that_is_cut_off_leaves_nothing(kind: str, own: LocalService, until: Until) -> None:
    if kind == "form":
        url, fields = form(own, "cut", CONTENT)
        body = encoded([*((key, value.encode()) for key, value in fields.items()), ("file", bytes(3_000_000))])
        headers, sent = (
            ["Content-Type: multipart/form-data; boundary=B", f"Content-Length: {len(body)}"],
            body[:-500_000],
        )
    else:
        url = Person(own.url, own.token)("POST", "/data/upload", json={"filename": "cut"}).json()["url"]
        headers, sent = ["Content-Length: 4000000"], bytes(3_000_000)
        if kind == "chunked object":
            headers, sent = ["Transfer-Encoding: chunked"], b"2dc6c0\r\n" + sent + b"\r\n"
    parts = urlsplit(url)
    with Raw(own.url) as raw:
        raw.head("POST" if kind == "form" else "PUT", f"{parts.path}?{parts.query}", *headers)
        raw.send(sent)
        until(lambda: incoming(own))
    until(lambda: not incoming(own))
    assert "cut" not in Person(own.url, own.token)("GET", "/data").text


def test_a_service_that_stops_forgets_a_half_sent_upload_at_once(tmp_path: Path, until: Until) -> None:
    with LocalService(tmp_path / "state") as service, ExitStack() as stack:
        url = urlsplit(
            Person(service.url, service.token)("POST", "/data/upload", json={"filename": "half"}).json()["url"]
        )
        raw = stack.enter_context(Raw(service.url))
        raw.head("PUT", f"{url.path}?{url.query}", "Content-Length: 4000000")
        raw.send(bytes(2_000_000))
        until(lambda: incoming(service))
        began = time.monotonic()
        service.stop()
        assert time.monotonic() - began < 5
        assert raw.closed()
        assert incoming(service) == []


@pytest.mark.parametrize(
    ("headers", "status", "part"),
    [
        ({}, 200, slice(None)),
        ({"Range": "bytes=10-19"}, 206, slice(10, 20)),
        ({"Range": "bytes=999990-"}, 206, slice(999_990, None)),
        ({"Range": "bytes=-7"}, 206, slice(-7, None)),
        ({"Range": "bytes=0-5000000"}, 206, slice(None)),
        ({"Range": "bytes=1000000-"}, 416, slice(0)),
        ({"Range": "bytes=-0"}, 416, slice(0)),
        ({"Range": "bytes=20-10"}, 200, slice(None)),
        ({"Range": "bytes=0-1,5-6"}, 200, slice(None)),
        ({"Range": "lines=1-2"}, 200, slice(None)),
        ({"Range": "bytes=10-19", "If-Range": '"another"'}, 200, slice(None)),
        ({"If-None-Match": '"another"'}, 200, slice(None)),
        ({"If-None-Match": "*"}, 304, slice(0)),
        ({"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}, 304, slice(0)),
        ({"If-Modified-Since": "yesterday"}, 200, slice(None)),
    ],
)
def test_a_part_of_an_object_can_be_had(headers: dict[str, str], status: int, part: slice, own: LocalService) -> None:
    blob = bytes(range(250)) * 4_000
    path = own.dir / "objects" / "uploads" / "local" / "parts"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(blob)
    signer = Signer(load_secret(own.dir / "secret"), Clock())
    url = signer.signed_url(own.url.removesuffix(BASE), "GET", "uploads/local/parts", 60)
    answer = requests.get(url, headers=headers, timeout=30)
    assert (answer.status_code, answer.content) == (status, blob[part])
    if status == 206:
        first, last, size = part.indices(len(blob))[0], part.indices(len(blob))[1] - 1, len(blob)
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
        again = requests.get(url, headers={**headers, "If-Range": answer.headers["ETag"]}, timeout=30)
        assert (again.status_code, again.content) == (206, answer.content)
    about = requests.head(url, headers=headers, timeout=30)
    assert (about.status_code, about.content) == (status, b"")
    if status in (200, 206):
        assert about.headers["Content-Length"] == answer.headers["Content-Length"]


def test_neither_slow_readers_nor_long_commands_block_anybody(own: LocalService, until: Until) -> None:
    person = Person(own.url, own.token)
    talker = person.create("python3 -c \"print('x' * 20000000, flush=True); import time; time.sleep(1000)\"")
    until(lambda: len(person.stdout(talker)) > 20_000_000)
    with ExitStack() as stack:
        for request in ["GET /jobs/{}/stdout"] * 8 + ["POST /jobs/{}/exec?command=sleep,100"] * 8:
            method, _, path = request.format(talker).partition(" ")
            raw = stack.enter_context(Raw(own.url))
            raw.head(method, BASE + path, f"Authorization: Bearer {own.token}")
            if method == "GET":
                assert raw.line() == "HTTP/1.1 200 OK"  # and nothing of the rest is read
        times = []
        for number in range(20):
            began = time.monotonic()
            assert person("GET", f"/jobs/{talker}").ok
            assert person("POST", f"/kv/busy/{number}", data="x").ok
            times.append(time.monotonic() - began)
        assert person.ended(person.create("true"), 20)["status"] == "completed"
        person("DELETE", f"/jobs/{talker}")
    assert sorted(times)[10] < 1


def test_more_idle_connections_than_there_is_room_for_block_nobody(tmp_path: Path) -> None:
    files = 128

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    with subprocess.Popen(
        [sys.executable, "-m", "prominence_executor.service", "--child"], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=limited,
    ) as process, ExitStack() as stack:  # fmt: skip
        assert process.stdout is not None
        said: dict[str, Any] = json.loads(process.stdout.readline())
        person = Person(said["url"], said["token"])
        for _ in range(2 * files):
            stack.enter_context(Raw(said["url"]))
        assert person.ended(person.create("true"), 20)["status"] == "completed"
        _, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (0, b"")


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http_is_answered_with_400_and_the_end_of_the_connection(
    said: bytes, own: LocalService, capfd: pytest.CaptureFixture[str]
) -> None:
    with Raw(own.url) as raw:
        raw.send(said)
        assert raw.line().split()[1] == "400"
        assert raw.closed()
    assert capfd.readouterr() == ("", "")


def test_targets_as_clients_write_them(own: LocalService) -> None:
    good = f"Authorization: Bearer {own.token}"
    for target, status in (
        (f"{own.url}/jobs", "200"), (f"{BASE}/jobs#x?y", "200"), (f"{BASE}/kv/a%2Fb", "404"), (f"{BASE}/kv/%ff", "404"),
        (f"{BASE}/kv/\udcff", "400"), (f"{BASE}//jobs", "404"), (f"{BASE}/jobs/{'9' * 30}", "200"), ("*", "400"),
    ):  # fmt: skip
        with Raw(own.url) as raw:
            raw.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n{good}\r\n\r\n".encode(errors="surrogateescape"))
            assert raw.line().split()[1] == status, target
    assert requests.options(f"{own.url}/jobs", timeout=30).headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 507),
        (sqlite3.OperationalError("database or disk is full"), 507),
        (PermissionError("no"), 500),
    ],
)
def test_a_full_disk_is_told_as_one(error: Exception, status: int) -> None:
    assert app.answer_to(error).status == status


def test_requests_that_wait_hold_no_thread_hear_of_a_change_and_are_answered_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = Routes()

    @waiting.get("/wait")
    async def wait(ask: Ask) -> Answer:
        return jsonify(await ask.api.changes.after(ask.whole("since", 0), TOPIC, 100))

    @waiting.post("/change")
    def change(ask: Ask) -> Answer:
        ask.api.changes.announce(TOPIC)
        return jsonify(ask.api.changes.revision())

    monkeypatch.setattr(app.routes, "entries", [*app.routes.entries, *waiting.entries])
    with LocalService(tmp_path / "state") as service, ExitStack() as stack:
        base, good = service.url.removesuffix(BASE), f"Authorization: Bearer {service.token}"
        headers = {"Authorization": f"Bearer {service.token}"}
        waiters = [stack.enter_context(Raw(service.url)) for _ in range(60)]

        def ask(since: int, *last: str) -> None:
            for waiter in waiters:
                waiter.head("GET", f"/wait?since={since}", good, *last)

        before = requests.get(f"{base}/wait", headers=headers, timeout=10).json()  # of long ago: answered at once
        ask(before)
        now = requests.post(f"{base}/change", headers=headers, timeout=10).json()
        assert now > before
        assert [waiter.answer() for waiter in waiters] == [b"%d\n" % now] * 60
        ask(before)  # it has changed since
        assert [waiter.answer() for waiter in waiters] == [b"%d\n" % now] * 60
        ask(now, "Connection: close")
        for gone in waiters[:30]:
            gone.close()
        assert requests.get(f"{base}/wait", headers=headers, timeout=10).json() == now
        service.stop()
        assert [waiter.answer() for waiter in waiters[30:]] == [b"%d\n" % now] * 30


def test_a_change_that_comes_between_looking_and_waiting_is_not_missed() -> None:
    async def story() -> list[int]:
        changes, other = Changes(), Topic("room", "other")
        seen = changes.revision()
        changes.announce(TOPIC)
        changes.announce(other)
        heard = [await changes.after(seen, TOPIC, 10), await changes.after(seen + 2, other, 0.01)]
        both = asyncio.gather(changes.after(seen + 2, TOPIC, 10), changes.after(seen + 2, TOPIC, 10))
        threading.Timer(0.05, changes.announce, [TOPIC]).start()
        heard += await both
        changes.close()
        return [number - seen for number in (*heard, await changes.after(seen + 3, TOPIC, 10))]

    assert asyncio.run(story()) == [2, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("changed", "waits_for", "concerned"),
    [
        (Topic("r", "a/b"), Topic("r", "a/b"), True),
        (Topic("r", "a/b"), Topic("r", "a/c"), False),
        (Topic("r", "a/b"), Topic("r", "a", prefix=True), True),
        (Topic("r", "a", prefix=True), Topic("r", "a/b"), True),
        (Topic("r", "a", prefix=True), Topic("r", "a/b", prefix=True), True),
        (Topic("r", "a/b", prefix=True), Topic("r", "a", prefix=True), True),
        (Topic("r", "b", prefix=True), Topic("r", "a", prefix=True), False),
    ],
)
def test_a_name_and_all_that_begin_so_meet(changed: Topic, waits_for: Topic, concerned: bool) -> None:
    async def story() -> bool:
        changes = Changes()
        seen = changes.revision()
        waiting = asyncio.ensure_future(changes.after(seen, waits_for, 0.2))
        await asyncio.sleep(0)
        changes.announce(changed._replace(room="elsewhere"), changed)
        assert changed.concerns(waits_for) is concerned
        await asyncio.sleep(0.02)
        woken = waiting.done()
        await waiting
        began = asyncio.get_running_loop().time()
        await changes.after(seen, waits_for, 0.1)  # who asks only now is told as well
        assert (asyncio.get_running_loop().time() - began < 0.1) is concerned
        return woken

    assert asyncio.run(story()) is concerned


def test_what_is_remembered_of_changes_is_bounded_and_none_is_missed_for_that() -> None:
    changes = Changes()
    seen = changes.revision()
    changes.announce(TOPIC)
    for number in range(3000):
        changes.announce(Topic("room", f"other/{number}"))
    assert sum(len(room.changed) for room in changes._rooms.values()) <= 1000
    assert asyncio.run(changes.after(seen, TOPIC, 60)) == changes.revision()
    assert asyncio.run(changes.after(changes.revision() + 5, TOPIC, 60)) == changes.revision()  # of another service


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
            "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", "key.pem", "-out", "certificate.pem",
        ],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "certificate.pem", folder / "key.pem"


def test_a_service_listens_elsewhere_with_a_certificate_alone(certificate: tuple[Path, Path]) -> None:
    certfile, keyfile = certificate
    with LocalService(bind="0.0.0.0", certfile=certfile, keyfile=keyfile) as found:
        port = int(found.url.split(":")[2].split("/")[0])
    public = f"https://127.0.0.1:{port}/prominence/v1/"
    with LocalService(bind="0.0.0.0", port=port, public_url=public, certfile=certfile, keyfile=keyfile) as service:
        assert service.url == public.rstrip("/")
        assert requests.get(f"{service.url}/health", verify=str(certfile), timeout=30).json() == {}


def test_with_a_certificate_clients_and_warm_workers_come_by_https_alone(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, key = certificate
    with LocalService(certfile=own, keyfile=key, cafile=own) as service:
        assert service.url.startswith("https://")
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(service.url + "/health", timeout=10)
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(service.url.replace("https", "http") + "/health", timeout=10)
        client = ProminenceClient(service.url, service.token, verify=own)
        client.kv_set("a", "b" * 10_000)
        assert client.kv_get("a") == "b" * 10_000
        monkeypatch.setenv("PROMINENCE_SSL_VERIFY", str(own))
        blob = os.urandom(3_000_000)
        for workers in (None, "warm"):
            with ProminenceExecutor(service.url, service.token, workers=workers, max_workers=1) as executor:
                assert executor.submit(len, blob).result(60) == len(blob)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--certfile", "none.pem"], "the certificate none.pem or its key cannot be used"),
        (["--certfile", "junk.pem"], "the certificate junk.pem or its key cannot be used"),
        (["--keyfile", "junk.pem"], "certfile is missing"),
        (["--certfile", "junk.pem", "--cafile", "none.pem"], "cafile is no file"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_one_sentence(options: list[str], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    done = subprocess.run(
        [sys.executable, "-m", "prominence_executor.service", "--dir", "state", *options], cwd=tmp_path, timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert sentence in done.stderr
