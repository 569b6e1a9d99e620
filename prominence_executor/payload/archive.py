"""Archives that travel: the remote side as a zip application, and zip members that depend on their content alone."""

from __future__ import annotations

import io
import platform
from functools import lru_cache
from typing import Any

import cloudpickle

from .. import remote

RUNNER_FILE = "pxrun.pyz"

_PARTS = {"worker": "worker", "staging": "files", "ranks": "mpi"}  # modules of the remote side by their names there


@lru_cache(maxsize=8)
def runner_archive(*parts: str) -> bytes:
    """The zip application ``pxrun.pyz``: the runner as its main program, and cloudpickle.

    ``parts``: the modules of the remote side that the job needs besides: "worker", "staging", "ranks".

    For CPython both go as byte code, which saves the remote side a tenth of a second of compiling; the runner goes as
    source, too, so that another Python than the wanted one can still say that it is the wrong one.
    """
    import py_compile
    import tempfile
    import zipfile
    from pathlib import Path

    package = Path(cloudpickle.__file__).parent
    sources = {f"cloudpickle/{path.name}": path for path in sorted(package.glob("*.py"))}
    folder_of_remote = Path(remote.__file__).parent
    sources |= {f"px{part}.py": folder_of_remote / f"{_PARTS[part]}.py" for part in parts}
    main = folder_of_remote / "runner.py"
    compiling = platform.python_implementation() == "CPython"
    archive = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as pyz:
        pyz.writestr(zip_entry("__main__.py"), main.read_bytes())
        for name, path in {"__main__.py": main, **sources}.items():
            if compiling:
                target = str(Path(folder, "module.pyc"))
                mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
                py_compile.compile(
                    str(path), target, f"{RUNNER_FILE}/{name}", doraise=True, optimize=2, invalidation_mode=mode
                )
                pyz.writestr(zip_entry(name + "c"), Path(target).read_bytes())
            elif name != "__main__.py":
                pyz.writestr(zip_entry(name), path.read_bytes())
    return archive.getvalue()


def zip_entry(name: str) -> Any:
    """An archive member without a date, so that equal contents give equal archives and digests."""
    import zipfile

    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
