"""A job's directory and environment.

The layout stands in for a container's: HOME is `<root>/home/user`, temporary files go to `<root>/tmp`. Tasks are plain
processes and could write elsewhere; what this module does promise is that the service itself, acting on names that
users chose, never reads or writes outside a job's root.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from ..state.directory import own_directory, write_whole
from . import processes
from .removal import remove_tree

KEPT = "PROMINENCE_NODE_CACHE"  # the variable that names such a directory to a task
LIBRARIES = "LD_LIBRARY_PATH"  # without which an interpreter of an environment module may not find its own
_LONGEST = 60  # letters of a directory's name; a checksum has more
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def kept_directory(parent: Path, user: str) -> Path:
    """Make or take the directory of a user's jobs that outlasts them.

    Raises:
        RuntimeError: others could write it.
    """
    name = user.encode().hex()
    if len(name) > _LONGEST:
        import hashlib  # which takes longer than what else a job needs of this

        name = hashlib.sha256(user.encode()).hexdigest()
    return own_directory(own_directory(parent) / name)


def install_shims(directory: Path) -> None:
    """Write programs named python3 and python that are the interpreter and virtual environment of this service.

    A link would not do: Python finds its virtual environment by the path that it was started with.
    """
    own_directory(directory)
    for name in ("python3", "python"):
        write_whole(directory / name, f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n'.encode(), 0o755)


class Sandbox:
    """One run's directory. Its name carries a random mark by which the run's processes are known."""

    def __init__(self, parent: Path, shims: Path, mark: str | None = None, kept: Path | None = None) -> None:
        self.mark = mark or os.urandom(16).hex()  # given: that of a run that goes on
        # Resolved once: a mark of where the sandbox ends that links cannot move.
        self.root = Path(os.path.realpath(parent)) / self.mark
        self.home = self.root / "home" / "user"
        self.tmp = self.root / "tmp"
        self.mounts: list[tuple[Path, str]] | None = None  # with containers: paths here, and where a task sees them
        self.kept = kept  # a directory that outlasts the run, for its user's jobs on this machine
        self._shims = shims

    def create(self) -> None:
        """Make the directories."""
        self.home.mkdir(parents=True)
        self.tmp.mkdir()

    def remove(self) -> None:
        """Remove all of it, whatever tasks made of it."""
        remove_tree(self.root)

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return what a task sees: of the service's own only what its Python needs, then `env`, the mark last."""
        temporary = str(self.tmp)
        path = f"{self._shims}:{os.path.dirname(sys.executable)}:{_SYSTEM_PATH}"
        base = {
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PATH": path,
            "TEMP": temporary,
            "TMP": temporary,
            "TMPDIR": temporary,
            "USER": "user",
        }
        own = {KEPT: str(self.kept)} if self.kept else {}
        libraries = {LIBRARIES: os.environ[LIBRARIES]} if os.environ.get(LIBRARIES) else {}
        return {**base, **libraries, **own, **env, processes.MARK: self.mark}

    def argv(self, words: list[str]) -> list[str]:
        """Return the words that start a task's words: this service's own interpreter for `python3`."""
        if words[0] in ("python3", "python"):
            # Not the shim, which would cost a shell; and not under the bare name, by which Python would find the shim.
            return [sys.executable, *words[1:]]
        return words

    def inside(self, path: str) -> Path:
        """Return a path of the container's, as it is here: below HOME unless it is absolute."""
        for seen, here in (("/home/user", self.home), ("/tmp", self.tmp)):  # noqa: S108
            if path == seen or path.startswith(seen + "/"):
                return here / path[len(seen) + 1 :]
        return self.home / path

    def resolved(self, path: Path | str) -> Path | None:
        """Return the real file behind a path of this sandbox, or None when it lies outside or does not exist."""
        try:
            real = Path(os.path.realpath(self.home / path, strict=True))
        except (OSError, ValueError):
            return None
        return real if real.is_relative_to(self.root) else None
