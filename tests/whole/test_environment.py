"""What is the program's own, or this machine's, and not ours: the state of its process, its proxies, its netrc."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

import pytest
from paths import SUPPORT
from shared_state import drawing
from variables import unmeasured

from prominence_executor import ProminenceExecutor
from prominence_executor.client import ProminenceClient
from prominence_executor.client.watching import Watch
from prominence_executor.errors import ServiceUnavailableError, TransferError
from prominence_executor.local import LocalService

# -- the state of a process ------------------------------------------------------------------------------------------


USES_EVERYTHING = """
import json, os, random, sys

import cloudpickle, numpy, requests  # what they do to the process when they are imported is theirs

from shared_state import state_of_process

opened = []

def noted(event, args):
    if event == "open" and "netrc" in str(args[0]):
        opened.append(str(args[0]))

sys.addaudithook(noted)

def state():
    common = {"random": str(random.getstate()), "numpy": str(numpy.random.get_state()), "folder": os.getcwd()}
    return {**state_of_process(), **common, "environment": str(sorted(os.environ.items())), "path": str(sys.path)}

random.seed(1)
numpy.random.seed(1)
before = state()

from prominence_executor import ProminenceExecutor
from prominence_executor.client import ProminenceClient
from prominence_executor.errors import ServiceUnavailableError

url, token = sys.argv[1:]
with ProminenceExecutor(url, token, poll_interval=(0.05, 0.5)) as executor:
    assert list(executor.map(abs, range(3))) == [0, 1, 2]
    assert executor.submit(len, bytes(2_000_000)).result(60) == 2_000_000
    assert executor.check_image().usable
with ProminenceExecutor(url, token, workers="warm", max_workers=1) as executor:
    assert list(executor.map(abs, range(3))) == [0, 1, 2]
with ProminenceClient("http://127.0.0.1:1", token, retry_for=0.5) as client:
    try:
        client.list_jobs()
    except ServiceUnavailableError:
        pass
after = state()
print(json.dumps({"changed": [name for name in before if before[name] != after[name]], "opened": opened}))
"""


def test_an_executor_leaves_the_state_of_the_process_alone(service: LocalService, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password wrong\n")
    netrc.chmod(0o600)
    variables = unmeasured(PYTHONPATH=str(SUPPORT), NETRC=str(netrc))
    program = [sys.executable, "-c", USES_EVERYTHING, service.url, service.token]
    done = subprocess.run(program, env=variables, stdout=subprocess.PIPE, timeout=120, check=True)
    assert json.loads(done.stdout) == {"changed": [], "opened": []}


@pytest.mark.parametrize("workers", [None, "warm"])
def test_a_call_finds_the_process_as_python_starts_it(service: LocalService, workers: Any) -> None:
    fresh = "import json; from shared_state import state_of_process; print(json.dumps(state_of_process()))"
    program = [sys.executable, "-c", fresh]
    variables = unmeasured(PYTHONPATH=str(SUPPORT))
    expected = json.loads(subprocess.run(program, env=variables, capture_output=True, check=True).stdout)
    with ProminenceExecutor(
        service.url, service.token, workers=workers, max_workers=1, poll_interval=(0.05, 0.5)
    ) as executor:
        found = list(executor.map(drawing, range(2)))
    for state, _ in found:
        assert {name: (state[name], expected[name]) for name in state if state[name] != expected[name]} == {}
    assert found[0][1] != found[1][1]


# -- proxies ---------------------------------------------------------------------------------------------------------


class Recorder:
    """A proxy that keeps what it is asked for, and answers each request as it is told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: tuple[int, dict[str, str], bytes] = (502, {}, b"")
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                recorder.asked.append(f"{self.requestline}\n{self.headers}")
                status, headers, body = recorder.answer
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = do_CONNECT = handle_any

            def log_message(self, *args: object) -> None:
                """The list is enough."""

        class Server(ThreadingHTTPServer):
            def server_bind(self) -> None:
                TCPServer.server_bind(self)  # HTTPServer's looks the host's name up, which may take long

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """A proxy that the environment names for everything."""
    for name in ("NO_PROXY", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    recorder = Recorder()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, recorder.url)
        monkeypatch.setenv(name.lower(), recorder.url)
    yield recorder
    recorder.stop()


