"""The REST API: every verb of jobs, workflows, data and keys, each through one funnel, ``_request``.

It knows how to ask and what the answers mean, not what to ask: it keeps no state about jobs, polls nothing, starts no
thread. The token goes to the API alone; presigned URLs of the object store are used without it.

    verb -> _request -> _retrying -> _send        one session, one timeout, one table from status to exception
    upload, download -> _retrying -> _send_bare   another session, which has no credentials at all

Any number of threads may use one client.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import logging
import operator
import os
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any, BinaryIO, Literal, NoReturn, TypeVar, overload
from urllib.parse import quote, urlencode, urlsplit

import requests
from requests.adapters import ConnectTimeoutError, HTTPAdapter

from .auth import TokenSource, base_url, verification
from .errors import (
    AuthenticationError,
    InvalidRequestError,
    KeyValueConflictError,
    NotFoundError,
    PermissionDeniedError,
    ProminenceError,
    ServiceError,
    ServiceUnavailableError,
    TransferError,
)
from .model import BODY_LIMIT, check_labels, encode

__all__ = ["KEY_VALUE_LIMIT", "ProminenceClient", "Source"]

KEY_VALUE_LIMIT = 15_967
"""The largest value of the key-value store, in bytes of UTF-8."""

CHECKSUM_LIMIT = 2 << 30
"""From this size on, in bytes, an upload goes without a checksum: the store's form takes no more."""

Source = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO | Iterable[bytes | memoryview]
T = TypeVar("T")

_log = logging.getLogger("prominence_executor")
_POOL_SIZE = 32
_CHUNK = 1 << 18  # bytes
_IDS_LENGTH = 3500  # characters of ids in one URL; servers refuse lines of more than about 4000
_ENDING = 3.0  # seconds around a job's end during which the service may not know it
_BLINK = 0.3  # seconds: a job that ended between two of the server's queries is missing from one answer

