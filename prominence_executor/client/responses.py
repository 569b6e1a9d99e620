"""What an answer of the service means: one table from status to exception, and readers of bodies.

Pure functions of a response whose body is at hand (see bodies.py); they send nothing. What an answer looks like that
may be believed, shapes.py says: another one is a `ServiceError`. No token gets into a message.
"""

from __future__ import annotations

import contextlib
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests

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
from . import shapes
from .bodies import AnotherService, parse, what_of

_LONGEST_PAUSE = 86_400.0  # seconds: what a service asks for beyond a day is no answer
_SENTENCE = 2000  # characters of what a service says of an error

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


def _read(response: requests.Response, shape: shapes.Shape) -> Any:
    try:
        answer = parse(response.content)
    except ValueError as error:
        if response.content.lstrip()[:1] == b"<":
            raise AnotherService(f"{what_of(response)}: {_page(response)}", response.status_code) from None
        raise ServiceError(f"{what_of(response)}: the answer is not JSON: {error}", response.status_code) from error
    if isinstance(answer, dict) and isinstance(answer.get("error"), str):
        # Status 200 with an error inside: the service does that, for example for an unknown status word.
        raise InvalidRequestError(f"{what_of(response)}: {answer['error'][:_SENTENCE]}", response.status_code)
    try:
        shape(answer, "it")
    except shapes.Misshapen as error:
        text = f"{what_of(response)}: the answer is none that the service gives: {error}"
        raise ServiceError(text, response.status_code) from None
    return answer


def read_dict(response: requests.Response) -> dict[str, Any]:
    """Return the JSON object that an answer is."""
    answer: dict[str, Any] = _read(response, shapes.ANY)
    return answer


def read_jobs(response: requests.Response) -> list[dict[str, Any]]:
    """Return the jobs that an answer lists."""
    jobs: list[dict[str, Any]] = _read(response, shapes.each(shapes.JOB))
    return jobs


def read_workflows(response: requests.Response) -> list[dict[str, Any]]:
    """Return the workflows that an answer lists."""
    workflows: list[dict[str, Any]] = _read(response, shapes.each(shapes.WORKFLOW))
    return workflows


def read_job(response: requests.Response) -> dict[str, Any]:
    """Return the one job that an answer describes; NotFoundError when there is none."""
    return _first(response, read_jobs(response))


def read_workflow(response: requests.Response) -> dict[str, Any]:
    """Return the one workflow that an answer describes; NotFoundError when there is none."""
    return _first(response, read_workflows(response))


def _first(response: requests.Response, items: list[dict[str, Any]]) -> dict[str, Any]:
    if items:
        return items[0]
    raise NotFoundError(f"{what_of(response)}: it does not exist, or belongs to somebody else", response.status_code)


def read_id(response: requests.Response) -> int:
    """Return the number of what was created."""
    number: int = _read(response, shapes.CREATED)["id"]
    return number


def read_signed(response: requests.Response) -> tuple[str, dict[str, str]]:
    """Return the presigned URL that was asked for, and the fields of a form that go with it, if there are any."""
    answer = _read(response, shapes.SIGNED)
    return answer["url"], answer.get("fields") or {}


def read_url(response: requests.Response) -> str:
    """Return the presigned URL that was asked for."""
    return read_signed(response)[0]


def read_objects(response: requests.Response) -> list[dict[str, Any]]:
    """Return the stored objects that an answer lists."""
    objects: list[dict[str, Any]] = _read(response, shapes.each(shapes.OBJECT))
    return objects


def read_keys(response: requests.Response) -> list[str]:
    """Return the keys that an answer lists."""
    keys: list[str] = _read(response, shapes.each(shapes.KEY))
    return keys


def read_pairs(response: requests.Response) -> dict[str, str]:
    """Return the keys that an answer lists, with their values."""
    return {key: value for pair in _read(response, shapes.each(shapes.PAIR)) for key, value in pair.items()}


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
    message = f"{what_of(response)}: {sentence} (HTTP {status}){_doubt(response, sentence)}"
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


def _page(response: requests.Response) -> str:
    return (
        f"the answer is a web page ({_sentence(response)!r}), none of the service's: is the URL right, or does a "
        "proxy stand between, or a page on which to log in?"
    )


def _doubt(response: requests.Response, sentence: str) -> str:
    """Ask what may be wrong with the address, where something else than the service may have answered."""
    if response.status_code == 407:
        return ": a proxy stands between, and does not let this pass (HTTP_PROXY, HTTPS_PROXY, NO_PROXY)"
    is_page = response.content.lstrip()[:5].lower() in (b"<html", b"<!doc")
    if response.status_code == 404 and (is_page or "requested URL was not found" in sentence):
        return ": is the service's URL right? it is like https://host/prominence/v1"
    return ""


def _sentence(response: requests.Response) -> str:
    """Return what an answer says, unwrapped: {"error"}, the title or text of HTML, the Message of S3's XML."""
    if response.is_redirect:
        return f"redirected to {_host(response.headers['Location'])}, which is not followed; is the URL right?"
    with contextlib.suppress(ValueError):
        answer = parse(response.content)
        if isinstance(answer, dict) and isinstance(answer.get("error"), str):
            return str(answer["error"])[:_SENTENCE]
    text = response.content.decode("utf-8", "replace")
    marked = re.search(r"<(title|Message)>\s*(?:\d{3}\s+)?(.*?)\s*</\1>", text, re.DOTALL)
    plain = marked.group(2) if marked else re.sub(r"<[^<>]*>", " ", text)
    return " ".join(plain.split())[:200] or response.reason or "no explanation"


def _host(location: str) -> str:
    try:
        target = urlsplit(location)
        return f"{target.scheme}://{target.hostname}"
    except ValueError:
        return "an address that is none"


def _retry_after(response: requests.Response) -> float | None:
    """Return the seconds after which a service asks to be tried again: None if what it says makes no sense."""
    value = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+", value):
        seconds = float(value[:20])
    else:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, IndexError, OverflowError, OSError):
            return None
    return min(max(0.0, seconds), _LONGEST_PAUSE)
