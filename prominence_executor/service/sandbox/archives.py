"""Unpacking archives from anywhere: nothing outside the target, no more than there is room for, and not for ever.

One strict rule whatever the version of Python, whose own filters have had holes: names and links are relative and
without "..", and members are files, directories and links. A tarball is looked through before anything of it is
written. Every piece of data passes a `Budget`, by which unpacking stops.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

PIECE = 1 << 18
TARS = (".tar", ".tgz", ".tar.gz", ".tar.bz2")
_BLOCK = 4096  # bytes that even an empty member takes of a disk
_LONGEST_HEADER = 1 << 22  # bytes that a tarball may have read at once
_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


class Stopped(Exception):
    """Whoever wanted the files wants them no more."""


class OverBudget(ValueError):
    """There is more than there may be."""


class Budget:
    """How many bytes may still be written, and whether to go on at all. For one thread."""

    def __init__(self, stopped: Callable[[], bool], size: float = math.inf) -> None:
        self._left, self._stopped = size, stopped

    def check(self) -> None:
        """Raise Stopped when it is time to stop."""
        if self._stopped():
            raise Stopped

    def spend(self, size: int) -> None:
        """Note that so many bytes are about to be written. Raises OverBudget and Stopped."""
        self.check()
        self._left -= size
        if self._left < 0:
            raise OverBudget("more than the job's disk")

    def give_back(self, size: int) -> None:
        """Note that so many bytes were removed."""
        self._left += size

    def expect(self, size: int) -> None:
        """Raise OverBudget when there is no room for so many bytes, and Stopped."""
        self.spend(size)
        self.give_back(size)


def copy(source: IO[bytes] | Any, target: IO[bytes], budget: Budget) -> None:
    """Copy a stream to its end, in pieces. Raises OverBudget and Stopped."""
    while piece := source.read(PIECE):
        budget.spend(len(piece))
        target.write(piece)


def unpack(path: Path, home: Path, budget: Budget) -> None:
    """Unpack a file into a directory if its name says that it is an archive, and remove it then.

    Raises:
        Stopped, OverBudget: see `Budget`.
        ValueError: it holds what may not be unpacked.
        one of BROKEN: it is no whole archive.
    """
    name = path.name
    if name.endswith(TARS):
        _look_through(path, budget)
        _unpack_tar(path, home, budget)
    elif name.endswith(".zip"):
        _unpack_zip(path, home, budget)
    elif name.endswith((".gz", ".bz2")):
        inner = name.rpartition(".")[0]
        if inner in ("", ".", ".."):
            raise ValueError(f"{name} may not be unpacked")
        opener = gzip.open if name.endswith(".gz") else bz2.open
        with opener(path, "rb") as packed, new_file(home / inner) as file:
            copy(packed, file, budget)
    else:
        return
    budget.give_back(path.stat().st_size)
    path.unlink()


# -- tarballs ----------------------------------------------------------------------------------------------------------


class _Stream:
    """What a tarball is read from: a seek forward is made of reads that heed the budget, and none backward."""

    def __init__(self, packed: IO[bytes], budget: Budget) -> None:
        self._packed, self._budget, self._position = packed, budget, 0

    def read(self, size: int) -> bytes:
        if size > _LONGEST_HEADER:
            raise ValueError("a header of the archive is too long")
        self._budget.check()
        data = self._packed.read(size)
        self._position += len(data)
        return data

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def seek(self, position: int) -> None:
        if position < self._position:
            raise ValueError("the archive goes backwards")
        while self._position < position and self.read(min(PIECE, position - self._position)):
            pass


def _open_tar(path: Path) -> Any:
    with open(path, "rb") as file:
        begins = file.read(2)
    return _OPENERS[begins](path, "rb") if begins in _OPENERS else open(path, "rb")


def _members(path: Path, budget: Budget) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Go through a tarball once. Raises ValueError at a member that may not be unpacked."""
    with _open_tar(path) as packed:
        stream: Any = _Stream(packed, budget)
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (member := archive.next()) is not None:
                _check(member)
                yield archive, member
                vars(archive)["members"].clear()  # else all headers stay in memory


def _look_through(path: Path, budget: Budget) -> None:
    """Raise ValueError for a tarball with a member that may not be unpacked, and OverBudget."""
    size = 0
    for _, member in _members(path, budget):
        size += max(member.size if member.isreg() else 0, _BLOCK)
        budget.expect(size)


def _check(member: tarfile.TarInfo) -> None:
    """Raise ValueError for what could lead out of the directory, and for devices."""
    names = [member.name, member.linkname] if member.islnk() or member.issym() else [member.name]
    outside = any(name.startswith("/") or ".." in name.split("/") or "\0" in name for name in names)
    if outside or not (member.isreg() or member.isdir() or member.islnk() or member.issym()):
        raise ValueError(f"{member.name} may not be unpacked")


def _unpack_tar(path: Path, home: Path, budget: Budget) -> None:
    for archive, member in _members(path, budget):
        _place(archive, member, home / member.name, home, budget)


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, home: Path, budget: Budget) -> None:
    """Write one member. What it may be was checked."""
    if member.isdir():
        _make_directory(target)
        return
    _make_directory(target.parent)
    if member.issym():
        _free(target)
        target.symlink_to(member.linkname)
        return
    if member.islnk():
        source = home / member.linkname
        if not stat.S_ISREG(source.lstat().st_mode):
            raise ValueError(f"{member.name} may not be unpacked")
        if source != target:
            _free(target)
            os.link(source, target, follow_symlinks=False)
        return
    content = archive.extractfile(member)
    with new_file(target) as file:
        if content is not None:
            copy(content, file, budget)
    target.chmod(member.mode & 0o755 | 0o600)
    with suppress(OSError, OverflowError, ValueError):  # a time that this file system cannot keep
        os.utime(target, (member.mtime, member.mtime))


# -- zip ---------------------------------------------------------------------------------------------------------------


def _unpack_zip(path: Path, home: Path, budget: Budget) -> None:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        for info in infos:
            if info.filename.startswith("/") or ".." in info.filename.split("/"):
                raise ValueError(f"{info.filename} may not be unpacked")
        budget.expect(sum(max(info.file_size, _BLOCK) for info in infos))
        for info in infos:
            target = home / info.filename
            if info.is_dir():
                _make_directory(target)
                continue
            _make_directory(target.parent)
            with archive.open(info) as packed, new_file(target) as file:
                copy(packed, file, budget)


# -- files -------------------------------------------------------------------------------------------------------------


def _make_directory(path: Path) -> None:
    path.mkdir(mode=0o755, parents=True, exist_ok=True)


def _free(path: Path) -> None:
    """Remove what has this name, but for a directory, which is an error."""
    with suppress(FileNotFoundError):
        path.unlink()


def new_file(path: Path) -> IO[bytes]:
    """Make a file in the place of whatever has its name; a link there is not followed."""
    _free(path)
    return open(path, "xb")


def receive_copy(source: Path, target: Path, budget: Budget) -> None:
    """Copy a file, in the place of whatever has the target's name. Raises OverBudget and Stopped."""
    with open(source, "rb") as stream, new_file(target) as file:
        copy(stream, file, budget)


# What libraries are known to raise for archives that are broken, encrypted, or of a kind that they do not read.
BROKEN = (
    OSError, ValueError, EOFError, tarfile.TarError, zipfile.BadZipFile, zipfile.LargeZipFile, lzma.LZMAError,
    RuntimeError, ArithmeticError, LookupError, struct.error, zlib.error,
)  # fmt: skip
