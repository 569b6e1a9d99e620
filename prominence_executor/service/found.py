"""The service that outlives its programs, for ``url="slurm"``: found where it serves its directory, or started.

It has a session of its own, ends when it has been idle for a while, and is started again by the next program. Two
programs that start it at once find the same one.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from .launch import PROGRAM
from .sandbox.downloads import open_url
from .serving import Serving, hold, who_serves
from .state.directory import is_locked, own_directory

_START = 60.0  # seconds that a loaded machine may need to start it
_LOOK = 0.05
OF_SERVICE = ("bind", "public_url", "containers")  # what is said to the service itself, not to its engine
_OLD = 86400.0  # seconds after which nobody is starting any more
_IDLE = 900.0  # seconds without jobs, requests and programs that need it, after which it ends


def find_or_start(engine: str, directory: Path, options: Mapping[str, str]) -> tuple[Serving, str]:
    """Return where the service of a directory is, and its token; it is started when nobody serves it. Blocks.

    Raises:
        RuntimeError: it did not start, or runs on another host; the sentence says why, or where.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    own_directory(directory)
    deadline, started = time.monotonic() + _START, None
    while time.monotonic() < deadline:
        serving = who_serves(directory)
        if serving is not None and is_locked(directory):
            _refuse_elsewhere(serving)
            if _answers(serving):
                if started is not None:
                    started.settle(serving)
                return serving, (directory / "token").read_text()
        if started is None:
            if not is_locked(directory):  # else somebody else has started one, which will answer or end
                started = _Start(engine, directory, options)
        elif (said := started.ended()) is not None:
            if "another service uses" not in said:
                raise RuntimeError(said)
            started = None
        time.sleep(_LOOK)
    raise RuntimeError(f"the service of {directory} does not answer within {_START:g} s: see {directory}/service*.log")


def find_running(directory: Path) -> tuple[Serving, str] | None:
    """Return where the service of a directory is, and its token; None where none serves it: none is started.

    Raises:
        RuntimeError: it runs on another host.
    """
    serving = who_serves(directory) if directory.is_dir() else None
    if serving is None or not is_locked(directory):
        return None
    _refuse_elsewhere(serving)
    return (serving, (directory / "token").read_text()) if _answers(serving) else None


def needed(directory: Path) -> Callable[[], None]:
    """Keep the service of a directory from ending when it is idle, until what is returned is called, or this ends."""
    held = [hold(directory)]

    def release() -> None:
        while held:
            os.close(held.pop())

    return release


class _Start:
    """A service that was started here; it may find that another one was faster. It may outlive this program."""

    def __init__(self, engine: str, directory: Path, options: Mapping[str, str]) -> None:
        words = [
            f"--{name.replace('_', '-')}={value}" if name in OF_SERVICE else f"--engine-option={name}={value}"
            for name, value in options.items()
        ]
        self._directory = directory
        for path in directory.glob("service-*.log"):  # of programs that were killed before they could remove it
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - _OLD:
                    path.unlink()
        # Each its own: of two that start at once, one is to say why it ends.
        descriptor, name = tempfile.mkstemp(dir=directory, prefix="service-", suffix=".log")  # mode 0600
        self._log = Path(name)
        with open(descriptor, "wb") as said:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[1]), "--quiet", "--engine", engine,
                 "--dir", str(directory), f"--ends-when-idle={_IDLE}", *words],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True, cwd="/",
            )  # fmt: skip
        # Whenever it ends, it is waited for; it often outlives this program.
        name = f"prominence-service-{self._process.pid}"
        threading.Thread(target=self._process.wait, name=name, daemon=True).start()

    def ended(self) -> str | None:
        """Return what it has said, when it has ended; None before."""
        if self._process.poll() is None:
            return None
        said = self._log.read_text(errors="replace").strip().rpartition("\n")[2]
        self._log.unlink()
        return said or f"the service ended with exit code {self._process.returncode}"

    def settle(self, serving: Serving) -> None:
        """Keep what it says, if it is the one that serves; else it ends, and has nothing to say."""
        if serving.pid == self._process.pid:
            os.replace(self._log, self._directory / "service.log")
        else:
            self._log.unlink()


def _refuse_elsewhere(serving: Serving) -> None:
    """Raise RuntimeError for a service that only programs on another host can reach."""
    if serving.host != socket.gethostname() and serving.is_local():
        raise RuntimeError(f"the service of this directory is {serving}: start the program there, or end it there")


def _answers(serving: Serving) -> bool:
    if serving.url.startswith("https://"):  # whose certificate the client will check; the lock says that it is there
        return True
    try:
        with open_url(f"{serving.url}/health") as answer:
            return int(answer.status) == 200
    except OSError:
        return False
