"""A service on a disk of a few megabytes that can be filled: a tmpfs in a mount namespace of the service's own.

Nothing is mounted where other programs could see it, and nothing stays when the service has ended.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from people import Person

_MEGABYTES = 8
_PROGRAM = f"""
mount -t tmpfs -o size={_MEGABYTES}m,mode=700 none "$1"
test -z "$2" || cat /dev/zero >"$1/fill" 2>/dev/null
directory=$1; shift 2; exec "$@" --child --dir "$directory"
"""


def unavailable() -> str | None:
    """Why there is none here."""
    if shutil.which("unshare") is None:
        return "there is no unshare here"
    tried = subprocess.run(
        [*in_a_namespace(), "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    return None if tried.returncode == 0 else "no file system can be mounted here"


def in_a_namespace() -> list[str]:
    """What a command begins with that is to mount something where no other program sees it."""
    return ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--"]


class SmallDisk:
    """A service as a program, whose directory lies on a small disk."""

    def __init__(self, place: Path, *options: str, full: bool = False) -> None:
        place.mkdir()
        if reason := unavailable():
            pytest.skip(reason)
        command = [sys.executable, "-m", "prominence_executor.service", *options]
        self.process = subprocess.Popen(
            [*in_a_namespace(), "sh", "-c", _PROGRAM, "sh", str(place), "full" if full else "", *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.directory = Path(f"/proc/{self.process.pid}/root{place}")

    def person(self) -> Person:
        """Its user, once it is ready."""
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return Person(answer["url"], answer["token"])

    def fill(self) -> None:
        """Leave not one page."""
        with open(self.directory / "fill", "ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError:
                    continue

    def make_room(self) -> None:
        """Undo `fill`."""
        (self.directory / "fill").unlink()

    def end(self) -> tuple[int, str]:
        """End it; return its exit code and what it has said."""
        out, error = self.process.communicate(timeout=30)
        return self.process.returncode, out + error
