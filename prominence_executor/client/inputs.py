"""What lies in a job's directory when it starts: files inside its description, and objects or URLs to be downloaded.

Pure, but for one thing: an InputFile without content reads its file when its JSON is made.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from typing import Any

from ..public import public
from .validation import BODY_LIMIT, Value, has_control_characters, wrong_field

__all__ = ["Artifact", "InputFile"]

_WORKERS_OWN_NAMES = frozenset({"logs", "json", "promlet.py", ".job.json"})


@public
@dataclass(slots=True)
class InputFile(Value):
    """A small file that travels inside the job's description and lies, by its base name, in the job's directory.

    Without ``content`` the file called ``filename`` is read from disk, each time that JSON is made.
    """

    filename: str | os.PathLike[str]
    content: str | bytes | None = field(default=None, repr=False)
    """Text goes as UTF-8. Raw size up to about 780 KB for all inputs of a job together; may be empty."""
    executable: bool = False

    @property
    def name(self) -> str:
        """The base name, under which the job finds the file."""
        return os.path.basename(os.fspath(self.filename))

    def json(self) -> dict[str, Any]:
        """Return the JSON that the service reads; the file is read when there is no content.

        Raises:
            ValueError: the service breaks on such a name, or the content exceeds the limit of a request.
            OSError: the file cannot be read.
        """
        wire: dict[str, Any] = {"filename": self._checked_name(), "content": self._base64()}
        if self.executable:
            wire["executable"] = True
        return wire

    def _checked_name(self) -> str:
        name = self.name
        if not name or name in (".", "..") or name != name.strip() or has_control_characters(name):
            raise wrong_field(self, "filename", "the name of a file")
        if "," in name:
            raise wrong_field(self, "filename", "a name without commas, with which a job is held until it fails")
        if name in _WORKERS_OWN_NAMES:
            raise wrong_field(self, "filename", "another name: the service's worker uses this one")
        return name

    def _base64(self) -> str:
        content = self.content
        if content is None:
            self._check_size(os.path.getsize(self.filename))
            with open(self.filename, "rb") as file:
                content = file.read()
        elif isinstance(content, str):
            content = content.encode()
        elif not isinstance(content, bytes | bytearray):
            raise wrong_field(self, "content", "str, bytes or None")
        self._check_size(len(content))
        return base64.b64encode(content).decode("ascii")

    def _check_size(self, size: int) -> None:
        if size > BODY_LIMIT // 4 * 3:
            raise ValueError(
                f"InputFile {self.name!r} has {size} bytes: more than the {BODY_LIMIT} bytes, in base64, "
                "that a whole request may have; upload it and use an Artifact"
            )


@public
@dataclass(slots=True)
class Artifact(Value):
    """A file that the worker downloads into the job's directory; archives are unpacked there and removed."""

    url: str
    """A URL, or the name of an uploaded object."""
    directory_name: str | None = None
    """The file or directory in the job's directory that ``mount_point`` shows."""
    mount_point: str | None = None
    """Absolute path inside the container."""
    executable: bool = False

    def json(self) -> dict[str, Any]:
        """Return the JSON of this artifact; ValueError for what the service would refuse, or break on."""
        if not isinstance(self.url, str) or not self.url or has_control_characters(self.url):
            raise wrong_field(self, "url", "a URL or the name of an uploaded object")
        wire: dict[str, Any] = {"url": self.url}
        if self.directory_name is not None or self.mount_point is not None:
            if not self.directory_name or "/" in self.directory_name or ":" in self.directory_name:
                raise wrong_field(self, "directory_name", "a name without '/' and ':', beside a mount_point")
            if not self.mount_point or not self.mount_point.startswith("/") or ":" in self.mount_point:
                raise wrong_field(self, "mount_point", "an absolute path without ':', beside a directory_name")
            wire["mountpoint"] = f"{self.directory_name}:{self.mount_point}"
        if self.executable:
            wire["executable"] = True
        return wire
