"""An HTTP server in a thread of this process: one event loop, started and ended without a trace.

Knows nothing of the service. aiohttp reads requests and frames answers. What it does not do is done here: connections
are bounded by the files that this process may open, and an idle one makes room for a new one.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

_IDLE = 300.0  # seconds for which a connection is kept that asks nothing, or has not asked whole
_LINGER = 5.0  # seconds for which the rest of a refused body is read, so that its client finds the answer
_GRACE = 1.0  # seconds that requests have to end when the server stops
_BUFFER = 1 << 18  # bytes of a body that are read ahead
_PIECE = 1 << 16  # bytes that are read from a connection at once: more comes, and goes, by the page
_MOST = 10_000  # connections
_TOGETHER = 16  # that the loop accepts before it looks whether there is room for them
_WAITING = 1024  # that the system holds meanwhile
_HEADER = 16_384  # bytes of one line of a request's head
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

log = logging.getLogger("prominence_executor.local")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def bind(port: int, address: str = "127.0.0.1") -> socket.socket:
    """Bind a socket to a port of this machine, so that the URL is known before the application is made."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio looks at the protocol
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
    except BaseException:
        listener.close()
        raise
    return listener


def tls(certfile: Path, keyfile: Path | None) -> ssl.SSLContext:
    """Read a certificate and its key. Raises OSError, which ssl.SSLError is, too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certfile, keyfile)
    return context


class Server:
    """Serves on a bound socket from `start` to `stop`; takes over the socket.

    `wake` is called when it begins to stop: it has requests answered that only wait.
    """

    def __init__(
        self, handler: Handler, wake: Callable[[], None], listener: socket.socket, context: ssl.SSLContext | None = None
    ) -> None:
        self._handler, self._wake, self._listener, self._context = handler, wake, listener, context
        self._idle: dict[web.RequestHandler, None] = {}  # those that ask nothing now, the longest first
        self._most = _most_connections()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop = asyncio.SelectorEventLoop()  # not what the program may have chosen for its own
        if sys.version_info < (3, 12):
            self._loop.set_task_factory(_task)
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Begin to serve; returns when connections are accepted."""
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Let running requests end for a moment, close every connection, join the thread. May be called unstarted."""
        if self._thread.ident is None:
            self._loop.close()
        else:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._ended)
            self._thread.join()
        self._listener.close()

    def _ended(self) -> None:
        self._wake()
        if self._stopping is not None:
            self._stopping.set()

    def _run(self) -> None:
        try:
            self._loop.set_exception_handler(_note)
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 (whoever starts it must know)
            self._failure = error
        finally:
            self._loop.close()
            self._ready.set()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        server = web.Server(
            self._answer,
            handler_cancellation=True,
            access_log=None,
            logger=_quiet_logger(),
            keepalive_timeout=_IDLE,
            lingering_time=_LINGER,
            max_line_size=_HEADER,
            max_field_size=_HEADER,
            read_bufsize=_BUFFER,
            auto_decompress=False,
        )
        listening = await self._loop.create_server(
            lambda: self._accepted(server), sock=self._listener, ssl=self._context, backlog=_TOGETHER
        )
        self._listener.listen(_WAITING)
        self._ready.set()
        await self._stopping.wait()
        listening.close()
        await _turns()  # connections that have just been accepted become known
        await _end(server)

    def _accepted(self, server: web.Server) -> asyncio.Protocol:
        """Return what speaks on a new connection; where there are too many, the one that is idle longest ends."""
        connected = len(server.connections)
        if len(self._idle) > 2 * connected + 100:  # nobody says when one is closed
            self._idle = {each: None for each in self._idle if each.transport is not None}
        if connected >= self._most:
            while self._idle:
                oldest = next(iter(self._idle))
                del self._idle[oldest]
                if oldest.transport is not None:
                    oldest.force_close()
                    break
            else:
                return _Refused()
        protocol = server()
        self._idle[protocol] = None
        return protocol

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        protocol = request.protocol
        self._idle.pop(protocol, None)
        transport: Any = request.transport
        if getattr(transport, "max_size", 0) > _PIECE:
            transport.max_size = _PIECE
        try:
            return await self._handler(request)
        finally:
            if protocol.transport is not None:
                self._idle[protocol] = None


class _Inline:
    """A coroutine that is run by whoever awaits it, once."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
    """Make a task; of the answer to a request none, for which the loop would have to turn twice more.

    From Python 3.12 on aiohttp begins with it at once by itself. The connection's task, which awaits it, is cancelled
    when the client leaves.
    """
    if getattr(coroutine, "__qualname__", "") == "RequestHandler._handle_request":
        return _Inline(coroutine)
    return asyncio.Task(coroutine, loop=loop, **options)


async def _end(server: web.Server) -> None:
    """Let requests end for a moment, then cut every connection, also those whose clients read nothing."""
    transports = [each.transport for each in server.connections if each.transport is not None]
    server.pre_shutdown()
    await server.shutdown(_GRACE)
    for transport in transports:
        transport.abort()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await _turns()


async def _turns() -> None:
    """Let the loop do what it has at hand: a socket is closed one turn after its transport."""
    for _ in range(5):
        await asyncio.sleep(0)


class _Refused(asyncio.Protocol):
    """Speaks on a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.write(_BUSY)
        transport.close()


def _most_connections() -> int:
    """Return for how many connections there is room: half of the files that may be open, the rest is for jobs."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if files == resource.RLIM_INFINITY else max(8, min(_MOST, files // 2))


def _note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say what the loop could not tell anybody; what clients do to connections is no news."""
    error = context.get("exception")
    if not isinstance(error, OSError):  # ssl's errors are some, too
        log.error("%s", context.get("message"), exc_info=error)
    elif "accept" in str(context.get("message")):
        log.error("no connection can be accepted: %s", error)


def _quiet_logger() -> logging.Logger:
    """Return aiohttp's logger for this server: that clients leave, or send what is no HTTP, is no news."""

    def is_news(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], (HttpProcessingError, ConnectionError)))

    logger = logging.Logger("prominence_executor.local.http", logging.WARNING)
    logger.parent = log
    logger.addFilter(is_news)
    return logger
