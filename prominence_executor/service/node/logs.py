"""The logs of a job: a file for stdout and one for stderr of each node. No task's words are known here."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..sandbox.sandbox import Sandbox

_APPEND = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW


@dataclass(frozen=True)
class JobLogs:
    """Where the logs of a job lie: those of its first node, and next to them the others'."""

    stdout: Path
    stderr: Path
    nodes: int

    @contextmanager
    def opened(self) -> Iterator[list[tuple[int, int]]]:
        """Open empty logs, as descriptors of stdout and stderr for each node."""
        with ExitStack() as stack:
            pairs = []
            for node in range(self.nodes):
                out, err = (os.open(node_log(first, node), _APPEND, 0o600) for first in (self.stdout, self.stderr))
                stack.callback(os.close, out)
                stack.callback(os.close, err)
                pairs.append((out, err))
            yield pairs

    def remove_empty(self) -> None:
        """Remove empty logs: most jobs print nothing."""
        for node, first in itertools.product(range(self.nodes), (self.stdout, self.stderr)):
            path = node_log(first, node)
            if path.exists() and path.stat().st_size == 0:
                path.unlink()


def node_log(first: Path, node: int) -> Path:
    """Return where a node's log lies, next to that of the first node."""
    return first.with_name(f"{first.name}.{node}") if node else first


def copy_into(sandbox: Sandbox, log: Path, offset: int, name: str) -> None:
    """Copy what a task printed to a file of its own as well (its `stdout` item), if the name stays inside."""
    target = sandbox.inside(name)
    parent = sandbox.resolved(target.parent)
    if parent is None or target.name in ("", ".", ".."):
        return
    # Neither follow a link that the task left under that name, nor wait for the reader of a pipe.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(parent / target.name, flags, 0o644)
    except OSError:
        return
    with suppress(OSError), os.fdopen(descriptor, "wb") as file, open(log, "rb") as stream:  # the disk may be full
        stream.seek(offset)
        shutil.copyfileobj(stream, file)
