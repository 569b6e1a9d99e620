"""Where a service that stays is served, said in its directory: for who would start another, and who looks for it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .state.directory import own_file, write_whole

_FORMAT = 1
_FILE = "serving.json"
BEAT, _LATELY = 10.0, 45.0  # seconds between two words of who serves, and after which silence is an end
_NEEDED = "needed"  # the file that is locked by the programs that need the service


@dataclass(frozen=True)
class Serving:
    """A service that serves, or did when it was killed."""

    url: str
    host: str
    pid: int
    cafile: str | None = None
    """The authority behind its certificate, if no public one."""

    def is_local(self) -> bool:
        """Return whether only programs on its host reach it."""
        return (urlsplit(self.url).hostname or "").startswith("127.")

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, at {self.url}"


@contextmanager
def said(directory: Path, url: str, cafile: Path | None = None) -> Iterator[None]:
    """Say that this process serves a directory, until the block ends."""
    serving = Serving(url, socket.gethostname(), os.getpid(), None if cafile is None else str(cafile))
    write_whole(directory / _FILE, json.dumps({"format": _FORMAT, **asdict(serving)}).encode())
    try:
        yield
    finally:
        with suppress(OSError, ValueError, RuntimeError):
            if who_serves(directory) == serving:
                (directory / _FILE).unlink()


def who_serves(directory: Path) -> Serving | None:
    """Return which service has said last that it serves a directory. RuntimeError: others could have said it."""
    path = directory / _FILE
    if not own_file(path, private=True):
        return None
    found = json.loads(path.read_text())
    if found.pop("format") > _FORMAT:
        return None
    return Serving(found["url"], found["host"], found["pid"], found.get("cafile"))


def go_on(directory: Path) -> None:
    """Say that this process still serves a directory; to be said every BEAT seconds."""
    with suppress(OSError):
        os.utime(directory / _FILE, follow_symlinks=False)


def who_serves_elsewhere(directory: Path) -> Serving | None:
    """Return which service on another host has said lately that it serves a directory: locks may be of one host alone.

    For who holds the directory's lock.
    """
    with suppress(OSError, ValueError, KeyError, RuntimeError):  # others may have said that, or nobody
        serving = who_serves(directory)
        os.utime(directory / "lock")  # so that both times are of the same clock
        passed = (directory / "lock").stat().st_mtime - (directory / _FILE).stat().st_mtime
        if serving is not None and serving.host != socket.gethostname() and passed < _LATELY:
            return serving
    return None


def nobody_serves(directory: Path) -> None:
    """Remove what a killed service has said: who holds the directory's lock now serves nothing yet."""
    (directory / _FILE).unlink(missing_ok=True)


def hold(directory: Path) -> int:
    """Say that this program needs the service of a directory, until the descriptor that is returned is closed."""
    held = os.open(directory / _NEEDED, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with suppress(OSError):  # without locks the service is started again when it is missed
        fcntl.flock(held, fcntl.LOCK_SH)
    return held


def is_needed(directory: Path) -> bool:
    """Return whether a program that lives has said that it needs the service of a directory."""
    try:
        held = os.open(directory / _NEEDED, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(held)
    return False


def last_port(directory: Path) -> int:
    """Return the port at which a directory was served last, so that what knows it finds the service again; 0: none."""
    path = directory / "port"
    return int(path.read_text()) if own_file(path, private=False) else 0


def keep_port(directory: Path, port: int) -> None:
    """Note at which port a directory is served."""
    write_whole(directory / "port", str(port).encode())
