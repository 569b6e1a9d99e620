"""The client against a real HTTP peer on this machine that answers what a test scripts, right or wrong."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickle
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from prominence_executor.client.client import KEY_VALUE_LIMIT, ProminenceClient
from prominence_executor.client.model import BODY_LIMIT
from prominence_executor.errors import (
    AuthenticationError,
    InvalidRequestError,
    KeyValueConflictError,
    NotFoundError,
    PermissionDeniedError,
    ProminenceError,
    ServiceError,
    ServiceUnavailableError,
    TransferError,
)
from prominence_executor.local import LocalService

TOKEN = "the-secret-token"
HTML_500 = b"<!doctype html>\n<title>500 Internal Server Error</title>\n<h1>Internal Server Error</h1>\n"


@dataclass
class Answer:
    status: int = 200
    body: bytes | Any = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """The Content-Length to claim, if not the true one."""
    reset: bool = False
    """Close the connection instead of answering."""
    delay: float = 0.0
    """Seconds before the answer."""


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


class Peer:
    """An HTTP server that gives the scripted answers in turn, the last of them for ever, and keeps what it got."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: deque[Answer] = deque()
        self.asked: list[Asked] = []
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                url = urlsplit(self.path)
                peer.asked.append(Asked(self.command, url.path, parse_qs(url.query), dict(self.headers), body))
                answer = peer.answers.popleft() if len(peer.answers) > 1 else peer.answers[0]
                time.sleep(answer.delay)
                if answer.reset:
                    # A linger time of 0 makes the close a reset.
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    return
                content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(content) if answer.length is None else answer.length))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(OSError):  # a client that has seen enough
                    self.wfile.write(content)
                self.close_connection = answer.length is not None

            do_GET = do_POST = do_PUT = do_DELETE = handle_any

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def server_bind(self) -> None:
                TCPServer.server_bind(self)  # HTTPServer's looks the host's name up, which may take long

            def handle_error(self, *args: object) -> None:
                pass  # clients that go away are part of the plot

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_address[1]}/prominence/v1"

    def answer(self, *answers: Answer) -> None:
        self.answers = deque(answers)
        self.asked.clear()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def a_peer(tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    peer = Peer(tls)
    try:
        yield peer
    finally:
        peer.stop()


@pytest.fixture
def peer() -> Iterator[Peer]:
    with a_peer() as peer:
        yield peer


@pytest.fixture
def client(peer: Peer) -> Iterator[ProminenceClient]:
    with ProminenceClient(peer.url, TOKEN, timeout=(2, 5), retry_for=5) as client:
        yield client


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def everything_about(error: BaseException) -> str:
    """An exception's text, its causes' texts, and the attributes that a debugger would show."""
    text = ""
    current: BaseException | None = error
    while current is not None:
        text += f"{current!r} {current} {vars(current)}"
        current = current.__cause__ or current.__context__
    return text


# -- what is asked -----------------------------------------------------------------------------------------------------

Verb = Callable[[ProminenceClient], Any]


@pytest.mark.parametrize(
    ("verb", "answer", "method", "path", "query", "body", "result"),
    [
        (lambda c: c.create_job({"a": 1}), {"id": 5}, "POST", "/jobs", {}, {"a": 1}, 5),
        (lambda c: c.describe_job(5), [{"id": 5}], "GET", "/jobs/5", {}, None, {"id": 5}),
        (lambda c: c.list_jobs(), [{"id": 5}], "GET", "/jobs", {}, None, [{"id": 5}]),
        (lambda c: c.list_jobs(ids=[5, 6]), [], "GET", "/jobs", {"id": ["5,6"]}, None, []),
        (lambda c: c.list_jobs(detail=True), [], "GET", "/jobs", {"detail": ["true"]}, None, []),
        (
            lambda c: c.list_jobs(constraint=("run", "a/1"), all=True),
            [],
            "GET",
            "/jobs",
            {"constraint": ["run=a/1"], "all": ["true"]},
            None,
            [],
        ),
        (
            lambda c: c.list_jobs(completed=True, num=3, name="a b", status="idle"),
            [],
            "GET",
            "/jobs",
            {"completed": ["true"], "num": ["3"], "name": ["a b"], "status": ["idle"]},
            None,
            [],
        ),
        (lambda c: c.list_jobs(workflow_id=7), [], "GET", "/jobs", {"workflow": ["true"], "id": ["7"]}, None, []),
        (lambda c: c.delete_job(5), {}, "DELETE", "/jobs/5", {}, None, None),
        (lambda c: c.delete_jobs([5, 6]), {}, "DELETE", "/jobs", {"id": ["5,6"]}, None, None),
        (lambda c: c.remove_job(5), {}, "PUT", "/jobs/5/remove", {}, None, None),
        (lambda c: c.clone_job(5), {"id": 6}, "PUT", "/jobs/5/clone", {}, None, 6),
        (
            lambda c: c.stdout(5, node=1, offset=2),
            b"\xff\n",
            "GET",
            "/jobs/5/stdout",
            {"node": ["1"], "offset": ["2"]},
            None,
            b"\xff\n",
        ),
        (lambda c: c.stderr(5), b"", "GET", "/jobs/5/stderr", {"node": ["0"], "offset": ["0"]}, None, b""),
        (lambda c: c.execute(5, ["ls", "-la"]), b"x", "POST", "/jobs/5/exec", {"command": ["ls,-la"]}, None, b"x"),
        (lambda c: c.create_snapshot(5, "a/b"), {}, "PUT", "/jobs/5/snapshot", {"path": ["a/b"]}, None, None),
        (lambda c: c.snapshot_url(5), {"url": "u"}, "GET", "/jobs/5/snapshot", {}, None, "u"),
        (lambda c: c.create_workflow({"a": 1}), {"id": 5}, "POST", "/workflows", {}, {"a": 1}, 5),
        (lambda c: c.describe_workflow(5), [{"id": 5}], "GET", "/workflows/5", {}, None, {"id": 5}),
        (lambda c: c.list_workflows(name="w"), [], "GET", "/workflows", {"name": ["w"]}, None, []),
        (lambda c: c.delete_workflow(5), {}, "DELETE", "/workflows/5", {}, None, None),
        (lambda c: c.clone_workflow(5), {"id": 6}, "PUT", "/workflows/5/clone", {}, None, 6),
        (lambda c: c.rerun_workflow(5), {"id": 6}, "PUT", "/workflows/5", {}, None, 6),
        (lambda c: c.list_data(), [], "GET", "/data", {}, None, []),
        (lambda c: c.list_data("group/x"), [], "GET", "/data/group/x", {}, None, []),
        (lambda c: c.delete_data("a b#.txt"), b"", "DELETE", "/data/a%20b%23.txt", {}, None, None),
        (lambda c: c.job_output_url("o"), {"url": "u"}, "POST", "/data/output", {}, {"name": "o"}, "u"),
        (lambda c: c.kv_set("/a/b", "v"), {}, "POST", "/kv/a/b", {}, b"v", None),
        (lambda c: c.kv_set("a", "é", prev="x y"), {}, "POST", "/kv/a", {"prev": ["x y"]}, "é".encode(), None),
        (lambda c: c.kv_get("a"), "é€".encode(), "GET", "/kv/a", {}, None, "é€"),
        (lambda c: c.kv_list(), ["/a"], "GET", "/kv", {"list": ["true"]}, None, ["/a"]),
        (
            lambda c: c.kv_list("a", values=True),
            [{"/a/b": "v"}, {"/a/c": "w"}],
            "GET",
            "/kv/a",
            {"list": ["true"], "values": ["true"]},
            None,
            {"/a/b": "v", "/a/c": "w"},
        ),
        (lambda c: c.kv_delete("a", prefix=True), {}, "DELETE", "/kv/a", {"prefix": ["true"]}, None, None),
        (lambda c: c.health(), {}, "GET", "/health", {}, None, {}),
        (lambda c: c.resources(), {"existing": []}, "GET", "/resources", {}, None, {"existing": []}),
    ],
)
def test_each_verb_asks_for_what_the_service_knows(
    peer: Peer,
    client: ProminenceClient,
    verb: Verb,
    answer: Any,
    method: str,
    path: str,
    query: dict[str, list[str]],
    body: Any,
    result: Any,
) -> None:
    peer.answer(Answer(201 if method == "POST" else 200, answer))
    assert verb(client) == result
    (asked,) = peer.asked
    assert (asked.method, asked.path, asked.query) == (method, "/prominence/v1" + path, query)
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["User-Agent"].startswith("prominence-executor/")
    if isinstance(body, dict):
        assert json.loads(asked.body) == body
        assert asked.headers["Content-Type"] == "application/json"
    else:
        assert asked.body == (body or b"")


def test_many_ids_are_asked_for_in_urls_that_servers_take(peer: Peer, client: ProminenceClient) -> None:
    ids = list(range(100_000, 102_000))
    peer.answer(Answer(body=[{"id": 1}]))
    assert len(client.list_jobs(ids=ids)) == len(peer.asked) > 1
    joined = ",".join(asked.query["id"][0] for asked in peer.asked)
    assert [int(number) for number in joined.split(",")] == ids
    assert max(len(asked.query["id"][0]) for asked in peer.asked) < 4000


def test_no_ids_are_no_request(peer: Peer, client: ProminenceClient) -> None:
    assert client.list_jobs(ids=[]) == []
    client.delete_jobs([])
    assert not peer.asked


def test_deleting_many_is_refused_only_when_none_was_active(peer: Peer, client: ProminenceClient) -> None:
    gone = Answer(400, {"error": "No such job(s)"})
    ids = range(100_000, 101_000)
    peer.answer(gone, Answer(), gone)
    client.delete_jobs(ids)
    assert len(peer.asked) == 2
    peer.answer(gone)
    with pytest.raises(NotFoundError, match="No such job"):
        client.delete_jobs(ids)
    assert len(peer.asked) == 2


@pytest.mark.parametrize(
    "verb",
    [
        lambda c: c.list_jobs(ids=[1], workflow_id=2),
        lambda c: c.list_jobs(constraint=("run", 'a"b')),
        lambda c: c.list_jobs(constraint=("a-b", "c")),
        lambda c: c.describe_job(-1),
        lambda c: c.stdout(1, offset=-5),
        lambda c: c.execute(1, ["a,b"]),
        lambda c: c.execute(1, "ls -la"),
        lambda c: c.execute(1, []),
        lambda c: c.kv_set("a", ""),
        lambda c: c.kv_set("a", "x" * (KEY_VALUE_LIMIT + 1)),
        lambda c: c.kv_set("a", "é" * (KEY_VALUE_LIMIT // 2 + 1)),
        lambda c: c.kv_set("", "v"),
        lambda c: c.kv_get("a//b"),
        lambda c: c.kv_get("../jobs"),
        lambda c: c.delete_data(""),
        lambda c: c.create_job({"x": "y" * BODY_LIMIT}),
        lambda c: c.upload("x", iter([b"a"])),
    ],
)
def test_what_cannot_be_right_is_refused_before_any_request(peer: Peer, client: ProminenceClient, verb: Verb) -> None:
    with pytest.raises(ValueError):
        verb(client)
    assert not client.requests_sent


def test_the_largest_value_is_sent(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(201))
    client.kv_set("a", "x" * KEY_VALUE_LIMIT)
    assert len(peer.asked[0].body) == KEY_VALUE_LIMIT


def test_requests_are_counted_by_kind(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(503), Answer(body=[]))
    client.list_jobs()
    peer.answer(Answer(body=b""))
    client.stdout(1)
    client.delete_data("some/where")
    client.kv_delete("some/where")
    client.download(peer.url)
    assert client.requests_sent == {
        "GET /jobs": 2,
        "GET /jobs/id/stdout": 1,
        "DELETE /data": 1,
        "DELETE /kv": 1,
        "GET output": 1,
    }


# -- what is answered --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (Answer(400, {"error": "cmd must be a string"}), InvalidRequestError, "cmd must be a string"),
        (Answer(403, {"error": "Not authorized to access this job"}), PermissionDeniedError, "Not authorized"),
        (Answer(404, {"error": "No such key"}), NotFoundError, "No such key"),
        (Answer(400, {"error": "No such job(s)"}), NotFoundError, "No such job"),
        (Answer(400, {"error": "No such workflow(s)"}), NotFoundError, "No such workflow"),
        (Answer(400, {"error": "Atomic replacement not successful"}), KeyValueConflictError, "Atomic"),
        (Answer(413, b"<html><head><title>413 Request Entity Too Large</title>"), InvalidRequestError, "Too Large"),
        (Answer(405, b"<title>405 Method Not Allowed</title>"), InvalidRequestError, "Method Not Allowed"),
        (Answer(500, HTML_500), ServiceError, "Internal Server Error"),
        (Answer(502, b""), ServiceUnavailableError, "502"),
        (Answer(200, {"error": "invalid status specified"}), InvalidRequestError, "invalid status specified"),
        (Answer(200, b"<html>login</html>"), ServiceError, "not JSON"),
        (Answer(200, {"id": 1}), ServiceError, "not a list"),
    ],
)
def test_each_kind_of_failure_has_its_exception(
    peer: Peer, client: ProminenceClient, answer: Answer, kind: type[Exception], sentence: str
) -> None:
    peer.answer(answer)
    client._retry_for = 0.5
    with pytest.raises(ProminenceError, match=sentence) as caught:
        client.list_jobs()
    assert type(caught.value) is kind
    assert getattr(caught.value, "status_code", answer.status) == answer.status
    assert "GET /prominence/v1/jobs" in str(caught.value)
    assert "<" not in str(caught.value)  # no page


def test_an_empty_list_is_a_job_that_does_not_exist(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(body=[]))
    with pytest.raises(NotFoundError):
        client.describe_job(5)


def test_a_job_missing_from_one_answer_is_asked_for_again(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(body=[]), Answer(body=[{"id": 5}]))
    assert client.describe_job(5) == {"id": 5}


def test_output_of_a_job_that_is_just_ending_is_asked_for_again(peer: Peer, client: ProminenceClient) -> None:
    missing = Answer(400, {"error": "Job does not exist"})
    peer.answer(missing, missing, missing, Answer(body=b"hi\n"))
    assert client.stdout(5) == b"hi\n"
    peer.answer(missing)
    began = time.monotonic()
    with pytest.raises(NotFoundError, match="Job does not exist"):
        client.stdout(5)
    assert 1 < time.monotonic() - began < 6


def test_an_unhealthy_service_is_described_not_raised(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(409, {"errors": "HTCONDOR_SCHEDD"}))
    assert client.health() == {"errors": "HTCONDOR_SCHEDD"}


# -- retries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        Answer(503),
        Answer(502),
        Answer(504),
        Answer(429),
        Answer(500, HTML_500),
        Answer(reset=True),
        Answer(body=b'[{"id"', length=100),
        Answer(body=b'[{"id"'),
    ],
)
def test_a_request_that_may_be_repeated_is_repeated(peer: Peer, client: ProminenceClient, failure: Answer) -> None:
    peer.answer(failure, failure, Answer(body=[{"id": 5}]))
    assert client.list_jobs() == [{"id": 5}]
    assert len(peer.asked) == 3


