"""What has come of an answer, before anybody asks what it means: whole, within bounds, and as JSON.

A body is as long as it was announced, or not longer than is sensible; JSON is nested no deeper than is sensible. It
knows no verb and no status.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn
from urllib.parse import urlsplit

import requests
from requests.adapters import ConnectTimeoutError
from urllib3.exceptions import NewConnectionError

from ..errors import InvalidRequestError, ProminenceError, ServiceError, ServiceUnavailableError

_CHUNK = 1 << 18  # bytes
_LONGEST = 1 << 28  # bytes of a body whose length is not announced, or announced as it is when compressed
_LONGEST_ANNOUNCED = 1 << 30  # bytes of any body that is held in memory
_LONGEST_ERROR = 1 << 16  # bytes that are read of the explanation of an error
_DEEPEST = 64  # levels of JSON; the service's own have seven


class AnotherService(ServiceError):
    """What answered is none: a web page, or TLS that does not come about. It may pass, so it is a ServiceError."""


class Whole(requests.Response):
    """An answer that came with its body, of some 64 kB at most.

    It is made without what a session keeps of an answer (cookies, history, ...), which would take longer than all the
    rest: it is for readers of status, headers and body.
    """

    def __init__(
        self, method: str, url: str, status: int, reason: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        self.status_code, self.reason, self.url = status, reason, url
        self.headers = requests.structures.CaseInsensitiveDict(headers)
        self.request = request_of(method)
        self.encoding = None
        self.raw: Any = None
        self._content, self._content_consumed = body, True


def request_of(method: str) -> requests.PreparedRequest:
    """Return what an answer says of its request: nothing that is secret, for whoever looks at it."""
    request = requests.PreparedRequest()
    request.method = method
    return request


def what_of(response: requests.Response) -> str:
    """Name the request of an answer for messages: never with its query, which may hold a signature."""
    return f"{response.request.method} {path_of(response.url)}"


def path_of(url: str) -> str:
    """Return the path of an address for messages, whatever that is like."""
    try:
        return urlsplit(url).path
    except ValueError:
        return "an address that is none"


def announced(response: requests.Response) -> int | None:
    """Return the length of a body as it travels, if the answer tells it by a number that makes sense."""
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


def check_whole(response: requests.Response) -> None:
    """Refuse a body shorter than its Content-Length: neither requests nor all versions of urllib3 mind."""
    expected = announced(response)
    if expected is not None and response.raw.tell() != expected:
        sentence = f"the answer was cut short: {response.raw.tell()} bytes of {expected}"
        raise ServiceUnavailableError(f"{what_of(response)}: {sentence}", response.status_code)


def chunks_of(response: requests.Response) -> Iterator[bytes]:
    """Read a streamed body piece by piece."""
    try:
        yield from response.iter_content(_CHUNK)
    except requests.RequestException as error:
        raise unreachable(error, what_of(response)) from error


def read_whole(response: requests.Response, most: int | None = None) -> requests.Response:
    """Read a streamed body to its end; return the answer with it. Closes the connection where it has no end.

    ``most``: bytes that it may have, if that is less than what is held in memory of any.

    Raises:
        ServiceUnavailableError: it was cut short.
        ServiceError: it is longer than it should be.
    """
    if isinstance(response, Whole):
        if most is not None and len(response.content) > most:
            raise _too_long(response, len(response.content))
        return response
    expected = announced(response)
    as_it_travels = response.headers.get("Content-Encoding", "identity") == "identity"
    allowed = _LONGEST_ANNOUNCED if most is None else min(_LONGEST_ANNOUNCED, most)
    limit = expected if expected is not None and as_it_travels else min(_LONGEST, allowed)
    pieces, size = [], 0
    with response:
        if limit > allowed:
            raise _too_long(response, limit)
        for piece in chunks_of(response):
            size += len(piece)
            if size > limit:
                raise _too_long(response, size)
            pieces.append(piece)
        check_whole(response)
    return _with_body(response, b"".join(pieces))


def read_error(response: requests.Response) -> requests.Response:
    """Read the beginning of what an error says; return the answer with it, or with nothing where it does not come."""
    if isinstance(response, Whole):
        return response
    content = b""
    with response:
        try:
            for piece in chunks_of(response):
                content += piece
                if len(content) >= _LONGEST_ERROR:
                    break
        except ProminenceError as error:
            cut = f"{response.reason}, and the explanation was cut short ({type(error.__cause__).__name__})"
            content = cut.encode()
    return _with_body(response, content[:_LONGEST_ERROR])


def _with_body(response: requests.Response, content: bytes) -> requests.Response:
    whole = requests.Response()
    whole.status_code, whole.reason, whole.url = response.status_code, response.reason, response.url
    whole.headers, whole.request, whole.encoding = response.headers, response.request, response.encoding
    whole.raw = io.BytesIO(content)
    return whole


def _too_long(response: requests.Response, size: int) -> ServiceError:
    sentence = f"the answer does not end where it should: there are {size} bytes and more"
    return ServiceError(f"{what_of(response)}: {sentence}", response.status_code)


def parse(content: bytes) -> Any:
    """Return what JSON says; ValueError for what is not JSON, or nested too deeply to be the service's."""
    try:
        value = json.loads(content, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for item in level if isinstance(item, dict | list) for inner in _inside(item)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def _inside(item: dict[str, Any] | list[Any]) -> Any:
    return item.values() if isinstance(item, dict) else item


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"JSON has no {constant}")


class _TlsFailed(AnotherService):
    @property
    def may_have_arrived(self) -> bool:
        """False: nothing is sent before TLS has come about."""
        return False


def _hint(reason: str) -> str:
    if "WRONG_VERSION_NUMBER" in reason:
        return "; does the service speak http, not https?"
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return "; PROMINENCE_SSL_VERIFY can name the file of its authority"
    return ""


def unreachable(error: requests.RequestException, what: str) -> ProminenceError:
    """Make the exception for an exchange that ended without a whole answer."""
    # The exceptions of requests hold the request, and with it the token, for whoever looks at the cause.
    error.request = error.response = None
    if isinstance(error, ValueError):
        return InvalidRequestError(f"{what}: {error}")
    inner = error.args[0] if error.args else error
    inner = getattr(inner, "reason", inner)
    reason = str(inner.args[-1] if isinstance(inner, Exception) and inner.args else inner)
    if isinstance(inner, NewConnectionError):
        reason = _not_connected(inner, reason)
    if isinstance(error, requests.exceptions.SSLError):
        return _TlsFailed(f"{what}: TLS failed: {reason}{_hint(reason)}")
    never_sent = isinstance(inner, ConnectTimeoutError)  # urllib3 derives refusals and failed look-ups from it
    return ServiceUnavailableError(f"{what}: {reason}", request_sent=not never_sent)


def _not_connected(error: NewConnectionError, reason: str) -> str:
    """Return a sentence without what urllib3 calls its own objects."""
    connection = getattr(error, "conn", None)  # not in urllib3 1
    where = "" if connection is None else f" at {connection.host}:{connection.port}"
    why = re.sub(r"\[Errno -?[0-9]+\] ", "", reason.rpartition(": ")[2])
    return f"the service{where} does not answer ({why[:1].lower()}{why[1:]})"
