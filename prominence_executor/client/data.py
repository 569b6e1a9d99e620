"""The verbs of the object store: upload, download, list, delete; a part of `ProminenceClient`.

An object's bytes travel by presigned URLs, to which no token goes. What is made of them on the way is in transfers.py.
"""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Mapping
from typing import Any, BinaryIO, overload

from ..shown import on_terminal
from .request_parts import object_path
from .responses import read_nothing, read_objects, read_signed, read_url
from .session import ApiSession
from .transfers import Download, Form, Progress, Source, Stream, appearing_whole, transferring
from .validation import encode

CHECKSUM_LIMIT = 2 << 30
"""From this size on, in bytes, an upload goes without a checksum: the store's form takes no more."""

_LARGE = 1_000_000  # bytes from which on an upload takes long enough to be told in the log
_log = logging.getLogger("prominence_executor")

Target = str | os.PathLike[str] | BinaryIO


class DataVerbs:
    """What a client can do with stored objects."""

    api: ApiSession

    def upload(
        self,
        name: str,
        source: Source,
        *,
        size: int | None = None,
        checksum: bool | str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Store an object under this name, streaming it; block until it is there.

        Args:
            name: a job refers to the object by it, in an artifact or as image.
            source: bytes, the path of a file, an open binary file (from its position on), or buffers. One that can be
                gone through again is sent again after a failure.
            size: bytes; needed for buffers that are not in a list or tuple, and for files that cannot seek.
            checksum: SHA-256 in hexadecimal to be stored with the object, or True to compute it (which reads the
                source twice). Ignored from 2 GiB on.
            progress: called with the bytes that have been sent, and their number; in this thread.

        Raises:
            TransferError: it did not arrive at the object store.
            OSError: the source cannot be read.
        """
        stream = Stream(source, size)
        digest = stream.sha256() if checksum is True else checksum or None
        asked = {"filename": name, "checksum": None if stream.size >= CHECKSUM_LIMIT else digest}
        stream.progress = progress
        level = logging.INFO if stream.size >= _LARGE else logging.DEBUG
        _log.log(level, "uploading %s, %.3g MB", on_terminal(name), stream.size / 1e6)
        began = time.monotonic()
        self.api.repeats.call(lambda: _upload_once(self.api, asked, stream), stream.repeatable)
        _log.log(level, "%s has been uploaded in %.3g s", on_terminal(name), time.monotonic() - began)

    @overload
    def download(
        self,
        url: str,
        target: None = None,
        *,
        part: tuple[int, int] | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> bytes: ...
    @overload
    def download(
        self,
        url: str,
        target: Target,
        *,
        part: tuple[int, int] | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> None: ...
    def download(
        self,
        url: str,
        target: Target | None = None,
        *,
        part: tuple[int, int] | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> bytes | None:
        """Fetch a presigned URL, without a token: return the bytes, or stream them to a path or an open binary file.

        Blocks. A download that was cut short goes on where it was, if the object is still the same.

        Args:
            url: as the service gave it.
            target: a path appears only when it is whole: until then the bytes go to ``path.part``, which is removed on
                any failure.
            part: only so many bytes of the object: (the first one's offset, their number).
            limit: bytes that the whole object has at most: a longer one is not fetched to its end.
            progress: called with the bytes that have come, and their number; in this thread.

        Raises:
            TransferError: the bytes did not arrive, or not all of them, or there are more than ``limit``.
            NotFoundError, PermissionDeniedError: the store does not have it, or the URL is not (or no longer) good.
            OSError: the target cannot be written, for example because the disk is full.
        """
        if target is None:
            buffer = io.BytesIO()
            _fetch(self.api, url, buffer, part, limit, progress)
            return buffer.getvalue()
        if isinstance(target, str | os.PathLike):
            with appearing_whole(os.fspath(target)) as file:
                _fetch(self.api, url, file, part, limit, progress)
        else:
            _fetch(self.api, url, target, part, limit, progress)
        return None

    def list_data(self, path: str = "") -> list[dict[str, Any]]:
        """List the stored objects below this path: name, size in bytes, lastModified."""
        return self.api.call("GET", "/data" + object_path(path, "path", may_be_empty=True), read_objects)

    def delete_data(self, name: str) -> None:
        """Delete an object; the service does not say whether there was one."""
        self.api.call("DELETE", "/data" + object_path(name, "name"), read_nothing)

    def job_output_url(self, name: str) -> str:
        """Return a presigned URL to PUT a file to, among the outputs of the job whose own token this client has."""
        return self.api.call("POST", "/data/output", read_url, body=encode({"name": name}))


def _upload_once(api: ApiSession, asked: Mapping[str, Any], stream: Stream) -> None:
    url, fields = api.call("POST", "/data/upload", read_signed, body=encode(asked))
    if fields:
        form = Form(fields, asked["filename"], stream)
        stored = api.call_store("POST", url, form, {"Content-Type": form.content_type})
    else:
        stored = api.call_store("PUT", url, stream if stream.size else b"", {"x-ms-blob-type": "BlockBlob"})
    with transferring():
        read_nothing(stored)


def _fetch(
    api: ApiSession,
    url: str,
    file: BinaryIO,
    part: tuple[int, int] | None,
    limit: int | None,
    progress: Progress | None,
) -> None:
    download = Download(file, part, limit, progress)

    def once() -> None:
        with api.call_store("GET", url, headers=download.headers(), stream=True) as response, transferring():
            download.receive(response)

    api.repeats.call(once, download.repeatable)
