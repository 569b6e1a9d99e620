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
from dataclasses import dataclass
from pathlib import Path

from .launch import PROGRAM
from .proving import Expected, Unproven, expected
from .serving import Serving, hold, who_serves
from .state.directory import is_locked, own_directory

_START = 60.0  # seconds that a loaded machine may need to start it
_LOOK = 0.05
_ANSWER = 20.0  # seconds in which a service answers that is there
_DOUBT = 5.0  # seconds in which who answers may still be somebody else: the service has just been started
OF_SERVICE = ("bind", "public_url", "containers")  # what is said to the service itself, not to its engine
_OLD = 86400.0  # seconds after which nobody is starting any more
_IDLE = 900.0  # seconds without jobs, requests and programs that need it, after which it ends


@dataclass(frozen=True)
class Found:
    """A service that serves its directory."""

    serving: Serving
    token: str
    expected: Expected
    """Has who listens there prove to be it, on each new connection."""


def find_or_start(engine: str, directory: Path, options: Mapping[str, str]) -> Found:
    """Return the service of a directory; it is started when nobody serves it. Blocks.

    Raises:
        RuntimeError: it did not start, or runs on another host, or another program answers in its place; the sentence
            says why, or where.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    own_directory(directory)
    began, started = time.monotonic(), None
    deadline = began + _START
    while time.monotonic() < deadline:
        serving = who_serves(directory)
        if serving is not None and is_locked(directory):
            _refuse_elsewhere(serving)
            try:
                found = _found(directory, serving)
            except Unproven as error:
                if time.monotonic() > began + _DOUBT:
                    raise RuntimeError(f"{error} ({serving})") from error
                found = None
            if found is not None:
                if started is not None:
                    started.settle(serving)
                return found
        if started is None:
            if not is_locked(directory):  # else somebody else has started one, which will answer or end
                started = _Start(engine, directory, options)
        elif (said := started.ended()) is not None:
            if "another service uses" not in said:
                raise RuntimeError(said)
            started = None
        time.sleep(_LOOK)
    raise RuntimeError(f"the service of {directory} does not answer within {_START:g} s: see {directory}/service*.log")


def find_running(directory: Path) -> Found | None:
    """Return the service of a directory; None where none serves it: none is started.

    Raises:
        RuntimeError: it runs on another host, or another program answers in its place.
    """
    serving = who_serves(directory) if directory.is_dir() else None
    if serving is None or not is_locked(directory):
        return None
    _refuse_elsewhere(serving)
    try:
        return _found(directory, serving)
    except Unproven as error:
        raise RuntimeError(f"{error} ({serving})") from error


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


def _found(directory: Path, serving: Serving) -> Found | None:
    """Return the service that serves a directory, if it answers. Raises Unproven when another one does."""
    service = expected(serving.url, directory)
    # By https the client will check its certificate; the lock says that it is there.
    if not serving.url.startswith("https://") and not service.answers(_ANSWER):
        return None
    return Found(serving, (directory / "token").read_text(), service)
