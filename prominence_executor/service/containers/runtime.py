"""What a container runtime is to the embedded service: an interface, and the directories that every container has."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ..sandbox.sandbox import KEPT, Sandbox
from .base import Command, Stopped
from .images import Image

_KEPT = ".prominence-node"  # in /tmp


class Container(Protocol):
    """One image, ready to run the words of one job's tasks."""

    def command(self, words: list[str], env: dict[str, str], cwd: str) -> Command:
        """Return what runs words inside; cwd as it is seen there."""

    def close(self) -> None:
        """End it after the job's last command. May be called twice."""


class Runtime(Protocol):
    """Every method may be called from any thread."""

    hint: str
    """How to install it."""

    def version(self) -> str | None:
        """Return the version as the service tells it, or None when it is not installed."""

    def prepare(self, image: Image, mark: str, stopped: Stopped) -> Path:
        """Make what containers of an image are made from, once for all jobs. Blocks. Raises PullFailed."""

    def container(self, prepared: Path, sandbox: Sandbox, stopped: Stopped) -> Container:
        """Make a container for one job. Raises PullFailed."""


def binds(sandbox: Sandbox) -> list[tuple[Path, str]]:
    """Return what a container sees of this machine's files: HOME, /tmp, what is kept, the artifacts' mount points."""
    own = [(sandbox.home, "/home/user"), (sandbox.tmp, "/tmp"), (sandbox.tmp, "/var/tmp")]  # noqa: S108
    if sandbox.kept:
        with suppress(OSError):  # so that it can be mounted whatever the image has; a task may have made something else
            (sandbox.tmp / _KEPT).mkdir()
        own.append((sandbox.kept, f"/tmp/{_KEPT}"))  # noqa: S108
    return own + (sandbox.mounts or [])


def variables(sandbox: Sandbox) -> dict[str, str]:
    """Return what a task's environment says of these."""
    return {KEPT: f"/tmp/{_KEPT}"} if sandbox.kept else {}  # noqa: S108
