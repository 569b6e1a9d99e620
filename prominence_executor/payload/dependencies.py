"""Calls whose arguments have futures in them: what stands for these in a pickle, and what takes their place.

A pickle of arguments names futures by persistent ids. When their results are known, `joined` puts it together with
these: a small result as a pickle of its own, a large one as an object that is stored apart; or, where it is the result
of a job that still lies at the service, as a `StoredResult`, which the job that needs it fetches by itself.

Bytes in, bytes out: no HTTP, no threads. It waits for nothing.
"""

from __future__ import annotations

import io
import pickle
import types
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any

from .blob import Blob
from .pickling import ObjectRef, Pickled, object_header


@dataclass(frozen=True)
class StoredResult:
    """A result that lies at the service: a signed record in the outcome file of its job."""

    service: str  # the URL of the service that has it
    run: str
    key: bytes = field(repr=False)  # that its record is signed with
    call: int  # its number in the run
    job_id: int
    offset: int  # of the record in the file
    size: int  # bytes of the record
    sha256: str  # of the result, as its record says
    head: str = field(repr=False)  # what makes a file of it; see `object_header`
    modules: frozenset[str] = field(default=frozenset(), repr=False)  # to which it refers by name
    url: str = field(default="", compare=False, repr=False)  # the file's signed one,
    url_since: float = field(default=0.0, compare=False, repr=False)  # and when the service has given it: time.time()

    @property
    def pid(self) -> str:
        """The persistent id in pickles, by which remote/loading.py finds it: that of an object of its content."""
        return f"private {self.sha256}"

    def plain(self) -> dict[str, Any]:
        """Return values that JSON can hold."""
        return {**asdict(self), "key": self.key.hex(), "modules": sorted(self.modules)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> StoredResult:
        """Invert `plain`."""
        values = {**plain, "key": bytes.fromhex(plain["key"]), "modules": frozenset(plain["modules"])}
        return cls(**values)


def head_of(header: Mapping[str, Any]) -> str:
    """Return what makes a file of a result, by the header of its record."""
    return object_header({"pickle": header["size"], "buffers": [], **header}).decode("ascii")


@dataclass(frozen=True)
class Value:
    """A result on its way into the arguments of another call, and what it refers to."""

    content: bytes | str  # its pickle, or the persistent id of what lies apart
    modules: frozenset[str] = frozenset()
    code: frozenset[types.CodeType] = frozenset()
    objects: frozenset[ObjectRef] = frozenset()
    stored: StoredResult | None = None

    @classmethod
    def of_pickle(cls, pickled: Pickled) -> Value:
        """Make it of a result that is here."""
        return cls(pickled.blob.tobytes(), pickled.modules, pickled.code, pickled.objects)

    @classmethod
    def of_stored(cls, stored: StoredResult) -> Value:
        """Make it of a result that is still at the service."""
        return cls(stored.pid, stored.modules, stored=stored)


@dataclass(frozen=True)
class Waits:
    """What a call waits for before it can be sent, and what is to be done then."""

    futures: Mapping[int, Future[Any]]  # by the numbers in its pickle
    known: Mapping[int, Value]  # the results that are known already
    modules: frozenset[str]  # to which its function and arguments refer,
    code: frozenset[types.CodeType]  # and the code in them
    data_limit: float  # megabytes of data that may go with the user's packages
    together: int = 1  # calls of its function that may travel in one job
    group: object = None  # the same for those


def joined(arguments: Blob, values: Mapping[int, Value]) -> Blob:
    """Put a pickle of arguments together with what takes the place of the futures in it."""
    file = io.BytesIO()
    _Joiner(file, 5).dump(_Joined((arguments.tobytes(), {number: value.content for number, value in values.items()})))
    return Blob([file.getvalue()])


class _Joined(tuple[Any, ...]):
    """Stands for a persistent id that is this tuple."""

    __slots__ = ()


class _Joiner(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return tuple(obj) if type(obj) is _Joined else None
