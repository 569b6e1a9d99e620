"""An image's files for one job, writable: a layer over the unpacked image where the kernel allows it, else a copy.

The layer is an overlay that is mounted in a mount namespace of the job's own, which takes 0.02 s; without root it needs
user namespaces. It ends with its last process, however that ends, and nothing is ever mounted where other programs
could see it. The copy takes seconds for 100 MB on a busy disk, and nearly nothing on a file system that shares blocks.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ..sandbox import processes
from ..sandbox.removal import remove_tree
from .base import Stopped
from .images import run_tool

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MOUNT = 'mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3$5" "$4" && echo mounted && exec cat'
_ENTER = 'cd "$1" && shift && exec "$@"'  # entering a namespace leads to its root directory


class Layer:
    """The files of `image` at `place`, for the commands that `inside` makes; `close` ends it."""

    def __init__(self, image: Path, place: Path, layers: Path, mark: str, stopped: Stopped) -> None:
        self._holder: subprocess.Popen[bytes] | None = None
        self._root = os.geteuid() == 0
        self._work = layers / "work"
        if not self._mount(image, place, layers, mark):
            run_tool(
                ["cp", "-a", "--reflink=auto", str(image), str(place)],
                {"PATH": SYSTEM_PATH, processes.MARK: mark}, place.parent, stopped,
            )  # fmt: skip

    def _mount(self, image: Path, place: Path, layers: Path, mark: str) -> bool:
        upper = layers / "upper"
        for directory in (upper, self._work, place):
            directory.mkdir(parents=True)
        unshare = ["unshare", "--mount", *([] if self._root else ["--user", "--map-root-user"])]
        where = [str(path) for path in (image, upper, self._work, place)]
        try:
            # Reads its standard input as long as the service holds it: the namespace's first process.
            holder = subprocess.Popen(  # noqa: S603
                [*unshare, "sh", "-c", _MOUNT, "sh", *where, "" if self._root else ",userxattr"],
                cwd=layers, env={"PATH": SYSTEM_PATH, processes.MARK: mark}, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError:
            holder = None
        self._holder = holder
        if holder is not None and holder.stdout is not None and holder.stdout.readline() == b"mounted\n":
            return True
        self.close()
        for directory in (layers, place):
            remove_tree(directory)
        return False

    def inside(self, argv: list[str], cwd: Path) -> list[str]:
        """Return the words that start a program where the files are."""
        if self._holder is None:
            return argv
        kinds = ["--mount"] if self._root else ["--user", "--preserve-credentials", "--mount"]
        return ["nsenter", f"--target={self._holder.pid}", *kinds, "sh", "-c", _ENTER, "sh", str(cwd), *argv]

    def close(self) -> None:
        """End the layer. May be called twice."""
        if self._holder is not None:
            processes.kill_group(self._holder.pid)
            with self._holder:  # closes its pipes and reaps it
                pass
            self._holder = None
