"""Where a service that stays is served, said in its directory: for who would start another, and who looks for it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from .state.directory import own_file, write_whole

_FORMAT = 1
_FILE = "serving.json"


@dataclass(frozen=True)
class Serving:
    """A service that serves, or did when it was killed."""

    url: str
    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, at {self.url}"


@contextmanager
def said(directory: Path, url: str) -> Iterator[None]:
    """Say that this process serves a directory, until the block ends."""
    serving = Serving(url, socket.gethostname(), os.getpid())
    write_whole(directory / _FILE, json.dumps({"format": _FORMAT, **asdict(serving)}).encode())
    try:
        yield
    finally:
        with suppress(OSError):
            (directory / _FILE).unlink()


def who_serves(directory: Path) -> Serving | None:
    """Return which service has said last that it serves a directory. RuntimeError: others could have said it."""
    path = directory / _FILE
    if not own_file(path, private=True):
        return None
    found = json.loads(path.read_text())
    return Serving(found["url"], found["host"], found["pid"]) if found.pop("format") <= _FORMAT else None


def nobody_serves(directory: Path) -> None:
    """Remove what a killed service has said: who holds the directory's lock now serves nothing yet."""
    (directory / _FILE).unlink(missing_ok=True)


def last_port(directory: Path) -> int:
    """Return the port at which a directory was served last, so that what knows it finds the service again; 0: none."""
    path = directory / "port"
    return int(path.read_text()) if own_file(path, private=False) else 0


def keep_port(directory: Path, port: int) -> None:
    """Note at which port a directory is served."""
    write_whole(directory / "port", str(port).encode())
