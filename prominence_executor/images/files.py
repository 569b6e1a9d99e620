"""Container images that are files of this machine: which they are, and how they get to the service, once by content.

An image option that means a file is kept as its absolute path; no registry's or object's name looks like one. At the
service it is an object named by its content, so that all runs share it, and with an ending by which runtimes know it.
`purge` keeps these objects unless it is told otherwise. No threads of its own; hashing and uploading block.
"""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..client.model import wrong
from ..errors import TransferError
from .archive import sha256_of_file

if TYPE_CHECKING:
    from ..client.client import ProminenceClient

PREFIX = "pximage-"

_ENDINGS = {".tar.gz": ".tgz", ".tgz": ".tgz", ".tar": ".tar", ".sif": ".sif"}  # of a file, and of its object's name
_AT_SITES = "/cvmfs/"  # paths below it are the same everywhere, and are no files of this machine
Version = tuple[str, int, int]  # path, size, time of the last change: another one means another content

_hashing = threading.Lock()
_digests: dict[Version, str] = {}
_files: dict[str, str] = {}  # the path by the object's name


def resolved(image: str | os.PathLike[str]) -> str:
    """An image as options keep it: a file's absolute path, or the name as it was given.

    A file is meant by a path object, by what begins with ``./``, ``../``, ``/`` or ``~``, and by what has a slash and
    exists.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not end as images do.
    """
    text = os.fspath(image)
    if not isinstance(text, str) or text.startswith(_AT_SITES) or "://" in text:
        return text
    surely = not isinstance(image, str) or os.path.isabs(text) or text.startswith(("./", "../", "~"))
    if not surely and not ("/" in text and os.path.isfile(text)):
        return text
    path = os.path.abspath(os.path.expanduser(text))
    if not os.path.isfile(path):
        raise FileNotFoundError(f"image: there is no file {path}")
    _ending(path)
    return path


def is_local(image: str) -> bool:
    """Whether a resolved image is a file of this machine."""
    return os.path.isabs(image) and not image.startswith(_AT_SITES)


def shown(image: str) -> str:
    """An image for messages: for an object that came from a file, both."""
    return f"{_files[image]} ({image})" if image in _files else image


def push(
    client: ProminenceClient,
    path: str | os.PathLike[str],
    name: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> str:
    """Upload an image file, unless the service has it; returns the name to use as ``image``.

    Args:
        name: the object's name; then it is uploaded in any case. By default a name of its content.
        progress: called with the bytes that were sent, and their number.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: file or name do not end as images do.
        ProminenceError: it could not be uploaded.
    """
    path = resolved(os.path.abspath(os.path.expanduser(path)))
    if name is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(" + "|".join(_ENDINGS) + ")", name):
        raise wrong("name", "letters, digits, '_', '.' and '-' with one of the endings " + " ".join(_ENDINGS), name)
    version = version_of(path)
    own = object_name(version)
    stored = {} if name else {item["name"]: item["size"] for item in client.list_data()}
    if stored.get(own) != version[1]:
        upload_image(client, version, name or own, progress)
    return name or own


def version_of(path: str) -> Version:
    status = os.stat(path)
    return path, status.st_size, status.st_mtime_ns


def _digest(version: Version) -> str:
    with _hashing:
        if version not in _digests:
            _digests[version] = sha256_of_file(version[0])
        return _digests[version]


def object_name(version: Version) -> str:
    """The name of the object with this content."""
    name = f"{PREFIX}{_digest(version)[:32]}{_ending(version[0])}"
    _files[name] = version[0]
    return name


def _ending(path: str) -> str:
    for ending, ours in _ENDINGS.items():
        if path.endswith(ending):
            return ours
    raise wrong("image", "a file that ends in " + ", ".join(_ENDINGS), path)


def upload_image(
    client: ProminenceClient, version: Version, name: str, progress: Callable[[int, int], object] | None = None
) -> None:
    path, size, _ = version
    with open(path, "rb") as file:
        source = file if progress is None else _Counted(file, size, progress)
        client.upload(name, source, checksum=_digest(version))
    if version_of(path) != version:
        client.delete_data(name)
        raise TransferError(f"the image {path} was changed while it was uploaded")


class _Counted(io.RawIOBase):
    """A file that tells how far it has been read."""

    def __init__(self, file: io.BufferedReader, size: int, progress: Callable[[int, int], object]) -> None:
        self._file, self._size, self._progress = file, size, progress

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._progress(self._file.tell(), self._size)
        return data
