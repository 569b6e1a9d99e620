"""Things that are made once, whoever wants them first: a thread of this process, or a job on another machine.

Knows nothing of images.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .base import PullFailed, Stopped

_POLL_SECONDS = 0.1
_OLD = 86400.0  # seconds after which nobody uses any more what was begun
_WAITS = "ended while another job pulled its image"


class Once:
    """Makes each thing once; the others wait. One that fails is tried again.

    shared: a folder of locks, where jobs of several processes and machines have things in common.

    `_lock` guards the locks of the things and the names of those that are made.
    """

    def __init__(self, shared: Path | None = None) -> None:
        self._shared = shared
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._made: set[str] = set()

    def make(self, key: str, stopped: Stopped, make: Callable[[], None]) -> None:
        """Make a thing, once. Raises what `make` raises, and PullFailed when it is stopped while it waits."""
        with self.alone(key, stopped):
            with self._lock:
                made = key in self._made
            if not made:
                make()
                with self._lock:
                    self._made.add(key)

    @contextmanager
    def alone(self, key: str, stopped: Stopped) -> Iterator[None]:
        """Keep others from a thing meanwhile. Raises PullFailed when it is stopped while it waits."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        while not lock.acquire(timeout=_POLL_SECONDS):
            if stopped():
                raise PullFailed(_WAITS)
        try:
            if self._shared is None:
                yield
            else:
                with _locked(self._shared / hashlib.sha256(key.encode()).hexdigest(), stopped):
                    yield
        finally:
            lock.release()


@contextmanager
def _locked(path: Path, stopped: Stopped) -> Iterator[None]:
    """Hold the lock of a file. Where there are no locks, a thing may be made twice, and the last one counts."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if stopped():
                    raise PullFailed(_WAITS) from None
                time.sleep(_POLL_SECONDS)
            except OSError:
                break
            else:
                break
        yield
    finally:
        os.close(lock)


def clear(folder: Path, *, shared: bool) -> None:
    """Make the folder of what is being made, without what nobody makes any more: all of it, or what is a day old."""
    if not shared:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    for entry in os.scandir(folder) if shared else ():
        with suppress(OSError):  # somebody else removes it
            state = entry.stat(follow_symlinks=False)
            # A second name of an uploaded object is as old as the object, but its state has changed just now.
            if max(state.st_mtime, state.st_ctime) > time.time() - _OLD:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def is_fresh(path: Path) -> bool:
    """Return whether what was made of an image that only a registry knows is less than a day old."""
    try:
        return path.stat().st_mtime > time.time() - _OLD
    except FileNotFoundError:
        return False
