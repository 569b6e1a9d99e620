"""What tests may leave behind and must not: jobs, threads, sockets, processes, each named as well as it can be."""

from __future__ import annotations

import gc
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

_GRACE = 10.0  # seconds in which what is ending anyway may end
_PROC = Path("/proc")
# multiprocessing's own helpers live as long as the process that started them.
_STANDARD = (b"multiprocessing.forkserver", b"multiprocessing.resource_tracker")
_since: dict[str, str] = {}  # what was there after a test, and after which for the first time


def check(**kinds: Callable[[], set[str]]) -> None:
    """Fail, and name what is left of each kind once the grace period is over."""
    gc.collect()
    deadline = time.monotonic() + _GRACE
    while (left := {kind: sorted(found) for kind, find in kinds.items() if (found := find())}) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert not left, "the tests left behind:\n" + "\n".join(
        f"  {kind}: {what}{_addresses().get(what, '')}{_since.get(what, '')}"
        for kind, found in left.items()
        for what in found
    )


def note(test: str) -> None:
    """Remember that a test has just ended, so that what it left behind can be told to be its."""
    for what in threads() | sockets():
        _since.setdefault(what, f", there since {test}")


def threads() -> set[str]:
    """The executor's threads and the fault proxies' that are alive."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(("prominence-", "fault-proxy"))}


def sockets() -> set[str]:
    """This process's sockets; none where there is no /proc."""
    found = set()
    for link in _PROC.glob("self/fd/*"):
        with suppress(OSError):  # closed meanwhile
            target = os.readlink(link)
            if target.startswith("socket:"):
                found.add(target)
    return found


def _addresses() -> dict[str, str]:
    """From a socket to its TCP ports and state, as in Linux's proc(5)."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in _lines(_PROC / "self/net" / name)[1:]]
    return {f"socket:[{part[9]}]": f" port {_port(part[1])} to {_port(part[2])}, state {part[3]}" for part in lines}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def processes() -> set[str]:
    """The children of this process, ended ones that nobody waited for among them; none where there is no /proc."""
    found = set()
    for folder in _PROC.glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile
            name, _, rest = (folder / "stat").read_text().rpartition(")")
            state, parent = rest.split()[:2]
            command = (folder / "cmdline").read_bytes()
            if int(parent) == os.getpid() and not any(standard in command for standard in _STANDARD):
                words = command.replace(b"\0", b" ").decode(errors="replace").strip()
                found.add(f"{folder.name} ({state}) {words or name.partition('(')[2]}")
    return found


def jobs(directory: Path) -> set[str]:
    """The jobs of a running embedded service, whosever they are, that have not ended."""
    return _unended(directory, "jobs")


def workflows(directory: Path) -> set[str]:
    """Its workflows that have not ended."""
    return _unended(directory, "workflows")


def _unended(directory: Path, table: str) -> set[str]:
    with closing(sqlite3.connect(directory / "state.sqlite", timeout=10)) as database:
        rows = database.execute(f"SELECT id, name, user, status FROM {table} WHERE ended IS NULL").fetchall()
    return {f"{number} {name!r} of user {user!r}, {status}" for number, name, user, status in rows}
