"""What a run's warm workers and its client write for each other: where it stands, and how it is put together again.

remote/worker.py is the other side of it, and describes the keys; remote/wire.py says how a message is signed. Pure
functions: no HTTP, no threads.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from ...remote.wire import sign, split, verify

ALL_MAILBOXES = "pxwarm"  # the keys of all runs begin with this

sealed, opened, divided = sign, verify, split

_SAID = re.compile(rb"\x1e([A-Za-z0-9+/=]+)\n")  # a line in a worker's standard output that is not the calls' own


def mailboxes(run_id: str) -> str:
    """The keys of a run's mailboxes begin with this."""
    return f"{ALL_MAILBOXES}/{run_id}/box"


def run_of_mailbox(key: str) -> str | None:
    """Whose mailbox a key belongs to."""
    match = re.match(rf"/?{ALL_MAILBOXES}/([^/]+)/box/", key)
    return match[1] if match else None


def gathered(values: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The messages that are whole, by their mailbox: (tag, text). ``values`` are those of a listing."""
    boxes: dict[str, dict[int, str]] = {}
    for key, value in values.items():
        box, _, part = key.strip("/").rpartition("/")
        if part.isdecimal() and value.count(":") >= 2:  # else it was damaged on its way
            boxes.setdefault(box, {})[int(part)] = value
    found = {}
    for box, parts in boxes.items():
        tag, total, _ = parts.get(0, "::").split(":", 2)
        number_of_parts = int(total) if total.isdecimal() and int(total) <= len(parts) else 0
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
            header, body = opened(match[1].decode("ascii"), key, "stdout")
        except (ValueError, zlib.error):
            continue
        at = 0
        for chunk in header["chunks"]:
            yield chunk, body[at : at + chunk["size"]]
            at += chunk["size"]


def without_outcomes(content: bytes) -> bytes:
    """A worker's standard output with what its calls have printed only."""
    return _SAID.sub(b"", content)
