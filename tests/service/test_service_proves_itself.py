"""A service that was found by its directory proves to be that one before it is told a token."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests
from service_program import ServiceProgram

from prominence_executor import ServiceUnavailableError, TransferError
from prominence_executor.executor.settings import find_service
from prominence_executor.service import LocalService
from prominence_executor.service.found import find_running
from prominence_executor.service.proving import Unproven, expected
from prominence_executor.service.serving import who_serves
from prominence_executor.service.state.proof import proof_of

Until = Callable[..., None]
SECRET = b"s" * 32
CHALLENGE = "0123456789abcdef" * 4

# Listens at a port that has become free, answers all that is asked, and notes what it was told.
IMPOSTOR = """
import socketserver, sys

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while line := self.rfile.readline():
            print(repr(line), file=noted, flush=True)
            if line == b"\\r\\n":
                self.wfile.write(b"HTTP/1.1 200 OK\\r\\nX-Proof: %s\\r\\nContent-Length: 2\\r\\n\\r\\n{}" % (b"0" * 64))

noted = open(sys.argv[2], "w")
socketserver.ThreadingTCPServer.allow_reuse_address = socketserver.ThreadingTCPServer.daemon_threads = True
with socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Handler) as server:
    print("listening", flush=True)
    server.serve_forever()
"""


@contextmanager
def impostor(url: str, noted: Path) -> Iterator[None]:
    port = url.rpartition(":")[2].partition("/")[0]
    command = [sys.executable, "-c", IMPOSTOR, port, str(noted)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            yield
        finally:
            process.kill()


@pytest.mark.once
def test_who_takes_the_port_of_a_killed_service_is_told_nothing_and_programs_go_on(
    stays: Path, tmp_path: Path, until: Until
) -> None:
    service = find_service("slurm", None, 60, engine={"dir": str(stays)})
    try:
        with service.connect() as client:
            assert client.list_jobs() == []
            serving, token, noted = who_serves(stays), (stays / "token").read_text(), tmp_path / "noted"
            assert serving is not None
            os.kill(serving.pid, signal.SIGKILL)
            until(lambda: not Path(f"/proc/{serving.pid}/cmdline").exists() or is_zombie(serving.pid))
            with impostor(serving.url, noted):
                client.api.retry_for = 0
                with pytest.raises(ServiceUnavailableError, match="does not prove to be the service of") as caught:
                    client.list_jobs()
                assert not caught.value.may_have_arrived
                with pytest.raises(TransferError, match="does not prove"):
                    client.api.call_store("PUT", f"{serving.url}/name", b"content")
                assert service.revive is not None
                service.revive()
                assert client.list_jobs() == []
                assert client.url != serving.url
                assert "/health" in noted.read_text()
                said = noted.read_text()
                assert not [word for word in ("Bearer", token, "name", "content") if word in said]
    finally:
        service.stop()


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_proof_that_another_passes_on_from_the_service_is_none(tmp_path: Path) -> None:
    with LocalService(tmp_path) as service, relay(service.url) as passed_on:
        assert requests.get(f"{passed_on}/health", timeout=10).json() == {}
        assert expected(service.url, tmp_path).answers(10)
        with pytest.raises(Unproven):
            expected(passed_on, tmp_path).answers(10)
        # Nor one for a connection that was made while somebody else was at the address.
        host, port = "127.0.0.1", int(passed_on.rpartition(":")[2].partition("/")[0])
        with socket.create_connection((host, port)) as connection, pytest.raises(Unproven):
            expected(service.url, tmp_path)(connection, host, int(service.url.rpartition(":")[2].partition("/")[0]))


def test_nobody_who_listens_is_no_answer_and_an_end_of_the_connection_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        service = expected(f"http://127.0.0.1:{listener.getsockname()[1]}/prominence/v1", tmp_path)
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        assert not service.answers(10)
        thread.join()
    assert not service.answers(10)


def test_a_proof_is_of_one_secret_one_challenge_and_one_connection() -> None:
    proofs = {
        proof_of(secret, challenge, url, (host, port))
        for secret in (SECRET, b"t" * 32)
        for challenge in (CHALLENGE, CHALLENGE[::-1])
        for url in ("http://127.0.0.1:1", "http://127.0.0.1:2")
        for host in ("127.0.0.1", "127.0.0.2")
        for port in (1, 2)
    }
    assert len(proofs) == 32
    assert None not in proofs
    assert {proof_of(SECRET, challenge, "", ("", 0)) for challenge in ("", "ab", CHALLENGE * 3, f"{CHALLENGE}\n")} == {
        None
    }


def test_a_service_of_an_earlier_version_is_named(tmp_path: Path) -> None:
    with ServiceProgram(tmp_path / "state") as program, relay(program.url) as passed_on:
        path = program.directory / "serving.json"
        path.write_text(path.read_text().replace(program.url, passed_on))
        with pytest.raises(RuntimeError, match=r"an earlier version, which is to be ended \(process [0-9]+ on "):
            find_running(program.directory)


@contextmanager
def relay(url: str) -> Iterator[str]:
    """Pass on one request of each connection to the service, and its answer, from another port."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, socket.create_connection(("127.0.0.1", port)) as onward:
                    onward.sendall(connection.recv(65536))
                    connection.sendall(onward.recv(65536))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield url.replace(str(port), str(listener.getsockname()[1]))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
