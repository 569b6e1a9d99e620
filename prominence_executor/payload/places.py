"""Where the user's own modules lie: found outside the standard library and site-packages, which the image has.

It finds them as Python does, by what has been imported and by the finders of this program, and imports nothing itself.
"""

from __future__ import annotations

import importlib.util
import os
import site
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from typing import NamedTuple

NOWHERE = 1 << 30  # the root of what was found by no entry of sys.path
_SCRIPT = ("__main__", "__mp_main__")  # travels by value
_INSTALLED = frozenset({"site-packages", "dist-packages"})


class Place(NamedTuple):
    """A file or folder of a module, and where it is to stand in a job."""

    root: int  # the entry of sys.path below which it was found, by its position, or NOWHERE
    name: str  # below that, with slashes: "pk", "pk/mod.py"
    path: str  # here; inside a zip it goes on behind the zip's own path

    @property
    def zip(self) -> str | None:
        """The zip in which it lies, or None."""
        return zip_of(self.path)


def places(name: str) -> list[Place]:
    """Return where a module (of a package, the whole package) of the user's lies; nothing if it is not the user's."""
    top = name.partition(".")[0]
    if top in _SCRIPT:
        return []
    found = _places_of(top, top)
    if name != top and name in sys.modules:  # it may have come from somewhere else than its package
        parent = found[0].root if found else None
        found += [place for place in _places_of(name, top, parent) if not any(_holds(other, place) for other in found)]
    return found


def installed(path: str) -> bool:
    """Return True for what pip or Python itself put there: the image is expected to bring its own."""
    parts = path.split(os.sep)
    return not _INSTALLED.isdisjoint(parts) or path.startswith(_library_roots())


def spec_of(name: str) -> ModuleSpec | None:
    """Return the spec of a top-level module, or of any that has been imported."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if spec is None and "." not in name:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
    return spec


@lru_cache(maxsize=1000)
def zip_of(path: str) -> str | None:
    """Return the zip inside which a path leads, or None."""
    while not os.path.isdir(path):
        if os.path.isfile(path):
            return path if zipfile.is_zipfile(path) else None
        above = os.path.dirname(path)
        if above == path:
            return None
        path = above
    return None


def _places_of(name: str, top: str, parent: int | None = None) -> list[Place]:
    module, spec = sys.modules.get(name), spec_of(name)
    if spec is None:
        file = getattr(module, "__file__", None)  # it may have been made by hand
        spec = spec_from_file_location(name, file) if isinstance(file, str) else None
    if spec is None:
        return []
    below = name.replace(".", "/")
    folders = getattr(module, "__path__", None) or spec.submodule_search_locations
    if folders is not None:
        found = [folder for folder in folders if isinstance(folder, str)]
        if name == top and spec.origin and _is_spread(spec.origin):
            found += [os.path.join(entry, name) for entry in sys.path if isinstance(entry, str)]
        return _folders(below, found, parent)
    if not spec.has_location or not spec.origin:
        return []
    path = os.path.abspath(spec.origin)
    if installed(path) or not (os.path.isfile(path) or zip_of(path)):
        return []
    suffix = _suffix(os.path.basename(path), spec)
    root = _root_of(os.path.dirname(path)) if os.path.basename(path) == top + suffix else parent
    return [Place(NOWHERE if root is None else root, below + suffix, path)]


def _folders(name: str, folders: Iterable[str], parent: int | None) -> list[Place]:
    """Return the folders of a package; those that no entry of sys.path leads to lie upon the first one."""
    found: list[Place] = []
    for folder in folders:
        path = os.path.abspath(folder)
        if installed(path) or any((path + os.sep).startswith(other.path + os.sep) for other in found):
            continue
        if os.path.isdir(path) or zip_of(path):
            root = _root_of(os.path.dirname(path)) if os.path.basename(path) == name else None
            usual = found[0].root if found else NOWHERE if parent is None else parent
            found.append(Place(usual if root is None else root, name, path))
    return found


@lru_cache(maxsize=100)
def _is_spread(path: str) -> bool:
    """Whether a package looks for more folders of its name on sys.path, once it is imported."""
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError:
        return False
    return b"extend_path" in source or b"declare_namespace" in source


def _suffix(filename: str, spec: ModuleSpec) -> str:
    """Return the end that makes Python import a file as what it has been imported as here."""
    fitting = [suffix for suffix in (".pyc", *EXTENSION_SUFFIXES) if filename.endswith(suffix)]
    if fitting and not filename.endswith(".py"):
        return max(fitting, key=len)
    return ".py"


def _holds(place: Place, other: Place) -> bool:
    """Whether the other one lies in this one, under the same name."""
    below = other.name.removeprefix(place.name)
    return other.name.startswith(place.name) and other.path == place.path + below.replace("/", os.sep)


def _root_of(folder: str) -> int | None:
    return _entries(tuple(sys.path), os.getcwd()).get(folder)


@lru_cache(maxsize=4)
def _entries(path: tuple[str, ...], folder: str) -> dict[str, int]:
    """Return the first position of each folder of sys.path."""
    entries: dict[str, int] = {}
    for position, entry in enumerate(path):
        if isinstance(entry, str):
            entries.setdefault(os.path.abspath(entry), position)
    return entries


@lru_cache(maxsize=1)
def _library_roots() -> tuple[str, ...]:
    roots = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots.add(site.getusersitepackages())
    return tuple(root + os.sep for root in roots)
