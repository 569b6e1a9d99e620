"""The REST API: every verb of jobs, workflows, data and keys, each in a few lines, all through one funnel.

It knows how to ask and what the answers mean, not what to ask: it keeps no state about jobs, polls nothing, starts no
thread. The token goes to the API alone; presigned URLs of the object store are used without it. Any number of threads
may use one client.
"""

from __future__ import annotations

import io
import itertools
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Literal, TypeVar, overload
from urllib.parse import quote

from ..errors import InvalidRequestError, NotFoundError, TransferError
from ..public import public
from .model import BODY_LIMIT, check_labels, encode
from .responses import (
    begins_at,
    check_whole,
    field_of,
    read_bytes,
    read_dict,
    read_id,
    read_list,
    read_nothing,
    read_only,
    read_text,
    read_url,
    strong_tag,
)
from .session import Funnel
from .transfers import Form, Source, Stream, appearing_whole, chunks_of, transferring

__all__ = ["KEY_VALUE_LIMIT", "ProminenceClient", "Source"]

KEY_VALUE_LIMIT = 15_967
"""The largest value of the key-value store, in bytes of UTF-8."""

CHECKSUM_LIMIT = 2 << 30
"""From this size on, in bytes, an upload goes without a checksum: the store's form takes no more."""

T = TypeVar("T")
Target = str | os.PathLike[str] | BinaryIO

_IDS_LENGTH = 3500  # characters of ids in one URL; servers refuse lines of more than about 4000
_ENDING = 3.0  # seconds around a job's end during which the service may not know it
_BLINK = 0.3  # seconds: a job that ended between two of the server's queries is missing from one answer


