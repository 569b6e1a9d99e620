"""Container images that are files of this machine: which they are, and how they get to the service, once by content.

An image option that means a file is kept as its absolute path; no registry's or object's name looks like one. At the
service it is an object named by its content, so that all runs share it, and with an ending by which runtimes know it.
`purge` keeps these objects unless it is told otherwise. No threads of its own; hashing and uploading block.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ..client.validation import wrong
from ..errors import TransferError
from .archive import sha256_of_file

if TYPE_CHECKING:
    from ..client.client import ProminenceClient

PREFIX = "pximage-"

_ENDINGS = {".tar.gz": ".tgz", ".tgz": ".tgz", ".tar": ".tar", ".sif": ".sif"}  # of a file, and of its object's name
_AT_SITES = "/cvmfs/"  # paths below it are the same everywhere, and are not files of this machine


class ImageFile(NamedTuple):
    """An image file as it is at some time; where size or time differ, its content does, too."""

    path: str
    size: int
    """Bytes."""
    changed: int
    """Nanoseconds since the epoch."""


_hashing = threading.Lock()  # guards both, so that a file is read once
_digests: dict[ImageFile, str] = {}
_files: dict[str, str] = {}  # the path by the object's name


def resolved(image: str | os.PathLike[str]) -> str:
    """Return an image as options keep it: a file's absolute path, or the name as it was given.

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
    """Tell whether a resolved image is a file of this machine."""
    return os.path.isabs(image) and not image.startswith(_AT_SITES)


def shown(image: str) -> str:
    """Name an image for messages: an object that came from a file by both."""
    return f"{_files[image]} ({image})" if image in _files else image


def push(
    client: ProminenceClient,
    path: str | os.PathLike[str],
    name: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> str:
    """Upload an image file, unless the service has it, and return the name to use as ``image``; blocks.

    Args:
        client: of the service that it goes to.
        path: the file, which ends in .tar, .tgz, .tar.gz or .sif.
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
    file = image_file(path)
    own = object_name(file)
    stored = {} if name else {item["name"]: item["size"] for item in client.list_data()}
    if stored.get(own) != file.size:
        upload(client, file, name or own, progress)
    return name or own


def image_file(path: str) -> ImageFile:
    """Look at an image file as it is now.

    Raises:
        FileNotFoundError: it is not there.
    """
    status = os.stat(path)
    return ImageFile(path, status.st_size, status.st_mtime_ns)


def object_name(file: ImageFile) -> str:
    """Name the object with this content, and remember for messages of which file it is; reads the file once."""
    name = f"{PREFIX}{_digest(file)[:32]}{_ending(file.path)}"
    with _hashing:
        _files[name] = file.path
    return name


def upload(
    client: ProminenceClient, file: ImageFile, name: str, progress: Callable[[int, int], object] | None = None
) -> None:
    """Upload an image file under this name, whether or not the service has it; blocks.

    Raises:
        TransferError: it did not arrive, or was changed meanwhile; then nothing is left of it at the service.
    """
    with open(file.path, "rb") as content:
        client.upload(name, content, checksum=_digest(file), progress=progress)
    if image_file(file.path) != file:
        client.delete_data(name)
        raise TransferError(f"the image {file.path} was changed while it was uploaded")


def missing_object(refusal: str) -> str | None:
    """Return our object whose absence made the service refuse a job; None when that was not the reason."""
    match = re.search(rf"Image ({PREFIX}[0-9a-f]+\.[a-z]+) does not exist", refusal)
    return match and match[1]


def _digest(file: ImageFile) -> str:
    with _hashing:
        if file not in _digests:
            _digests[file] = sha256_of_file(file.path)
        return _digests[file]


def _ending(path: str) -> str:
    for ending, ours in _ENDINGS.items():
        if path.endswith(ending):
            return ours
    raise wrong("image", "a file that ends in " + ", ".join(_ENDINGS), path)