@pytest.mark.parametrize(
    "verb",
    [
        lambda c: c.create_job({}),
        lambda c: c.create_workflow({}),
        lambda c: c.clone_job(1),
        lambda c: c.clone_workflow(1),
        lambda c: c.rerun_workflow(1),
        lambda c: c.execute(1, ["ls"]),
        lambda c: c.kv_set("a", "b", prev="c"),
    ],
)
@pytest.mark.parametrize("failure", [Answer(503), Answer(reset=True), Answer(body=b"{", length=100)])
def test_a_request_that_makes_something_is_never_repeated(
    peer: Peer, client: ProminenceClient, verb: Verb, failure: Answer
) -> None:
    peer.answer(failure)
    with pytest.raises(ServiceUnavailableError) as caught:
        verb(client)
    assert len(peer.asked) == 1
    assert caught.value.request_sent


def test_a_refused_connection_says_that_nothing_was_sent() -> None:
    with ProminenceClient(f"http://127.0.0.1:{unused_port()}", TOKEN) as client:
        began = time.monotonic()
        with pytest.raises(ServiceUnavailableError, match="refused") as caught:
            client.create_job({})
        assert time.monotonic() - began < 2
    assert not caught.value.request_sent
    assert caught.value.__cause__ is not None


def test_an_unknown_host_says_that_nothing_was_sent() -> None:
    with ProminenceClient("http://nosuchhost.invalid/x", TOKEN) as client:
        with pytest.raises(ServiceUnavailableError) as caught:
            client.create_job({})
    assert not caught.value.request_sent


