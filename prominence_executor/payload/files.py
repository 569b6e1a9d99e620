"""The files that calls are given (``files=``) or asked for (``outputs=``): what may be said, and local files' content.

It knows nothing of jobs, threads or HTTP. A local file is looked at when a call is submitted, and read when its job is
described; one that has changed in between is an error, so that no call runs with other data than it was given.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePosixPath

from ..client.validation import wrong

_OWN = re.compile(
    r"(logs|json|promlet\.py|\.job\.json|px(job|run|start|calls|outcome|files?|once|mods|array|ranks|result)?(\b|-).*)"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class FileSource:
    """What one file of a call consists of: a local file as it was when it was looked at, or bytes."""

    path: str | None = None
    size: int = 0
    mtime_ns: int = 0
    content: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, name: str, given: str | os.PathLike[str] | bytes) -> FileSource:
        """Look at a file. Raises FileNotFoundError, or ValueError for what is not a file."""
        if isinstance(given, (bytes, bytearray, memoryview)):
            return cls(size=len(bytes(given)), content=bytes(given))
        try:
            path = os.path.abspath(os.fspath(given))
        except TypeError:
            raise wrong(f"files[{name!r}]", "the path of a local file, or bytes", given) from None
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            raise wrong(f"files[{name!r}]", "a regular file", path)
        return cls(path, facts.st_size, facts.st_mtime_ns)

    def seen_again(self) -> FileSource:
        """Return it as it is now; the same object if nothing has changed. FileNotFoundError: it is gone."""
        if self.path is None:
            return self
        facts = os.stat(self.path)
        if (facts.st_size, facts.st_mtime_ns) == (self.size, self.mtime_ns):
            return self
        return replace(self, size=facts.st_size, mtime_ns=facts.st_mtime_ns)

    def check(self) -> None:
        """Raise ValueError if the local file is not what it was. FileNotFoundError: it is gone."""
        if self.seen_again() is not self:
            raise ValueError(f"files: {self.path} has changed since the call was submitted")

    def __iter__(self) -> Iterator[bytes]:
        if self.path is None:
            yield self.content or b""
        else:
            with open(self.path, "rb") as file:
                yield from iter(lambda: file.read(_BLOCK), b"")

    @cached_property
    def sha256(self) -> str:
        """The digest of the content, read once for an unchanged file by whoever asks first."""
        if self.content is not None:
            return hashlib.sha256(self.content).hexdigest()
        with _lock:
            reading = _reading.setdefault(self, threading.Lock())
        with reading:
            if self not in _digests:
                digest = hashlib.sha256()
                for block in self:
                    digest.update(block)
                self.check()
                _digests[self] = digest.hexdigest()
            return _digests[self]


_lock = threading.Lock()
_reading: dict[FileSource, threading.Lock] = {}
_digests: dict[FileSource, str] = {}

Files = Mapping[str, FileSource]


def checked_files(given: Mapping[str, str | os.PathLike[str] | bytes | FileSource]) -> dict[str, FileSource]:
    """Return the sources by the names that a call finds them under, in its working directory.

    Raises:
        ValueError: a name that leads out of it, is the executor's own, or is another one's directory; a directory.
        FileNotFoundError: there is no such local file.
    """
    if not isinstance(given, Mapping):
        raise wrong("files", "a mapping of names to local files", given)
    names = {name: _checked(f"files[{name!r}]", name) for name in given}
    for name, parts in names.items():
        for other, longer in names.items():
            if other != name and longer[: len(parts)] == parts:
                raise ValueError(f"files: {name!r} and {other!r} cannot both be there")
    return {
        "/".join(names[name]): source if isinstance(source, FileSource) else FileSource.of(name, source)
        for name, source in given.items()
    }


def checked_outputs(given: Iterable[str]) -> tuple[str, ...]:
    """Return patterns of output files. ValueError: one that leads out of the working directory."""
    if isinstance(given, str):
        raise wrong("outputs", "a list of patterns", given)
    patterns = tuple(given)
    for pattern in patterns:
        _checked("outputs", pattern)
    return patterns


def seen_again(files: Files) -> Files:
    """Return the same files as they are now; the same object if nothing has changed."""
    now = {name: source.seen_again() for name, source in files.items()}
    return files if all(now[name] is source for name, source in files.items()) else now


def _checked(where: str, name: object) -> tuple[str, ...]:
    """Return the parts of a relative path that stays inside."""
    if not isinstance(name, str) or not name or _CONTROL.search(name) or name != name.strip():
        raise wrong(where, "a name without control characters", name)
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise wrong(where, "a relative path inside the job's directory", name)
    if _OWN.fullmatch(path.parts[0]):
        raise wrong(where, "another name: this one is used by the executor or the service", name)
    return path.parts
