"""The object store: bytes under keys, as files below one directory.

Keys are `uploads/<owner>/<name>`, the owner quoted as in a URL, `scratch/<place>/<name>` and
`snapshots/<place>/snapshot.tgz`. A key never decides a path by itself: every component is checked or quoted first.
Objects appear whole (temporary file, then rename), and nobody else has a hard link to one.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote

from .directory import own_directory, write_whole

PIECE = 1 << 20
_LONGEST = 240  # bytes of one file name, with room under the file systems' 255
_LARGE_PIECE = 1 << 26  # bytes copied at once within the kernel
_CANNOT = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EBADF)
_OLD = 86400.0  # seconds since a file was last written that nobody is writing any more
_QUOTED_ONCE = ".quoted-once"


class BadKey(ValueError):
    """A key that this store does not keep."""


def sha256_of(path: Path) -> str:
    """Return a file's checksum in hexadecimal digits."""
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


class ObjectStore:
    """Every method may be called from any thread.

    owner: what an earlier owner has half received is removed; others than the service leave everything as it is.
    shared: others may be writing while the owner starts, as jobs on other machines do: only what is old is removed.
    """

    def __init__(self, root: Path, *, owner: bool = True, shared: bool = False) -> None:
        self._root = root
        self._incoming = root / "incoming"
        if not owner:
            return
        own_directory(root)
        if shared:
            self._remove_old()
        else:
            shutil.rmtree(self._incoming, ignore_errors=True)  # what a killed service had half received
        self._incoming.mkdir(exist_ok=True)
        _quote_once(root)

    def _remove_old(self) -> None:
        """Remove what nobody has written to for long, which those have left that were killed."""
        with suppress(FileNotFoundError):
            for entry in os.scandir(self._incoming):
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < time.time() - _OLD:
                        os.unlink(entry.path)

    def path(self, key: str) -> Path:
        """Return where an object lies or would lie. Raises BadKey."""
        kind, _, rest = key.partition("/")
        if kind == "uploads":
            owner, _, name = rest.partition("/")
            if quote(unquote(owner), safe="") != owner:
                raise BadKey(f"no such place: {key}")
            parts = [owner, quote(name, safe="")]
        else:
            parts = rest.split("/")
        if kind not in ("uploads", "scratch", "snapshots") or len(parts) < 2:
            raise BadKey(f"no such place: {key}")
        for part in parts:
            if part in ("", ".", "..") or "\0" in part or len(part.encode()) > 255:
                raise BadKey(f"not the name of an object: {key}")
        if kind == "uploads" and len(parts[1]) > _LONGEST:
            raise BadKey("the name of an object must be shorter")
        return self._root.joinpath(kind, *parts)

    def exists(self, key: str) -> bool:
        """Return whether there is an object of this key."""
        try:
            return self.path(key).is_file()
        except BadKey:
            return False

    @contextmanager
    def receiving(self) -> Iterator[IO[bytes]]:
        """Open a temporary file on the store's own file system, removed unless it was kept by `keep`."""
        file = self.incoming_file()
        try:
            yield file
        finally:
            file.close()
            Path(file.name).unlink(missing_ok=True)

    def incoming_file(self) -> IO[bytes]:
        """Make a file to be kept later; one that never is kept is removed when the service starts again."""
        return tempfile.NamedTemporaryFile(dir=self._incoming, delete=False)

    def keep(self, file: Path, key: str) -> None:
        """Make a finished file of `receiving` the object `key`, replacing an older one."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, path)

    def put_file(self, key: str, source: Path, root: Path | None = None) -> int:
        """Copy a file that lies below `root` (or right in its directory); return its size. OSError: it is none there.

        What was looked at before may be another thing by now, and what a job left running may still write to it. So
        what counts is what was opened; and it is never taken over, also where that would be cheaper.
        """
        self.path(key)  # refuse before reading
        # Neither follow a link that the task left under that name, nor wait for the writer of a pipe.
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise OSError(error.errno, f"{source.name} is not a file ({error.strerror})") from error
        with open(descriptor, "rb") as opened:
            state = os.fstat(opened.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise OSError(f"{source.name} is not a file")
            if not _lies_in(opened.fileno(), root or source.parent):
                raise OSError(f"{source.name} lies outside")
            with self.receiving() as file:
                size = _copy(opened.fileno(), file.fileno(), state.st_size)
                self.keep(Path(file.name), key)
        return size

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        self.path(key).unlink(missing_ok=True)

    def uploads(self, owner: str, prefix: str = "") -> list[dict[str, Any]]:
        """Return the uploaded objects of one owner in the order of their names."""
        directory = self._root / "uploads" / quote(owner, safe="")
        if owner in ("", ".", "..") or len(directory.name) > _LONGEST or not directory.is_dir():
            return []
        from email.utils import formatdate  # which no job needs

        listed = []
        for entry in sorted(os.scandir(directory), key=lambda entry: unquote(entry.name)):
            try:
                state = entry.stat()
            except FileNotFoundError:  # deleted meanwhile
                continue
            listed.append(
                {
                    "lastModified": formatdate(state.st_mtime, usegmt=True),
                    "name": prefix + unquote(entry.name),
                    "size": state.st_size,
                }
            )
        return listed


def _lies_in(descriptor: int, root: Path) -> bool:
    """Return whether an open file lies below a directory, as far as this system can tell."""
    try:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(root)
    except OSError:  # no /proc
        return True


def _copy(source: int, target: int, size: int) -> int:
    """Copy so many bytes, or as many as there are; return how many. Blocks are shared where the file system can."""
    done, within_the_kernel = 0, hasattr(os, "copy_file_range")
    while done < size:
        if within_the_kernel:
            try:
                count = os.copy_file_range(source, target, min(size - done, _LARGE_PIECE))
            except OSError as error:
                if error.errno not in _CANNOT or done:
                    raise
                within_the_kernel = False
                continue
        else:
            count = os.write(target, os.read(source, min(size - done, PIECE)))
        if not count:
            break
        done += count
    return done


def _quote_once(root: Path) -> None:
    """Rename what a service of version 0.1.0 quoted twice: the directory of a user whose name is not a word."""
    if (root / _QUOTED_ONCE).exists():
        return
    for directory in list((root / "uploads").glob("*")):
        once = unquote(directory.name)
        if once != directory.name and quote(unquote(once), safe="") == once and quote(once, safe="") == directory.name:
            with suppress(OSError):  # there is one already
                directory.rename(directory.with_name(once))
    write_whole(root / _QUOTED_ONCE, b"")