@public
class ProminenceClient(Funnel):
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

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def create_job(self, description: Mapping[str, Any]) -> int:
        """Creates a job and answers its number. Never repeated: a repeated POST would make a second job."""
        return self._request("POST", "/jobs", read_id, body=_body(description), repeat=False)

    def describe_job(self, job_id: int) -> dict[str, Any]:
        """Everything about one job. Costly at the service: it looks through all jobs that ever ended."""
        return self._patiently(_BLINK, lambda: self._request("GET", f"/jobs/{_number(job_id)}", read_only))

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
                self._request("DELETE", "/jobs", read_nothing, params={"id": some})
                found = True
            except NotFoundError as error:
                missing = error
        if missing and not found:
            raise missing

    def delete_job(self, job_id: int) -> None:
        """Deletes a job. NotFoundError: it is not active any more, or never was."""
        self._request("DELETE", f"/jobs/{_number(job_id)}", read_nothing)

    def remove_job(self, job_id: int) -> None:
        """Takes an ended job out of the queue that its policy ``leave_in_queue`` left it in."""
        self._request("PUT", f"/jobs/{_number(job_id)}/remove", read_nothing)

    def clone_job(self, job_id: int) -> int:
        """Creates a job with the same description and answers its number. Never repeated."""
        return self._request("PUT", f"/jobs/{_number(job_id)}/clone", read_id, repeat=False)

    def stdout(self, job_id: int, node: int = 0, offset: int = 0) -> bytes:
        """The standard output so far, from byte ``offset`` on; about a second behind a running job."""
        return self._output(job_id, "stdout", node, offset)

    def stderr(self, job_id: int, node: int = 0, offset: int = 0) -> bytes:
        """The standard error so far, from byte ``offset`` on; about a second behind a running job."""
        return self._output(job_id, "stderr", node, offset)

    def _output(self, job_id: int, stream: str, node: int, offset: int) -> bytes:
        params = {"node": _number(node), "offset": _number(offset)}
        path = f"/jobs/{_number(job_id)}/{stream}"
        return self._patiently(_ENDING, lambda: self._request("GET", path, read_bytes, params=params))

    def execute(self, job_id: int, command: Sequence[str]) -> bytes:
        """Runs a command inside a running job and answers its output. Never repeated."""
        if isinstance(command, str) or not command or any("," in word for word in command):
            raise ValueError(f"command must be words without commas, by which the service joins them, not {command!r}")
        path, params = f"/jobs/{_number(job_id)}/exec", {"command": ",".join(command)}
        return self._request("POST", path, read_bytes, params=params, repeat=False)

    def create_snapshot(self, job_id: int, path: str) -> None:
        """Makes an archive of a file or directory of a running job; ``snapshot_url`` then says where it is."""
        self._request("PUT", f"/jobs/{_number(job_id)}/snapshot", read_nothing, params={"path": path})

    def snapshot_url(self, job_id: int) -> str:
        """A presigned URL of the last snapshot, a .tgz."""
        return self._request("GET", f"/jobs/{_number(job_id)}/snapshot", read_url)

    # -- workflows -----------------------------------------------------------------------------------------------------

    def create_workflow(self, description: Mapping[str, Any]) -> int:
        """Creates a workflow and answers its number. Never repeated."""
        return self._request("POST", "/workflows", read_id, body=_body(description), repeat=False)

    def describe_workflow(self, workflow_id: int) -> dict[str, Any]:
        """Everything about one workflow; for a moment around its end the service does not know it, so this asks on."""
        return self._patiently(_ENDING, lambda: self._request("GET", f"/workflows/{_number(workflow_id)}", read_only))

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
            return self._request("GET", path, read_list, params=params)
        answers = [self._request("GET", path, read_list, params={**params, "id": some}) for some in _chunked(ids)]
        return list(itertools.chain.from_iterable(answers))

    def delete_workflow(self, workflow_id: int) -> None:
        """Deletes a workflow and its jobs. NotFoundError: it is not active any more, or never was."""
        self._request("DELETE", f"/workflows/{_number(workflow_id)}", read_nothing)

    def clone_workflow(self, workflow_id: int) -> int:
        """Creates a workflow with the same description and answers its number. Never repeated."""
        return self._request("PUT", f"/workflows/{_number(workflow_id)}/clone", read_id, repeat=False)

    def rerun_workflow(self, workflow_id: int) -> int:
        """Creates a workflow of the jobs that failed in this one and answers its number. Never repeated."""
        return self._request("PUT", f"/workflows/{_number(workflow_id)}", read_id, repeat=False)

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
        stream = Stream(source, size)
        digest = stream.sha256() if checksum is True else checksum or None
        asked = {"filename": name, "checksum": None if stream.size >= CHECKSUM_LIMIT else digest}

        def once() -> None:
            answer = self._request("POST", "/data/upload", read_dict, body=encode(asked))
            url, fields = field_of(answer, "url", str), answer.get("fields")
            if fields:
                form = Form(fields, name, stream)
                answer_of_store = self._send_bare("POST", url, form, {"Content-Type": form.content_type})
            else:
                body = stream if stream.size else b""
                answer_of_store = self._send_bare("PUT", url, body, {"x-ms-blob-type": "BlockBlob"})
            with transferring():
                read_nothing(answer_of_store)

        self._retrying(once, stream.repeatable)

    @overload
    def download(self, url: str, target: None = None, *, part: tuple[int, int] | None = None) -> bytes: ...
    @overload
    def download(self, url: str, target: Target, *, part: tuple[int, int] | None = None) -> None: ...
    def download(self, url: str, target: Target | None = None, *, part: tuple[int, int] | None = None) -> bytes | None:
        """Fetches a presigned URL, without a token: as bytes, or streamed to a path or an open binary file.

        A download that was cut short goes on where it was, if the object is still the same. ``part``: only so many
        bytes of the object: (the first one's offset, their number).

        A path appears only when it is whole: until then the bytes go to ``path.part``, which goes away on any failure.

        Raises:
            TransferError: the bytes did not arrive, or not all of them.
            NotFoundError, PermissionDeniedError: the store does not have it, or the URL is not (or no longer) good.
            OSError: the target cannot be written, for example because the disk is full.
        """
        if target is None:
            buffer = io.BytesIO()
            self._fetch(url, buffer, part)
            return buffer.getvalue()
        if isinstance(target, str | os.PathLike):
            with appearing_whole(os.fspath(target)) as file:
                self._fetch(url, file, part)
        else:
            self._fetch(url, target, part)
        return None

    def _fetch(self, url: str, file: BinaryIO, part: tuple[int, int] | None) -> None:
        # Before Python 3.11 a SpooledTemporaryFile cannot say that it is seekable.
        start = file.tell() if getattr(file, "seekable", lambda: True)() else None
        have, tag = 0, ""  # bytes that an attempt has left, and of which version of the object they are
        first, wanted = part or (0, None)

        def once() -> None:
            nonlocal have, tag
            last = "" if wanted is None else first + wanted - 1
            headers = {"Range": f"bytes={first + have}-{last}"} if part or (have and tag) else {}
            if have and tag:
                headers["If-Range"] = tag
            with self._send_bare("GET", url, headers=headers, stream=True) as response, transferring():
                partly = begins_at(response, first + have)
                if start is not None and have and not partly:
                    have = 0
                    file.seek(start)
                    file.truncate()
                tag = strong_tag(response)
                skip = 0 if partly else first
                for chunk in chunks_of(response):
                    useful = chunk[skip:] if wanted is None else chunk[skip : skip + wanted - have]
                    skip = max(0, skip - len(chunk))
                    file.write(useful)
                    have += len(useful)
                check_whole(response)
                if wanted is not None and have < wanted:
                    raise TransferError(f"of {wanted} bytes of an object came {have}")

        self._retrying(once, repeat=start is not None)

    def list_data(self, path: str = "") -> list[dict[str, Any]]:
        """The stored objects below this path: name, size in bytes, lastModified."""
        return self._request("GET", "/data" + _quoted(path, "path", empty=True), read_list)

    def delete_data(self, name: str) -> None:
        """Deletes an object; the service does not say whether there was one."""
        self._request("DELETE", "/data" + _quoted(name, "name"), read_nothing)

    def job_output_url(self, name: str) -> str:
        """A presigned URL to PUT a file to, among the outputs of the job whose own token this client has."""
        return self._request("POST", "/data/output", read_url, body=encode({"name": name}))

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
        self._request("POST", path, read_nothing, params=params, body=body, kind="text/plain", repeat=prev is None)

    def kv_get(self, key: str) -> str:
        """The value of a key. NotFoundError: there is no such key."""
        return self._request("GET", "/kv" + _quoted(key, "key"), read_text)

    @overload
    def kv_list(self, prefix: str = "", values: Literal[False] = False) -> list[str]: ...
    @overload
    def kv_list(self, prefix: str, values: Literal[True]) -> dict[str, str]: ...
    def kv_list(self, prefix: str = "", values: bool = False) -> list[str] | dict[str, str]:
        """The keys below a prefix, each with a leading slash; with ``values`` a dict from key to value."""
        params = {"list": "true", "values": "true"} if values else {"list": "true"}
        answer = self._request("GET", "/kv" + _quoted(prefix, "prefix", empty=True), read_list, params=params)
        return {key: value for item in answer for key, value in item.items()} if values else answer

    def kv_delete(self, key: str, prefix: bool = False) -> None:
        """Deletes a key, or everything below it; no matter whether it exists."""
        params = {"prefix": "true"} if prefix else None
        self._request("DELETE", "/kv" + _quoted(key, "key"), read_nothing, params=params)

    # -- the service ---------------------------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """What the service says of itself; a service that is not well answers 409 and names what is not."""
        return self._request("GET", "/health", read_dict, accept=409)

    def resources(self) -> dict[str, Any]:
        """The sites with their capacity and what of it is free."""
        return self._request("GET", "/resources", read_dict)

    def __enter__(self) -> ProminenceClient:
        return self


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
