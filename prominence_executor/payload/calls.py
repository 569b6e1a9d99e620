"""What travels: packs calls for the runner, and unpacks the outcomes that come back.

It knows nothing of jobs, threads or HTTP: bytes in, bytes out. Nothing here unpickles an outcome before its signature
and digest have been verified.

The journey: pickling.py makes a `Blob` of a function or a call's arguments, in the caller's thread. The dispatcher puts
the blobs of a chunk into one file with `calls_file`, describes the job in `job_file`, and adds the runner in
`runner_archive`. The runner appends records to the outcome file; `read_outcomes` verifies them, and `unpack` makes a
result or an exception of one.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import pickle
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import OutcomeError, RemotePicklingError, SignatureError
from ..formats import newer, newer_file
from ..public import public
from .pickling import Blob, Reference, loads_apart

if TYPE_CHECKING:
    from .modules import ModuleZip

FORMAT = 1
JOB_FILE = "pxjob.json"
CALLS_FILE = "pxcalls"
OUTCOME_FILE = "pxoutcome"
FILES_FILE = "pxfiles"
OUTCOME_MAGIC = b"PXOUT1\n"
PYTHON = "{}.{}".format(*sys.version_info[:2])

_CALLS_MAGIC = b"PXCALLS1\n"
_BLOCK = 1 << 20  # bytes
_PREFIX = struct.Struct(">QI32s")  # length of the body, length of the header, HMAC-SHA-256 of the header


@dataclass
class Payload:
    """What a chunk's job needs of the user's: pickles and modules."""

    function: Blob  # of (function, initializer or None, initializer's arguments)
    arguments: list[Blob | None]  # each of (args, kwargs); None: this call is not to run
    modules: ModuleZip | None = None
    objects: frozenset[Reference] = frozenset()  # to which the pickles refer
    name: str = ""  # of the function, for messages; not known of what was read from somewhere

    def part(self, positions: range, wanted: Iterable[int]) -> Payload:
        """The same for some of the calls, those that are not wanted left out."""
        chosen = frozenset(wanted)
        arguments = [self.arguments[position] if position in chosen else None for position in positions]
        return Payload(self.function, arguments, self.modules, self.objects, self.name)


def calls_file(payload: Payload, with_function: bool = True) -> Blob:
    """One file for a chunk: the function once (unless it goes apart), then each call's ``(args, kwargs)``."""
    function = payload.function if with_function else Blob()
    sizes = [None if blob is None else blob.size for blob in payload.arguments]
    index = {"function": function.size, "calls": sizes}
    whole = Blob([_CALLS_MAGIC, json.dumps(index).encode() + b"\n"])
    for blob in [function, *payload.arguments]:
        for piece in blob or ():
            whole.write(piece)
    return whole


def calls_body(payload: Payload) -> bytes:
    """The pickles of the wanted calls, one after the other."""
    return b"".join(blob.tobytes() for blob in payload.arguments if blob is not None)


def read_calls_file(content: bytes, modules: ModuleZip | None, objects: frozenset[Reference]) -> Payload:
    """The inverse of `calls_file`; ``objects`` are those that the calls refer to.

    Raises:
        ValueError: it is something else, or of a newer version.
    """
    file = io.BytesIO(content)
    magic = file.readline(len(_CALLS_MAGIC))
    if magic != _CALLS_MAGIC:
        raise ValueError(newer_file("the file of calls", magic, _CALLS_MAGIC) or "this is no file of calls")
    index = json.loads(file.readline())
    function = Blob([file.read(index["function"])])
    arguments = [None if size is None else Blob([file.read(size)]) for size in index["calls"]]
    return Payload(function, arguments, modules, objects)


@dataclass(frozen=True)
class Identity:
    """Which attempt of which job of which run: what an outcome's signature is bound to."""

    run: str
    job: int  # the number in the run of the job's first call
    attempt: int


