"""Which of the user's own modules a call needs, and the archive in which they travel.

A module is local when it is found outside the standard library and site-packages: the image will not have it. Local
modules that a pickle refers to go along with every local module that their sources import, so that lazy, circular and
relative imports work; of a package all files go, its data within a bound. In a job they are files again
(remote/modules.py), below one folder for each entry of sys.path in which they were found here.

The archive is MODULES_MAGIC, the length of a compressed header in JSON, the header, and all files, compressed together.

It may not import the modules it looks at, and knows nothing of jobs. Code of ``__main__`` travels by value (see
pickling.py); here only its import statements are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
import types
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from ..caches import Findings
from ..remote.wire import MODULES_HEAD, MODULES_MAGIC
from .imports import imports_of_code, imports_of_main, imports_of_source, resolved
from .installed import requirement_of
from .module_files import ModuleFile, Stamp, files_of, metadata_of, open_for_writing
from .places import Place, places, spec_of

DATA_LIMIT = 20.0  # megabytes of packages' data that travel with a call
_MEGABYTE = 1e6
_OWN = __name__.partition(".")[0]
_SAME = 0.2  # seconds in which no file is looked at again
_REMEMBERED = 8  # archives
_imports = Findings("imports.1", imports_of_source)
_Asked = tuple[frozenset[str], frozenset[types.CodeType], tuple[str, ...], float]
_Key = tuple[frozenset[str], tuple[str, ...], float]


@dataclass(frozen=True)
class ModuleZip:
    """An archive of modules, its SHA-256, and the top-level names in it."""

    content: bytes
    sha256: str
    names: frozenset[str]


class LocalModules:
    """Finds and packs local modules; remembers an archive until one of its files changes. Safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: tuple[_Asked, float, ModuleZip | None] | None = None  # what a loop of submit asks again and again
        self._packed: OrderedDict[_Key, tuple[dict[str, Stamp], ModuleZip]] = OrderedDict()

    def pack(
        self, modules: Iterable[str], code: Iterable[types.CodeType] = (), data_limit: float = DATA_LIMIT
    ) -> ModuleZip | None:
        """Return the archive for pickles that refer to ``modules`` and carry ``code``; None if nothing of it is local.

        Args:
            modules: full names, as found in the pickles.
            code: functions of ``__main__``; what they and the script import counts, too.
            data_limit: megabytes of data that may go with the packages. If they have more, none goes, and a warning
                says so.
        """
        path = tuple([entry for entry in sys.path if isinstance(entry, str)])
        asked, now = (frozenset(modules), frozenset(code), path, data_limit), time.monotonic()
        with self._lock:
            if self._last is not None and self._last[0] == asked and now - self._last[1] < _SAME:
                return self._last[2]
        packed = self._pack(*asked)
        with self._lock:
            self._last = (asked, now, packed)
        return packed

    def sources(self, modules: Iterable[str], code: Iterable[types.CodeType] = ()) -> dict[str, bytes]:
        """Return the sources that would be packed, by their names."""
        path = tuple([entry for entry in sys.path if isinstance(entry, str)])
        files = _closure(_roots(frozenset(modules), frozenset(code)), path)
        return {file.name: file.read() for file in files.values() if file.kind == "source"}

    def _pack(
        self, modules: frozenset[str], code: frozenset[types.CodeType], path: tuple[str, ...], data_limit: float
    ) -> ModuleZip | None:
        roots = _roots(modules, code)
        if not roots:
            return None
        key = (roots, path, data_limit)
        with self._lock:
            remembered = self._packed.get(key)
            if remembered and all(_stamp(name) == stamp for name, stamp in remembered[0].items()):
                self._packed.move_to_end(key)
                return remembered[1]
            files = _within(data_limit, _closure(roots, path))
            stamps = {file.path: file.stamp() for file in files.values()}
            packed = _archive(files)
            self._packed[key] = (stamps, packed)
            while len(self._packed) > _REMEMBERED:
                self._packed.popitem(last=False)
            return packed


def _roots(modules: frozenset[str], code: frozenset[types.CodeType]) -> frozenset[str]:
    """Return the names of local modules at which the search begins."""
    wanted = set(modules)
    for item in code:
        wanted |= imports_of_code(item)
    if "__main__" in wanted:  # every script imports this package, hardly a call needs it
        wanted |= {name for name in imports_of_main() if name.partition(".")[0] != _OWN}
    wanted |= {name.partition(".")[0] for name in wanted}
    return frozenset(name for name in wanted if ("." not in name or name in sys.modules) and places(name))


