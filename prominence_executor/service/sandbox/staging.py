"""Files into a sandbox before a job's tasks, and out of it afterwards.

Names here come from users and archives from anywhere: nothing is written outside the sandbox, and nothing that lies
outside is read, whatever names and links say. Artifacts have a room of their own.
"""

from __future__ import annotations

import glob
import os
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..schema.files import decoded
from ..schema.parameters import substituted
from ..state.objects import ObjectStore
from ..state.representations import stored_name
from ..state.shortage import shortage
from .sandbox import Sandbox

_AGAIN = 1.0  # seconds until what the machine was too short for is tried again


def place_inputs(sandbox: Sandbox, inputs: list[dict[str, Any]]) -> None:
    """Place input files flat in HOME by base name; of two with one name the last wins."""
    for item in inputs:
        path = sandbox.home / item["filename"].rsplit("/", 1)[-1]
        path.write_bytes(decoded(item))
        path.chmod(0o775 if item.get("executable") else 0o644)


def upload_key(user: str, name: str) -> str:
    """Return where an uploaded object lies: with a slash in its name, in the place of a group."""
    owner, rest = name.split("/", 1) if "/" in name else (user, name)
    return f"uploads/{urllib.parse.quote(owner, safe='')}/{rest}"


class StageOut:
    """Uploads a job's outputs; `uploaded` names what was, `reason` says why the job failed if one was not.

    `wait` waits so many seconds before something is tried again, or raises what ends the run.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        objects: ObjectStore,
        place: str,
        values: dict[str, str],
        wait: Callable[[float], None],
    ) -> None:
        self._sandbox, self._objects, self._place, self._values = sandbox, objects, place, values
        self._wait = wait
        self.uploaded: dict[str, dict[str, int]] = {}
        self.reason: str | None = None

    def run(self, body: dict[str, Any]) -> None:
        """Upload what the description declares."""
        for item, find, reason in (
            ("outputFiles", self._file, "Stageout failed due to no such file or directory"),
            ("outputDirs", self._directory, "Stageout failed due to tarball creation failed"),
        ):
            for declared in body.get(item, []):
                name = substituted(declared, self._values)
                key = f"scratch/{self._place}/{stored_name(name, item == 'outputDirs')}"
                size = self._kept(name, find, key)
                if size is None:
                    self.reason = self.reason or reason
                else:
                    self.uploaded.setdefault(item, {})[declared] = size

    def _kept(self, name: str, find: Callable[[str], Path | None], key: str) -> int | None:
        """Upload one output, as soon as there is room for it; return its size, or None when there is no such output."""
        while True:
            try:
                source = find(name)
                return None if source is None else self._objects.put_file(key, source, self._sandbox.root)
            except ValueError:
                return None
            except OSError as error:
                if shortage(error) is None:
                    return None
            self._wait(_AGAIN)

    def _file(self, name: str) -> Path | None:
        """Return the regular file behind an output's name, or behind the first match of a pattern."""
        if name.startswith("/"):
            return None
        if glob.has_magic(name):
            matches = sorted(glob.glob(os.path.join(glob.escape(str(self._sandbox.home)), name)))
            if not matches:
                return None
            name = matches[0]
        real = self._sandbox.resolved(name)
        return real if real is not None and real.is_file() else None

    def _directory(self, name: str) -> Path | None:
        """Pack a directory into a tarball whose members begin with the directory's base name; links stay links."""
        real = None if name.startswith("/") else self._sandbox.resolved(name)
        if real is None or not real.is_dir() or real == self._sandbox.root:
            return None
        return pack(real, name.rstrip("/").rsplit("/", 1)[-1], self._sandbox)


def pack(source: Path, name: str, sandbox: Sandbox) -> Path:
    """Make a .tgz of a file or directory of the sandbox, beside HOME. Raises OSError and ValueError."""
    import tarfile  # of which few jobs have need

    handle = sandbox.root / f"{os.urandom(8).hex()}.tgz"
    try:
        with tarfile.open(handle, "w:gz", compresslevel=6) as archive:
            archive.add(source, arcname=name)
    except BaseException as error:
        handle.unlink(missing_ok=True)
        if isinstance(error, tarfile.TarError):
            raise ValueError(str(error)) from error
        raise
    return handle
