"""What travels to and from the object store: uploads with a length, forms that stream, files that appear whole.

It knows nothing of URLs or tokens, and sends nothing; requests reads from what is made here.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import quote

import requests

from ..errors import ServiceError, TransferError
from .bodies import announced, check_whole, chunks_of
from .responses import begins_at, strong_tag

Source = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO | Iterable[bytes | memoryview]
Progress = Callable[[int, int], object]
"""Called with the bytes that have been sent, or fetched, and their number."""
_CHUNK = 1 << 18  # bytes


@contextlib.contextmanager
def transferring() -> Iterator[None]:
    """Make a TransferError of what the object store, or its absence, says inside the block."""
    try:
        yield
    except ServiceError as error:
        failure = TransferError(str(error))
        failure.status_code, failure.retry_after = error.status_code, error.retry_after
        raise failure from error


@contextlib.contextmanager
def appearing_whole(path: str) -> Iterator[BinaryIO]:
    """Open a file that appears at ``path`` when the block ends well, and leaves nothing behind when it does not."""
    partial = path + ".part"
    try:
        with open(partial, "w+b") as file:
            yield file
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)


class Stream:
    """A source of an upload as requests wants it: something with a length that can be iterated over."""

    def __init__(self, source: Source, size: int | None) -> None:
        self._open: Callable[[], Iterable[bytes | memoryview]]
        self.repeatable = True
        if isinstance(source, bytes | bytearray | memoryview):
            source = [memoryview(source)]
        if isinstance(source, str | os.PathLike):
            path = source
            size = os.path.getsize(path)
            self._open = lambda: _file_chunks(path)
        elif hasattr(source, "read"):
            file: Any = source
            self.repeatable = file.seekable()
            start = file.tell() if self.repeatable else None
            if start is not None:
                size = file.seek(0, os.SEEK_END) - start
            self._open = lambda: _open_file_chunks(file, start)
        else:
            buffers = source
            if isinstance(source, list | tuple):
                size = sum(memoryview(buffer).nbytes for buffer in source)
            self.repeatable = iter(source) is not source
            self._open = lambda: buffers
        self.progress: Progress | None = None  # told of what has been read, from now on
        if size is None:
            raise ValueError("size must be given for a source that does not have one")
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[memoryview]:
        left = self.size
        for buffer in self._open():
            view = memoryview(buffer).cast("B")
            left -= len(view)
            if left < 0:
                break
            # The time that sending may take is that of a piece: whatever is given at once, a slow line takes it.
            yield from (view[at : at + _CHUNK] for at in range(0, len(view), _CHUNK))
            if self.progress is not None:
                self.progress(self.size - left, self.size)
        if left:
            has = "more" if left < 0 else "fewer"
            raise TransferError(f"the source of an upload has {has} than the {self.size} bytes of its size")

    def sha256(self) -> str:
        """Read the source once, and return its SHA-256 in hexadecimal."""
        if not self.repeatable:
            raise ValueError("checksum must be given for a source that can be read only once")
        digest = hashlib.sha256()
        for buffer in self:
            digest.update(buffer)
        return digest.hexdigest()


def _file_chunks(path: str | os.PathLike[str]) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from iter(lambda: file.read(_CHUNK), b"")


def _open_file_chunks(file: BinaryIO, start: int | None) -> Iterator[bytes]:
    if start is not None:
        file.seek(start)
    yield from iter(lambda: file.read(_CHUNK), b"")


class Form:
    """A multipart form whose last part, ``file``, is streamed; requests itself would hold it in memory."""

    def __init__(self, fields: Mapping[str, str], filename: str, stream: Stream) -> None:
        boundary = os.urandom(16).hex()
        self.content_type = f"multipart/form-data; boundary={boundary}"
        part = f'--{boundary}\r\nContent-Disposition: form-data; name="%s"'
        head = "".join(part % name + f"\r\n\r\n{value}\r\n" for name, value in fields.items())
        head += part % "file" + f'; filename="{quote(filename)}"\r\n\r\n'
        self._parts: tuple[Iterable[bytes | memoryview], ...] = (
            [head.encode()],
            stream,
            [f"\r\n--{boundary}--\r\n".encode()],
        )
        self._size = len(head.encode()) + stream.size + len(boundary) + 8

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes | memoryview]:
        return itertools.chain.from_iterable(self._parts)


class Download:
    """One download into a file, which goes on where an attempt was cut short if the object is still the same.

    Args:
        part: only so many bytes of the object: (the first one's offset, their number).
        limit: bytes that the whole object has at most.
        progress: told how far it has come.

    Attributes:
        repeatable: whether the file lets another attempt begin again from the start.
    """

    def __init__(
        self,
        file: BinaryIO,
        part: tuple[int, int] | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._file = file
        self._progress = progress
        # Before Python 3.11 a SpooledTemporaryFile cannot say that it is seekable.
        self.repeatable: bool = getattr(file, "seekable", lambda: True)()
        self._start = file.tell() if self.repeatable else 0
        self._first = 0 if part is None else part[0]
        self._wanted = None if part is None else part[1]
        self._limit = limit if part is None else None
        self._have = 0  # bytes that earlier attempts have left in the file
        self._tag = ""  # the version of the object that they are of

    def headers(self) -> dict[str, str]:
        """Return the headers that ask for what is still missing."""
        goes_on = bool(self._have and self._tag)
        if not goes_on:
            self._begin_again()
        headers = {}
        if self._wanted is not None or goes_on:
            last = "" if self._wanted is None else self._first + self._wanted - 1
            headers["Range"] = f"bytes={self._first + self._have}-{last}"
        if goes_on:
            headers["If-Range"] = self._tag
        return headers

    def receive(self, response: requests.Response) -> None:
        """Write what an answer to these headers brings, be it the missing part or the whole object again."""
        partly = begins_at(response, self._first + self._have)
        if not partly:
            self._begin_again()
        self._tag = strong_tag(response)
        whole = self._have + (announced(response) or 0)
        self._check_length(whole)
        skip = 0 if partly else self._first
        for chunk in chunks_of(response):
            end = None if self._wanted is None else skip + self._wanted - self._have
            useful = chunk[skip:end]
            self._check_length(self._have + len(useful))
            self._file.write(useful)
            self._have += len(useful)
            if self._progress is not None:
                self._progress(self._have, self._wanted or max(whole, self._have))
            if end is not None and len(chunk) > end:
                return  # the rest, which may have no end, is not asked for
            skip = max(0, skip - len(chunk))
        check_whole(response)
        if self._wanted is not None and self._have < self._wanted:
            raise TransferError(f"the object ended after {self._have} bytes, {self._wanted} were asked for")

    def _begin_again(self) -> None:
        if self._have:
            self._have = 0
            self._file.seek(self._start)
            self._file.truncate()

    def _check_length(self, length: int) -> None:
        if self._limit is not None and length > self._limit:
            raise TransferError(f"the object does not end after its {self._limit} bytes")