def test_a_silent_service_times_out_and_says_that_the_request_was_sent(peer: Peer) -> None:
    peer.answer(Answer(delay=1.5))
    with ProminenceClient(peer.url, TOKEN, timeout=(2, 0.2)) as client:
        with pytest.raises(ServiceUnavailableError, match="timed out") as caught:
            client.create_job({})
    assert caught.value.request_sent


def test_a_service_that_comes_back_is_waited_for() -> None:
    port = unused_port()
    with ProminenceClient(f"http://127.0.0.1:{port}", TOKEN, retry_for=0.5) as client:
        began = time.monotonic()
        with pytest.raises(ServiceUnavailableError):
            client.list_jobs()
        assert 0.1 < time.monotonic() - began < 3
        assert client.requests_sent["GET /jobs"] > 1


def test_retry_after_is_obeyed_or_passed_on(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(503, headers={"Retry-After": "1"}), Answer(body=[]))
    began = time.monotonic()
    client.list_jobs()
    assert time.monotonic() - began >= 1
    peer.answer(Answer(429, headers={"Retry-After": "3600"}))
    with pytest.raises(ServiceUnavailableError) as caught:
        client.list_jobs()
    assert caught.value.retry_after == 3600
    assert len(peer.asked) == 1
    peer.answer(Answer(503, headers={"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}))
    with pytest.raises(ServiceUnavailableError) as caught:
        client.list_jobs()
    assert (caught.value.retry_after or 0) > 3600
    peer.answer(Answer(503, headers={"Retry-After": "soon"}), Answer(body=[]))
    client.list_jobs()


def test_a_lasting_500_is_reported_soon(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(500, HTML_500))
    with pytest.raises(ServiceError):
        client.list_jobs()
    assert len(peer.asked) == 3


def test_closing_the_client_ends_the_waits_of_other_threads(peer: Peer) -> None:
    peer.answer(Answer(503))
    client = ProminenceClient(peer.url, TOKEN, retry_for=60)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            client.list_jobs()
        except ProminenceError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    deadline = time.monotonic() + 20
    while len(peer.asked) < 4:  # by now it waits most of the time
        assert time.monotonic() < deadline
        time.sleep(0.02)
    client.close()
    thread.join(2)
    assert not thread.is_alive()
    assert len(errors) == 1
    with pytest.raises(ServiceUnavailableError, match="closed") as caught:
        client.create_job({})
    assert not caught.value.request_sent


def test_twenty_threads_share_one_client(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(body=[{"id": 5}]))
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.extend(client.list_jobs() for _ in range(10))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [[{"id": 5}]] * 200
    assert client.requests_sent["GET /jobs"] == 200


# -- the token ---------------------------------------------------------------------------------------------------------

REFUSED = Answer(401, {"error": "Authentication failure"})


def test_nothing_is_needed_until_the_first_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("PROMINENCE_TOKEN", raising=False)
    with ProminenceClient("http://127.0.0.1:1") as client:
        with pytest.raises(AuthenticationError, match="PROMINENCE_TOKEN"):
            client.list_jobs()
        assert not client.requests_sent


def test_a_refused_token_is_looked_up_once_more(peer: Peer) -> None:
    tokens = iter(["old", "new"])
    peer.answer(REFUSED, Answer(201, {"id": 5}))
    with ProminenceClient(peer.url, lambda: next(tokens)) as client:
        assert client.create_job({}) == 5
    assert [asked.headers["Authorization"] for asked in peer.asked] == ["Bearer old", "Bearer new"]


def test_a_token_refused_twice_is_an_authentication_error(peer: Peer) -> None:
    tokens = iter(["old", "new", "newer"])
    peer.answer(REFUSED)
    with ProminenceClient(peer.url, lambda: next(tokens)) as client:
        with pytest.raises(AuthenticationError, match="Authentication failure"):
            client.list_jobs()
    assert len(peer.asked) == 2


def test_a_token_of_which_there_is_no_other_is_not_sent_again(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(REFUSED)
    with pytest.raises(AuthenticationError):
        client.list_jobs()
    assert len(peer.asked) == 1


def test_the_token_is_not_sent_where_a_redirect_leads(peer: Peer, client: ProminenceClient) -> None:
    with a_peer() as other:
        other.answer(Answer(body=[]))
        peer.answer(Answer(302, headers={"Location": other.url.replace("127.0.0.1", "localhost") + "/jobs"}))
        with pytest.raises(ServiceError, match="redirected to http://localhost, which is not followed"):
            client.list_jobs()
        assert not other.asked


def test_credentials_of_netrc_are_not_used(
    peer: Peer, client: ProminenceClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password wrong\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    peer.answer(Answer(body=[]))
    client.list_jobs()
    assert peer.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"
    peer.answer(Answer(302, headers={"Location": peer.url + "/moved"}), Answer(body=b"x"))
    assert client.download(peer.url) == b"x"
    assert ["Authorization" in asked.headers for asked in peer.asked] == [False, False]


@pytest.mark.parametrize(
    "answer", [REFUSED, Answer(500, HTML_500), Answer(400, {"error": f"bad header Bearer {TOKEN}"}), Answer(reset=True)]
)
def test_the_token_shows_nowhere(
    peer: Peer, client: ProminenceClient, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    caplog.set_level(logging.DEBUG)
    client._retry_for = 1
    peer.answer(answer)
    with pytest.raises(ProminenceError) as caught:
        client.list_jobs()
    assert TOKEN not in everything_about(caught.value)
    assert TOKEN not in repr(client)
    assert TOKEN not in caplog.text
    assert any(record.name == "prominence_executor" for record in caplog.records)
    assert TOKEN.encode() not in pickle.dumps(caught.value)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(client)


# -- certificates ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
def test_certificates_are_verified_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PROMINENCE_SSL_VERIFY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with a_peer(tls) as peer:
        peer.answer(Answer(body=[]))
        with ProminenceClient(peer.url, TOKEN) as client, pytest.raises(ServiceError, match="TLS failed"):
            client.list_jobs()
        assert not peer.asked
        with ProminenceClient(peer.url, TOKEN, verify=certificate) as client:
            assert client.list_jobs() == []
        for variable in ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
            with monkeypatch.context() as environment, ProminenceClient(peer.url, TOKEN) as client:
                environment.setenv(variable, str(certificate))
                assert client.list_jobs() == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(key))  # requests would let it overrule verify=False
        with ProminenceClient(peer.url, TOKEN, verify=False) as client:
            with pytest.warns(match="Unverified HTTPS request"):
                assert client.list_jobs() == []


# -- downloads ---------------------------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 5000


def test_a_download_is_the_bytes_as_they_are_and_needs_no_token(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(body=CONTENT))
    assert client.download(peer.url + "/o?Signature=s%2Fx") == CONTENT
    assert "Authorization" not in peer.asked[0].headers
    assert peer.asked[0].query == {"Signature": ["s/x"]}


def test_a_download_streams_to_a_path_or_a_file(peer: Peer, client: ProminenceClient, tmp_path: Path) -> None:
    peer.answer(Answer(body=CONTENT))
    client.download(peer.url, tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["o"]
    buffer = io.BytesIO(b"before")
    buffer.seek(6)
    client.download(peer.url, buffer)
    assert buffer.getvalue() == b"before" + CONTENT
    with tempfile.SpooledTemporaryFile(max_size=100) as spooled:
        client.download(peer.url, spooled)  # type: ignore[arg-type]
        spooled.seek(0)
        assert spooled.read() == CONTENT


@pytest.mark.parametrize("failure", [Answer(503), Answer(reset=True), Answer(body=CONTENT[:-1], length=len(CONTENT))])
def test_a_broken_download_begins_again(peer: Peer, client: ProminenceClient, tmp_path: Path, failure: Answer) -> None:
    peer.answer(failure, Answer(body=CONTENT))
    assert client.download(peer.url) == CONTENT
    peer.answer(failure, Answer(body=CONTENT))
    client.download(peer.url, tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == CONTENT
    assert len(peer.asked) == 2


def test_a_download_that_stays_short_leaves_nothing_behind(peer: Peer, tmp_path: Path) -> None:
    peer.answer(Answer(body=CONTENT[:1000], length=len(CONTENT)))
    with ProminenceClient(peer.url, TOKEN, retry_for=0.5) as client:
        with pytest.raises(TransferError):
            client.download(peer.url + "?Signature=hidden", tmp_path / "o")
        assert os.listdir(tmp_path) == []
        with pytest.raises(TransferError) as caught:
            client.download(peer.url + "?Signature=hidden")
    assert "hidden" not in str(caught.value)


def test_a_failed_download_keeps_the_file_that_was_there(peer: Peer, client: ProminenceClient, tmp_path: Path) -> None:
    (tmp_path / "o").write_bytes(b"old")
    peer.answer(Answer(404, b"<Error><Code>NoSuchKey</Code><Message>The key does not exist.</Message></Error>"))
    with pytest.raises(NotFoundError, match="The key does not exist"):
        client.download(peer.url, tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["o"]


def test_a_url_that_has_expired_is_said_to_be_denied(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(403, b"<Error><Message>Request has expired</Message></Error>"))
    with pytest.raises(PermissionDeniedError, match="Request has expired"):
        client.download(peer.url)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_an_os_error_at_once_and_leaves_nothing_behind(
    peer: Peer, client: ProminenceClient, tmp_path: Path
) -> None:
    peer.answer(Answer(body=CONTENT))
    (tmp_path / "o.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        client.download(peer.url, tmp_path / "o")
    assert os.listdir(tmp_path) == []
    assert len(peer.asked) == 1


# -- uploads -----------------------------------------------------------------------------------------------------------


def sources(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "source"
    path.write_bytes(b"skipped" + CONTENT)
    file = path.open("rb")
    file.seek(7)
    whole = tmp_path / "whole"
    whole.write_bytes(CONTENT)
    return {
        "bytes": CONTENT,
        "bytearray": bytearray(CONTENT),
        "memoryview": memoryview(CONTENT),
        "path": whole,
        "file": file,
        "list": [CONTENT[:10], b"", CONTENT[10:]],
        "iterator": iter([CONTENT[:10], memoryview(CONTENT)[10:]]),
    }


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview", "path", "file", "list", "iterator"])
def test_an_upload_streams_any_source_without_the_token(
    peer: Peer, client: ProminenceClient, tmp_path: Path, kind: str
) -> None:
    source = sources(tmp_path)
    peer.answer(Answer(201, {"url": peer.url + "/store?Signature=s"}), Answer())
    client.upload("big.bin", source[kind], size=len(CONTENT))
    ask, put = peer.asked
    assert (ask.method, ask.path) == ("POST", "/prominence/v1/data/upload")
    assert json.loads(ask.body) == {"filename": "big.bin", "checksum": None}
    assert (put.method, put.body == CONTENT) == ("PUT", True)
    assert "Authorization" not in put.headers
    assert put.headers["x-ms-blob-type"] == "BlockBlob"
    assert put.headers["Content-Length"] == str(len(CONTENT))
    source["file"].close()


def test_an_empty_upload(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(201, {"url": peer.url}), Answer())
    client.upload("empty", b"")
    assert peer.asked[1].headers["Content-Length"] == "0"
    assert "Transfer-Encoding" not in peer.asked[1].headers


def test_an_upload_with_checksum_is_a_form_whose_last_part_is_the_file(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(201, {"url": peer.url, "fields": {"key": "uploads/x", "policy": "p=="}}), Answer(204, b""))
    client.upload("x", CONTENT, checksum=True)
    ask, post = peer.asked
    assert json.loads(ask.body)["checksum"] == hashlib.sha256(CONTENT).hexdigest()
    assert post.method == "POST"
    assert "Authorization" not in post.headers
    boundary = post.headers["Content-Type"].partition("boundary=")[2].encode()
    first, second, third, end = post.body.split(b"--" + boundary)[1:]
    assert first == b'\r\nContent-Disposition: form-data; name="key"\r\n\r\nuploads/x\r\n'
    assert second == b'\r\nContent-Disposition: form-data; name="policy"\r\n\r\np==\r\n'
    assert third == b'\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + CONTENT + b"\r\n"
    assert end == b"--\r\n"


@pytest.mark.parametrize("kind", ["bytes", "path", "file", "list"])
def test_a_broken_upload_begins_again(peer: Peer, client: ProminenceClient, tmp_path: Path, kind: str) -> None:
    source = sources(tmp_path)
    url = Answer(201, {"url": peer.url})
    peer.answer(url, Answer(503), url, Answer(reset=True), url, Answer())
    client.upload("x", source[kind])
    assert len(peer.asked) == 6
    assert peer.asked[-1].body == CONTENT
    source["file"].close()


def test_a_broken_upload_from_an_iterator_cannot_begin_again(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(Answer(201, {"url": peer.url}), Answer(503))
    with pytest.raises(TransferError):
        client.upload("x", iter([b"abc"]), size=3)
    assert len(peer.asked) == 2


@pytest.mark.parametrize("buffers", [[b"ab"], [b"abcd"], [b"abc", b"d"]])
def test_a_source_that_does_not_have_its_size_is_an_error(peer: Peer, buffers: list[bytes]) -> None:
    peer.answer(Answer(201, {"url": peer.url}), Answer())
    with ProminenceClient(peer.url, TOKEN, retry_for=0) as client:
        with pytest.raises(TransferError, match="3 bytes"):
            client.upload("x", iter(buffers), size=3)


def test_an_upload_that_the_store_refuses_is_not_repeated(peer: Peer, client: ProminenceClient) -> None:
    peer.answer(
        Answer(201, {"url": peer.url}), Answer(400, b"<Error><Message>The digest does not match.</Message></Error>")
    )
    with pytest.raises(InvalidRequestError, match="The digest does not match"):
        client.upload("x", b"abc")
    assert len(peer.asked) == 2


# -- on the embedded service -------------------------------------------------------------------------------------------


@pytest.fixture
def real(service: LocalService) -> Iterator[ProminenceClient]:
    with ProminenceClient(service.url, service.token) as client:
        yield client


def a_description(command: str, label: str) -> dict[str, Any]:
    return {
        "name": f"{label}-job",
        "tasks": [{"image": "python:3-slim", "runtime": "singularity", "cmd": command}],
        "resources": {"cpus": 1, "memory": 1, "disk": 1, "nodes": 1, "walltime": 10},
        "labels": {"clienttest": label},
    }


def test_keys_and_values_on_the_service(real: ProminenceClient) -> None:
    real.kv_set("t/a", "é€")
    real.kv_set("/t/b", "x" * KEY_VALUE_LIMIT)
    assert real.kv_get("t/a") == "é€"
    assert real.kv_list("t") == ["/t/a", "/t/b"]
    assert real.kv_list("t", values=True) == {"/t/a": "é€", "/t/b": "x" * KEY_VALUE_LIMIT}
    real.kv_set("t/a", "new", prev="é€")
    with pytest.raises(KeyValueConflictError):
        real.kv_set("t/a", "newer", prev="é€")
    with pytest.raises(KeyValueConflictError):
        real.kv_set("t/none", "newer", prev="")
    real.kv_delete("t/a")
    with pytest.raises(NotFoundError, match="No such key"):
        real.kv_get("t/a")
    real.kv_delete("t", prefix=True)
    assert real.kv_list("t") == []


def test_listing_and_deleting_jobs_on_the_service(real: ProminenceClient, until: Callable[..., None]) -> None:
    ids = [real.create_job(a_description("sleep 60", "many")) for _ in range(3)]
    again = real.clone_job(ids[0])

    def active() -> set[int]:
        return {job["id"] for job in real.list_jobs(constraint=("clienttest", "many"))}

    assert active() == {*ids, again}
    assert {job["id"] for job in real.list_jobs(name="many-job")} == {*ids, again}
    assert [job["id"] for job in real.list_jobs(ids=[ids[1], 999_999])] == [ids[1]]
    real.delete_job(again)
    real.delete_jobs([*ids, again])
    until(lambda: not active())
    with pytest.raises(NotFoundError):
        real.delete_jobs(ids)
    ended = real.list_jobs(constraint=("clienttest", "many"), all=True, detail=True)
    assert {job["status"] for job in ended} == {"deleted"}
    with pytest.raises(InvalidRequestError, match="invalid status"):
        real.list_jobs(status="completed")


def test_another_user_sees_nothing_and_may_nothing(service: LocalService, real: ProminenceClient) -> None:
    number = real.create_job(a_description("sleep 60", "mine"))
    with ProminenceClient(service.url, service.token_for("somebody-else")) as other:
        assert other.list_jobs(all=True) == []
        with pytest.raises(NotFoundError):
            other.describe_job(number)
        with pytest.raises(NotFoundError):
            other.delete_job(number)
        with pytest.raises(PermissionDeniedError):
            other.stdout(number)
        assert other.kv_list() == []
    real.delete_job(number)


def test_tokens_that_the_service_refuses(service: LocalService) -> None:
    with ProminenceClient(service.url, "garbage") as client, pytest.raises(AuthenticationError):
        client.list_jobs()
    with ProminenceClient(service.url, service.token_for("u", expires_in=-10)) as client:
        with pytest.raises(AuthenticationError, match="expired on"):
            client.list_jobs()
        assert not client.requests_sent


def test_a_large_upload_is_not_held_in_memory(real: ProminenceClient) -> None:
    block, blocks = os.urandom(1 << 20), 64
    tracemalloc.start()
    try:
        real.upload("large.bin", (block for _ in range(blocks)), size=blocks << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    (stored,) = (item for item in real.list_data() if item["name"] == "large.bin")
    assert stored["size"] == blocks << 20
    real.delete_data("large.bin")
