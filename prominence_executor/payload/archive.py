"""Archives that travel: the remote side as a zip application, and zip members that depend on their content alone."""

from __future__ import annotations

import io
import platform
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import cloudpickle

from .. import remote
from ..remote.wire import RUNNER_FILE
from .compact import compiled

_PACKAGE = "pxremote"  # the remote side's name in a job
_BEFORE = ("runner", "lean", "wire", "records", "inputs")  # all that is imported before the Python is known to be right
_BEHIND = (
    "supervisor", "calling", "loading", "definitions", "clouds", "script", "dumping", "inheritance", "reporting",
    "exceptions", "blame", "surroundings", "ending",
)  # fmt: skip
_PARTS = {  # what only some jobs need
    "files": ("files",),
    "mpi": ("mpi", "mpi_results"),
    "modules": ("modules",),
    "worker": ("worker", "worker_batch", "worker_process", "key_value", "depot", "courier", "modules"),
    "courier": ("courier",),
}


@lru_cache(maxsize=16)
def runner_archive(*parts: str) -> bytes:
    """Return the zip application ``pxrun.pyz``: a start, the remote side as a package, and cloudpickle.

    For CPython they go as byte code, which saves the remote side a tenth of a second of compiling; what another Python
    than the wanted one needs to say that it is the wrong one goes as source, too.

    Args:
        parts: what the job needs besides calls: "files", "modules" (of the user's own), "mpi", "worker",
            "courier".
    """
    folder = Path(remote.__file__).parent
    compiling = platform.python_implementation() == "CPython"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as pyz:
        pyz.writestr(zip_entry("__main__.py"), (folder / "archive_start.py").read_bytes())
        pyz.writestr(zip_entry(f"{_PACKAGE}/__init__.py"), b"")
        for name, path, as_source in _members(folder, parts):
            source = path.read_bytes()
            if as_source or not compiling:
                pyz.writestr(zip_entry(name), source)
            if compiling:
                pyz.writestr(zip_entry(name + "c"), compiled(source, f"{RUNNER_FILE}/{name}"))
    return archive.getvalue()


def _members(folder: Path, parts: tuple[str, ...]) -> Iterator[tuple[str, Path, bool]]:
    """Yield the modules: name in the archive, file, and whether it goes as source in any case."""
    for module in (*_BEFORE, *_BEHIND, *(module for part in parts for module in _PARTS[part])):
        yield f"{_PACKAGE}/{module}.py", folder / f"{module}.py", module in _BEFORE
    for path in sorted(Path(cloudpickle.__file__).parent.glob("*.py")):
        yield f"cloudpickle/{path.name}", path, False


def zip_entry(name: str) -> zipfile.ZipInfo:
    """Return an archive member without a date, so that equal contents give equal archives and digests."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
