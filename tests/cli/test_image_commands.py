"""`prominence-executor image ...`: what is printed where, and the exit statuses."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from calls import square
from proxy import FaultProxy, hang

from prominence_executor import ProminenceExecutor
from prominence_executor.client import ProminenceClient
from prominence_executor.local import LocalService

Until = Callable[..., None]
COMMAND = [sys.executable, "-m", "prominence_executor.cli", "image"]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "some.tar"
    path.write_bytes(os.urandom(100_000))
    return path


@pytest.fixture
def proxy(service: LocalService) -> Iterator[FaultProxy]:
    with FaultProxy(service.url) as proxy:
        yield proxy


@pytest.fixture
def client(service: LocalService) -> Iterator[ProminenceClient]:
    with ProminenceClient(service.url, service.token) as client:
        yield client


def environment(service: LocalService, url: str = "", **more: str) -> dict[str, str]:
    return {**os.environ, "PROMINENCE_URL": url or service.url, "PROMINENCE_TOKEN": service.token, **more}


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], env=env, capture_output=True, text=True, check=False)


def name_of(path: Path) -> str:
    return f"pximage-{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}{path.suffix}"


def test_push_prints_a_name_of_the_content_and_uploads_once(
    service: LocalService, proxy: FaultProxy, client: ProminenceClient, image: Path
) -> None:
    variables = environment(service, proxy.url)
    for _ in range(2):
        done = run("push", str(image), env=variables)
        assert (done.returncode, done.stdout, done.stderr) == (0, name_of(image) + "\n", "")
    assert proxy.forwarded["POST /data/upload"] == 1
    named = run("push", str(image), "--name", "mine.tar", env=variables)
    assert (named.returncode, named.stdout) == (0, "mine.tar\n")
    with ProminenceExecutor(service.url, service.token, image="mine.tar", poll_interval=(0.05, 0.5)) as executor:
        assert executor.submit(square, 3).result(30) == 9
    for name in (name_of(image), "mine.tar"):
        client.delete_data(name)


def test_push_shows_its_progress_on_a_terminal(service: LocalService, client: ProminenceClient, image: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # the other side is closed
            while block := os.read(ours, 4096):
                shown.extend(block)

    command = [*COMMAND, "push", str(image)]
    with subprocess.Popen(command, env=environment(service), stdout=subprocess.PIPE, stderr=theirs) as push:
        os.close(theirs)
        reader = threading.Thread(target=read)
        reader.start()
        output, _ = push.communicate(timeout=60)
    reader.join()
    os.close(ours)
    assert output.decode() == name_of(image) + "\n"
    assert b"upload: 100%" in shown
    client.delete_data(name_of(image))


def test_what_is_no_image_is_one_line(service: LocalService, image: Path) -> None:
    for arguments, said in (
        (["no.tar"], "prominence-executor image push: image: there is no file /"),
        ([str(image), "--name", "mine"], "prominence-executor image push: name must be letters"),
    ):
        done = run("push", *arguments, env=environment(service))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert done.stderr.startswith(said)


def test_a_service_that_refuses_the_token_is_one_line(service: LocalService, image: Path) -> None:
    done = run("push", str(image), env={**environment(service), "PROMINENCE_TOKEN": "garbage"})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert "HTTP 401" in done.stderr


def test_a_build_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    done = run("build", "--output", str(tmp_path / "x.tar"), "--python", "3.4", "--suite", "bookworm")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("prominence-executor image build: the Python of bookworm is 3.11, not 3.4")


def test_check_prints_the_table(service: LocalService) -> None:
    done = run("check", "any:latest", "--timeout", "60", env=environment(service))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("image any:latest (job ")
    assert "cloudpickle" in done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_is_no_complaint(
    service: LocalService, client: ProminenceClient, image: Path, unbuffered: str
) -> None:
    variables = environment(service, PYTHONUNBUFFERED=unbuffered)
    command = [*COMMAND, "push", str(image)]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as push:
        assert push.stdout is not None
        push.stdout.close()
        assert push.stderr is not None
        assert push.stderr.read() == ""
    assert push.returncode == 141
    client.delete_data(name_of(image))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_answer_that_cannot_be_written_is_one_line(
    service: LocalService, client: ProminenceClient, image: Path, unbuffered: str
) -> None:
    variables = environment(service, PYTHONUNBUFFERED=unbuffered)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "push", str(image)], env=variables, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No space left" in done.stderr
    client.delete_data(name_of(image))


@pytest.mark.parametrize(
    ("number", "status", "said"), [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "")]
)
def test_an_interrupted_command_ends_at_once_and_quietly(
    service: LocalService, proxy: FaultProxy, image: Path, until: Until, number: int, status: int, said: str
) -> None:
    rule = proxy.inject(hang(30.0), path="/data")
    command = [*COMMAND, "push", str(image)]
    with subprocess.Popen(
        command, env=environment(service, proxy.url), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as push:
        until(lambda: rule.injected)
        push.send_signal(number)
        output, errors = push.communicate(timeout=20)
    assert (push.returncode, output, errors) == (status, "", said)
