"""A folder of installed packages as a .tar.gz whose bytes depend on its content alone.

Byte code goes along: else each job would compile what it imports. Left out is what says how, when and from where
the packages were installed here, and programs that name this machine's Python.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

_OF_INSTALLATION = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json")
# In a process of its own, so that equal sources give equal byte code: what else a process holds shows in it. Tests,
# which are a third of numpy and scipy, hardly ever run in a job.
_COMPILE = (
    "import compileall, py_compile, re, sys; compileall.compile_dir(sys.argv[1], quiet=2, force=True, workers=1, "
    "stripdir=sys.argv[1], rx=re.compile('/tests?/'), "
    "invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"
)
_BLOCK = 1 << 20
_LEVEL = 6


def pack(folder: Path, path: Path) -> None:
    """Write the archive of a folder; byte code is added to the folder."""
    members = _members(folder)
    _compile(folder)
    members |= {name: file for name, file in _files(folder).items() if name.endswith(".pyc")}
    with (
        open(path, "wb") as raw,
        gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(members):
            content = members[name]
            _add(archive, name, _record(content, members) if name.endswith(".dist-info/RECORD") else content)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; reads it."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def _members(folder: Path) -> dict[str, Path | bytes]:
    return {
        name: file
        for name, file in _files(folder).items()
        if not (name.endswith((".pyc", "/.lock")) or name == ".lock")
        and not (".dist-info/" in name and name.rpartition("/")[2] in _OF_INSTALLATION)
        and not (name.startswith("bin/") and _begins(file, b"#!"))
    }


def _files(folder: Path) -> dict[str, Path]:
    return {
        (Path(place) / name).relative_to(folder).as_posix(): Path(place) / name
        for place, _, names in os.walk(folder)
        for name in names
    }


def _begins(file: Path, mark: bytes) -> bool:
    with open(file, "rb") as opened:
        return opened.read(len(mark)) == mark


def _compile(folder: Path) -> None:
    if sys.implementation.name != "cpython":
        return
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-s", "-S", "-c", _COMPILE, os.fspath(folder)]
    # What cannot be compiled is not, as where pip installs.
    subprocess.run(  # noqa: S603
        command, env={**environment, "PYTHONHASHSEED": "0"}, capture_output=True, check=False
    )


def _record(file: Path | bytes, members: Mapping[str, object]) -> bytes:
    """Return the list of a package's files as they travel, in one order."""
    text = file if isinstance(file, bytes) else file.read_bytes()
    rows = [row for row in csv.reader(io.StringIO(text.decode("utf-8"))) if row and row[0] in members]
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(sorted(rows))
    return written.getvalue().encode()


def _add(archive: tarfile.TarFile, name: str, content: Path | bytes) -> None:
    member = tarfile.TarInfo(name)
    if isinstance(content, bytes):
        member.size, member.mode = len(content), 0o644
        archive.addfile(member, io.BytesIO(content))
        return
    with open(content, "rb") as source:
        facts = os.fstat(source.fileno())
        member.size, member.mode = facts.st_size, 0o755 if facts.st_mode & 0o111 else 0o644
        archive.addfile(member, source)