def job_file(
    identity: Identity,
    key: bytes,
    *,
    calls: tuple[str, str],
    modules: list[tuple[str, str]],
    objects: dict[str, str],
    seconds: float | None,
    **extras: Any,
) -> bytes:
    """The runner's instructions.

    Args:
        calls, modules: (file name, SHA-256).
        objects: file names by SHA-256.
        seconds: the time that it has.
        extras: what only some jobs have: ``files``, ``outputs`` (see staging.py), ``mpi`` (see ranks.py).
    """
    return json.dumps(
        {
            "format": FORMAT,
            "run": identity.run,
            "job": identity.job,
            "attempt": identity.attempt,
            "key": key.hex(),
            "python": PYTHON,
            "outcome": OUTCOME_FILE,
            "seconds": seconds,
            "calls": {"name": calls[0], "sha256": calls[1]},
            "modules": [{"name": name, "sha256": digest} for name, digest in modules],
            "objects": objects,
            **extras,
        }
    ).encode()


def worker_file(run_id: str, key: bytes, worker: int, **settings: Any) -> bytes:
    """The instructions of a warm worker; see worker.py for the settings."""
    common = {"format": FORMAT, "run": run_id, "job": worker, "attempt": 0, "key": key.hex(), "python": PYTHON}
    return json.dumps({**common, "outcome": OUTCOME_FILE, "worker": worker, **settings}).encode()


def array_file(
    run_id: str,
    key: bytes,
    *,
    bundle: tuple[str, str],
    objects: dict[str, str],
    seconds: float | None,
    **extras: Any,
) -> bytes:
    """What the jobs of an array have in common of a `job_file`; ``bundle`` is (object's name, SHA-256)."""
    return json.dumps(
        {
            "format": FORMAT,
            "run": run_id,
            "key": key.hex(),
            "python": PYTHON,
            "outcome": OUTCOME_FILE,
            "seconds": seconds,
            "bundle": {"name": bundle[0], "sha256": bundle[1]},
            "objects": objects,
            **extras,
        }
    ).encode()


@dataclass
class Outcome:
    """A verified record: its header, and where its body lies in the outcome file."""

    header: dict[str, Any]
    offset: int

    @property
    def call(self) -> int:
        return int(self.header["call"])

    @property
    def kind(self) -> str:
        return str(self.header["kind"])


@dataclass
class Outcomes:
    """All that an outcome file says: by call, and of the job as a whole."""

    calls: dict[int, Outcome] = field(default_factory=dict)
    started: dict[int, Outcome] = field(default_factory=dict)
    job: Outcome | None = None

    @property
    def running(self) -> int | None:
        """The call that had started and not ended, if one was running when the file ends."""
        open_calls = [call for call in self.started if call not in self.calls]
        return max(open_calls, default=None)


def read_outcomes(file: BinaryIO, key: bytes, identity: Identity) -> Outcomes:
    """Read and verify every finished record of an outcome file; what a killed runner left half-written is ignored.

    Raises:
        SignatureError: a record is not signed with this run's key, or belongs to another job or attempt.
        OutcomeError: a newer version has written it.
    """
    magic = file.read(len(OUTCOME_MAGIC))
    if magic != OUTCOME_MAGIC:
        if sentence := newer_file(f"an outcome of run {identity.run!r}", magic, OUTCOME_MAGIC):
            raise OutcomeError(sentence)
        raise SignatureError("the outcome file is not one of this run's runner")
    outcomes = Outcomes()
    begin, end = file.tell(), file.seek(0, io.SEEK_END)
    file.seek(begin)
    while True:
        prefix = file.read(_PREFIX.size)
        if len(prefix) < _PREFIX.size:
            return outcomes
        size, length, mac = _PREFIX.unpack(prefix)
        offset = file.tell()
        if length == 0 or offset + size + length > end:
            return outcomes
        file.seek(size, io.SEEK_CUR)
        text = file.read(length)
        header = _verified_header(text, mac, key, identity, size)
        outcome = Outcome(header, offset)
        if outcome.call < 0:
            outcomes.job = outcome
        elif outcome.kind == "started":
            outcomes.started[outcome.call] = outcome
        else:
            outcomes.calls[outcome.call] = outcome


def _verified_header(text: bytes, mac: bytes, key: bytes, identity: Identity, size: int) -> dict[str, Any]:
    if not hmac.compare_digest(hmac.new(key, text, hashlib.sha256).digest(), mac):
        raise SignatureError("an outcome is not signed with this run's key; it was not unpickled")
    header: dict[str, Any] = json.loads(text)
    if header["format"] > FORMAT:
        raise OutcomeError(newer(f"an outcome of run {identity.run!r}", header["format"], FORMAT))
    found = Identity(header["run"], header["job"], header["attempt"])
    if found != identity:
        raise SignatureError(f"an outcome of {found} came in place of one of {identity}; it was not unpickled")
    if header["size"] != size:
        raise SignatureError("an outcome's length is not the signed one; it was not unpickled")
    return header


