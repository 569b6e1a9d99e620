"""Getting images: the file behind an image's name, by checksum, and what a runtime makes of it, once for many jobs.

An image is the name of an uploaded object, a URL, or a name that only a registry knows. Nothing here knows how a
container is run.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from ..sandbox import processes
from ..sandbox.archives import Budget
from ..sandbox.archives import Stopped as WasStopped
from ..sandbox.downloads import open_url, receive
from ..sandbox.staging import upload_key
from ..state.directory import own_directory, write_whole
from ..state.objects import BadKey, ObjectStore, sha256_of
from .base import PullFailed, Stopped
from .once import Once, clear

FILES = (".sif", ".simg", ".tar", ".tgz", ".tar.gz")  # endings of an uploaded object; other names are a registry's
# Never an option of a runtime, nor one of the schemes by which a runtime reads files of this machine.
_OF_A_REGISTRY = re.compile(r"((docker|library|shub|oras)://)?(?!.*//)[A-Za-z0-9][A-Za-z0-9._/@+:-]*")
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Image:
    """Where an image is to be had: a file and its checksum, or without them a registry."""

    name: str
    file: Path | None = None
    sha256: str | None = None

    @property
    def key(self) -> str:
        """A file name by which what is made of the image is known."""
        return self.sha256 or "registry-" + hashlib.sha256(self.name.encode()).hexdigest()


class Images:
    """The image files of one service, below one directory. Every method may be called from any thread.

    `_lock` guards the known checksums and downloads; a URL is downloaded by one thread at a time.
    """

    def __init__(self, directory: Path, objects: ObjectStore, locks: Path | None = None) -> None:
        self._directory, self._objects = directory, objects
        self._incoming = directory / "incoming"
        own_directory(directory)
        clear(self._incoming, shared=locks is not None)  # what a killed service had half received
        self._sums = None if locks is None else own_directory(directory / "checksums")
        self._once = Once(locks)
        self._lock = threading.Lock()
        self._known: dict[tuple[int, int, int], str] = {}  # checksums by inode, size and time of change
        self._fetched: dict[str, tuple[dict[str, str], str]] = {}  # what to ask a URL's server for news, and checksum

    def get(self, name: str, user: str, stopped: Stopped) -> Image:
        """Have the image of a task here. Raises PullFailed."""
        try:
            if name.lower().startswith(("http://", "https://")):
                with self._once.alone(name, stopped):
                    return self._kept(name, self._download(name, stopped))
            if "://" not in name and name.lower().endswith(FILES):
                return self._kept(name, self._linked(upload_key(user, name)))
        except (OSError, ValueError, HTTPException) as error:
            raise PullFailed(f"{name}: {error}") from error
        if not _OF_A_REGISTRY.fullmatch(name):
            raise PullFailed(f"{name} is not the name of an image")
        return Image(name)

    def _kept(self, name: str, checksum: str) -> Image:
        return Image(name, self._path(checksum), checksum)

    def _path(self, checksum: str) -> Path:
        return self._directory / checksum / "image.simg"

    def _linked(self, key: str) -> str:
        """Give an uploaded object a second name here, which stays when the object is replaced or deleted."""
        link = self._incoming / uuid.uuid4().hex
        try:
            os.link(self._objects.path(key), link)
        except (BadKey, FileNotFoundError) as error:
            raise PullFailed(f"there is no uploaded object {key.rpartition('/')[2]}") from error
        return self._keep(link)

    def _keep(self, file: Path) -> str:
        """Move a file to the place of its checksum."""
        try:
            state = file.stat()
            known = (state.st_ino, state.st_size, state.st_mtime_ns)
            with self._lock:
                checksum = self._known.get(known)
            checksum = checksum or self._checksum(file, "-".join(map(str, known)))
            with self._lock:
                self._known[known] = checksum
            if not self._path(checksum).exists():
                self._path(checksum).parent.mkdir(exist_ok=True)
                os.replace(file, self._path(checksum))
        finally:
            file.unlink(missing_ok=True)
        return checksum

    def _checksum(self, file: Path, known: str) -> str:
        """Return a file's checksum; other processes, which have not read it, find it noted."""
        if self._sums is None:
            return sha256_of(file)
        note = self._sums / known
        try:
            return note.read_text()
        except FileNotFoundError:
            checksum = sha256_of(file)
            write_whole(note, checksum.encode())
            return checksum

    def _download(self, url: str, stopped: Stopped) -> str:
        """Download what lies at a URL, unless its server says that it is what was here before; return its checksum."""
        with self._lock:
            validators, before = self._fetched.get(url, ({}, ""))
        request = urllib.request.Request(url, headers=validators)  # noqa: S310 (http and https only)
        try:
            with open_url(request) as response:
                file = self._incoming / uuid.uuid4().hex
                _receive(response, file, stopped)
                asks = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
                validators = {asks[name]: value for name, value in response.headers.items() if name in asks}
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 304 and before:
                return before
            raise
        checksum = self._keep(file)
        with self._lock:
            self._fetched[url] = validators, checksum
        return checksum


def _receive(response: object, path: Path, stopped: Stopped) -> None:
    try:
        receive(response, path, Budget(stopped))
    except WasStopped as error:
        path.unlink(missing_ok=True)
        raise PullFailed("ended while its image was downloaded") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def run_tool(argv: list[str], env: Mapping[str, str], cwd: Path, stopped: Stopped) -> str:
    """Run a program and return what it prints. Kills it when stopped. Raises PullFailed when it fails."""
    try:
        process = subprocess.Popen(  # noqa: S603
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, text=True, errors="replace",
        )  # fmt: skip
    except OSError as error:
        raise PullFailed(f"{argv[0]}: {error.strerror}") from error
    while True:
        try:
            said, complained = process.communicate(timeout=_POLL_SECONDS)
            break
        except subprocess.TimeoutExpired:
            if stopped():
                processes.kill_group(process.pid)
                process.communicate()
                raise PullFailed("ended while its image was pulled") from None
    if process.returncode != 0:
        raise PullFailed((complained + said).strip() or f"{argv[0]} ended with exit code {process.returncode}")
    return said


def fresh(parent: Path) -> Path:
    """Make a directory below one that is emptied when the service starts."""
    directory = parent / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}"
    directory.mkdir(parents=True)
    return directory
