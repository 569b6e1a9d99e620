"""The messages between a run and its warm workers: a batch to bytes, and a worker's report from a text.

Pure: bytes in, bytes out. Nothing is unpickled here, and nothing is read of a report that is not signed. The remote
side is remote/worker.py.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...payload.blob import Blob
from ...payload.calls import Payload, calls_body
from ...remote.wire import verify
from ...run.chunk import Chunk
from ...run.names import function_word

Parts = Sequence[tuple[Chunk, Payload]]


class Message(NamedTuple):
    """A batch, ready to be signed."""

    header: dict[str, Any]
    body: bytes
    names: frozenset[str]  # of what the worker has when it has read this, and had not before


def batch_message(parts: Parts, known: Collection[str], rate: float) -> Message:
    """Make the message of a batch; calls that are done by now are left out.

    Args:
        known: digests of the functions, modules and objects that the worker has; others go with the message, once.
        rate: requests per second that the worker may make while it has the batch.
    """
    described, bodies = [], []
    extras: dict[str, Blob | bytes] = {}
    digests: dict[int, str] = {}  # of functions: the calls of a loop share one
    words: dict[str, str] = {}  # what functions are called, for whoever reads what the worker has printed
    for chunk, payload in parts:
        wanted = chunk.unsettled()
        part = payload if len(wanted) == chunk.size else payload.part(range(chunk.size), wanted)
        body = calls_body(part)
        function = digests.get(id(payload.function)) or payload.function.sha256()
        digests[id(payload.function)] = function
        extras.setdefault(function, payload.function)
        if function not in known and function not in words:
            words[function] = function_word([chunk.function])
        if payload.modules is not None:
            extras.setdefault(payload.modules.sha256, payload.modules.content)
        for item in payload.objects:
            if item.content is not None:
                extras.setdefault(item.sha256, item.content)
        limit = {} if chunk.options.time_limit is None else {"limit": chunk.options.time_limit}
        described.append(
            {
                **limit,
                "job": chunk.first,
                "attempt": chunk.attempt,
                "size": len(body),
                "calls": [None if blob is None else blob.size for blob in part.arguments],
                "function": function,
                "modules": payload.modules and payload.modules.sha256,
                "objects": sorted({item.sha256 for item in payload.objects}),
            }
        )
        bodies.append(body)
    sent = {
        name: content if isinstance(content, bytes) else content.tobytes()
        for name, content in extras.items()
        if name not in known
    }
    header = {
        "rate": rate,
        "chunks": described,
        "extras": [
            {"name": name, "size": len(content), **({"word": words[name]} if words.get(name) else {})}
            for name, content in sent.items()
        ],
    }
    return Message(header, b"".join([*bodies, *sent.values()]), frozenset(sent))


class Ended(NamedTuple):
    """A chunk that a worker has run."""

    number: int  # its place in the batch
    records: bytes
    place: list[int] | dict[str, Any] | None
    """Where they are when not here: [offset, length] in the job's standard output, the length 0 where it is not known;
    or in the object store (see remote/worker_outcomes.py, `store_large`)."""


@dataclass(frozen=True)
class Report:
    """What a worker has said: of itself, and of the batch that it has."""

    nonce: str  # another one when its job has been started again
    batch: int  # the number of the batch that it has, or waits for
    left: float  # seconds of its walltime
    requests: int  # that it has made
    ending: bool  # it ends, as its walltime nearly is over
    on_batch: bool  # it speaks of a batch
    final: bool  # of which nothing is left to run
    running: int | None  # the chunk that runs, by its place in the batch
    returned: tuple[int, ...]  # the chunks that it has given back
    ended: tuple[Ended, ...]
    untaken: bool = False  # it could not take the batch, and has nothing of what came with it
    unreached: bool = False  # it could not fetch the batch from the object store, or put results there


def read_report(text: str, key: bytes, number: int) -> Report:
    """Read what worker ``number`` has said. ValueError: it is not signed with this key, for this worker."""
    header, body = verify(text, key, f"o{number}")
    ended, at = [], 0
    for place_in_batch, size, place in header.get("ended", ()):
        ended.append(Ended(place_in_batch, body[at : at + size], place))
        at += size
    return Report(
        nonce=header["nonce"],
        batch=header["batch"],
        left=math.inf if header["left"] is None else float(header["left"]),
        requests=header["requests"],
        ending=bool(header.get("ending")),
        on_batch="ended" in header,
        final=bool(header["final"]),
        running=header.get("running"),
        returned=tuple(header.get("returned", ())),
        ended=tuple(ended),
        untaken=bool(header.get("untaken")),
        unreached=bool(header.get("unreached")),
    )
