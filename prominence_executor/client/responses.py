"""What an answer of the service, or its absence, means: one table from status to exception, and readers of bodies.

Pure functions of a response or an exception of requests; they send nothing. No token gets into a message.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from requests.adapters import ConnectTimeoutError

from ..errors import (
    AuthenticationError,
    InvalidRequestError,
    KeyValueConflictError,
    NotFoundError,
    PermissionDeniedError,
    ProminenceError,
    ServiceError,
    ServiceUnavailableError,
)

T = TypeVar("T")

_STATUSES: dict[int, type[ProminenceError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: ServiceUnavailableError,
    502: ServiceUnavailableError,
    503: ServiceUnavailableError,
    504: ServiceUnavailableError,
}
_SENTENCES: dict[str, type[InvalidRequestError | ServiceUnavailableError]] = {
    "Job does not exist": NotFoundError,
    "No such job(s)": NotFoundError,
    "No such workflow(s)": NotFoundError,
    "Atomic replacement not successful": KeyValueConflictError,
    "Unable to access key-value store": ServiceUnavailableError,  # what is behind the service is away
}


def _read(response: requests.Response, shape: type[T]) -> T:
    try:
        answer = json.loads(response.content)
    except ValueError as error:
        raise ServiceError(f"{what_of(response)}: the answer is not JSON", response.status_code) from error
    if isinstance(answer, dict) and isinstance(answer.get("error"), str):
        # Status 200 with an error inside: the service does that, for example for an unknown status word.
        raise InvalidRequestError(f"{what_of(response)}: {answer['error']}", response.status_code)
    if not isinstance(answer, shape):
        raise ServiceError(f"{what_of(response)}: the answer is not a {shape.__name__}", response.status_code)
    return answer


def field_of(answer: Mapping[str, Any], key: str, shape: type[T]) -> T:
    """Return a field of an answer, if it is of this type; ServiceError otherwise."""
    value = answer.get(key)
    if not isinstance(value, shape):
        raise ServiceError(f"the answer holds no {key}")
    return value


def read_dict(response: requests.Response) -> dict[str, Any]:
    """Return the JSON object that an answer is."""
    return _read(response, dict)


def read_list(response: requests.Response) -> list[Any]:
    """Return the JSON list that an answer is."""
    return _read(response, list)


def read_only(response: requests.Response) -> dict[str, Any]:
    """Return the first object of a list; NotFoundError when the list is empty."""
    for item in _read(response, list):
        return field_of({"job or workflow": item}, "job or workflow", dict)
    raise NotFoundError(f"{what_of(response)}: it does not exist, or belongs to somebody else", response.status_code)


def read_id(response: requests.Response) -> int:
    """Return the number of what was created."""
    return field_of(_read(response, dict), "id", int)


def read_url(response: requests.Response) -> str:
    """Return the presigned URL that was asked for."""
    return field_of(_read(response, dict), "url", str)


def read_bytes(response: requests.Response) -> bytes:
    """Return the body as it came."""
    return response.content


def read_text(response: requests.Response) -> str:
    """Return the body as text."""
    try:
        return response.content.decode()
    except UnicodeDecodeError as error:
        raise ServiceError(f"{what_of(response)}: the answer is not UTF-8", response.status_code) from error


def read_nothing(response: requests.Response) -> None:
    """Take any answer but a page of somebody in between, which does not say that it was done."""
    if response.content and "html" in response.headers.get("Content-Type", ""):
        raise ServiceError(f"{what_of(response)}: an HTML page came instead of an answer", response.status_code)


def check_whole(response: requests.Response) -> None:
    """Refuse a body shorter than its Content-Length: neither requests nor all versions of urllib3 mind."""
    expected = response.headers.get("Content-Length", "")
    if expected.isdigit() and response.raw.tell() != int(expected):
        sentence = f"the answer was cut short: {response.raw.tell()} bytes of {expected}"
        raise ServiceUnavailableError(f"{what_of(response)}: {sentence}", response.status_code)


def begins_at(response: requests.Response, offset: int) -> bool:
    """Tell whether this is a part of an object, from this byte on; otherwise it is the whole."""
    return response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def strong_tag(response: requests.Response) -> str:
    """Return the version of an object, byte by byte; "" when the store does not tell it."""
    tag = response.headers.get("ETag", "")
    return "" if tag.startswith("W/") else tag


def refusal(response: requests.Response, token: str | None = None) -> ProminenceError:
    """Make the exception for an answer that is an error; the token is taken out of its message."""
    status = response.status_code
    sentence = _sentence(response)
    message = f"{what_of(response)}: {sentence} (HTTP {status})"
    if token:
        message = message.replace(token, "<token>")  # should a server echo the request
    if status // 100 == 4:
        kind: type[ProminenceError] = _STATUSES.get(status) or _SENTENCES.get(sentence, InvalidRequestError)
    else:
        kind = _STATUSES.get(status, ServiceError)
    if issubclass(kind, ServiceUnavailableError):
        return kind(message, status, retry_after=_retry_after(response))
    if issubclass(kind, InvalidRequestError | ServiceError):
        return kind(message, status)
    error = kind(message)
    error.status_code = status
    return error


def _sentence(response: requests.Response) -> str:
    """Return what an answer says, without its wrapping: {"error"}, the title of HTML, or the Message of S3's XML."""
    if response.is_redirect:
        target = urlsplit(response.headers["Location"])
        return f"redirected to {target.scheme}://{target.hostname}, which is not followed; is the URL right?"
    try:
        text = response.text
    except requests.RequestException as error:
        return f"{response.reason}, and the explanation was cut short ({type(error).__name__})"
    with contextlib.suppress(ValueError):
        answer = json.loads(text)
        if isinstance(answer, dict) and isinstance(answer.get("error"), str):
            return str(answer["error"])
    marked = re.search(r"<(title|Message)>\s*(?:\d{3}\s+)?(.*?)\s*</\1>", text, re.DOTALL)
    plain = marked.group(2) if marked else text
    return " ".join(plain.split())[:200] or response.reason or "no explanation"


def _retry_after(response: requests.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def unreachable(error: requests.RequestException, what: str) -> ProminenceError:
    """Make the exception for an exchange that ended without a whole answer."""
    # The exceptions of requests hold the request, and with it the token, for whoever looks at the cause.
    error.request = error.response = None
    if isinstance(error, ValueError):
        return InvalidRequestError(f"{what}: {error}")
    inner = error.args[0] if error.args else error
    inner = getattr(inner, "reason", inner)
    reason = str(inner.args[-1] if isinstance(inner, Exception) and inner.args else inner)
    if isinstance(error, requests.exceptions.SSLError):
        return ServiceError(f"{what}: TLS failed: {reason}")
    never_sent = isinstance(inner, ConnectTimeoutError)  # urllib3 derives refusals and failed look-ups from it
    return ServiceUnavailableError(f"{what}: {reason}", request_sent=not never_sent)


def what_of(response: requests.Response) -> str:
    """Name the request of an answer for messages: never with its query, which may hold a signature."""
    return f"{response.request.method} {urlsplit(response.url).path}"
