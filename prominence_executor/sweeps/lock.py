"""A lock on a directory that dies with its process, and says who has it.

POSIX record locks: they work on NFS, a forked child does not inherit them, and no kill leaves them behind. They know
nothing of two owners in one process, so that is kept here.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from pathlib import Path

from ..errors import StoreInUseError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_held: set[Path] = set()
_guard = threading.Lock()


class DirectoryLock:
    """Held from its making to `release`, or to the process's end.

    Raises:
        StoreInUseError: another process, or another object of this one, has it.
        OSError: the file cannot be made: a directory that is read-only, or a full disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        with _guard:
            if self._folder in _held:
                raise StoreInUseError(
                    f"the store {folder} is in use by this program", socket.gethostname(), os.getpid()
                )
            self._file: int | None = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                self._take(folder)
            except BaseException:
                os.close(self._file)
                raise
            _held.add(self._folder)
        self._process = os.getpid()

    def _take(self, folder: Path) -> None:
        assert self._file is not None  # noqa: S101  it has just been opened
        try:
            if fcntl is not None:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            host, _, process = os.read(self._file, 1000).decode("utf-8", "replace").strip().partition(" ")
            raise StoreInUseError(
                f"the store {folder} is in use by process {process or '?'} on {host or 'another machine'}",
                host,
                int(process) if process.isdigit() else None,
            ) from None
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{socket.gethostname()} {os.getpid()}\n".encode())  # pwrite is POSIX's

    def release(self) -> None:
        """Let go of it; more than once does no harm."""
        with _guard:
            if self._file is not None and os.getpid() == self._process:
                os.close(self._file)  # and with it the lock
                _held.discard(self._folder)
            self._file = None
