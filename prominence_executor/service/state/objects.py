"""The object store: bytes under keys, as files below one directory.

Keys are `uploads/<owner>/<name>`, `scratch/<place>/<name>` and `snapshots/<place>/snapshot.tgz`. A key never decides
a path by itself: every component is checked or quoted first. Objects appear whole (temporary file, then rename).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote

from .directory import own_directory

PIECE = 1 << 20
_LONGEST = 240  # bytes of one file name, with room under the file systems' 255


class BadKey(ValueError):
    """A key that this store does not keep."""


def sha256_of(path: Path) -> str:
    """Return a file's checksum in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


class ObjectStore:
    """Every method may be called from any thread."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        own_directory(root)
        shutil.rmtree(self._incoming, ignore_errors=True)  # what a killed service had half received
        self._incoming.mkdir()

    def path(self, key: str) -> Path:
        """Return where an object lies or would lie. Raises BadKey."""
        kind, _, rest = key.partition("/")
        if kind == "uploads":
            owner, _, name = rest.partition("/")
            parts = [quote(owner, safe=""), quote(name, safe="")]
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

    def put_stream(self, key: str, stream: IO[bytes] | Any) -> int:
        """Receive an object; return its size. Raises BadKey before anything is read."""
        self.path(key)  # refuse before reading
        with self.receiving() as file:
            shutil.copyfileobj(stream, file, PIECE)
            size = file.tell()
            file.close()
            self.keep(Path(file.name), key)
        return size

    def put_file(self, key: str, source: Path) -> int:
        """Take over a file of a finished sandbox: linked when nothing else holds it, else copied. Return its size.

        What was looked at before may be another thing by now: only what has a name in here is safe from that.
        """
        place = self._incoming / uuid.uuid4().hex
        os.link(source, place, follow_symlinks=False)
        try:
            state = place.lstat()
            if not stat.S_ISREG(state.st_mode):
                raise OSError(f"{source.name} is not a file")
            if state.st_nlink == 2:
                place.chmod(0o600)  # whatever the task left: it is the service that reads it now
                self.keep(place, key)
            else:
                with open(place, "rb") as stream:
                    self.put_stream(key, stream)
        finally:
            place.unlink(missing_ok=True)
        return state.st_size

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        self.path(key).unlink(missing_ok=True)

    def uploads(self, owner: str, prefix: str = "") -> list[dict[str, Any]]:
        """Return the uploaded objects of one owner in the order of their names."""
        directory = self._root / "uploads" / quote(owner, safe="")
        if owner in ("", ".", "..") or len(directory.name) > _LONGEST or not directory.is_dir():
            return []
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
