"""Large objects that calls use: pickled once, uploaded once under a name of their content, fetched by each job.

`Objects` is a run's. It pickles calls, leaving large arguments apart, and uploads what the service does not have. An
object that several calls use stays at the service for the next run; only `purge` removes it. What one call alone uses
is removed when that call is over. It knows nothing of jobs; the describers of jobs tell it when one needs its objects.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any
from weakref import WeakValueDictionary

from ..client.client import ProminenceClient
from ..errors import NotFoundError
from ..images.files import PREFIX as IMAGE_PREFIX
from ..payload.blob import Blob, sha256_of
from ..payload.files import FileSource
from ..payload.pickling import ObjectRef, OutOfBandPickle, Pickled, dumps, dumps_out_of_band
from .environments import PREFIX as PACKAGES_PREFIX
from .uploads import UploadCache

PREFIX = "px-"
MODULES_PREFIX = "pxmods-"
PREFIXES = (
    PREFIX,
    "pxarray-",
    "pxcalls-",
    MODULES_PREFIX,
    "pxonce-",
    PACKAGES_PREFIX,
)  # of everything that executors upload
LARGE = 1 << 20  # bytes from which on an argument travels apart: an artifact costs a second at the start of a job

_HESITATION = 0.25  # seconds that an upload waits for a second call with the same argument, at least
_LIGHT = frozenset({int, float, complex, bool, type(None)})

# Values, by their id, that are surely as they were, and what stands for them.
RefCache = dict[int, tuple[Any, ObjectRef]]


class Objects:
    """The objects of one run. Its methods may be called from any thread."""

    def __init__(self, uploads: UploadCache) -> None:
        self._uploads = uploads
        self._changed = threading.Condition()  # its lock guards all below
        self._scattered = False
        self._references: WeakValueDictionary[str, ObjectRef] = WeakValueDictionary()  # by pid
        self._uses: Counter[str] = Counter()  # by digest: how many calls have had it as an argument
        self._first_use: dict[str, tuple[float, float]] = {}  # when that was, and for how long a second one is awaited
        self._early: set[str] = set()  # pids of those that were told to be uploaded before any job is described
        self._files: set[str] = set()  # names of those that are local files' content
        self._kept = 0  # bytes up to which contents are kept here, though the service has them

    # -- the caller's thread ---------------------------------------------------------------------------------------

    def scatter(self, value: Any) -> ObjectRef:
        """Pickle a value and make a reference to it; nothing is sent."""
        self._scattered = True
        return self._refer(dumps_out_of_band(value), shared=True)

    def dumps(
        self, value: Any, parts: Sequence[Any], known: RefCache | None = None, *, takes_futures: bool = False
    ) -> Pickled:
        """Pickle a value, and those of its parts apart that are large. Raises what pickling raises.

        Args:
            value: a call or a function, with all that belongs to it.
            parts: what in it may be stored apart: the arguments of a call, or the whole.
            known: remembers parts that were pickled before; to be given only where none of them can have been changed
                since.
            takes_futures: futures may stand in it, and are listed in what is returned.
        """
        heavy = [part for part in parts if _weight(part) >= LARGE]
        if not heavy:
            pickled = self._dumps(value, {} if self._scattered else None, takes_futures)
            if pickled.blob.size < LARGE:
                return pickled
            del pickled
            heavy = list(parts)  # the weight lies deeper
        references = {id(part): ref for part in heavy if (ref := self._out_of_band(part, known, takes_futures))}
        return self._dumps(value, references, takes_futures)

    @staticmethod
    def _dumps(value: Any, references: dict[int, ObjectRef] | None, takes_futures: bool) -> Pickled:
        """Pickle a value. With a future in it that fails; only then is each object looked at, which takes its time."""
        try:
            return dumps(value, references)
        except Exception:  # __reduce__ is somebody else's code
            if not takes_futures:
                raise
        return dumps(value, references or {}, takes_futures=True)

    def _out_of_band(self, value: Any, known: RefCache | None, may_have_futures: bool) -> ObjectRef | None:
        """Make the reference to a large argument, or None if it turns out to be small, or there are futures in it."""
        if type(value) is ObjectRef or type(value) in _LIGHT:
            return None
        if known is not None and id(value) in known:
            reference = known[id(value)][1]
            self.used(reference)
            return reference
        began = time.monotonic()
        try:
            stored = dumps_out_of_band(value)
        except Exception:  # likewise; if it is not for a future, pickling the whole fails, too
            if not may_have_futures:
                raise
            return None
        if stored.size < LARGE:
            return None
        reference = self._refer(stored, shared=False)
        self.used(reference, time.monotonic() - began)
        if known is not None:
            known[id(value)] = value, reference
        return reference

    def used(self, reference: ObjectRef, took: float = 0.0) -> None:
        """Note that one more call needs the object; ``took``: the seconds that its pickling did."""
        with self._changed:
            self._uses[reference.sha256] += 1
            self._first_use.setdefault(reference.sha256, (time.monotonic(), max(_HESITATION, 3 * took)))
            self._changed.notify_all()

    def _refer(self, pickled: OutOfBandPickle, *, shared: bool) -> ObjectRef:
        """Return the one reference to this content."""
        reference = ObjectRef(sha256_of(pickled.pieces), pickled.size, shared, pickled.modules, pickled.code)
        with self._changed:
            reference = self._references.setdefault(reference.pid, reference)
            stored = self._uploads.knows(_name(reference))
            if reference.content is None and (not stored or reference.size <= self._kept):
                reference.content = Blob(pickled.pieces)
            return reference

    def restore(self, sha256: str, size: int, shared: bool, content: Blob | None) -> ObjectRef:
        """Make known again a reference that a journal has kept."""
        reference = ObjectRef(sha256, size, shared, content=content)
        with self._changed:
            self._scattered = self._scattered or shared
            self._uses[sha256] += 2 * (content is None)
            return self._references.setdefault(reference.pid, reference)

    # -- the sender's threads --------------------------------------------------------------------------------------

    def early(self, references: Iterable[ObjectRef]) -> list[ObjectRef]:
        """Return those that several calls surely need, and that may be placed at once; each is named once only."""
        with self._changed:
            found = [
                item
                for item in references
                if (item.shared or self._uses[item.sha256] > 1) and item.pid not in self._early
            ]
            self._early |= {item.pid for item in found}
        return found

    def place(self, client: ProminenceClient, reference: ObjectRef, once: str | None) -> str:
        """See that an object is at the service; blocks for that. Return its name there.

        ``once``: the name for an object of this call alone, which may be deleted after it; None when there are several.

        Raises:
            NotFoundError: the service has it no longer, and its content is not here any more.
            ProminenceError: it could not be uploaded.
        """
        name = _name(reference)
        if once is not None and not self._uploads.has(client, name, reference.size) and not self._is_shared(reference):
            self._upload(client, reference, once)
            return once

        def upload() -> None:
            self._upload(client, reference, name)

        if self._uploads.ensure(client, name, reference.size, upload) and reference.size > self._kept:
            reference.content = None
        return name

    def _upload(self, client: ProminenceClient, reference: ObjectRef, name: str) -> None:
        content = reference.content
        if content is None:
            raise NotFoundError(
                f"object {name} is not at the service any more (was it purged?), and its content is not here"
            )
        client.upload(name, content, size=content.size)

    def place_file(self, client: ProminenceClient, source: FileSource) -> str:
        """See that a local file's content is at the service, as `place`; streams it. Return its name there.

        Raises:
            ValueError, OSError: the file is not what it was, or is gone.
            ProminenceError: it could not be uploaded.
        """
        name = f"{PREFIX}{source.sha256[:40]}"

        def upload() -> None:
            client.upload(name, source, size=source.size)
            try:
                source.check()  # else something else may be there now, under the name of the old content
            except (ValueError, OSError):
                client.delete_data(name)
                raise

        self._uploads.ensure(client, name, source.size, upload)
        with self._changed:
            self._files.add(name)
        return name

    def keep(self, size: int) -> None:
        """Keep the contents of objects up to this size: they are for warm workers, which do not get them there."""
        self._kept = size

    def are_here(self, references: Collection[ObjectRef]) -> bool:
        """Tell whether the contents of all of these are here, so that a warm worker can be given them."""
        return all(item.content is not None for item in references)

    def _is_shared(self, reference: ObjectRef) -> bool:
        """Return whether several calls use the object; waits a moment for the second."""
        digest = reference.sha256
        if reference.shared or digest not in self._first_use:
            return True
        since, patience = self._first_use[digest]
        with self._changed:
            self._changed.wait_for(lambda: self._uses[digest] > 1, max(0.0, since + patience - time.monotonic()))
            return self._uses[digest] > 1

    def missing(self, refusal: str) -> bool:
        """Tell whether a job was refused because the service has an object no longer, which is to be uploaded again."""
        match = re.search(rf"Artifact ((?:{PREFIX}|{MODULES_PREFIX})[0-9a-f]+) does not exist", refusal)
        if not match:
            return False
        self._uploads.forget(match[1])
        return True

    def names(self) -> set[str]:
        """Return the names of the objects that calls of this run may still use."""
        with self._changed:
            return self._files | {_name(reference) for reference in self._references.values()}


def _name(reference: ObjectRef) -> str:
    return f"{PREFIX}{reference.sha256[:40]}"


def _weight(value: Any) -> int:
    """Estimate the bytes of a value's pickle if that can be told at a glance, else 0."""
    if type(value) in _LIGHT:
        return 0
    if isinstance(value, (bytes, bytearray, str)):
        return len(value)
    try:
        size = value.nbytes
    except Exception:  # noqa: BLE001  __getattr__ is somebody else's code
        return 0
    return size if type(size) is int else 0


