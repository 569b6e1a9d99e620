"""Which of the user's own modules a call needs, and the zip in which their sources travel.

A module is local when it is found as source outside the standard library and site-packages: the image will not have
it. Local modules that a pickle refers to go along with every local module that their sources import, read from the
syntax tree without running anything, so that lazy, circular and relative imports work; of a package all sources go.

It may not import the modules it looks at, and knows nothing of jobs. Code of ``__main__`` travels by value (see
pickling.py); here only its import statements are read.
"""

from __future__ import annotations

import ast
import dis
import hashlib
import importlib.util
import io
import os
import site
import sys
import sysconfig
import threading
import time
import types
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .archive import zip_entry

_OWN = __name__.partition(".")[0]
_PARSED_AGAIN = 5
_parsing = threading.Lock()
_SAME = 0.2  # seconds in which no file is looked at again
_Asked = tuple[frozenset[str], frozenset[types.CodeType]]


@dataclass(frozen=True)
class ModuleZip:
    """A zip of sources, its SHA-256, and the top-level modules in it."""

    content: bytes
    sha256: str
    names: frozenset[str]


class LocalModules:
    """Finds and packs local modules; remembers the zip until one of its files changes. Safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: tuple[_Asked, float, ModuleZip | None] | None = None  # what a loop of submit asks again and again
        self._zips: dict[frozenset[str], tuple[dict[Path, tuple[int, int]], ModuleZip]] = {}

    def pack(self, modules: Iterable[str], code: Iterable[types.CodeType] = ()) -> ModuleZip | None:
        """Return the zip for pickles that refer to ``modules`` and carry ``code``, or None if nothing of it is local.

        Args:
            modules: full names, as found in the pickles.
            code: functions of ``__main__``; what they and the script import counts, too.
        """
        asked, now = (frozenset(modules), frozenset(code)), time.monotonic()
        with self._lock:
            if self._last is not None and self._last[0] == asked and now - self._last[1] < _SAME:
                return self._last[2]
        packed = self._pack(*asked)
        with self._lock:
            self._last = (asked, now, packed)
        return packed

    def _pack(self, modules: frozenset[str], code: frozenset[types.CodeType]) -> ModuleZip | None:
        wanted = {name.partition(".")[0] for name in modules}
        for item in code:
            wanted |= _imports_of_code(item)
        if "__main__" in wanted:
            wanted |= set(_imports_of_main()) - {_OWN}  # every script imports it, hardly a call needs it
        roots = frozenset(name for name in wanted if name != "__main__" and _location(name))
        if not roots:
            return None
        with self._lock:
            remembered = self._zips.get(roots)
            if remembered and all(_stamp(path) == stamp for path, stamp in remembered[0].items()):
                return remembered[1]
            files = _closure(roots)
            packed = _zip(files)
            self._zips[roots] = ({path: _stamp(path) for path in files.values()}, packed)
            return packed


def _closure(roots: Iterable[str]) -> dict[str, Path]:
    """Return all source files of the modules and of the local modules that they import, by their name in the zip."""
    files: dict[str, Path] = {}
    seen: set[str] = set()
    queue = list(roots)
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        for arcname, path in _sources(name):
            files[arcname] = path
            queue.extend(_imports_of_source(path))
    return files


def _sources(name: str) -> Iterator[tuple[str, Path]]:
    """Yield the files of a local top-level module or package, with their names in the zip."""
    for place in _location(name):
        if place.is_file():
            yield place.name, place
            continue
        for folder, folders, names in os.walk(place):
            folders[:] = sorted(f for f in folders if f != "__pycache__" and not f.startswith("."))
            for filename in sorted(names):
                if filename.endswith(".py"):
                    path = Path(folder, filename)
                    yield path.relative_to(place.parent).as_posix(), path


def _location(name: str) -> list[Path]:
    """Return where a local top-level module lies: its file, the folders of a package, or nothing."""
    if name in sys.stdlib_module_names or name in sys.builtin_module_names:
        return []
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    if spec is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        places = [Path(place) for place in spec.submodule_search_locations]
        return [place for place in places if place.is_dir() and not _installed(place)]
    if spec.origin and spec.origin.endswith(".py") and not _installed(Path(spec.origin)):
        return [Path(spec.origin)]
    return []


def _installed(path: Path) -> bool:
    """Return True for what pip or Python itself put there: the image is expected to bring its own."""
    return any(part in ("site-packages", "dist-packages") for part in path.parts) or any(
        path.is_relative_to(root) for root in _library_roots()
    )


@lru_cache(maxsize=1)
def _library_roots() -> set[str]:
    roots = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots.add(site.getusersitepackages())
    return roots


def _imports_of_main() -> list[str]:
    """Return what the running script imports anywhere in it; a notebook or ``python -c`` has no file to read."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    names = _imports_of_source(Path(file)) if file and file.endswith(".py") and os.path.isfile(file) else []
    package = getattr(main, "__package__", None)
    return [*names, package.partition(".")[0]] if package else names


def _imports_of_source(path: Path) -> list[str]:
    """Return the top-level names of all absolute imports in a file, in functions too; relative ones stay inside."""
    return _imports_as_of(path, _stamp(path))


def _parsed(source: bytes) -> ast.Module:
    """Parse a source, alone among our threads: CPython 3.11 fails where two do it at once (its issue 106905)."""
    for _ in range(_PARSED_AGAIN):
        with _parsing, suppress(SystemError):  # another thread of the program was about it, too
            return ast.parse(source)
    return ast.parse(source)


@lru_cache(maxsize=1000)
def _imports_as_of(path: Path, stamp: tuple[int, int]) -> list[str]:
    try:
        tree = _parsed(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return []  # Python itself will say it when the module is imported
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.append(node.module.partition(".")[0])
    return names


@lru_cache(maxsize=1000)
def _imports_of_code(code: types.CodeType) -> frozenset[str]:
    """Return the top-level names of the imports inside a function and the functions nested in it."""
    names = frozenset(
        instruction.argval.partition(".")[0]
        for instruction in dis.get_instructions(code)
        if instruction.opname == "IMPORT_NAME" and isinstance(instruction.argval, str)
    )
    return names.union(*(_imports_of_code(item) for item in code.co_consts if isinstance(item, types.CodeType)))


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, -1)
    return (status.st_mtime_ns, status.st_size)


def _zip(files: dict[str, Path]) -> ModuleZip:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        for arcname in sorted(files):
            target.writestr(zip_entry(arcname), files[arcname].read_bytes())
    content = archive.getvalue()
    names = frozenset(arcname.partition("/")[0].removesuffix(".py") for arcname in files)
    return ModuleZip(content, hashlib.sha256(content).hexdigest(), names)
