"""The files that a call has written, on this side: from the service to a directory, streamed, verified, then unpacked.

A job's calls share one object, in which each has a tar archive of its own (see remote/files.py); only that part is
fetched. The call's signed record says where it lies, and its SHA-256: nothing is unpacked that has another one. Even
so, only regular files are taken out, and only to below the call's own directory.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
import tarfile
import tempfile
import threading
import weakref
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, BinaryIO

from ..client.client import ProminenceClient
from ..errors import OutcomeLostError, SignatureError, StageOutError
from ..remote.wire import FILES_FILE
from . import diagnosis
from .connection import Connection

_BLOCK = 1 << 20  # bytes


class DownloadedFiles:
    """The output files of one call: still at the service, or here."""

    def __init__(
        self,
        connection: Connection,
        run_id: str,
        index: int,
        job_id: int | None,
        facts: Mapping[str, Any],
        folder: str | None,
    ) -> None:
        self._connection = connection
        self._run_id = run_id
        self._index = index
        self._job_id = job_id
        self._facts = facts
        self._folder = folder
        self._lock = threading.Lock()
        self._fetched: Mapping[str, Path] | None = None

    def fetch(self, url: str | None = None) -> Mapping[str, Path]:
        """Return where they are, by their names in the job's directory; blocks for the download when called first.

        ``url``: a signed one of the job's file, if there is one at hand.

        Raises:
            StageOutError: they could not be collected where the call ran.
            SignatureError: they are not what was signed.
            OutcomeLostError: the service does not have them any more.
            ServiceUnavailableError, TransferError, OSError: they do not come now; it can be called again.
        """
        with self._lock:
            if self._fetched is None:
                self._fetched = MappingProxyType(self._fetch(url))
            return self._fetched

    def _fetch(self, url: str | None) -> dict[str, Path]:
        facts = self._facts
        if "error" in facts:
            text = f"the output files could not be collected where the call ran: {facts['error']}"
            raise StageOutError(text, job_id=self._job_id)
        if not facts.get("size"):
            return {}
        folder = Path(self._folder or _temporary_folder(), self._run_id, str(self._index))
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            part = (facts["offset"], facts["size"])

            def download(client: ProminenceClient) -> None:
                file.seek(0)
                file.truncate()
                client.download(url or self._new_url(client), file, part=part)

            self._connection.call(download)
            _verify(file, facts["sha256"])
            file.seek(0)
            return unpack(file, folder)

    def _new_url(self, client: ProminenceClient) -> str:
        url = None
        if self._job_id is not None:
            url = diagnosis.output_url(client.describe_job(self._job_id), FILES_FILE)
        if url is None:
            raise OutcomeLostError("the service does not have the output files any more", job_id=self._job_id)
        return url


def _verify(file: BinaryIO, sha256: str) -> None:
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    if not hmac.compare_digest(digest.hexdigest(), sha256):
        raise SignatureError("the output files are not what was signed; they were not unpacked")


def unpack(file: BinaryIO, folder: Path) -> dict[str, Path]:
    """Take the regular files out of an archive, to below a directory."""
    found = {}
    inside = os.path.realpath(folder)
    with tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            content = archive.extractfile(member) if member.isreg() else None
            if content is None or name.is_absolute() or ".." in name.parts or not name.parts:
                raise SignatureError(f"the archive of output files has a member {member.name!r}, which is not taken")
            target = folder.joinpath(*name.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not (os.path.realpath(target.parent) + os.sep).startswith(inside + os.sep):
                raise SignatureError(f"the output file {member.name!r} would come to lie outside of {folder}")
            handle, partial = tempfile.mkstemp(dir=target.parent)
            try:
                with open(handle, "wb") as copy:
                    shutil.copyfileobj(content, copy, _BLOCK)
                os.chmod(partial, 0o755 if member.mode & 0o100 else 0o644)
                os.utime(partial, (member.mtime, member.mtime))
                os.replace(partial, target)
            except BaseException:
                os.unlink(partial)
                raise
            found[str(name)] = target
    return found


@lru_cache(maxsize=1)
def _temporary_folder() -> str:
    """Make one for the program; it goes when the program ends."""
    path = tempfile.mkdtemp(prefix="prominence-")
    weakref.finalize(_temporary_folder, _remove, path, os.getpid())
    return path


def _remove(path: str, process: int) -> None:
    if os.getpid() == process:  # not in a forked child
        shutil.rmtree(path, ignore_errors=True)
