"""The service that outlives its programs, for ``url="slurm"``: found where it serves its directory, or started.

It has a session of its own, ends when it has been idle for a while, and is started again by the next program. Two
programs that start it at once find the same one.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from .launch import PROGRAM
from .sandbox.downloads import open_url
from .serving import Serving, who_serves
from .state.directory import is_locked, own_directory

_START = 60.0  # seconds that a loaded machine may need to start it
_LOOK = 0.05
_IDLE = 900.0  # seconds without jobs and requests, after which it ends


def find_or_start(engine: str, directory: Path, options: Mapping[str, str]) -> tuple[str, str]:
    """Return URL and token of the service of a directory, which is started when nobody serves it. Blocks.

    Raises:
        RuntimeError: it did not start, or runs on another host; the sentence says why, or where.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    own_directory(directory)
    deadline, process = time.monotonic() + _START, None
    while time.monotonic() < deadline:
        serving = who_serves(directory)
        if serving is not None and is_locked(directory) and _answers(serving):
            return serving.url, (directory / "token").read_text()
        if process is None:
            process = _start(engine, directory, options)
        elif process.poll() is not None:
            said = (directory / "service.log").read_text(errors="replace").strip()
            if "another service uses" not in said:
                raise RuntimeError(said.rpartition("\n")[2] or f"the service ended with exit code {process.returncode}")
            _refuse_elsewhere(who_serves(directory))
            process = None  # somebody else has started one, which ends, or will answer
        time.sleep(_LOOK)
    raise RuntimeError(f"the service of {directory} does not answer within {_START:g} s: see {directory}/service.log")


def _refuse_elsewhere(serving: Serving | None) -> None:
    """Raise RuntimeError for a service that serves on another host."""
    if serving is not None and serving.host != socket.gethostname():
        raise RuntimeError(f"the service of this directory is {serving}: start the program there, or end it there")


def _answers(serving: Serving) -> bool:
    if serving.host != socket.gethostname():
        return False
    if serving.url.startswith("https://"):  # whose certificate the client will check; the lock says that it is there
        return True
    try:
        with open_url(f"{serving.url}/health") as answer:
            return int(answer.status) == 200
    except OSError:
        return False


def _start(engine: str, directory: Path, options: Mapping[str, str]) -> subprocess.Popen[bytes]:
    words = [f"--engine-option={name}={value}" for name, value in options.items()]
    log = directory / "service.log"
    log.unlink(missing_ok=True)
    with open(log, "xb") as said:
        log.chmod(0o600)
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[1]), "--quiet", "--engine", engine,
             "--dir", str(directory), f"--ends-when-idle={_IDLE}", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True, cwd="/",
        )  # fmt: skip
    # Whenever it ends, it is waited for; it may outlive this program, and often does.
    threading.Thread(target=process.wait, name=f"prominence-service-{process.pid}", daemon=True).start()
    return process
