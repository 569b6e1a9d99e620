"""Removing directories in which users' programs had their way. No link is followed, whoever swaps what meanwhile.

Works with descriptors, not paths: between a look at a path and its use, a process that a job left behind could put a
link there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(root: Path) -> None:
    """Remove a directory and all below it, however deep and whatever its modes; a link is removed itself.

    What cannot be removed (somebody else's) stays; nothing is said of it.
    """
    with contextlib.suppress(OSError, RecursionError):
        if root.is_symlink():
            root.unlink()
        shutil.rmtree(root, ignore_errors=True)
    with contextlib.suppress(OSError):
        if not shutil.rmtree.avoids_symlink_attacks or not root.is_dir() or root.is_symlink():
            return
        # Directories that a task made unwritable, or nested deeper than rmtree can follow.
        parent = os.open(root.parent, _DIRECTORY)
        try:
            _remove_stubborn(parent, root.name)
        finally:
            os.close(parent)


def _remove_stubborn(parent: int, name: str) -> None:
    """Remove level by level: what lies in a directory of `top` moves up into `top`, so nothing is ever deep."""
    top = _open(parent, name)
    try:
        while _flatten(top):
            pass
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _flatten(top: int) -> bool:
    """Remove one level; whether one more round may find something."""
    progress = False
    for name in os.listdir(top):
        try:
            if not _removed(top, name):
                _lift(top, name)
            progress = True
        except OSError:
            continue
    return progress


def _removed(directory: int, name: str) -> bool:
    """Remove what is not a directory; return whether it was that."""
    try:
        os.unlink(name, dir_fd=directory)
    except (IsADirectoryError, PermissionError):  # PermissionError: a directory, on other systems than Linux
        return False
    return True


def _lift(top: int, name: str) -> None:
    """Empty one directory of `top` into `top`, and remove it."""
    inner = _open(top, name)
    try:
        for child in os.listdir(inner):
            if not _removed(inner, child):
                os.close(_open(inner, child))  # moving a directory needs the right to write it
                os.rename(child, os.urandom(16).hex(), src_dir_fd=inner, dst_dir_fd=top)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=top)


def _open(parent: int, name: str) -> int:
    """Open a directory that its owner can read and write from now on. OSError for a link."""
    if os.chmod in os.supports_follow_symlinks:
        os.chmod(name, 0o700, dir_fd=parent, follow_symlinks=False)
        return os.open(name, _DIRECTORY, dir_fd=parent)
    held = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{held}", 0o700)
        return os.open(".", _DIRECTORY, dir_fd=held)
    finally:
        os.close(held)