def unpack(file: BinaryIO, outcome: Outcome, where: str) -> tuple[bool, Any]:
    """Unpickle a call's outcome: ``(True, result)`` or ``(False, exception)``.

    ``where`` names the job for messages. Whatever unpickling raises becomes a `RemotePicklingError`.

    Raises:
        SignatureError: the body is not the one that was signed.
    """
    header = outcome.header
    if outcome.kind == "unpicklable":
        return False, RemotePicklingError(
            f"the result of type {header['type']} could not be pickled {where}: {header['error']}\n"
            f"{header['traceback']}"
        )
    if outcome.kind == "noroom":
        return False, RemotePicklingError(f"the outcome could not be written {where}: {header['error']}")
    body = _body(file, outcome)
    if outcome.kind not in ("result", "ranks"):
        return False, _rebuild_exception(pickle.load(file), header, where)  # noqa: S301  signed by this run, verified
    try:
        if body is not None and outcome.kind == "ranks":
            return True, _of_ranks(body, header["ranks"])
        return True, pickle.load(file) if body is None else loads_apart(body, header)  # noqa: S301  likewise
    except BaseException as error:  # noqa: BLE001  __setstate__ and imports are somebody else's code
        problem = RemotePicklingError(
            f"the result, computed {where}, cannot be unpickled on this side: {type(error).__name__}: {error}"
        )
        problem.__cause__ = error
        return False, problem


def _of_ranks(body: memoryview, ranks: list[dict[str, Any]]) -> list[Any]:
    """The results of all ranks of an MPI job, which lie one behind the other."""
    results, at = [], 0
    for parts in ranks:
        whole = {"pickle": parts["size"], "buffers": [], **parts}
        results.append(loads_apart(body[at : at + parts["size"]], whole))
        at += parts["size"]
    return results


def _body(file: BinaryIO, outcome: Outcome) -> memoryview | None:
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


@public
class RemoteTraceback(Exception):
    """The traceback of the remote side, as text; stands as ``__cause__`` of the exception that a call raised."""

    def __init__(self, text: str, rank: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.rank = rank  # of the MPI job, on which the call raised

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def _rebuild_exception(links: list[dict[str, Any]], header: dict[str, Any], where: str) -> BaseException:
    """Put a chain of exceptions together again; the first one's cause becomes the remote traceback."""
    errors = [_rebuild_link(link, header, where) for link in links]
    for error, link in zip(errors, links, strict=True):
        for name in ("cause", "context"):
            position = link[name]
            if position is not None and position < len(errors):
                setattr(error, f"__{name}__", errors[position])
        error.__suppress_context__ = link["suppress"]
    first = errors[0]
    rank = header.get("rank")
    if rank is not None:
        where = f"on rank {rank} of {header['ranks']} {where}"
    remote = RemoteTraceback(f"{header['traceback']}(raised {where}, on {header['host']})\n", rank)
    remote.__cause__, remote.__context__ = first.__cause__, first.__context__
    remote.__suppress_context__ = first.__suppress_context__
    first.__cause__ = remote
    return first


def _rebuild_link(link: dict[str, Any], header: dict[str, Any], where: str) -> BaseException:
    problem: BaseException | None = None
    for form in ("pickle", "parts"):
        if link[form] is None:
            continue
        try:
            value = pickle.loads(link[form])  # noqa: S301  inside a signed and verified body
            if form == "parts":
                kind, args, attributes = value
                value = kind.__new__(kind, *args)
                value.args = args
                value.__dict__.update(attributes)
            if isinstance(value, BaseException):
                return value
        except BaseException as error:  # noqa: BLE001  constructors and imports are somebody else's code
            problem = error
    substitute = RemotePicklingError(
        f"the call raised {link['type']}: {link['text']}\n"
        f"({where}; that exception could not be brought back itself"
        + (f": {type(problem).__name__}: {problem}" if problem else "")
        + ")"
    )
    substitute.__cause__ = problem
    return substitute
