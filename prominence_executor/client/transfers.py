"""What travels to and from the object store: uploads with a length, forms that stream, files that appear whole.

It knows nothing of URLs or tokens; requests reads from what is made here.
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
from .responses import unreachable, what_of

Source = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO | Iterable[bytes | memoryview]
_CHUNK = 1 << 18  # bytes


@contextlib.contextmanager
def transferring() -> Iterator[None]:
    try:
        yield
    except ServiceError as error:
        raise TransferError(str(error)) from error


def chunks_of(response: requests.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_content(_CHUNK)
    except requests.RequestException as error:
        raise unreachable(error, what_of(response)) from error


@contextlib.contextmanager
def appearing_whole(path: str) -> Iterator[BinaryIO]:
    """A file that appears at ``path`` when the block ends well, and leaves nothing behind when it does not."""
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
        if size is None:
            raise ValueError("size must be given for a source that does not tell it")
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
            yield view
        if left:
            raise TransferError(f"The source of an upload does not have the {self.size} bytes that it should")

    def sha256(self) -> str:
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
