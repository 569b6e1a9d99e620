"""The files of a module or package that travel: sources, compiled parts, and the data beside them.

It reads folders and zips, and decides for each file what it is; it does not know which modules a call needs.
"""

from __future__ import annotations

import glob
import json
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Literal
from urllib.parse import unquote, urlsplit

from .places import Place

Kind = Literal["source", "compiled", "metadata", "data"]
Stamp = tuple[int, int]
GONE: Stamp = (0, -1)
_LEFT_OUT = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})  # and what begins with a dot
_OF_ANOTHER_PYTHON = re.compile(r"\.(cpython-|cp\d|pypy|graalpy|abi\d)[^.]*\.(so|pyd)$")
_METADATA = {"METADATA": True, "PKG-INFO": True, "entry_points.txt": False, "top_level.txt": False}  # cut: its header


@dataclass(frozen=True)
class ModuleFile:
    """One file of a module."""

    name: str  # in a job, below its root; with slashes
    kind: Kind
    path: str  # of the file, or of the zip it lies in
    content: bytes | None = field(default=None, repr=False, compare=False)  # of what lies in a zip
    cut: bool = False  # only what stands before its first empty line travels

    def stamp(self) -> Stamp:
        """Return what changes when the file does."""
        try:
            status = os.stat(self.path)
        except OSError:
            return GONE
        return (status.st_mtime_ns, status.st_size)

    def size(self) -> int:
        """Return the bytes of its content, which may have changed when it is read."""
        return max(0, self.stamp()[1]) if self.content is None else len(self.content)

    def read(self) -> bytes:
        """Return its content. OSError: it cannot be read."""
        if self.content is not None:
            return self.content
        with open(self.path, "rb") as file:
            content = file.read()
        return content.partition(b"\n\n")[0] + b"\n" if self.cut else content

    def is_program(self) -> bool:
        """Return whether it may be executed."""
        try:
            return self.content is None and bool(os.stat(self.path).st_mode & stat.S_IXUSR)
        except OSError:
            return False

    def tag(self) -> str | None:
        """Return the end of its name that says for which Python and platform it is compiled, if that says it."""
        _, dot, suffix = self.name.rpartition("/")[2].partition(".")
        return dot + suffix if self.kind == "compiled" and "." in suffix else None


def files_of(place: Place) -> Iterator[ModuleFile]:
    """Yield the files of a place, in an order that depends on their names alone; links are followed."""
    archive = place.zip
    if archive is not None:
        yield from _members(archive, place)
    elif os.path.isdir(place.path):
        yield from _walk(place.path, place.name, ())
    elif os.path.isfile(place.path):
        yield ModuleFile(place.name, kind_of(os.path.basename(place.name)) or "source", place.path)


def kind_of(filename: str) -> Kind | None:
    """Return what a file of a package is; None for what travels in no case."""
    if filename.startswith("."):
        return None
    if filename.endswith(".py"):
        return "source"
    if filename.endswith(".pyc"):
        return "compiled"
    stem, dot, suffix = filename.partition(".")
    if dot + suffix in EXTENSION_SUFFIXES and stem.isidentifier():
        return "compiled"
    return None if _OF_ANOTHER_PYTHON.search(filename) else "data"


def open_for_writing() -> frozenset[str]:
    """Return the files that this program writes: its log or its journal is no data of the package that it lies in."""
    found = set()
    try:
        for number in os.listdir("/proc/self/fd"):
            try:
                with open(f"/proc/self/fdinfo/{number}") as file:
                    flags = int(next(line for line in file if line.startswith("flags:")).split()[1], 8)
                if flags & os.O_ACCMODE != os.O_RDONLY:
                    found.add(os.readlink(f"/proc/self/fd/{number}"))
            except (OSError, StopIteration):
                continue  # it was closed meanwhile
    except OSError:
        pass  # not every system tells it
    return frozenset(found)


def metadata_of(place: Place, entries: tuple[str, ...]) -> list[ModuleFile]:
    """Return what ``importlib.metadata`` needs of the distribution that the user has installed as an editable one.

    Args:
        entries: sys.path.
    """
    top = place.name.partition("/")[0].partition(".")[0]
    folders = [
        info for project, info in _editable(entries) if place.path.startswith(project + os.sep) and _brings(info, top)
    ] or [info for info in _egg_infos(os.path.dirname(place.path)) if _brings(info, top)]
    return [
        ModuleFile(f"{os.path.basename(folder)}/{name}", "metadata", path, cut=cut)
        for folder in folders
        for name, cut in _METADATA.items()
        if os.path.isfile(path := os.path.join(folder, name))
    ]


def _walk(folder: str, name: str, above: tuple[str, ...]) -> Iterator[ModuleFile]:
    real = os.path.realpath(folder)
    if real in above:
        return  # a link that leads to a folder that it lies in
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir():
            if not _is_left_out(entry):
                yield from _walk(entry.path, f"{name}/{entry.name}", (*above, real))
        elif entry.is_file():
            kind = kind_of(entry.name)
            if kind is not None:
                yield ModuleFile(f"{name}/{entry.name}", kind, entry.path)


def _is_left_out(entry: os.DirEntry[str]) -> bool:
    """Whether a folder in a package is none of the package's own."""
    return entry.name.startswith(".") or entry.name in _LEFT_OUT or os.path.exists(f"{entry.path}/pyvenv.cfg")


def _members(archive: str, place: Place) -> Iterator[ModuleFile]:
    inside = os.path.relpath(place.path, archive).replace(os.sep, "/")
    with zipfile.ZipFile(archive) as opened:
        for member in sorted(opened.namelist()):
            below = member[len(inside) :]
            kind = kind_of(member.rpartition("/")[2])
            if not member.startswith(inside) or below[:1] not in ("", "/") or member.endswith("/") or kind is None:
                continue
            if _LEFT_OUT.isdisjoint(below.split("/")):
                yield ModuleFile(place.name + below, kind, archive, opened.read(member))


@lru_cache(maxsize=2)
def _editable(entries: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return (project's folder, ``.dist-info``) of what is installed as an editable distribution."""
    found = []
    for entry in entries:
        for path in glob.glob(os.path.join(glob.escape(entry), "*.dist-info", "direct_url.json")):
            try:
                with open(path, encoding="utf-8") as file:
                    said = json.load(file)
                if said.get("dir_info", {}).get("editable"):
                    found.append((unquote(urlsplit(said["url"]).path).rstrip("/"), os.path.dirname(path)))
            except (OSError, ValueError, KeyError, AttributeError):
                continue
    return found


def _egg_infos(folder: str) -> list[str]:
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".egg-info")]
    except OSError:
        return []


def _brings(info: str, top: str) -> bool:
    """Whether a distribution has the module; of one that does not say so, it lies in its project."""
    try:
        with open(os.path.join(info, "top_level.txt"), encoding="utf-8") as file:
            return top in file.read().split()
    except OSError:
        return True
