"""waitress in threads of this process that can be stopped and joined without a trace. Knows nothing of the service."""

from __future__ import annotations

import logging
import socket
import threading
from typing import Any

import waitress  # type: ignore[import-untyped]
from waitress import wasyncore

_THREADS = 8
_LARGEST_BODY = 1 << 42  # the application itself limits what is not an object
_PIECE = 1 << 18


def bind(port: int) -> socket.socket:
    """Bind a socket to a port of 127.0.0.1, so that the URL is known before the application is made."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
    except BaseException:
        listener.close()
        raise
    return listener


class Server:
    """Serves `application` on a bound socket from `start` to `stop`; takes over the socket."""

    def __init__(self, application: Any, listener: socket.socket) -> None:
        self._sockets: dict[int, Any] = {}
        self._server = waitress.create_server(
            application,
            map=self._sockets,
            sockets=[listener],
            threads=_THREADS,
            max_request_body_size=_LARGEST_BODY,
            recv_bytes=_PIECE,
            connection_limit=1000,
            channel_timeout=300,
            ident="prominence-local",
        )
        # A busy service queues requests; that is no news. The logger of that name is the whole program's, not ours.
        self._server.task_dispatcher.queue_logger = logging.Logger("queue", logging.ERROR)
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="http", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def _loop(self) -> None:
        while not self._stopping:
            wasyncore.loop(timeout=1.0, map=self._sockets, count=1, use_poll=True)

    def stop(self) -> None:
        """Close every connection and join every thread."""
        self._stopping = True
        self._server.pull_trigger()
        if self._thread.ident is not None:
            self._thread.join()
        self._server.task_dispatcher.shutdown(timeout=10)
        for channel in list(self._server.active_channels.values()):
            for request in [channel.request, *channel.requests]:
                if request is not None:
                    request.close()  # bodies half received lie in temporary files
            channel.handle_close()
        self._server.close()
