"""Files into a sandbox before a job's tasks, and out of it afterwards.

Names here come from users and archives from anywhere: nothing is written outside the sandbox, and nothing that lies
outside is read, whatever names, links and archive members say.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import os
import shutil
import tarfile
import urllib.parse
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..schema.files import decoded
from ..schema.parameters import substituted
from ..state.objects import PIECE, ObjectStore
from ..state.representations import stored_name
from .downloads import open_url, receive
from .sandbox import Sandbox

_TARS = (".tar", ".tgz", ".tar.gz", ".tar.bz2")


class StageInFailed(Exception):
    """An artifact could not be had, or not be unpacked."""


def place_inputs(sandbox: Sandbox, inputs: list[dict[str, Any]]) -> None:
    """Place input files flat in HOME by base name; of two with one name the last wins."""
    for item in inputs:
        path = sandbox.home / item["filename"].rsplit("/", 1)[-1]
        path.write_bytes(decoded(item))
        path.chmod(0o775 if item.get("executable") else 0o644)


def upload_key(user: str, name: str) -> str:
    """Return where an uploaded object lies: with a slash in its name, in the place of a group."""
    return f"uploads/{name}" if "/" in name else f"uploads/{urllib.parse.quote(user, safe='')}/{name}"


def place_artifacts(
    sandbox: Sandbox,
    objects: ObjectStore,
    user: str,
    artifacts: list[dict[str, Any]],
    values: dict[str, str],
    stopped: Callable[[], bool],
) -> None:
    """Place artifacts in HOME by base name, archives unpacked. Raises StageInFailed."""
    for item in artifacts:
        url = substituted(item["url"], values)
        name = urllib.parse.unquote(urllib.parse.urlsplit(url).path) if "://" in url else url
        base = name.rsplit("/", 1)[-1]
        if base in ("", ".", "..") or "\0" in base:
            raise StageInFailed(url)
        path = sandbox.home / base
        try:
            if "://" in url:
                _download(url, path, stopped)
            else:
                shutil.copyfile(objects.path(upload_key(user, url)), path)
            path.chmod(0o775 if item.get("executable") else 0o644)
            _unpack(path, sandbox.home)
            _mount(sandbox, item.get("mountpoint"), values)
        except (OSError, ValueError, EOFError, tarfile.TarError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
            raise StageInFailed(url) from error


def _download(url: str, path: Path, stopped: Callable[[], bool]) -> None:
    with open_url(url) as response:
        receive(response, path, stopped)


def _mount(sandbox: Sandbox, mountpoint: str | None, values: dict[str, str]) -> None:
    """Make a mountpoint: a container's own, or a link inside HOME or /tmp, as plain processes have no mounts."""
    if mountpoint is None:
        return
    source, target = substituted(mountpoint, values).split(":")
    real, link = sandbox.resolved(source), sandbox.inside(target)
    if real is None:
        raise ValueError("nothing to mount")
    if sandbox.mounts is not None:
        sandbox.mounts.append((real, target if target.startswith("/") else f"/home/user/{target}"))
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    if sandbox.resolved(link.parent) is None or ".." in link.parts:
        raise ValueError("outside")
    if link != real:
        link.symlink_to(real)


def _unpack(path: Path, home: Path) -> None:
    if path.name.endswith(_TARS):
        with tarfile.open(path) as archive:
            _extract(archive, home)
    elif path.name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(home)  # noqa: S202 (drops ".." and leading slashes itself, and makes no links)
    elif path.name.endswith((".gz", ".bz2")):
        opener = gzip.open if path.name.endswith(".gz") else bz2.open
        with opener(path, "rb") as packed, open(path.with_suffix(""), "wb") as file:
            shutil.copyfileobj(packed, file, PIECE)
    else:
        return
    path.unlink()


def _extract(archive: tarfile.TarFile, home: Path) -> None:
    """Extract all members, or none: none may lie outside, nor be a link that leads outside."""
    for member in archive.getmembers():
        if member.name.startswith("/") or ".." in member.name.split("/"):
            raise ValueError(f"{member.name} may not be unpacked")
    if hasattr(tarfile, "data_filter"):
        archive.extractall(home, filter="data")
        return
    # The first releases of Python 3.10 and 3.11 have no filters: a plainer and stricter rule.
    for member in archive.getmembers():
        leads_away = member.linkname.startswith("/") or ".." in member.linkname.split("/")
        if leads_away or not (member.isreg() or member.isdir() or member.islnk() or member.issym()):
            raise ValueError(f"{member.name} may not be unpacked")
    archive.extractall(home)  # noqa: S202 (checked above)


class StageOut:
    """Uploads a job's outputs; `uploaded` names what was, `reason` says why the job failed if one was not."""

    def __init__(self, sandbox: Sandbox, objects: ObjectStore, place: str, values: dict[str, str]) -> None:
        self._sandbox, self._objects, self._place, self._values = sandbox, objects, place, values
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
                try:
                    source = find(name)
                    if source is None:
                        self.reason = self.reason or reason
                        continue
                    size = self._objects.put_file(key, source)
                except (OSError, ValueError):
                    self.reason = self.reason or reason
                    continue
                self.uploaded.setdefault(item, {})[declared] = size

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
    """Make a .tgz of a file or directory of the sandbox, beside HOME."""
    handle = sandbox.root / f"{os.urandom(8).hex()}.tgz"
    try:
        with tarfile.open(handle, "w:gz", compresslevel=6) as archive:
            archive.add(source, arcname=name)
    except BaseException:
        handle.unlink(missing_ok=True)
        raise
    return handle
