"""Outcome files as they come back: records that have been verified, and nothing that has not.

It unpickles nothing. remote/wire.py says how a record is framed.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ..errors import OutcomeError, SignatureError
from ..formats import newer, newer_file
from ..remote.wire import FORMAT, OUTCOME_MAGIC, PREFIX
from .calls import Identity

_BLOCK = 1 << 20  # bytes


@dataclass
class Outcome:
    """A verified record: its header, and where its body lies in the outcome file."""

    header: dict[str, Any]
    offset: int
    end: int = 0  # where the record ends

    @property
    def call(self) -> int:
        """The position of the call in its job."""
        return int(self.header["call"])

    @property
    def kind(self) -> str:
        """What the record says: "result", "exception", "crashed" ...; see `OutcomeFile`."""
        return str(self.header["kind"])


@dataclass
class OutcomeFile:
    """All that an outcome file says: by call, and of the job as a whole."""

    calls: dict[int, Outcome] = field(default_factory=dict)
    started: dict[int, Outcome] = field(default_factory=dict)
    job: Outcome | None = None

    @property
    def running(self) -> int | None:
        """The call that had started and not ended, if one was running when the file ends."""
        open_calls = [call for call in self.started if call not in self.calls]
        return max(open_calls, default=None)

    def streams(self, call: int, size: int) -> tuple[list[int], list[int] | None] | None:
        """Find where in the output of its job a call's own begins, in bytes of stdout and stderr, and where it ends.

        Of one whose process has ended the supervisor says where; None in the place of the end: nobody does. None:
        nobody knows anything, or it had not begun.

        Args:
            size: calls of the job, or chunk.
        """
        if call in self.calls:
            both = self.calls[call].header.get("streams")
            return (both[0], both[1]) if both else None
        process = (self.job.header.get("streams") if self.job is not None else None) or (None, None)
        alone = size == 1 and call not in self.started
        begun = process[0] if alone else self.started[call].header.get("streams") if call in self.started else None
        ended = process[1] if alone or call == self.running else None
        return (begun, ended) if begun else None


def read_outcomes(file: BinaryIO, key: bytes, identity: Identity) -> OutcomeFile:
    """Read and verify every finished record of an outcome file; what a killed runner left half-written is ignored.

    Raises:
        SignatureError: a record is not signed with this run's key, or belongs to another job or attempt.
        OutcomeError: a newer version has written it.
    """
    magic = file.read(len(OUTCOME_MAGIC))
    if magic != OUTCOME_MAGIC:
        if sentence := newer_file(f"an outcome of run {identity.run!r}", magic, OUTCOME_MAGIC):
            raise OutcomeError(sentence)
        raise SignatureError("the outcome file was not written by this run's runner")
    outcomes = OutcomeFile()
    begin, end = file.tell(), file.seek(0, io.SEEK_END)
    file.seek(begin)
    while True:
        prefix = file.read(PREFIX.size)
        if len(prefix) < PREFIX.size:
            return outcomes
        size, length, mac = PREFIX.unpack(prefix)
        offset = file.tell()
        if length == 0 or offset + size + length > end:
            return outcomes
        file.seek(size, io.SEEK_CUR)
        text = file.read(length)
        header = _verified_header(text, mac, key, identity, size)
        outcome = Outcome(header, offset, file.tell())
        if outcome.call < 0:
            outcomes.job = outcome
        elif outcome.kind == "started":
            outcomes.started[outcome.call] = outcome
        else:
            outcomes.calls[outcome.call] = outcome


def _verified_header(text: bytes, mac: bytes, key: bytes, identity: Identity, size: int) -> dict[str, Any]:
    if not hmac.compare_digest(hmac.digest(key, text, "sha256"), mac):
        raise SignatureError("an outcome is not signed with this run's key; it was not unpickled")
    header: dict[str, Any] = json.loads(text.decode("utf-8"))
    if header["format"] > FORMAT:
        raise OutcomeError(newer(f"an outcome of run {identity.run!r}", header["format"], FORMAT))
    found = Identity(header["run"], header["job"], header["attempt"])
    if found != identity:
        raise SignatureError(f"an outcome of {found} came in place of one of {identity}; it was not unpickled")
    if header["size"] != size:
        raise SignatureError("an outcome's length is not the signed one; it was not unpickled")
    return header


def read_body(file: BinaryIO, outcome: Outcome) -> memoryview | None:
    """Verify a body; with large buffers in it, the memory in which they may stay, else the file is where it begins.

    Raises:
        SignatureError: the body is not the one that was signed.
    """
    if not outcome.header.get("buffers") and outcome.kind != "ranks":
        verify_body(file, outcome)
        file.seek(outcome.offset)
        return None
    if isinstance(file, io.BytesIO):
        memory = file.getbuffer()[outcome.offset : outcome.offset + outcome.header["size"]]
    else:
        memory = memoryview(bytearray(outcome.header["size"]))
        file.seek(outcome.offset)
        at = 0
        while block := file.read(min(_BLOCK, len(memory) - at)):
            memory[at : at + len(block)] = block
            at += len(block)
    _check_digest(hashlib.sha256(memory), outcome)
    return memory


def verify_body(file: BinaryIO, outcome: Outcome) -> None:
    """Raise SignatureError unless the body is the one that was signed."""
    file.seek(outcome.offset)
    digest, left = hashlib.sha256(), int(outcome.header["size"])
    while left and (block := file.read(min(left, _BLOCK))):
        digest.update(block)
        left -= len(block)
    _check_digest(digest, outcome)


def _check_digest(digest: hashlib._Hash, outcome: Outcome) -> None:
    if not hmac.compare_digest(digest.hexdigest(), outcome.header["sha256"]):
        raise SignatureError("an outcome's content is not what was signed; it was not unpickled")