def purge(client: ProminenceClient, older_than: float, spare: set[str], images: bool = False) -> list[str]:
    """Delete what executors have uploaded, where it is older than so many seconds and no active job uses it.

    ``spare``: names that stay. ``images``: container images, too. Returns the names of what was deleted.
    """
    used = set(spare)
    for job in client.list_jobs(detail=True):
        used |= _used_by(job)
    for workflow in client.list_workflows():  # of its jobs, some may not exist yet
        with suppress(NotFoundError):  # it has ended meanwhile
            for job in client.describe_workflow(workflow["id"]).get("jobs") or ():
                used |= _used_by(job)
    before = time.time() - older_than
    prefixes = (*PREFIXES, IMAGE_PREFIX) if images else PREFIXES
    names = [
        item["name"]
        for item in client.list_data()
        if item["name"].startswith(prefixes) and item["name"] not in used and _stored_at(item) < before
    ]
    for name in names:
        client.delete_data(name)
    return names


def _stored_at(item: Mapping[str, Any]) -> float:
    """Return when an object was stored, in seconds since the epoch; one of which that is not known is never old."""
    try:
        return parsedate_to_datetime(str(item.get("lastModified"))).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return math.inf


def _used_by(job: dict[str, Any]) -> set[str]:
    artifacts = {artifact["url"] for artifact in job.get("artifacts") or ()}
    return artifacts | {str(task.get("image")) for task in job.get("tasks") or ()}
