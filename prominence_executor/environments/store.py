"""What this machine keeps for its user: locks, so that the next run has the same versions, and archives to save time.

A folder below the user's caches: ``locks/KEY.json`` by what was wanted, ``archives/DIGEST.tar.gz`` by the lock. Files
appear whole, so several programs may use it; what it says of them is verified where it is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..caches import appearing_in, cache_folder
from ..errors import RequirementsError
from .archive import pack, sha256_of
from .locks import PYTHON, Lock, lock_from
from .tools import Tool, find_tool
from .wanted import Requirements, Wanted, wanted

LIMIT = 1000.0  # megabytes of an archive at most
_MEGABYTE = 1e6


class Archive(NamedTuple):
    """An archive of packages, on this machine."""

    path: Path
    sha256: str
    size: int  # bytes


def folder() -> Path:
    """Return the folder that keeps locks and archives."""
    return cache_folder("environments")


def locked(requirements: Requirements, platform: str | None = None, *, anew: bool = False) -> Lock | None:
    """Return the versions for requirements: those that were chosen before, or chosen now; None where there are none.

    Blocks for seconds when they are chosen, which needs the package index.

    Args:
        platform: the machines that they are for; see `ProminenceExecutor`.
        anew: choose again.

    Raises:
        FileNotFoundError, TypeError, ValueError: they are not what they should be.
        RequirementsError: they cannot be met.
    """
    return lock_of(wanted(requirements, platform), anew=anew)


def lock_of(asked: Wanted, *, anew: bool = False, tool: Tool | None = None) -> Lock | None:
    """Return the versions for what is wanted; see `locked`. ``tool``: what chooses, if not the one that is found."""
    if not asked.lines:
        return None
    path = _lock_path(asked)
    if not anew and (kept := _read(path)) is not None:
        return replace(kept, wanted=asked)  # its indexes are known again
    lock = (tool or find_tool(asked.target)).choose(asked)
    _write(path, json.dumps(lock.plain(), indent=1).encode())
    return lock


def archive_of(lock: Lock, limit: float = LIMIT, tool: Tool | None = None) -> Archive:
    """Return the archive of a lock's packages; fetches and packs them where that has not been done. Blocks.

    Args:
        limit: megabytes that it may have.

    Raises:
        RequirementsError: the packages cannot be fetched, are not what was locked, or are too large.
    """
    path = _archive_path(lock)
    if not path.exists():
        if lock.python != PYTHON:
            raise RequirementsError(
                f"the packages of this run were chosen for Python {lock.python}, and this program runs {PYTHON}"
            )
        _make(lock, path, tool or find_tool(lock.wanted.target))
    size = path.stat().st_size
    if size > limit * _MEGABYTE:
        raise RequirementsError(
            f"the packages for {list(lock.wanted.lines)} make an archive of {size / _MEGABYTE:.1f} MB, more than the "
            f"{limit:g} MB of requirements_limit, which each job would unpack anew: put them into an image "
            "(prominence-executor image build --requirement FILE), or raise the limit"
        )
    return Archive(path, sha256_of(path), size)


def locks() -> list[tuple[Lock, float, int | None]]:
    """List what is kept: each lock, when it was made (seconds since the epoch), and the bytes of its archive.

    What a newer version has written is left out.
    """
    found = []
    for path in sorted((folder() / "locks").glob("*.json")):
        lock = _read(path, strict=False)
        if lock is not None:
            archive = _archive_path(lock)
            found.append((lock, path.stat().st_mtime, archive.stat().st_size if archive.exists() else None))
    return found


def clear(*, archives_only: bool = False) -> int:
    """Remove archives and locks, or archives only; return the bytes that are free now."""
    freed = 0
    for path in _kept(archives_only):
        freed += path.stat().st_size
        path.unlink(missing_ok=True)
    return freed


def _kept(archives_only: bool) -> Iterator[Path]:
    yield from (folder() / "archives").glob("*.tar.gz")
    if not archives_only:
        yield from (folder() / "locks").glob("*.json")


def _lock_path(asked: Wanted) -> Path:
    return folder() / "locks" / f"{asked.key[:32]}-{PYTHON}.json"


def _archive_path(lock: Lock) -> Path:
    return folder() / "archives" / f"{lock.digest[:32]}.tar.gz"


def _read(path: Path, *, strict: bool = True) -> Lock | None:
    """Return a kept lock; None when there is none. ValueError: a newer version has written it, or it is damaged."""
    try:
        plain = json.loads(path.read_bytes())
        return lock_from(plain, f"the lock {path}")
    except FileNotFoundError:
        return None
    except json.JSONDecodeError:
        if strict:
            raise ValueError(f"the lock {path} is damaged: prominence-executor env clear removes it") from None
    except ValueError:
        if strict:
            raise
    return None


def _make(lock: Lock, path: Path, tool: Tool) -> None:
    with appearing_in(path) as scratch:
        (scratch / "packages").mkdir()
        tool.lay_down(lock, scratch / "packages")
        pack(scratch / "packages", scratch / "new")


def _write(path: Path, content: bytes) -> None:
    with appearing_in(path) as scratch, open(_new(scratch / "new"), "wb") as file:
        file.write(content)


def _new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
