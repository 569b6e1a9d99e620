"""What another machine is told of a job that it is to run, and what it leaves: files in the service's directory.

A ticket is written by the service. Whoever takes it makes its claim first, so that a ticket that the engine starts
twice runs once. What has begun and ended is said by files in one folder, which appear whole; their names begin with
the ticket's. Nothing here starts anything.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..state.directory import own_directory
from .logs import JobLogs
from .outcome import Outcome
from .platform import Platform
from .spec import JobSpec

FORMAT = 1
BEGAN, ENDED = ".began", ".ended"
_NEW = ".new-"  # beginning of the name of a file that is being written
SIGNALLED = "signalled"  # the status of a run that was ended by a signal from outside: the engine knows why


@dataclass(frozen=True)
class Ticket:
    """A run that is to happen elsewhere."""

    name: str
    spec: JobSpec
    seconds: float
    """Of walltime."""
    containers: str
    """"process" or "real"."""
    id_variable: str
    """The variable in which the engine tells a job its number."""
    passed: tuple[str, ...] = ()
    """Beginnings of variables of the engine's that tasks see, as mpirun on several nodes must."""
    batch_variable: str = ""
    """The variable in which the engine tells one of several jobs the number of all of them."""
    on_node: tuple[str, ...] = ()
    """Words of the engine's that run others on one of several nodes; {node} and {cpus} are replaced."""
    loopback: str = ""
    """Which machine alone reaches the service without TLS (see `machine.loopback`); "": others do, or TLS protects."""


class Places:
    """Where tickets, claims and what runs say lie, below a service's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        root = directory / "engine"
        self.root, self.tickets, self.claims, self.said = root, root / "tickets", root / "claims", root / "said"
        self.batches = root / "batches"

    def make(self) -> None:
        """Make the folders. Raises RuntimeError when they are not the service's own."""
        for folder in (self.root, self.tickets, self.claims, self.said, self.batches):
            own_directory(folder)

    def clear(self) -> None:
        """Remove what a killed service has half written; not what runs are writing at the moment."""
        for folder in (self.tickets, self.batches):
            for path in folder.glob(f"{_NEW}*"):
                path.unlink(missing_ok=True)

    def ticket(self, name: str) -> Path:
        """Return where a ticket lies."""
        return self.tickets / f"{name}.json"

    def is_whole(self, name: str) -> bool:
        """Return whether a ticket is there, and is what was written: tickets are too many to be flushed one by one."""
        try:
            with open(self.ticket(name), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                return size > 0 and os.pread(file.fileno(), 1, size - 1) == b"}"
        except FileNotFoundError:
            return False

    def claim(self, name: str) -> bool:
        """Claim a ticket; whether nobody has before. Atomic also on network file systems."""
        try:
            os.mkdir(self.claims / name, 0o700)
        except FileExistsError:
            return False
        return True

    def is_claimed(self, name: str) -> bool:
        """Return whether a ticket is claimed."""
        return (self.claims / name).is_dir()

    def say(self, name: str, suffix: str, what: dict[str, Any]) -> None:
        """Say something of a run: a file that is there whole or not at all."""
        put(self.said / f"{name}{suffix}", what)

    def heard(self, name: str, suffix: str) -> dict[str, Any] | None:
        """Return what was said of a run, or None."""
        return got(self.said / f"{name}{suffix}")

    def forget(self, name: str) -> None:
        """Remove all of a ticket, the claim last: until then it cannot run again."""
        for path in (self.ticket(name), self.said / f"{name}{BEGAN}", self.said / f"{name}{ENDED}"):
            path.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            (self.claims / name).rmdir()


def put(path: Path, what: dict[str, Any], *, flushed: bool = True) -> None:
    """Write JSON that only its owner reads; a reader sees all of it, or what was there before.

    flushed: also after this machine has lost its power.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=_NEW)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump({"format": FORMAT, **what}, file)
            if flushed:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def got(path: Path) -> dict[str, Any] | None:
    """Read JSON; None when it is not there. Raises ValueError when a newer version has written it."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    found: dict[str, Any] = json.loads(text)
    if found.pop("format") > FORMAT:
        raise ValueError(f"{path} was written by a newer version of prominence-executor: update prominence-executor")
    return found


def written(ticket: Ticket) -> dict[str, Any]:
    """Return a ticket as JSON has it."""
    document = asdict(ticket)
    document["spec"]["logs"] = {
        "stdout": str(ticket.spec.logs.stdout), "stderr": str(ticket.spec.logs.stderr), "nodes": ticket.spec.logs.nodes,
    }  # fmt: skip
    return document


def read(document: dict[str, Any]) -> Ticket:
    """Return the ticket of a document."""
    spec = dict(document["spec"])
    logs = spec["logs"]
    spec["logs"] = JobLogs(Path(logs["stdout"]), Path(logs["stderr"]), logs["nodes"])
    spec["platform"] = Platform(**spec["platform"])
    tuples = {name: tuple(document.get(name, ())) for name in ("passed", "on_node")}
    return Ticket(**{**document, "spec": JobSpec(**spec), **tuples})


def outcome_of(said: dict[str, Any]) -> Outcome:
    """Return the outcome that a run has left."""
    return Outcome(**said)
