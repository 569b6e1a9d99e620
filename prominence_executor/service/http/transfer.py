"""Bytes between sockets and files, in both directions: in pieces, with no whole object in memory.

A client that is slow costs its connection and one piece, and no thread; the disk is looked at in threads of the pool.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import IO, BinaryIO, TypeVar

from aiohttp import web

from ..state.objects import ObjectStore
from .context import TEXT, Aborted, Answer, Ask, failure

LARGEST_BODY = 1 << 20  # bytes, of what is no upload
PIECE = 1 << 20  # bytes of an upload that are written together
_SENT = 1 << 18  # bytes of a file that are sent together
STALLED = 300.0  # seconds in which nothing moves, after which a transfer has failed
_NAME = "prominence-local"

Result = TypeVar("Result")


async def read_body(request: web.BaseRequest, largest: int) -> bytes:
    """Read a body of at most so many bytes. Raises Aborted with 413 for a longer one."""
    body = bytearray()
    async for piece in pieces_of(request):
        body += piece
        if len(body) > largest:
            raise Aborted(failure(413))
    return bytes(body)


async def pieces_of(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """Yield a body as it comes; only now is a client told to go on that waits for that word."""
    await go_on(request)
    while piece := await _next(request):
        yield piece


async def go_on(request: web.BaseRequest) -> None:
    """Answer `Expect: 100-continue`, when the head of a request has been found good."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _next(request: web.BaseRequest) -> bytes:
    if request.content.is_eof():  # all of it is here already
        return await request.content.readany()
    return await in_time(request.content.readany())


async def in_time(step: Awaitable[Result]) -> Result:
    """Await one step of a transfer, in which something must have moved. Raises TimeoutError (asyncio's)."""
    return await asyncio.wait_for(step, STALLED)


# Uploads


