"""Results that stay at the service until somebody asks for them (``lazy=True``).

Of an outcome file only the records' headers are read, by `RemoteFile`; a `LazyResult` then takes the place of a
large result in its future, and fetches it once. Nothing is unpickled here: that is the payload's, which verifies it.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import threading
import weakref
from typing import Any

from ..client.client import ProminenceClient
from ..client.transfers import appearing_whole
from ..errors import OutcomeLostError
from ..payload.outcomes import Outcome, verify_body
from ..payload.pickling import object_header
from ..payload.results import unpack
from ..remote.wire import LARGE_RESULT
from . import diagnosis
from .connection import Connection
from .future import DeferredResult

LARGE = LARGE_RESULT  # bytes of a result from which on it stays where it is
_BLOCK = 1 << 16  # bytes that are read at once


class RemoteFile(io.RawIOBase):
    """A file at the object store of which only what is read is fetched: one request for each read."""

    def __init__(self, client: ProminenceClient, url: str, size: int) -> None:
        self._client = client
        self._url = url
        self._size = size
        self._at = 0

    @classmethod
    def buffered(cls, client: ProminenceClient, url: str, size: int) -> io.BufferedReader:
        """Open a file at the service, of which a block is fetched at a time."""
        return io.BufferedReader(cls(client, url, size), _BLOCK)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read anywhere."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position; makes no request."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fetch the next bytes into a buffer; blocks for one request."""
        count = min(len(buffer), self._size - self._at)
        if count <= 0:
            return 0
        buffer[:count] = self._client.download(self._url, part=(self._at, count))
        self._at += count
        return count


class Deferred:
    """The results of a run that are still at the service, as far as somebody may ask for them. A lock guards it.

    ``keeps``: they are to be had after the end of the run, though the service ends with it.
    """

    def __init__(self, keeps: bool) -> None:
        self._keeps = keeps
        self._lock = threading.Lock()
        self._results: weakref.WeakSet[LazyResult] = weakref.WeakSet()

    def add(self, result: LazyResult) -> LazyResult:
        """Note one more; return it."""
        if self._keeps:
            with self._lock:
                self._results.add(result)
        return result

    def fetch(self) -> None:
        """Fetch what somebody may still ask for: the service is about to end. Blocks for that."""
        with self._lock:
            results = list(self._results)
        for result in results:
            with contextlib.suppress(Exception):  # who asks for it is told then
                result.value()


class LazyResult(DeferredResult):
    """A result that is still at the service."""

    def __init__(self, connection: Connection, job_id: int, outcome: Outcome) -> None:
        self._connection = connection
        self._job_id = job_id
        self._outcome = outcome
        self._lock = threading.Lock()
        self._fetched: tuple[bool, Any] | None = None

    @property
    def size(self) -> int:
        """Bytes of the result as it travels."""
        return int(self._outcome.header["size"])

    def value(self) -> Any:
        """Return the result; blocks for its download when it is first asked for.

        Raises:
            RemotePicklingError: it cannot be unpickled here.
            SignatureError: it is not what was signed.
            ServiceUnavailableError, TransferError: it does not come now; it can be asked for again.
            OutcomeLostError: the service does not have it any more.
        """
        with self._lock:
            if self._fetched is None:
                here = Outcome(self._outcome.header, 0)
                with contextlib.ExitStack() as stack:
                    file: Any = io.BytesIO()  # in which the result's buffers stay, if it has any
                    if not here.header.get("buffers"):
                        file = stack.enter_context(tempfile.TemporaryFile())
                    self._fetch(file)
                    self._fetched = unpack(file, here, f"in job {self._job_id}")
            succeeded, value = self._fetched
        if not succeeded:
            raise value
        return value

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result to a file, for `load`; it appears when it is whole. Raises what `value` raises."""
        header = self._outcome.header
        head = object_header({"pickle": self.size, "buffers": [], **header})
        with appearing_whole(os.fspath(path)) as file:
            file.write(head)
            self._fetch(file)
            verify_body(file, Outcome(header, len(head)))

    def _fetch(self, file: Any) -> None:
        def fetch(client: ProminenceClient) -> None:
            url = diagnosis.outcome_url(client.describe_job(self._job_id))
            if url is None:
                text = "the service does not have the result any more"
                raise OutcomeLostError(text, job_id=self._job_id)
            client.download(url, file, part=(self._outcome.offset, self.size))

        self._connection.call(fetch)