def why_missing(name: str) -> str:
    """Say what is known here of a module that a job did not have; ``name`` may be one of a package."""
    top, stem = name.partition(".")[0], name.replace(".", "/")
    found = places(name)
    for file in (file for place in found for file in files_of(place)):
        if file.kind != "data" and file.name.startswith((f"{stem}.", f"{stem}/")):
            return (
                f"it is your own ({file.path}), and did not travel: no import statement of the script, of the function "
                "or of a module that travels names it; add one"
            )
    if found:
        return f"your own {top!r} ({found[0].path}) has no such module"
    if spec_of(top) is None:
        return "the program has made it itself" if top in sys.modules else "this machine has none, either"
    line = requirement_of(top)
    return (
        "here it is installed"
        + (f"; the image has no {top}, or another version of it" if name != top else "")
        + (f"; requirements=[{line!r}] has it travel" if line else "")
    )


def _closure(roots: Iterable[str], path: tuple[str, ...]) -> dict[tuple[int, str], ModuleFile]:
    """Return all files of the modules and of the local modules that they import, by root and name."""
    files: dict[tuple[int, str], ModuleFile] = {}
    seen: set[str] = set()
    walked: set[Place] = set()
    queue = sorted(roots)
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        above = name.rpartition(".")[0]
        if above:
            queue.append(above)
            if name not in sys.modules:
                continue  # of what lies in its package, that is all there is to know
        for place in places(name):
            if place in walked:
                continue
            walked.add(place)
            for file in (*files_of(place), *metadata_of(place, path)):
                files.setdefault((place.root, file.name), file)
                if file.kind == "source":
                    queue += resolved(_imports_of(file), _package_of(file.name))
    _imports.keep()
    return files


def _package_of(name: str) -> str:
    """Return the package in which a source stands, by its place below the root."""
    return name.rpartition("/")[0].replace("/", ".")


def _imports_of(file: ModuleFile) -> tuple[str, ...]:
    return _imports_as_of(file, file.stamp()) if file.content is None else tuple(_imports.of(file.content))


@lru_cache(maxsize=2000)
def _imports_as_of(file: ModuleFile, stamp: Stamp) -> tuple[str, ...]:
    try:
        return tuple(_imports.of(file.read()))
    except OSError:
        return ()


def _within(limit: float, files: dict[tuple[int, str], ModuleFile]) -> dict[tuple[int, str], ModuleFile]:
    """Leave the data out that the program writes, and all of it where it is too much."""
    written = open_for_writing()
    data = {key: file for key, file in files.items() if file.kind == "data"}
    others = {key: file for key, file in files.items() if key not in data}
    data = {key: file for key, file in data.items() if os.path.realpath(file.path) not in written}
    sizes = {key: file.size() for key, file in data.items()}
    total = sum(sizes.values()) / _MEGABYTE
    if total <= limit:
        return {**others, **data}
    if limit > 0:
        largest = max(sizes, key=lambda key: sizes[key])
        warnings.warn(
            f"the packages that a call needs hold {total:.1f} MB of data files, more than the {limit:g} MB that travel "
            f"with it: none of them is sent; the largest is {data[largest].path} ({sizes[largest] / _MEGABYTE:.1f} "
            "MB). Give calls what they read by files=, or raise package_data",
            RuntimeWarning,
            stacklevel=6,
        )
    return others


def _stamp(path: str) -> Stamp:
    return ModuleFile("", "data", path).stamp()


def _archive(files: Mapping[tuple[int, str], ModuleFile]) -> ModuleZip:
    """Pack files, so that equal contents give equal bytes."""
    numbers = {root: number for number, root in enumerate(sorted({root for root, _ in files}))}
    packer = zlib.compressobj()
    listed, packed = [], []
    for (root, name), file in sorted(files.items()):
        try:
            content = file.read()
        except OSError:
            continue  # it cannot be read, or is gone
        facts: dict[str, object] = {"name": f"{numbers[root]}/{name}", "size": len(content)}
        if file.is_program():
            facts["program"] = True
        if file.tag() is not None:
            facts["tag"] = file.tag()
        listed.append(facts)
        packed.append(packer.compress(content))
    head = zlib.compress(json.dumps({"files": listed}).encode())
    content = b"".join([MODULES_MAGIC, MODULES_HEAD.pack(len(head)), head, *packed, packer.flush()])
    names = frozenset(name.partition("/")[0].partition(".")[0] for _, name in files)
    return ModuleZip(content, hashlib.sha256(content).hexdigest(), names)
