"""Packages of ``requirements=`` that the calls of a run need, and as what they are at the service.

An archive is made when the first job needs it, and uploaded once by its content, also for the next run. No threads of
its own; choosing, fetching, packing and uploading block.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from typing import NamedTuple

from ..client.client import ProminenceClient
from ..environments.locks import Lock
from ..environments.store import Archive, archive_of
from ..errors import RequirementsError
from .uploads import UploadCache

PREFIX = "pxpacks-"

_MANY = 20  # jobs that each unpack the packages for one call, before something is said
_LARGE = 10_000_000  # bytes of an archive that is unpacked in no time
_AGAIN = 60.0  # seconds for which packages that could not be fetched are not asked for again
_MEGABYTE = 1e6


class Packages(NamedTuple):
    """Packages at the service."""

    name: str  # of the object
    sha256: str
    size: int  # bytes


class Environments:
    """The packages of one run. Its methods may be called from any thread; a lock guards what it knows."""

    def __init__(self, uploads: UploadCache) -> None:
        self._uploads = uploads
        self._lock = threading.Lock()
        self._making = threading.Lock()  # held while an archive is made: others wait for it
        self._archives: dict[str, Archive] = {}  # by the digest of their lock
        self._failures: dict[str, tuple[float, RequirementsError]] = {}  # likewise
        self._names: set[str] = set()
        self._single: Counter[str] = Counter()  # jobs with one call, by the object's name
        self._told: set[str] = set()

    def place(self, client: ProminenceClient, lock: Lock, limit: float) -> Packages:
        """See that packages are at the service; blocks for that. ``limit``: megabytes that they may have.

        Raises:
            RequirementsError: they cannot be fetched, or are too large.
            ProminenceError: they could not be uploaded.
        """
        archive = self._archive(lock, limit)
        name = f"{PREFIX}{archive.sha256[:40]}"

        def upload() -> None:
            client.upload(name, archive.path, size=archive.size, checksum=archive.sha256)

        self._uploads.ensure(client, name, archive.size, upload)
        with self._lock:
            self._names.add(name)
        return Packages(name, archive.sha256, archive.size)

    def _archive(self, lock: Lock, limit: float) -> Archive:
        with self._making:
            key = f"{lock.digest} {limit}"
            since, failure = self._failures.get(key, (0.0, None))
            if failure is not None and time.monotonic() - since < _AGAIN:
                raise failure
            if key not in self._archives:
                try:
                    self._archives[key] = archive_of(lock, limit)
                except RequirementsError as error:
                    self._failures[key] = (time.monotonic(), error)
                    raise
            return self._archives[key]

    def advice(self, packages: Packages, jobs: int) -> str | None:
        """Return what there is to be said of packages that so many more jobs unpack for one call each; once a run."""
        with self._lock:
            self._single[packages.name] += jobs
            if not worth_a_word(self._single[packages.name], packages.size) or packages.name in self._told:
                return None
            self._told.add(packages.name)
        return (
            f"each job unpacks {packages.size / _MEGABYTE:.0f} MB of packages (requirements=) for a single call, which "
            "takes seconds: map(..., chunksize=n) and workers='warm' do so for many calls at once, and an image "
            "that has the packages (prominence-executor image build) not at all"
        )

    def missing(self, refusal: str) -> bool:
        """Tell whether a job was refused because the service has packages no longer, which are to be uploaded again."""
        match = re.search(rf"Artifact ({PREFIX}[0-9a-f]+) does not exist", refusal)
        return match is not None and self._uploads.forget(match[1])

    def names(self) -> set[str]:
        """Return the names of the objects that calls of this run may still use."""
        with self._lock:
            return set(self._names)


def worth_a_word(single: int, size: int) -> bool:
    """Whether so many jobs of one call, which each unpack an archive of so many bytes, are a waste."""
    return single >= _MANY and size >= _LARGE
