"""Requests over connections that a pool has at hand, without what urllib3 does around each: the way of warm calls.

The pool makes, verifies and keeps its connections; over one that stands, remote/bare.py writes a request and reads its
answer. What is unusual is left to urllib3: the first request of a connection, an address that has to be quoted, a body
that is still coming, in chunks or compressed. A request fails here as there, and is not repeated. Nothing here knows
redirects, proxies, tokens and statuses.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from http.client import HTTPException, HTTPResponse
from typing import Any

import urllib3
from urllib3 import HTTPConnectionPool
from urllib3 import exceptions as urllib3_errors

from ..remote import bare
from .bodies import Whole
from .watching import interruptible

_AS_IT_IS = re.compile(r"/[\w.~!$&'()*+,;=:@%/?-]*", re.ASCII)  # a path and query that nobody need quote


def exchange(
    pool: HTTPConnectionPool, method: str, target: str, body: bytes | None, headers: Mapping[str, str], timeout: float
) -> Whole | urllib3.HTTPResponse | None:
    """Send a request over a connection that stands; None: there is none, or the request needs more than that.

    Raises as the pool's `urlopen`.

    Args:
        target: path and query.
        timeout: seconds until the next bytes of the answer.
    """
    if not (_AS_IT_IS.fullmatch(target) and pool.host.isascii()):
        return None
    connection: Any = pool._get_conn()
    if connection.sock is None:
        pool._put_conn(connection)
        return None
    answer = None
    try:
        host = bare.host_of(connection.host.strip("[]"), connection.port, connection.default_port)
        data = bare.request(method, target, host, headers, body)
        answer = _answer(pool, connection, method, target, data, timeout)
    finally:
        if answer is None:
            connection.close()
            pool._put_conn(connection)
    if answer.content is None:
        return _streamed(pool, connection, method, answer)
    if not answer.stays:
        connection.close()
    pool._put_conn(connection)
    return Whole(method, target, answer.status, answer.reason, answer.headers, answer.content)


def _answer(
    pool: HTTPConnectionPool, connection: Any, method: str, target: str, data: bytes, timeout: float
) -> bare.Answer:
    def get() -> bare.Answer:
        connection.sock.sendall(data)
        return bare.answer(connection.sock, method)

    try:
        connection.sock.settimeout(timeout)
        answer: bare.Answer = interruptible(connection, get)
    except TimeoutError as error:
        text = f"Read timed out. (read timeout={timeout})"
        raise urllib3_errors.ReadTimeoutError(pool, target, text) from error
    except ssl.SSLError as error:
        raise urllib3_errors.SSLError(error) from error
    except (OSError, HTTPException) as error:
        raise urllib3_errors.ProtocolError("Connection aborted.", error) from error
    return answer


def _streamed(pool: HTTPConnectionPool, connection: Any, method: str, answer: bare.Answer) -> urllib3.HTTPResponse:
    """Return an answer whose body is to be read; the connection goes back to the pool when that is done."""

    def ended(whole: bool) -> None:
        if not (whole and answer.stays):
            connection.close()
        pool._put_conn(connection)

    assert answer.rest is not None  # noqa: S101  a body that is not here is there
    body: Any = _Rest(answer.rest, ended)
    return urllib3.HTTPResponse(
        body=body,
        headers=answer.headers,
        status=answer.status,
        reason=answer.reason,
        version=11,
        preload_content=False,
        decode_content=False,
        request_method=method,
    )


class _Rest:
    """The body of an answer, as urllib3 reads it; it says once when it is over."""

    def __init__(self, response: HTTPResponse, ended: Callable[[bool], None]) -> None:
        self._response = response
        self._ended: Callable[[bool], None] | None = ended
        self._end(whole=True)  # without a body it is over already

    def read(self, size: int | None = None) -> bytes:
        """Return so many bytes, or all."""
        try:
            data = self._response.read(size)
        except BaseException:
            self._response.close()
            self._end(whole=False)
            raise
        self._end(whole=True)
        return data

    def close(self) -> None:
        """Give up what has not been read."""
        whole = self._response.isclosed()
        self._response.close()
        self._end(whole=whole)

    def isclosed(self) -> bool:
        """Return whether there is nothing left to read."""
        return self._response.isclosed()

    @property
    def closed(self) -> bool:
        """Whether there is nothing left to read."""
        return self._response.isclosed()

    def _end(self, *, whole: bool) -> None:
        if self._ended is not None and self._response.isclosed():
            ended, self._ended = self._ended, None
            ended(whole)