class Arriving:
    """A file that is being received. Its methods block; they may be called from any thread, and one waits for another.

    A request can be given up while a thread still writes for it: what is dropped takes nothing any more.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._dropped = False

    def write(self, piece: bytes) -> None:
        """Append a piece."""
        with self._lock:
            self._digest.update(piece)
            self._opened().write(piece)

    def keep(self, key: str) -> None:
        """Make the file the object `key`."""
        with self._lock:
            file = self._opened()
            file.close()
            self._objects.keep(Path(file.name), key)

    def sha256(self) -> str:
        """Return the checksum of what has come."""
        with self._lock:
            return self._digest.hexdigest()

    def drop(self) -> None:
        """Forget the file unless it was kept."""
        with self._lock:
            self._dropped = True
            if self._file is not None:
                self._file.close()
                Path(self._file.name).unlink(missing_ok=True)

    def _opened(self) -> IO[bytes]:
        if self._dropped:
            raise ConnectionError("the upload was given up")
        if self._file is None:
            self._file = self._objects.incoming_file()
        return self._file


@asynccontextmanager
async def arriving(ask: Ask) -> AsyncIterator[Arriving]:
    """Give a file to be received, which is gone at the end of the block unless it was kept, however that ends."""
    file = Arriving(ask.api.service.objects)
    try:
        yield file
    finally:
        await asyncio.shield(ask.run(file.drop))


async def write_all(ask: Ask, file: Arriving, pieces: AsyncIterator[bytes]) -> None:
    """Write what comes, so much at a time that a thread is worth its while."""
    gathered: list[bytes] = []
    size = 0
    async for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= PIECE:
            await ask.run(file.write, b"".join(gathered))
            gathered, size = [], 0
    await ask.run(file.write, b"".join(gathered))


# Answers


async def send(ask: Ask, answer: Answer) -> web.StreamResponse:
    """Send an answer."""
    headers = {"Server": _NAME, "Content-Type": answer.content_type, **answer.headers}
    response: web.StreamResponse
    if answer.file is None:
        response = web.Response(status=answer.status, body=answer.body, headers=headers)
        _close_unless_read(ask.request, response)
        return response
    try:
        response = web.StreamResponse(status=answer.status, headers=headers)
        response.content_length = answer.length
        _close_unless_read(ask.request, response)
        await response.prepare(ask.request)
        if ask.request.method != "HEAD":
            await _send_file(ask, response, answer.file, answer.length)
        await response.write_eof()
    finally:
        answer.file.close()
    return response


def _close_unless_read(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """End the connection after an answer to a body that has not come: what comes of it is no request.

    The server goes on reading for a while, so that a client that writes first and reads then finds the answer.
    """
    if not request.content.is_eof():
        response.force_close()


async def _send_file(ask: Ask, response: web.StreamResponse, file: BinaryIO, length: int) -> None:
    while length:
        piece = await ask.run(file.read, min(length, _SENT))
        if not piece:  # it has become shorter: what was announced cannot be kept
            raise ConnectionResetError("a file ended early")
        length -= len(piece)
        await in_time(response.write(piece))


def log_answer(path: Path, offset: int) -> Answer:
    """Return the bytes of a log file from an offset up to its present end; '' when there is none. Blocks."""
    try:
        file = open(path, "rb")  # noqa: SIM115 (it is closed when it has been sent)
    except FileNotFoundError:
        return Answer(content_type=TEXT)
    length = max(0, os.fstat(file.fileno()).st_size - offset)
    if length > _SENT:
        file.seek(offset)
        return Answer(content_type=TEXT, file=file, length=length)
    with file:
        file.seek(offset if length else 0)
        return Answer(content_type=TEXT, body=file.read(length))


def object_answer(ask: Ask, path: Path) -> Answer:
    """Return an object or the range of it that is asked for, or that the client has it already. Blocks.

    Raises FileNotFoundError.
    """
    file = open(path, "rb")  # noqa: SIM115 (it is closed when it has been sent)
    state = os.fstat(file.fileno())
    tag = f'"{state.st_mtime_ns:x}-{state.st_size:x}-{state.st_ino:x}"'
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-cache, max-age=0",
        "ETag": tag,
        "Last-Modified": formatdate(state.st_mtime, usegmt=True),
    }
    if _has_it(ask, tag, state.st_mtime):
        file.close()
        return Answer(304, headers=headers)
    kind, size = "application/octet-stream", state.st_size
    wanted = _range(ask, size, tag, headers["Last-Modified"])
    if wanted is None:
        return Answer(200, b"", kind, headers, file, size)
    first, last = wanted
    if first > last:
        file.close()
        return Answer(416, b"", kind, {**headers, "Content-Range": f"bytes */{size}"})
    file.seek(first)
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Answer(206, b"", kind, headers, file, last - first + 1)


def _has_it(ask: Ask, tag: str, changed: float) -> bool:
    """Return whether the client's copy, by its tag or else its time, is this one."""
    tags = ask.headers.get("If-None-Match")
    if tags is not None:
        return tags.strip() == "*" or tag in (given.strip().removeprefix("W/") for given in tags.split(","))
    try:
        return parsedate_to_datetime(ask.headers.get("If-Modified-Since", "")).timestamp() >= int(changed)
    except (TypeError, ValueError, OverflowError):
        return False


def _range(ask: Ask, size: int, tag: str, modified: str) -> tuple[int, int] | None:
    """Return first and last byte of the one range that is asked for, first > last if there is nothing in it.

    None: all of it, also where the client's copy was of another version or asks for something else.
    """
    unit, _, text = ask.headers.get("Range", "").replace(" ", "").partition("=")
    first, dash, last = text.partition("-")
    if unit != "bytes" or not dash or not (first + last).isdigit() or not (first + last).isascii():
        return None
    if len(first) > 18 or len(last) > 18 or ask.headers.get("If-Range", tag) not in (tag, modified):
        return None
    if not first:  # so many at the end
        return max(0, size - int(last)), size - 1 if int(last) else -1
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last), size - 1) if last else size - 1
