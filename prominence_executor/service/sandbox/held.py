"""Sandboxes on machines where nobody clears up later: each is held by a lock, which ends with its process.

The next one that is made on that machine removes those which nobody holds any more: what made them was killed. A lock
is of one machine, as some network file systems have them, so its name says of which.
"""

from __future__ import annotations

import fcntl
import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import processes
from .removal import remove_tree
from .sandbox import Sandbox


@contextmanager
def held(parent: Path, shims: Path, kept: Path | None = None) -> Iterator[Sandbox]:
    """Make a sandbox; when the block ends, it goes with all that still runs there. Raises OSError."""
    remove_left(parent)
    sandbox = Sandbox(parent, shims, kept=kept)
    path = sandbox.root.parent / (sandbox.mark + _suffix())
    lock = _locked(path)
    try:
        sandbox.create()
        yield sandbox
    finally:
        processes.kill_all({sandbox.mark: sandbox.root})
        sandbox.remove()
        path.unlink(missing_ok=True)
        os.close(lock)


def _locked(path: Path) -> int:
    """Make a lock's file and take it; again when somebody who took it for a dead one's was faster."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with suppress(OSError):  # without locks nobody else has one, either
            fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                return lock
        os.close(lock)


def remove_left(parent: Path) -> None:
    """Remove the sandboxes of this machine that nobody holds, and end what runs there."""
    for path in parent.glob("*" + glob.escape(_suffix())):
        with suppress(OSError):  # somebody holds it, or has removed it
            lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                root = parent / path.name.removesuffix(_suffix())
                processes.kill_all({root.name: root})
                remove_tree(root)
                path.unlink(missing_ok=True)
            finally:
                os.close(lock)


def _suffix() -> str:
    return f".{os.uname().nodename}.lock"
