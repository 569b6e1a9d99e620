"""The program that travels: its start as source, the rest (the remote side and cloudpickle) as one compressed piece."""

from __future__ import annotations

import importlib.util
import marshal
import platform
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import cloudpickle

from .. import remote
from ..remote.wire import RUNNER_FILE
from .compact import bare, compiled

_PACKAGE = "pxremote"  # the remote side's name in a job
_BEFORE = ("runner", "lean", "wire", "records", "inputs")  # all that is imported before the Python is known to be right
_ALWAYS = (  # what every call needs goes as byte code
    "supervisor", "calling", "loading", "definitions", "lines", "plain", "ending", "script", "reporting",
)  # fmt: skip
_SOMETIMES = ("exceptions", "blame", "surroundings", "inheritance", "clouds", "dumping")
_PARTS = {  # what only some jobs need
    "files": ("files",),
    "limits": ("limits",),
    "packages": ("environment", "node", "modules"),
    "mpi": ("mpi", "mpi_results"),
    "modules": ("modules",),
    "results": ("results", "tls"),
    "worker": (
        "worker",
        "worker_batch",
        "worker_child",
        "worker_outcomes",
        "worker_pipes",
        "worker_process",
        "key_value",
        "bare",
        "tls",
        "depot",
        "courier",
        "limits",
        "modules",
    ),  # fmt: skip
    "courier": ("courier",),
}
_READABLE = 2  # version of marshal that every Python reads; what is inside has its own


def start_program(bundle: tuple[str, str, int, int] | None = None) -> bytes:
    """Return the source of ``pxrun.py``.

    Args:
        bundle: for the jobs of an array: its name, its SHA-256, and where in it the rest lies (offset, bytes).
    """
    source = (Path(remote.__file__).parent / "start.py").read_text("utf-8")
    return bare(source.replace("BUNDLE = None", f"BUNDLE = {bundle!r}", 1).encode())


@lru_cache(maxsize=16)
def runner_data(*parts: str) -> bytes:
    """Return ``pxrun.bin``: by name of each module its file, code and source, one of which may be None.

    What every job runs goes as byte code, which saves it tens of milliseconds of compiling; what few need, cloudpickle
    above all, as source, which is half as large. What another Python than the wanted one needs to say that it is the
    wrong one goes as both.

    Args:
        parts: what the job needs besides calls: "files", "limits", "modules" (of the user's own), "results" (of other
            jobs), "packages", "mpi", "worker", "courier".
    """
    compiling = platform.python_implementation() == "CPython"
    modules = {}
    for name, path in _members(Path(remote.__file__).parent, parts):
        file = f"{RUNNER_FILE}/{name.replace('.', '/')}{'/__init__' if path.stem == '__init__' else ''}.py"
        source = bare(path.read_bytes())
        often = compiling and path.stem in (*_BEFORE, *_ALWAYS)
        kept = path.stem in _BEFORE or not often
        modules[name] = (file, compiled(source, file) if often else None, source if kept else None)
    content = {"magic": importlib.util.MAGIC_NUMBER, "modules": modules}
    return zlib.compress(marshal.dumps(content, _READABLE), 9)


def _members(folder: Path, parts: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Yield the modules: name in a job, and file."""
    yield _PACKAGE, folder / "__init__.py"
    wanted = (*_BEFORE, *_ALWAYS, *_SOMETIMES, *(module for part in parts for module in _PARTS[part]))
    for module in dict.fromkeys(wanted):
        yield f"{_PACKAGE}.{module}", folder / f"{module}.py"
    for path in sorted(Path(cloudpickle.__file__).parent.glob("*.py")):
        yield "cloudpickle" if path.stem == "__init__" else f"cloudpickle.{path.stem}", path
