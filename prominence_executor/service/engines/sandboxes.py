"""The sandboxes of this machine's runs, and what those leave behind, which is swept up now and then."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

from ..sandbox import processes
from ..sandbox.removal import remove_tree
from ..sandbox.sandbox import Sandbox, install_shims, kept_directory
from ..state.clock import Clock
from ..state.directory import own_directory

_SWEEP_SECONDS = 0.2


class Sandboxes:
    """Every method may be called from any thread.

    `_lock` guards the sandboxes of ended runs and the time of the next sweep.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._clock = clock
        self._sandboxes, self._shims = directory / "sandboxes", directory / "bin"
        self._kept = directory / "node"
        self._lock = threading.Lock()
        self._ended: dict[str, Path] = {}  # marks and directories of ended runs, yet to be swept
        self._next_sweep = 0.0

    def open(self) -> None:
        """Clear away what an earlier service left.

        Raises:
            RuntimeError: its directory is not the service's own.
        """
        if own_directory(self._sandboxes).is_symlink():
            raise RuntimeError(f"{self._sandboxes} must not be a link: what lies there is removed at each start")
        install_shims(self._shims)
        # By name, not by where it leads: what a link points to is nobody's sandbox.
        left = {path.name: path for path in Path(os.path.realpath(self._sandboxes)).iterdir()}
        processes.kill_all(left)
        for root in left.values():
            remove_tree(root)

    def new(self, user: str) -> Sandbox:
        """Make the directory of a run of this user's."""
        sandbox = Sandbox(self._sandboxes, self._shims, kept=kept_directory(self._kept, user))
        sandbox.create()
        return sandbox

    def release(self, sandbox: Sandbox) -> None:
        """Remove the directory of an ended run; what it left running is killed by the next sweep."""
        try:
            sandbox.remove()
        finally:
            with self._lock:
                self._ended[sandbox.mark] = sandbox.root

    def next_sweep(self) -> float | None:
        """Return when to sweep next (by the monotonic clock), or None while there is nothing to sweep."""
        with self._lock:
            return self._next_sweep if self._ended else None

    def sweep(self) -> None:
        """Kill daemons of ended jobs: one look at /proc for all jobs that ended since the last."""
        with self._lock:
            if self._clock.monotonic() < self._next_sweep:
                return
            self._next_sweep = self._clock.monotonic() + _SWEEP_SECONDS
            ended, self._ended = self._ended, {}
        if not ended:
            return
        if not processes.kill_all(ended):  # they are looked for once more
            with self._lock:
                self._ended = ended | self._ended
        for root in ended.values():
            if root.exists():
                remove_tree(root)

    def kill(self, sandboxes: Iterable[Sandbox]) -> None:
        """Kill every process of these sandboxes and of those of ended runs."""
        with self._lock:
            ended = dict(self._ended)
        processes.kill_all({sandbox.mark: sandbox.root for sandbox in sandboxes} | ended)