_STATUSES: dict[int, type[ProminenceError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: ServiceUnavailableError,
    502: ServiceUnavailableError,
    503: ServiceUnavailableError,
    504: ServiceUnavailableError,
}
_SENTENCES: dict[str, type[InvalidRequestError]] = {
    "Job does not exist": NotFoundError,
    "No such job(s)": NotFoundError,
    "No such workflow(s)": NotFoundError,
    "Atomic replacement not successful": KeyValueConflictError,
}


class ProminenceClient:
    """The service's REST API for one user. Needs no token and no network until the first request.

    Args:
        url: the API's base, for example ``https://host/prominence/v1``; else the variable ``PROMINENCE_URL``.
        token: the token, or a callable that returns one; else see ``TokenSource``.
        timeout: seconds to connect, and seconds to wait for the next bytes of an answer.
        retry_for: seconds for which a request that may be repeated is tried again while the service is away.
        verify: False to accept any certificate, or the path of a CA bundle; else the variable
            ``PROMINENCE_SSL_VERIFY`` (False, 0, no, off, or a path); on by default.

    Every method blocks, and may raise:
        AuthenticationError: no token, or one that has expired or was refused, also after it was looked up again.
        PermissionDeniedError: somebody else's.
        InvalidRequestError: the service refused the request; NotFoundError for what does not exist.
        ServiceUnavailableError: no answer. A request that must not be repeated blindly (a POST that creates) raises it
            at once; its ``request_sent`` then says whether the service may have seen the request.
        ServiceError: an answer that makes no sense, or a 500. It, too, leaves open whether a POST was carried out.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | Callable[[], str] | TokenSource | None = None,
        *,
        timeout: tuple[float, float] = (10.0, 60.0),
        retry_for: float = 30.0,
        verify: bool | str | os.PathLike[str] | None = None,
    ) -> None:
        self.url = base_url(url)
        self._tokens = token if isinstance(token, TokenSource) else TokenSource(token)
        self._timeout = timeout
        self._retry_for = retry_for
        self._verify = verification(verify)
        self._session = _prepared(requests.Session())
        self._bare = _prepared(_BareSession())
        self._closed = threading.Event()
        self._counted = threading.Lock()
        self._counts: Counter[str] = Counter()

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def create_job(self, description: Mapping[str, Any]) -> int:
        """Creates a job and answers its number. Never repeated: a repeated POST would make a second job."""
        return self._request("POST", "/jobs", _read_id, body=_body(description), repeat=False)

    def describe_job(self, job_id: int) -> dict[str, Any]:
        """Everything about one job. Costly at the service: it looks through all jobs that ever ended."""
        return self._patiently(_BLINK, lambda: self._request("GET", f"/jobs/{_number(job_id)}", _read_only))

    def list_jobs(
        self,
        *,
        ids: Iterable[int] | None = None,
        constraint: tuple[str, str] | None = None,
        all: bool = False,  # noqa: A002  (the service's word)
        completed: bool = False,
        num: int | None = None,
        name: str | None = None,
        status: str | None = None,
        detail: bool = False,
        workflow_id: int | None = None,
    ) -> list[dict[str, Any]]:
        """Jobs in short form, or in detail; without arguments the active ones, which is cheap at any history.

        Args:
            ids: these jobs, active or ended; unknown ones are left out. As many requests as URLs hold them.
            constraint: label and value.
            all, completed: ended ones too, or only; then costly at the service, as is ``ids``.
            num: at most so many ended ones (the service's default is 1; -1 for no limit).
            name: jobs of this name.
            status: ``idle`` or ``running``.
            detail: with resources, inputs in base64, execution, and fresh URLs of outputs.
            workflow_id: the jobs of this workflow; excludes ``ids``.
        """
        if workflow_id is not None:
            if ids is not None:
                raise ValueError("ids and workflow_id exclude each other: the service knows one parameter for both")
            ids = [workflow_id]
        filters = {"all": all, "completed": completed, "num": num, "name": name, "status": status, "detail": detail}
        return self._listing("/jobs", constraint, ids, {**filters, "workflow": workflow_id is not None})

    def delete_jobs(self, ids: Iterable[int]) -> None:
        """Deletes jobs, by as few requests as URLs hold their ids. NotFoundError: none of them was active any more."""
        missing, found = None, False
        for some in _chunked(ids):
            try:
                self._request("DELETE", "/jobs", _read_nothing, params={"id": some})
                found = True
            except NotFoundError as error:
                missing = error
        if missing and not found:
            raise missing

    def delete_job(self, job_id: int) -> None:
        """Deletes a job. NotFoundError: it is not active any more, or never was."""
        self._request("DELETE", f"/jobs/{_number(job_id)}", _read_nothing)

    def remove_job(self, job_id: int) -> None:
        """Takes an ended job out of the queue that its policy ``leave_in_queue`` left it in."""
        self._request("PUT", f"/jobs/{_number(job_id)}/remove", _read_nothing)

    def clone_job(self, job_id: int) -> int:
        """Creates a job with the same description and answers its number. Never repeated."""
        return self._request("PUT", f"/jobs/{_number(job_id)}/clone", _read_id, repeat=False)

    def stdout(self, job_id: int, node: int = 0, offset: int = 0) -> bytes:
        """The standard output so far, from byte ``offset`` on; about a second behind a running job."""
        return self._output(job_id, "stdout", node, offset)

    def stderr(self, job_id: int, node: int = 0, offset: int = 0) -> bytes:
        """The standard error so far, from byte ``offset`` on; about a second behind a running job."""
        return self._output(job_id, "stderr", node, offset)

    def _output(self, job_id: int, stream: str, node: int, offset: int) -> bytes:
        params = {"node": _number(node), "offset": _number(offset)}
        path = f"/jobs/{_number(job_id)}/{stream}"
        return self._patiently(_ENDING, lambda: self._request("GET", path, _read_bytes, params=params))

    def execute(self, job_id: int, command: Sequence[str]) -> bytes:
        """Runs a command inside a running job and answers its output. Never repeated."""
        if isinstance(command, str) or not command or any("," in word for word in command):
            raise ValueError(f"command must be words without commas, by which the service joins them, not {command!r}")
        path, params = f"/jobs/{_number(job_id)}/exec", {"command": ",".join(command)}
        return self._request("POST", path, _read_bytes, params=params, repeat=False)

    def create_snapshot(self, job_id: int, path: str) -> None:
        """Makes an archive of a file or directory of a running job; ``snapshot_url`` then says where it is."""
        self._request("PUT", f"/jobs/{_number(job_id)}/snapshot", _read_nothing, params={"path": path})

    def snapshot_url(self, job_id: int) -> str:
        """A presigned URL of the last snapshot, a .tgz."""
        return self._request("GET", f"/jobs/{_number(job_id)}/snapshot", _read_url)

    # -- workflows -----------------------------------------------------------------------------------------------------

    def create_workflow(self, description: Mapping[str, Any]) -> int:
        """Creates a workflow and answers its number. Never repeated."""
        return self._request("POST", "/workflows", _read_id, body=_body(description), repeat=False)

    def describe_workflow(self, workflow_id: int) -> dict[str, Any]:
        """Everything about one workflow; for a moment around its end the service does not know it, so this asks on."""
        return self._patiently(_ENDING, lambda: self._request("GET", f"/workflows/{_number(workflow_id)}", _read_only))

    def list_workflows(
        self,
        *,
        constraint: tuple[str, str] | None = None,
        all: bool = False,  # noqa: A002  (the service's word)
        completed: bool = False,
        num: int | None = None,
        name: str | None = None,
        status: str | None = None,
        detail: bool = False,
    ) -> list[dict[str, Any]]:
        """Workflows, as ``list_jobs`` lists jobs."""
        filters = {"all": all, "completed": completed, "num": num, "name": name, "status": status, "detail": detail}
        return self._listing("/workflows", constraint, None, filters)

    def _listing(
        self, path: str, constraint: tuple[str, str] | None, ids: Iterable[int] | None, filters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        given = {key: value for key, value in filters.items() if value is not None and value is not False}
        params = {key: "true" if value is True else value for key, value in given.items()}
        if constraint is not None:
            label, value = constraint
            check_labels({label: value}, "constraint")
            params["constraint"] = f"{label}={value}"
        if ids is None:
            return self._request("GET", path, _read_list, params=params)
        answers = [self._request("GET", path, _read_list, params={**params, "id": some}) for some in _chunked(ids)]
        return list(itertools.chain.from_iterable(answers))

    def delete_workflow(self, workflow_id: int) -> None:
        """Deletes a workflow and its jobs. NotFoundError: it is not active any more, or never was."""
        self._request("DELETE", f"/workflows/{_number(workflow_id)}", _read_nothing)

    def clone_workflow(self, workflow_id: int) -> int:
        """Creates a workflow with the same description and answers its number. Never repeated."""
        return self._request("PUT", f"/workflows/{_number(workflow_id)}/clone", _read_id, repeat=False)

    def rerun_workflow(self, workflow_id: int) -> int:
        """Creates a workflow of the jobs that failed in this one and answers its number. Never repeated."""
        return self._request("PUT", f"/workflows/{_number(workflow_id)}", _read_id, repeat=False)

    # -- data ----------------------------------------------------------------------------------------------------------

    def upload(self, name: str, source: Source, *, size: int | None = None, checksum: bool | str | None = None) -> None:
        """Stores an object under this name, streaming it.

        Args:
            name: a job refers to the object by it, in an artifact or as image.
            source: bytes, the path of a file, an open binary file (from its position on), or buffers. One that can be
                gone through again is sent again after a failure.
            size: bytes; needed for buffers that are not in a list or tuple, and for files that cannot seek.
            checksum: SHA-256 in hexadecimal to be stored beside the object, or True to compute it (which reads the
                source twice). Ignored from 2 GiB on.

        Raises:
            TransferError: it did not arrive at the object store.
            OSError: the source cannot be read.
        """
        stream = _Stream(source, size)
        digest = stream.sha256() if checksum is True else checksum or None
        asked = {"filename": name, "checksum": None if stream.size >= CHECKSUM_LIMIT else digest}

        def once() -> None:
            answer = self._request("POST", "/data/upload", _read_dict, body=encode(asked))
            url, fields = _field(answer, "url", str), answer.get("fields")
            if fields:
                form = _Form(fields, name, stream)
                self._send_bare("POST", url, form, {"Content-Type": form.content_type})
            else:
                self._send_bare("PUT", url, stream if stream.size else b"", {"x-ms-blob-type": "BlockBlob"})

        self._retrying(once, stream.repeatable)

    @overload
    def download(self, url: str) -> bytes: ...
    @overload
    def download(self, url: str, target: str | os.PathLike[str] | BinaryIO) -> None: ...
    def download(self, url: str, target: str | os.PathLike[str] | BinaryIO | None = None) -> bytes | None:
        """Fetches a presigned URL, without a token: as bytes, or streamed to a path or an open binary file.

        A path appears only when it is whole: until then the bytes go to ``path.part``, which goes away on any failure.

        Raises:
            TransferError: the bytes did not arrive, or not all of them.
            NotFoundError, PermissionDeniedError: the store does not have it, or the URL is not (or no longer) good.
            OSError: the target cannot be written, for example because the disk is full.
        """
        if target is None:
            buffer = io.BytesIO()
            self._fetch(url, buffer)
            return buffer.getvalue()
        if isinstance(target, str | os.PathLike):
            with _appearing_whole(os.fspath(target)) as file:
                self._fetch(url, file)
        else:
            self._fetch(url, target)
        return None

    def _fetch(self, url: str, file: BinaryIO) -> None:
        # Before Python 3.11 a SpooledTemporaryFile cannot say that it is seekable.
        start = file.tell() if getattr(file, "seekable", lambda: True)() else None

        attempts = itertools.count()

        def once() -> None:
            if next(attempts) and start is not None:
                file.seek(start)
                file.truncate()
            with self._send_bare("GET", url, stream=True) as response, _transferring():
                for chunk in _chunks(response):
                    file.write(chunk)
                _check_whole(response)

        self._retrying(once, repeat=start is not None)

    def list_data(self, path: str = "") -> list[dict[str, Any]]:
        """The stored objects below this path: name, size in bytes, lastModified."""
        return self._request("GET", "/data" + _quoted(path, "path", empty=True), _read_list)

    def delete_data(self, name: str) -> None:
        """Deletes an object; the service does not say whether there was one."""
        self._request("DELETE", "/data" + _quoted(name, "name"), _read_nothing)

    def job_output_url(self, name: str) -> str:
        """A presigned URL to PUT a file to, among the outputs of the job whose own token this client has."""
        return self._request("POST", "/data/output", _read_url, body=encode({"name": name}))

    # -- key-value store -----------------------------------------------------------------------------------------------

    def kv_set(self, key: str, value: str, prev: str | None = None) -> None:
        """Sets a key; with ``prev``, only if it exists and has that value.

        Raises:
            KeyValueConflictError: it has another value than ``prev``, or none. Also possible, after an answer that
                was lost, because of this very call: with ``prev``, read the key before deciding.
            InvalidRequestError: the value is empty or has more than 15,967 bytes.
        """
        body = value.encode()
        if not body or len(body) > KEY_VALUE_LIMIT:
            raise InvalidRequestError(f"A value must have 1 to {KEY_VALUE_LIMIT} bytes of UTF-8, this has {len(body)}")
        params = None if prev is None else {"prev": prev}
        path = "/kv" + _quoted(key, "key")
        self._request("POST", path, _read_nothing, params=params, body=body, kind="text/plain", repeat=prev is None)

    def kv_get(self, key: str) -> str:
        """The value of a key. NotFoundError: there is no such key."""
        return self._request("GET", "/kv" + _quoted(key, "key"), _read_text)

    @overload
    def kv_list(self, prefix: str = "", values: Literal[False] = False) -> list[str]: ...
    @overload
    def kv_list(self, prefix: str, values: Literal[True]) -> dict[str, str]: ...
    def kv_list(self, prefix: str = "", values: bool = False) -> list[str] | dict[str, str]:
        """The keys below a prefix, each with a leading slash; with ``values`` a dict from key to value."""
        params = {"list": "true", "values": "true"} if values else {"list": "true"}
        answer = self._request("GET", "/kv" + _quoted(prefix, "prefix", empty=True), _read_list, params=params)
        return {key: value for item in answer for key, value in item.items()} if values else answer

    def kv_delete(self, key: str, prefix: bool = False) -> None:
        """Deletes a key, or everything below it; no matter whether it exists."""
        params = {"prefix": "true"} if prefix else None
        self._request("DELETE", "/kv" + _quoted(key, "key"), _read_nothing, params=params)

    # -- the service ---------------------------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """What the service says of itself; a service that is not well answers 409 and names what is not."""
        return self._request("GET", "/health", _read_dict, accept=409)

    def resources(self) -> dict[str, Any]:
        """The sites with their capacity and what of it is free."""
        return self._request("GET", "/resources", _read_dict)

    @property
    def requests_sent(self) -> Counter[str]:
        """How many requests went out so far, by kind ("GET /jobs", "PUT upload", ...); repeats count."""
        with self._counted:
            return Counter(self._counts)

    def close(self) -> None:
        """Ends the waits of all threads that would have tried again, and closes the connections."""
        self._closed.set()
        self._session.close()
        self._bare.close()

    def __enter__(self) -> ProminenceClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ProminenceClient {self.url}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A ProminenceClient cannot be pickled: its token stays in this process; make one there")

    # -- the funnel ----------------------------------------------------------------------------------------------------

    def _request(
        self,
        method: str,
        path: str,
        read: Callable[[requests.Response], T],
        *,
        params: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        kind: str = "application/json",
        repeat: bool = True,
        accept: int = 200,
    ) -> T:
        url = self.url + path + ("?" + urlencode(params, safe="/,") if params else "")
        headers = {} if body is None else {"Content-Type": kind}

        def once(token: str) -> T:
            return read(self._send(method, path, url, token, body, headers, accept))

        def with_token() -> T:
            token = self._tokens.get()
            try:
                return once(token)
            except AuthenticationError:
                renewed = self._tokens.refresh(token)
                if renewed == token:
                    raise
            return once(renewed)

        return self._retrying(with_token, repeat)

    def _send(
        self, method: str, path: str, url: str, token: str, body: bytes | None, headers: dict[str, str], accept: int
    ) -> requests.Response:
        """One exchange with the API; answers a whole response of status 2xx, or of the accepted one."""

        def bearer(request: requests.PreparedRequest) -> requests.PreparedRequest:
            # A callable, because a mere header would give way to an entry of ~/.netrc.
            request.headers["Authorization"] = f"Bearer {token}"
            return request

        # Redirects are not followed: the token is for this address and no other.
        kind = _kind(method, path)
        response = self._exchange(self._session, kind, method, url, body, headers, bearer, redirects=False)
        if response.status_code // 100 != 2 and response.status_code != accept:
            raise _refusal(response, token)
        _check_whole(response)
        return response

    def _send_bare(
        self, method: str, url: str, data: Any = None, headers: Mapping[str, str] | None = None, *, stream: bool = False
    ) -> requests.Response:
        """One exchange with the object store: no token, no entry of ~/.netrc, the bytes as they are stored."""
        kind = "GET output" if method == "GET" else f"{method} upload"
        headers = {"Accept-Encoding": "identity", **(headers or {})}
        with _transferring():
            response = self._exchange(
                self._bare, kind, method, url, data, headers, _no_credentials, stream=stream, redirects=method == "GET"
            )
            if response.status_code // 100 != 2:
                with response:
                    raise _refusal(response)
        return response

    def _exchange(
        self,
        session: requests.Session,
        kind: str,
        method: str,
        url: str,
        data: Any,
        headers: Mapping[str, str],
        auth: Callable[[requests.PreparedRequest], requests.PreparedRequest],
        *,
        stream: bool = False,
        redirects: bool,
    ) -> requests.Response:
        what = f"{method} {urlsplit(url).path}"  # never the query: it may hold a signature
        if self._closed.is_set():
            raise ServiceUnavailableError(f"{what}: this client has been closed", request_sent=False)
        with self._counted:
            self._counts[kind] += 1
        began = time.monotonic()
        try:
            response = session.request(
                method,
                url,
                data=data,
                headers=headers,
                auth=auth,
                timeout=self._timeout,
                verify=self._verify,
                stream=stream,
                allow_redirects=redirects,
            )
        except requests.RequestException as error:
            raise _unreachable(error, what) from error
        _log.debug("%s: HTTP %d after %.3f s", what, response.status_code, time.monotonic() - began)
        return response

    def _retrying(self, once: Callable[[], T], repeat: bool) -> T:
        """Calls ``once`` until it answers, or its failure is not one that time heals, or the time is over."""
        deadline = time.monotonic() + self._retry_for
        for attempt in itertools.count():
            try:
                return once()
            except (ServiceError, TransferError) as error:
                # A 500 may well be the request's own fault, so it gets two more chances and not the whole time.
                heals = attempt < 2 or isinstance(error, ServiceUnavailableError | TransferError)
                wait = max(_backoff(attempt), getattr(error, "retry_after", None) or 0.0)
                if not (repeat and heals) or time.monotonic() + wait > deadline or self._closed.is_set():
                    raise
                _log.info("trying again in %.1f s: %s", wait, error)
                if self._closed.wait(wait):
                    raise
        raise AssertionError("unreachable")

    def _patiently(self, seconds: float, ask: Callable[[], T]) -> T:
        """Asks on for some seconds when the service says that there is no such thing: it may just be ending."""
        deadline = time.monotonic() + seconds
        for attempt in itertools.count():
            try:
                return ask()
            except NotFoundError:
                wait = _backoff(attempt)
                if time.monotonic() + wait > deadline or self._closed.wait(wait):
                    raise
        raise AssertionError("unreachable")


# -- what an answer means ----------------------------------------------------------------------------------------------


def _read(response: requests.Response, shape: type[T]) -> T:
    try:
        answer = json.loads(response.content)
    except ValueError as error:
        raise ServiceError(f"{_what(response)}: the answer is not JSON", response.status_code) from error
    if isinstance(answer, dict) and isinstance(answer.get("error"), str):
        # Status 200 with an error inside: the service does that, for example for an unknown status word.
        raise InvalidRequestError(f"{_what(response)}: {answer['error']}", response.status_code)
    if not isinstance(answer, shape):
        raise ServiceError(f"{_what(response)}: the answer is not a {shape.__name__}", response.status_code)
    return answer


def _field(answer: Mapping[str, Any], key: str, shape: type[T]) -> T:
    value = answer.get(key)
    if not isinstance(value, shape):
        raise ServiceError(f"The answer holds no {key}")
    return value


def _read_dict(response: requests.Response) -> dict[str, Any]:
    return _read(response, dict)


def _read_list(response: requests.Response) -> list[Any]:
    return _read(response, list)


def _read_only(response: requests.Response) -> dict[str, Any]:
    for item in _read(response, list):
        return _field({"job or workflow": item}, "job or workflow", dict)
    raise NotFoundError(f"{_what(response)}: there is none, or it is somebody else's", response.status_code)


def _read_id(response: requests.Response) -> int:
    return _field(_read(response, dict), "id", int)


def _read_url(response: requests.Response) -> str:
    return _field(_read(response, dict), "url", str)


def _read_bytes(response: requests.Response) -> bytes:
    return response.content


def _read_text(response: requests.Response) -> str:
    try:
        return response.content.decode()
    except UnicodeDecodeError as error:
        raise ServiceError(f"{_what(response)}: the answer is not UTF-8", response.status_code) from error


def _read_nothing(response: requests.Response) -> None:
    return None


def _check_whole(response: requests.Response) -> None:
    """Neither requests nor all versions of urllib3 mind a body that is shorter than its Content-Length."""
    expected = response.headers.get("Content-Length", "")
    if expected.isdigit() and response.raw.tell() != int(expected):
        sentence = f"the answer was cut short: {response.raw.tell()} bytes of {expected}"
        raise ServiceUnavailableError(f"{_what(response)}: {sentence}", response.status_code)


def _refusal(response: requests.Response, token: str | None = None) -> ProminenceError:
    status = response.status_code
    sentence = _sentence(response)
    message = f"{_what(response)}: {sentence} (HTTP {status})"
    if token:
        message = message.replace(token, "<token>")  # should a server echo the request
    if status // 100 == 4:
        kind = _STATUSES.get(status) or _SENTENCES.get(sentence, InvalidRequestError)
    else:
        kind = _STATUSES.get(status, ServiceError)
    if issubclass(kind, ServiceUnavailableError):
        return kind(message, status, retry_after=_retry_after(response))
    if issubclass(kind, InvalidRequestError | ServiceError):
        return kind(message, status)
    return kind(message)


def _sentence(response: requests.Response) -> str:
    """What the answer says, without its wrapping: {"error"}, the title of an HTML page, the Message of S3's XML."""
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


def _unreachable(error: requests.RequestException, what: str) -> ProminenceError:
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


def _what(response: requests.Response) -> str:
    return f"{response.request.method} {urlsplit(response.url).path}"


# -- what a request is made of -----------------------------------------------------------------------------------------


class _BareSession(requests.Session):
    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Adds nothing after a redirect; requests would look into ~/.netrc."""


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An auth that adds nothing; without any, requests would look into ~/.netrc."""
    return request


def _prepared(session: requests.Session) -> requests.Session:
    adapter = HTTPAdapter(pool_connections=4, pool_maxsize=_POOL_SIZE)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    version = getattr(sys.modules[__package__], "__version__", "0")
    session.headers["User-Agent"] = f"prominence-executor/{version} {requests.utils.default_user_agent()}"
    return session


def _kind(method: str, path: str) -> str:
    path = re.sub(r"^/(kv|data)/(?!(?:upload|output)$).*", r"/\1", path)
    return f"{method} " + re.sub(r"/\d+", "/id", path)


def _body(description: Mapping[str, Any]) -> bytes:
    body = encode(description)
    if len(body) > BODY_LIMIT:
        raise InvalidRequestError(f"The description has {len(body)} bytes, the service reads at most {BODY_LIMIT}")
    return body


def _number(value: int) -> int:
    number = operator.index(value)
    if number < 0:
        raise InvalidRequestError(f"An id, node or offset must not be negative: {number}")
    return number


def _chunked(ids: Iterable[int]) -> Iterator[str]:
    """The ids joined by commas, in as many strings as keep each one short enough for a URL."""
    joined = ""
    for text in (str(_number(number)) for number in ids):
        if len(joined) + len(text) >= _IDS_LENGTH:
            yield joined
            joined = ""
        joined += f",{text}" if joined else text
    if joined:
        yield joined


def _quoted(path: str, field: str, *, empty: bool = False) -> str:
    path = path.removeprefix("/")
    if not path and empty:
        return ""
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidRequestError(f"{field} must be words joined by single slashes, not {path!r}")
    return "/" + quote(path, safe="/")


def _backoff(attempt: int) -> float:
    """Seconds: 0.1 and twice as long each time, up to 5, less up to a half so that many clients do not ask at once."""
    return min(5.0, 0.1 * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0)  # noqa: S311


# -- what travels to and from the object store -------------------------------------------------------------------------


@contextlib.contextmanager
def _transferring() -> Iterator[None]:
    try:
        yield
    except ServiceError as error:
        raise TransferError(str(error)) from error


def _chunks(response: requests.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_content(_CHUNK)
    except requests.RequestException as error:
        raise _unreachable(error, _what(response)) from error


@contextlib.contextmanager
def _appearing_whole(path: str) -> Iterator[BinaryIO]:
    """A file that appears at ``path`` when the block ends well, and leaves nothing behind when it does not."""
    partial = path + ".part"
    try:
        with open(partial, "wb") as file:
            yield file
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)


class _Stream:
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


class _Form:
    """A multipart form whose last part, ``file``, is streamed; requests itself would hold it in memory."""

    def __init__(self, fields: Mapping[str, str], filename: str, stream: _Stream) -> None:
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
