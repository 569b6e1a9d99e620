"""What a run's warm workers and its client write for each other: where it stands, and how it is put together again.

remote/worker.py is the other side of it, and describes the keys; remote/wire.py says how a message is signed.
`Mailboxes` writes, reads and removes them: its methods block, any thread may call them, and it keeps nothing of what it
has read but whether the service lets requests wait. Everything else is pure: no HTTP, no threads.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

from ...client.watching import Watch
from ...errors import ProminenceError, ServiceError, ServiceUnavailableError
from ...remote.wire import sign, split, verify
from ...run.chunk import Chunk
from ...run.context import RunContext
from .rate import RateLimiter

ALL_MAILBOXES = "pxwarm"  # the keys of all runs begin with this


_MOST_ENDS = 2000  # chunks named in one value, which holds 16,000 bytes
_REFUSALS = 10  # answers that make no sense to one value, before it is given up

_SAID = re.compile(rb"\x1e([A-Za-z0-9+/=]+)\n")  # a line in a worker's standard output that is not the calls' own


def mailboxes(run_id: str) -> str:
    """Return what the keys of a run's mailboxes begin with."""
    return f"{ALL_MAILBOXES}/{run_id}/box"


def run_of_mailbox(key: str) -> str | None:
    """Whose mailbox a key belongs to."""
    match = re.match(rf"/?{ALL_MAILBOXES}/([^/]+)/box/", key)
    return match[1] if match else None


def number_in(text: str) -> int | None:
    """Return the number that a part of a key or message is; None for anything else."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def join(values: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Join the messages that are whole: (tag, text) by their mailbox. ``values`` are those of a listing."""
    boxes: dict[str, dict[int, str]] = {}
    for key, value in values.items():
        box, _, text = key.strip("/").rpartition("/")
        part = number_in(text)
        if part is not None and value.count(":") >= 2:  # else it was damaged on its way
            boxes.setdefault(box, {})[part] = value
    found = {}
    for box, parts in boxes.items():
        tag, total, _ = parts.get(0, "::").split(":", 2)
        number_of_parts = number_in(total) or 0
        if number_of_parts > len(parts):
            continue
        pieces = [parts.get(number, "::").split(":", 2) for number in range(number_of_parts)]
        if pieces and all(piece[:2] == [tag, total] for piece in pieces):  # else it is just being written
            found[box] = tag, "".join(piece[2] for piece in pieces)
    return found


def outcomes_in(content: bytes, key: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
    """From a worker's standard output: a chunk as its client described it, and the records of its outcome.

    What is not signed with the key is passed over: calls may print what they like.
    """
    for match in _SAID.finditer(content):
        try:
            header, body = verify(match[1].decode("ascii"), key, "stdout")
        except (ValueError, zlib.error):
            continue
        at = 0
        for chunk in header["chunks"]:
            yield chunk, body[at : at + chunk["size"]]
            at += chunk["size"]


def without_outcomes(content: bytes) -> bytes:
    """Return a worker's standard output with what its calls have printed only."""
    return _SAID.sub(b"", content)


class Mailboxes:
    """The mailboxes of one run's workers.

    Args:
        rate: requests per second at most, of all threads together.
        bounded: also to a service that lets requests wait, which nobody asks without need.
    """

    def __init__(self, context: RunContext, rate: float, bounded: bool = True) -> None:
        self.place = mailboxes(context.run_id)
        self._context = context
        self._client = context.client
        self._rate = RateLimiter(rate)
        self._bounded = bounded
        self._waits = False  # the service lets requests wait, as its last list says

    def send(
        self, worker: int, nonce: str, batch: int, header: dict[str, Any], body: bytes, *, patient: bool = True
    ) -> None:
        """Put a batch into a worker's mailbox; if it is ``patient``, it tries again while the service is away.

        Raises:
            ServiceError: the service has been away for too long, or refuses again and again, or the run stops.
            ProminenceError: it refuses for good.
        """
        text = sign(header, body, self._context.key, f"{nonce}:{batch}")
        values = split(text, nonce)
        refusals = 0
        for part in reversed(range(len(values))):
            while True:
                self._hold_back()
                try:
                    self._client.kv_set(f"{self.place}/i/{worker:05d}/{batch:09d}/{part}", values[part])
                    break
                except ServiceError as error:
                    refusals += not isinstance(error, ServiceUnavailableError)
                    health = self._context.health
                    away = not patient or health.unanswered() > health.timeout
                    if refusals > _REFUSALS or away or self._context.stopping.wait(1.0):
                        raise

    def stop(self, worker: int, nonce: str, batch: int) -> None:
        """Have a worker end by itself when it looks for this batch; blocks and raises as `send`."""
        self.send(worker, nonce, batch, {"stop": True}, b"")

    def reports(self, since: Watch, wait: float = 0.0) -> dict[int, str]:
        """Read what all workers have said, by their numbers: one list request.

        Where the service can, it comes when they have said more than ``since`` has seen, or after ``wait`` seconds.
        """
        self._hold_back()
        said = {}
        listed = self._client.kv_list(f"{self.place}/o", values=True, wait=wait, since=since)
        self._waits = since.waits
        for box, (_, text) in join(listed).items():
            said[number_in(box.rpartition("/")[2]) or 0] = text
        return said

    def request_end(self, worker: int, chunks: Iterable[Chunk]) -> None:
        """Have the process ended that runs one of these chunks; its worker goes on, and begins none of them.

        This takes the place of what was requested before. Of very many only the first are named, as a value holds no
        more. What cannot be written is not.
        """
        ends = [[chunk.first, chunk.attempt] for chunk in islice(chunks, _MOST_ENDS)]
        text = sign({"end": ends}, b"", self._context.key, f"c{worker}")
        with suppress(ProminenceError):
            self._client.kv_set(f"{self.place}/c/{worker:05d}", text)

    def clear(self, worker: int) -> None:
        """Remove what an idle worker has said, once it is read: every look would bring it again."""
        self._remove(f"{self.place}/o/{worker:05d}")

    def empty(self, worker: int) -> None:
        """Remove what a worker that is no more was given and has said: every look would bring that."""
        self._remove(f"{self.place}/i/{worker:05d}")
        self._remove(f"{self.place}/o/{worker:05d}")

    def _remove(self, prefix: str) -> None:
        self._hold_back()
        with suppress(ProminenceError):  # close() removes all
            self._client.kv_delete(prefix, prefix=True)

    def _hold_back(self) -> None:
        """Keep the rate."""
        if self._bounded or not self._waits:
            self._rate.wait()
