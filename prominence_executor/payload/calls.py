"""The calls of a chunk as one file, and what else their job needs of the user's.

It pickles nothing, and knows no jobs, threads or HTTP: bytes in, bytes out.

The journey: pickling.py makes a `Blob` of a function or a call's arguments, in the caller's thread. Those of a chunk go
into one file (`calls_file`); instructions.py says who the job is, and archive.py packs the runner (those of an array go
into one object: bundle.py). The runner appends records to the outcome file; outcomes.py verifies them, and results.py
makes a result or an exception of one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..formats import newer_file
from ..remote.wire import CALLS_MAGIC
from .blob import Blob
from .dependencies import StoredResult, Waits
from .pickling import ObjectRef

if TYPE_CHECKING:
    from .modules import ModuleZip


class Identity(NamedTuple):
    """Which attempt of which job of which run: what an outcome's signature is bound to."""

    run: str
    job: int  # the number in the run of the job's first call
    attempt: int


@dataclass
class Payload:
    """What a chunk's job needs of the user's: pickles and modules."""

    function: Blob  # of (function, initializer or None, initializer's arguments)
    arguments: list[Blob | None]  # each of (args, kwargs); None: this call is not to run
    modules: ModuleZip | None = None
    objects: frozenset[ObjectRef] = frozenset()  # to which the pickles refer
    name: str = ""  # of the function, for messages; not known of what was read from somewhere
    results: frozenset[StoredResult] = frozenset()  # of other calls, which its job fetches
    waits: Waits | None = None  # of a single call, which cannot be sent yet

    def part(self, positions: range, wanted: Iterable[int]) -> Payload:
        """Return the same for some of the calls, those that are not wanted left out."""
        chosen = frozenset(wanted)
        arguments = [self.arguments[position] if position in chosen else None for position in positions]
        return Payload(self.function, arguments, self.modules, self.objects, self.name, self.results, self.waits)

    def singly(self) -> list[Payload]:
        """Return the same as payloads of one call each."""
        positions = range(len(self.arguments))
        return [self.part(range(position, position + 1), positions) for position in positions]


def calls_file(payload: Payload, with_function: bool = True) -> Blob:
    """Return one file for a chunk: the function once (unless it goes apart), then each call's ``(args, kwargs)``."""
    function = payload.function if with_function else Blob()
    sizes = [None if blob is None else blob.size for blob in payload.arguments]
    index = {"function": function.size, "calls": sizes}
    whole = Blob([CALLS_MAGIC, json.dumps(index).encode() + b"\n"])
    for blob in [function, *payload.arguments]:
        for piece in blob or ():
            whole.write(piece)
    return whole


def calls_body(payload: Payload) -> bytes:
    """Return the pickles of the wanted calls, one after the other."""
    return b"".join([blob.tobytes() for blob in payload.arguments if blob is not None])


def read_calls_file(content: bytes, modules: ModuleZip | None, objects: frozenset[ObjectRef]) -> Payload:
    """Invert `calls_file`; ``objects`` are those that the calls refer to.

    Raises:
        ValueError: it is something else, or of a newer version.
    """
    file = io.BytesIO(content)
    magic = file.readline(len(CALLS_MAGIC))
    if magic != CALLS_MAGIC:
        raise ValueError(newer_file("the file of calls", magic, CALLS_MAGIC) or "this is not a file of calls")
    index = json.loads(file.readline())
    function = Blob([file.read(index["function"])])
    arguments = [None if size is None else Blob([file.read(size)]) for size in index["calls"]]
    return Payload(function, arguments, modules, objects)