@pytest.mark.parametrize("workers", [None, "warm"])
def test_no_proxy_sees_what_goes_to_this_machine(service: LocalService, proxy: Recorder, workers: Any) -> None:
    with ProminenceExecutor(
        service.url, service.token, workers=workers, max_workers=1, poll_interval=(0.05, 0.5), outputs=["*.txt"]
    ) as executor:
        future = executor.submit(len, bytes(2_000_000))
        assert future.result(60) == 2_000_000
        assert dict(future.files) == {}
    assert proxy.asked == []


def test_no_proxy_sees_the_embedded_service_that_an_executor_starts(proxy: Recorder) -> None:
    with ProminenceExecutor("local", poll_interval=(0.05, 0.5)) as executor:
        assert executor.submit(abs, -1).result(60) == 1
    assert proxy.asked == []


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.10", "127.1", "localhost", "LOCALHOST", "localhost.", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_every_name_of_this_machine_is_reached_without_a_proxy(proxy: Recorder, host: str, scheme: str) -> None:
    with ProminenceClient(f"{scheme}://{host}:1/prominence/v1", "secret", retry_for=0) as client:
        with pytest.raises(ServiceUnavailableError):  # nobody listens there
            client.list_jobs()
        with pytest.raises(TransferError):
            client.download(f"{scheme}://{host}:1/object")
    assert proxy.asked == []


def test_other_hosts_are_reached_by_the_proxy_that_the_environment_names(proxy: Recorder) -> None:
    proxy.answer = 200, {"Content-Type": "application/json"}, b"[]"
    with ProminenceClient("http://service.invalid/prominence/v1", "secret", retry_for=0) as client:
        assert client.list_jobs() == []
        assert client.download("http://store.invalid/object") == b"[]"
        proxy.answer = 200, {"Preference-Applied": "wait", "X-Revision": "7"}, b"[]"
        seen = Watch()
        assert client.kv_list("w", wait=20, since=seen) == []
        assert (seen.waits, seen.revision) == (True, 7)
    assert [asked.partition(" HTTP")[0] for asked in proxy.asked] == [
        "GET http://service.invalid/prominence/v1/jobs",
        "GET http://store.invalid/object",
        "GET http://service.invalid/prominence/v1/kv/w?list=true",
    ]
    assert ["Bearer secret" in asked for asked in proxy.asked] == [True, False, True]
    assert "Prefer: wait=20" in proxy.asked[2]


def test_a_redirect_to_this_machine_goes_past_the_proxy(proxy: Recorder) -> None:
    here = Recorder()
    here.answer = 200, {}, b"stored here"
    proxy.answer = 302, {"Location": f"{here.url}/object"}, b""
    try:
        with ProminenceClient("http://service.invalid/prominence/v1", "secret", retry_for=0) as client:
            assert client.download("http://store.invalid/object") == b"stored here"
    finally:
        here.stop()
    assert len(proxy.asked) == 1
    assert [asked.partition(" HTTP")[0] for asked in here.asked] == ["GET /object"]


def test_a_redirect_to_another_host_goes_by_the_proxy(proxy: Recorder) -> None:
    here = Recorder()
    here.answer = 302, {"Location": "http://store.invalid/object"}, b""
    proxy.answer = 200, {}, b"stored elsewhere"
    try:
        with ProminenceClient(here.url, "secret", retry_for=0) as client:
            assert client.download(f"{here.url}/object") == b"stored elsewhere"
    finally:
        here.stop()
    assert [asked.partition(" HTTP")[0] for asked in proxy.asked] == ["GET http://store.invalid/object"]
